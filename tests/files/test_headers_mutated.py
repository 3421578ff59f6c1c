"""Headers of MetaImage and NRRD with each field damaged in turn, read in a child that a crash ends.

ITK ends the process for some (SIGSEGV, SIGABRT), and a loop over a number in a header could go on for ever.
"""

import contextlib
import os
import signal
import sys
import time

import pytest

from tests.support.headers import write_mha, write_nrrd

WORDS = ("", "-1", "0", "99", "4", "2", "1 2", "nan", "inf", "1e400", "9999999999", "-9999999999999999999999", "x",
         "3 3 3 3", "-6 -5 -4", "0 0 0", "2147483648 1 1", "65536 65536 65536", "4294967297 5 4", "1" * 5000, "True",
         "\x00", "%s%n", "LIST", "none.raw", "(1,0,0)", "(nan,0,0) (0,1,0) (0,0,1)", "none none none", "MET_OTHER",
         "double", "block", "gzip", "bzip2", "ascii", "hex", "\xff\xfe")  # fmt: skip
"""Put in the place of the value of every field."""
MHA = ("ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData",
       "CompressedDataSize", "TransformMatrix", "Offset", "CenterOfRotation", "AnatomicalOrientation", "ElementSpacing",
       "ElementSize", "DimSize", "HeaderSize", "ElementType", "ElementNumberOfChannels", "Modality", "SequenceID",
       "ElementMin", "ElementMax", "ElementToIntensityFunctionSlope", "Position", "Rotation", "Color", "Name", "ID",
       "ParentID", "CompressionLevel", "DistanceUnits", "Comment", "ObjectSubType")  # fmt: skip
NRRD = ("type", "dimension", "space", "sizes", "space_directions", "kinds", "endian", "encoding", "space_origin",
        "line_skip", "byte_skip", "data_file", "spacings", "thicknesses", "units", "space_units", "axis_mins",
        "centers", "labels", "block_size", "measurement_frame", "min", "max", "old_min", "number", "content",
        "sample_units", "space_dimension", "axis_maxs")  # fmt: skip
SECONDS = 200
"""For all files of a child."""


def first_that_ends(paths, read, progress):
    """None, or (file, how) that ended a child which reads all; other outcomes are results, or errors in Python."""
    progress.touch()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for path in paths:
            progress.write_text(str(path))
            with contextlib.suppress(Exception):
                read(path)
        os._exit(0)
    until = time.monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return progress.read_text(), f"{SECONDS} s"
        time.sleep(0.01)
    return (progress.read_text(), status) if status else None


@pytest.fixture
def read():
    import warnings

    from interslice.files.read import LoadVolumed

    load = LoadVolumed("image")

    def one(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load({"image": str(path)})

    return one


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mha", "mhd"])
def test_no_field_of_a_metaimage_header_ends_the_process(tmp_path, read, suffix):
    (tmp_path / "scan.raw").write_bytes(bytes(480))
    data = "LOCAL" if suffix == "mha" else "scan.raw"
    read(write_mha(tmp_path / f"good.{suffix}", data))
    paths = []
    for name in (*MHA, "ElementDataFile"):
        for number, word in enumerate(WORDS):
            path = tmp_path / f"{name}{number}.{suffix}"
            paths.append(write_mha(path, word) if name == "ElementDataFile" else write_mha(path, data, **{name: word}))
    assert first_that_ends(paths, read, tmp_path / "progress") is None


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nrrd", "nhdr"])
def test_no_field_of_a_nrrd_header_ends_the_process(tmp_path, read, suffix):
    (tmp_path / "scan.raw").write_bytes(bytes(480))
    detached = {} if suffix == "nrrd" else {"data_file": "scan.raw"}
    read(write_nrrd(tmp_path / f"good.{suffix}", **detached))
    paths = [
        write_nrrd(tmp_path / f"{name}{number}.{suffix}", **(detached | {name: word}))
        for name in NRRD
        for number, word in enumerate(WORDS)
    ]
    assert first_that_ends(paths, read, tmp_path / "progress") is None


def test_a_crash_and_a_hang_would_be_seen(tmp_path, monkeypatch):
    def crash(path):
        os.kill(os.getpid(), signal.SIGSEGV)

    assert first_that_ends(["a"], crash, tmp_path / "progress") == ("a", signal.SIGSEGV)
    monkeypatch.setattr("tests.files.test_headers_mutated.SECONDS", 0.1)
    assert first_that_ends(["b"], lambda path: time.sleep(100), tmp_path / "progress")[0] == "b"
