"""What passes the check is read to an end, whatever was wiped out; a good file passes."""

import h5py
import pytest

from interslice.files.scan import Refusal
from interslice.physics.kspace.heaps import SIGNATURE, check_heaps

TEXTS = ["a text", "another that is longer", "x" * 300]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w") as file:
        for i, text in enumerate(TEXTS):
            file[f"text{i}"] = text
        file["many"] = TEXTS * 100  # more than one heap
    return path


def test_what_the_library_wrote_passes(file):
    assert file.read_bytes().count(SIGNATURE) > 1
    check_heaps(file)


def test_an_empty_file_and_one_of_another_kind_pass(tmp_path):
    for content in (b"", b"text", b"text" * 100):
        (tmp_path / "other").write_bytes(content)
        check_heaps(tmp_path / "other")


def test_a_heap_that_stops_is_refused_with_its_place(file):
    content = bytearray(file.read_bytes())
    second = content.index(SIGNATURE) + 16 + 16 + 8  # behind the head of the heap, that of "a text", and its content
    content[second : second + 16] = bytes(16)
    file.write_bytes(content)
    with pytest.raises(Refusal, match=f"a heap of HDF5 stops at byte {second}"):
        check_heaps(file)


def test_what_passes_the_check_is_read_to_an_end(file, fresh_python):
    """In a process of its own, which `fresh_python` ends should the library not: zeros from each place of a heap on."""
    read, refused = fresh_python(f"""
import h5py
from pathlib import Path
from interslice.files.scan import Refusal
from interslice.physics.kspace.heaps import SIGNATURE, check_heaps
path, wiped = Path({str(file)!r}), Path({str(file.with_name("wiped.h5"))!r})
content = path.read_bytes()
start, read, refused = content.index(SIGNATURE), 0, 0
for at in range(start, start + 500, 4):
    wiped.write_bytes(content[:at] + bytes(100) + content[at + 100 :])
    try:
        check_heaps(wiped)
        with h5py.File(wiped) as file:
            [file[f"text{{i}}"][()] for i in range({len(TEXTS)})]
        read += 1
    except Refusal:
        refused += 1
    except (OSError, ValueError, RuntimeError, KeyError):
        read += 1
print(read, refused)
""").split()
    assert int(read) > 10 and int(refused) > 10
