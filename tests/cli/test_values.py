"""Text of the command line reaches the configs as what it is: nothing in it is evaluated, looked up or cut."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from interslice.cli.values import inert, value_of
from interslice.usage import UsageError

HOSTILE = [
    "$(touch x)", "$__import__('os').system('touch x')", "$import os", "@noise", "%x", "%configs/inference.json", "1e5",
    "1001", "a#b", "a::b", "#", "'", '"', "\\", "a\nb", "from a import b", "None", "$None",
    "[1,2]", "{'_target_': 'os.getcwd'}",
    "(new)", "a,b", "-x", "--device", "é", "\udc80", "\U0001f9e0", "~", "*", "", " ",
]  # fmt: skip


def through_monai(value):
    """What parts of a config get for a value: alone, by reference, and inside of an expression."""
    parser = ConfigParser({"noise": 3, "given": None, "same": "@given", "longer": "$str(@given) + '/measured'"})
    parser.update({"given": value})
    return [parser.get_parsed_content(name) for name in ("given", "same", "longer")]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert through_monai(inert(text)) == [text, text, f"{text}/measured"]
    assert list(tmp_path.iterdir()) == []


@given(st.text())
def test_any_text_stays_text(text):
    assert through_monai(inert(text))[0] == text


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["path", "text"])
def test_paths_and_texts_are_never_read_as_something_else(kind, text):
    assert through_monai(value_of("x", [kind], text))[0] == text


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (["whole"], "-3", -3),
        (["whole", "auto"], "auto", "auto"),
        (["number"], "1e5", 1e5),
        (["number"], "4", 4),
        (["number"], "none", "$None"),
        (["numbers"], "-1,0.4", [-1, 0.4]),
        (["numbers"], "[1, 2]", [1, 2]),
        (["choice", "a", "b"], "b", "b"),
        (["reference"], "@baselines#smoothest", "@baselines#smoothest"),
        (["value"], "true", True),
        (["value"], "0,2", [0, 2]),
        (["value"], "[[1, 2], [3]]", [[1, 2], [3]]),
        (["value"], "0:10", "$'0\\x3a10'"),
        (["value"], '{"synthetic_": 0.2}', {"synthetic_": 0.2}),
        (["value"], '["$x"]', ["$'\\x24x'"]),
        (["value"], "$x", "$'\\x24x'"),
        (["value"], "[" * 5000, "$'" + "\\x5b" * 5000 + "'"),
        (["path"], "none", "$None"),
    ],
)
def test_values_have_the_types_of_the_configs(kind, text, value):
    found = value_of("x", kind, text)
    assert found == value and type(found) is type(value)


def test_numbers_that_are_none_reach_the_checks_of_the_configs():
    assert math.isnan(value_of("x", ["number"], "nan")) and value_of("x", ["number"], "inf") == math.inf


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (["whole"], "2.5", "x must be a whole number, got '2.5'"),
        (["whole", "auto"], "$1", r"x must be auto, or a whole number, got '\$1'"),
        (["whole"], "9" * 31, "x must be a whole number"),
        (["number"], "a", "x must be a number, got 'a'"),
        (["number"], "9" * 20000, "x must be a number"),
        (["numbers"], "1,b", "x must be numbers with commas between them, such as 0,1.5, got '1,b'"),
        (["choice", "a", "b"], "none", "x must be one of a, b, got 'none'"),
        (["reference"], "@__import__('os')", "x must be none, or refer to a part"),
        (["reference"], "$x", "x must be none, or refer to a part"),
    ],
)
def test_what_is_nothing_of_a_kind_is_refused(kind, text, said):
    with pytest.raises(UsageError, match=said):
        value_of("x", kind, text)


def test_no_part_is_made_from_json():
    assert through_monai(value_of("x", ["value"], '{"_target_": "os.getcwd"}'))[0] == '{"_target_": "os.getcwd"}'
