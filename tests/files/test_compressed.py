"""What is written compressed is plain gzip, the same for the same volume, with the package for it and without."""

import gzip
import importlib
import sys
import zlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.files import compressed
from interslice.files.write import write_nifti
from tests.files.test_write import oblique_result


@pytest.fixture(params=["isal", "the standard library"])
def by(request, monkeypatch):
    """The module, with the package and where it is missing."""
    if request.param != "isal":
        monkeypatch.setitem(sys.modules, "isal", None)
    yield importlib.reload(compressed)
    monkeypatch.undo()
    importlib.reload(compressed)


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 700))
def test_pieces_come_back_joined_and_where_they_are_cut_does_not_matter(pieces, block):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compressed, "BLOCK", block)
        whole = b"".join(compressed.gzip_of(pieces))
        assert whole == b"".join(compressed.gzip_of([b"".join(pieces)]))
        assert {len(b) for b in [*compressed.blocks_of(pieces)][:-1]} <= {block}
    assert gzip.decompress(whole) == b"".join(pieces)


def test_each_is_gzip_without_name_and_time(by, tmp_path):
    """RFC 1952: two bytes that tell it, deflate, no field of flags (so no name), four bytes of time."""
    content = bytes(range(256)) * 4000
    with (tmp_path / "by name").open("wb") as file:
        with by.gzip_writer(file) as out:
            out.write(content)
        assert not file.closed
    for whole in ((tmp_path / "by name").read_bytes(), b"".join(by.gzip_of([content[:999], content[999:]]))):
        assert whole[:8] == b"\x1f\x8b\x08\x00" + bytes(4)
        assert zlib.decompress(whole, wbits=31) == content and len(whole) < len(content) / 50


def test_without_the_package_zlib_writes(by):
    assert by.WRITER.__module__ == ("gzip" if sys.modules.get("isal") is None else "isal.igzip")


def test_a_volume_comes_back_by_other_readers_and_is_the_same_file_each_time(tmp_path):
    result = oblique_result((30, 40, 50))
    for name in "ab":
        write_nifti(tmp_path / f"{name}.nii.gz", result)
    write_nifti(tmp_path / "plain.nii", result)
    packed = [(tmp_path / f"{name}.nii.gz").read_bytes() for name in "ab"]
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == (tmp_path / "plain.nii").read_bytes()
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").get_fdata(dtype=np.float32), result[0])
