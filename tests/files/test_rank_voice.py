"""What ranks say on the screen that they share."""

import io
import logging
import sys

import pytest

from interslice.files import rank_voice
from interslice.files.rank_voice import RankVoice, let_first_speak, speak_as_rank


@pytest.fixture
def screen(monkeypatch):
    """Of rank 3: its stdout and its stderr, which a logger writes to as well."""
    out, err = io.StringIO(), io.StringIO()
    for name, stream in (("stdout", out), ("stderr", err)):
        monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr(sys, f"__{name}__", stream)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(rank_voice.signal, "signal", lambda *_: None)
    monkeypatch.setattr(rank_voice.time, "sleep", lambda _: None)
    return out, err


@pytest.fixture
def logger(screen):
    handler = logging.StreamHandler(screen[0])
    logger = logging.getLogger("of a rank")
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def test_lines_have_the_number_of_their_rank(screen, logger):
    speak_as_rank(aloud=True)
    print("wrote a\nwrote b", file=sys.stdout)
    print("skipped c", file=sys.stderr)
    logger.warning("logged")
    assert screen[0].getvalue() == "rank 3: wrote a\nrank 3: wrote b\nrank 3: logged\n"
    assert screen[1].getvalue() == "rank 3: skipped c\n"


def test_of_bars_nothing_is_seen(screen):
    voice = RankVoice(screen[1], 3, aloud=True)
    for text in ("\rsampling: 1/2", "\rsampling: 2/2", "\r             \r", "done\n"):
        voice.write(text)
    assert screen[1].getvalue() == "rank 3: done\n"


def test_a_quiet_rank_says_its_last_words_alone(screen, logger):
    speak_as_rank(aloud=False)
    print("wrote a")
    logger.warning("logged")
    assert screen[0].getvalue() == ""
    let_first_speak(KeyboardInterrupt())  # which rank 0 says for all
    print("interrupted", file=sys.stderr)
    assert screen[1].getvalue() == ""
    let_first_speak(ValueError("what rank 3 alone has met"))
    print("error: it", file=sys.stderr)
    logger.warning("logged")
    assert (screen[1].getvalue(), screen[0].getvalue()) == ("rank 3: error: it\n", "rank 3: logged\n")


def test_rank_0_speaks_as_ever(screen, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    before = sys.stdout, sys.stderr
    speak_as_rank(aloud=True)
    let_first_speak(ValueError())
    assert (sys.stdout, sys.stderr) == before
