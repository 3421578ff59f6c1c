"""Sizes that files state are held against a limit before memory is taken: files of some kilobytes that would unpack to
gigabytes, headers that state more than there is, and less."""

import bz2
import gzip
import json
import subprocess
import sys
import zipfile

import h5py
import nibabel as nib
import numpy as np
import pytest
from numpy.lib import format as npy

from interslice.files import limits as module
from interslice.files.limits import Limits, check_stored, inflated, read_text
from interslice.files.read import LoadVolumed
from interslice.files.scan import Refusal
from interslice.physics.ct.read import read_projections
from interslice.physics.kspace.read import read_kspace
from tests.support.scans import ROOT

SHAPE = (1024, 1024, 1025)
"""4.3 GB as float32; as bytes, 1 MB of gzip."""
ZEROS = bytes(1 << 20)
SMALL = Limits(max_gigabytes=0.001)


def deflated(count, wbits=31):
    """A stream of `count` MB of zeros."""
    compressor = module.zlib.compressobj(6, module.zlib.DEFLATED, wbits)
    return b"".join(compressor.compress(ZEROS) for _ in range(count)) + compressor.flush()


@pytest.fixture(scope="module")
def bomb():
    return deflated(1025)


def nifti_header(shape, offset=352):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8), header.set_data_shape(shape), header.set_zooms((1, 1, 4))
    header["vox_offset"], header["magic"] = offset, b"n+1"
    return header.binaryblock.ljust(352, b"\0")


def mgh_header(shape):
    start = np.array([1, *shape, 1, 0, 0], ">i4").tobytes() + np.array([1], ">i2").tobytes()
    return start + np.array([1, 1, 4, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0], ">f4").tobytes().ljust(284 - 30, b"\0")


def nrrd_header(shape, encoding, **fields):
    lines = {"type": "uchar", "dimension": 3, "sizes": " ".join(map(str, shape)), "spacings": "1 1 4",
             "encoding": encoding} | fields  # fmt: skip
    return ("NRRD0004\n" + "".join(f"{k}: {v}\n" for k, v in lines.items()) + "\n").encode()


def mha_header(shape, size, data="LOCAL"):
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\nCompressedDataSize = {size}\n"
        f"ElementSpacing = 1 1 4\nDimSize = {' '.join(map(str, shape))}\nElementType = MET_UCHAR\n"
        f"ElementDataFile = {data}\n"
    ).encode()


def bombs(folder, bomb, shape, megabytes=1025):
    """name -> path: a file of each format that holds `bomb`, of so many zeros, and states `shape` of bytes."""
    made = {}

    def write(name, *parts):
        made[name] = folder / name
        made[name].write_bytes(b"".join(parts))

    write("scan.nii.gz", gzip.compress(nifti_header(shape)), bomb)  # gzip streams follow each other
    write("named_otherwise.nii", gzip.compress(nifti_header(shape)), bomb)
    pair = nib.Nifti1Pair.header_class()
    pair.set_data_dtype(np.uint8), pair.set_data_shape(shape), pair.set_zooms((1, 1, 4))
    write("pair.img.gz", bomb)
    write("pair.hdr.gz", gzip.compress(pair.binaryblock + bytes(4)))
    write("scan.mgz", gzip.compress(mgh_header(shape)), bomb)
    write("gzip.nrrd", nrrd_header(shape, "gzip"), bomb)
    write("bzip2.nrrd", nrrd_header(shape, "bzip2"), b"".join(bz2.compress(ZEROS * 64) for _ in range(17)))
    write("detached.raw.gz", bomb)
    write("detached.nhdr", nrrd_header(shape, "gzip", **{"data file": "detached.raw.gz"}))
    zlibbed = deflated(megabytes, 15)
    write("scan.mha", mha_header(shape, len(zlibbed)), zlibbed)
    write("scan.zraw", zlibbed)
    write("scan.mhd", mha_header(shape, len(zlibbed), "scan.zraw"))
    return {name: path for name, path in made.items() if not name.endswith(("raw.gz", "zraw", "img.gz"))}


CHILD = """
import json, resource, sys
{before}
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in json.loads(sys.argv[1]):
    try:
        {call}
        said = "read"
    except Exception as error:
        said = str(error)
    print(json.dumps([path, said, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024]))
"""
VOLUMES = (
    "import warnings; warnings.simplefilter('ignore')\nfrom interslice.files.read import LoadVolumed\n"
    "load = LoadVolumed('image')\n",
    "load({'image': path})",
)
PROJECTIONS = ("from interslice.physics.ct.read import read_projections", "read_projections(path)")
KSPACE = ("from interslice.physics.kspace.read import read_kspace", "read_kspace(path)")


def told_by_child(how, paths):
    """[(file name, what was said, MB that it took at most)] of reading files in a process of its own."""
    before, call = how
    code = CHILD.format(before=before, call=call)
    done = subprocess.run([sys.executable, "-c", code, json.dumps([str(p) for p in paths])], cwd=ROOT,
                          capture_output=True, encoding="utf-8", timeout=300)  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


MOST = 150
"""MB that a refusal may take: libraries that are loaded when a format is read first."""


def test_a_small_file_that_would_unpack_to_gigabytes_is_refused_from_its_header(tmp_path, bomb):
    paths = bombs(tmp_path, bomb, SHAPE)
    assert max(p.stat().st_size for p in paths.values()) < 2e6
    told = told_by_child(VOLUMES, paths.values())
    assert len(told) == 9
    for path, said, taken in told:
        assert f"{path}: the file states 1024 x 1024 x 1025" in said, said
        assert "4.3 GB as float32, and at most 4 GB are read: if it is no mistake, --max_gigabytes 5 reads it" in said
        assert taken < MOST, (path, taken)


def test_a_stream_that_holds_more_than_its_header_states_is_not_unpacked_beyond(tmp_path, bomb):
    told = told_by_child(VOLUMES, bombs(tmp_path, bomb, (16, 16, 4)).values())
    for path, said, taken in told:
        # Readers that stop where the header says read it; those of NRRD and MetaImage would not.
        if path.endswith(("nrrd", "nhdr")):
            assert "truncated or damaged: at least" in said and "of voxels are there, expected 1024" in said, said
        elif path.endswith(("mha", "mhd")):
            assert "damaged: more voxels are there than the 1024 bytes that its header states" in said, said
        else:
            assert said == "read", (path, said)
        assert taken < MOST, (path, taken)


def test_a_header_that_states_more_than_the_file_can_hold_is_refused(tmp_path):
    few = deflated(1)
    for path, said, taken in told_by_child(VOLUMES, bombs(tmp_path, few, (1000, 1000, 900), 1).values()):
        if "bzip2" not in path:  # which holds all of its zeros
            assert "truncated or damaged" in said, (path, said)
        assert taken < MOST, (path, taken)


def test_the_limit_can_be_raised(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((64, 64, 80), np.float32), np.eye(4)), path)
    with pytest.raises(ValueError, match="64 x 64 x 80 voxels, 1.31 MB as float32, and at most 0.001 GB are read"):
        LoadVolumed("image", limits=SMALL)({"image": str(path)})
    assert LoadVolumed("image", limits=Limits(0.002))({"image": str(path)})["image"].shape == (1, 64, 64, 80)


def test_memory_is_a_limit_too():
    limits = Limits(max_memory=1.0)
    limits.check((500, 500, 190))  # 0.19 GB, five times
    with pytest.raises(Refusal, match=r"300 MB as float32; to read it takes about 1.5 GB of memory, and 1.0 GB"):
        limits.check((500, 500, 300))
    Limits(max_memory="off").check((1000, 1000, 999))


@pytest.mark.parametrize("values", [{"max_gigabytes": 0}, {"max_memory": "much"}, {"max_memory": -1}])
def test_limits_are_numbers(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        Limits(**values)


@pytest.mark.parametrize("kind", ["deflate", "raw", "bzip2"])
@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_bytes_are_counted_up_to_a_limit(tmp_path, kind, size):
    content = np.random.default_rng(0).integers(0, 4, size, np.uint8).tobytes()
    compressor = (
        bz2.BZ2Compressor() if kind == "bzip2" else module.zlib.compressobj(wbits=31 if kind == "deflate" else -15)
    )
    (tmp_path / "stream").write_bytes(compressor.compress(content) + compressor.flush())

    def count(most):
        with (tmp_path / "stream").open("rb") as file:
            return inflated(file, most, kind)

    assert count(10_000_000) == size
    assert min(size, 1000) <= count(1000) <= 1000 + module.CHUNK
    (tmp_path / "stream").write_bytes((tmp_path / "stream").read_bytes()[:-30])
    assert count(10_000_000) <= size


def test_deflate_cannot_hold_more_than_it_can():
    check_stored(1032 * 100, 100, compressed=True)
    with pytest.raises(Refusal, match="100 compressed bytes, which cannot hold 103201 bytes"):
        check_stored(1032 * 100 + 1, 100, compressed=True)


def test_a_description_is_no_book(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("{}" + " " * 100, encoding="utf-8")
    assert read_text(tmp_path / "a.json").strip() == "{}"
    monkeypatch.setattr(module, "LARGEST_TEXT", 100)
    with pytest.raises(Refusal, match="a.json has 0.000102 MB, and a description at most"):
        read_text(tmp_path / "a.json")


# -- projections and k-space ----------------------------------------------------------------------
def npz(path, shape, header=None, content=ZEROS, count=1024):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("projections.npy", "w", force_zip64=True) as file,
    ):
        if header is None:
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        else:
            file.write(header)
        for _ in range(count):
            file.write(content)
    path.with_suffix(".json").write_text(
        json.dumps(
            {"beam": "parallel", "angles": [0, 90], "num_columns": 8, "column_size": 1, "num_rows": 4, "row_size": 1}
        )
    )
    return path


def test_projections_that_would_unpack_to_gigabytes(tmp_path):
    many = npz(tmp_path / "many.npz", SHAPE, count=1025)
    long = npz(tmp_path / "long.npz", None, b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little"), count=1024)
    none = npz(tmp_path / "none.npz", None, b"no array", count=1024)
    told = told_by_child(PROJECTIONS, [many, long, none])
    assert "many.npz: the file states 1024 x 1024 x 1025 voxels" in told[0][1]
    assert "the header of projections.npy has 1073741824 bytes" in told[1][1]
    assert "projections.npy of the archive is no array" in told[2][1]
    assert max(taken for *_, taken in told) < MOST


def test_projections_that_state_more_than_is_stored(tmp_path):
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_projections(npz(tmp_path / "short.npz", (1000, 1000, 100), count=1))


@pytest.mark.parametrize("name", ["scan.nii.gz", "gzip.nrrd", "scan.mha"])
def test_images_of_projections_are_held_against_it_too(tmp_path, name, bomb):
    path = bombs(tmp_path, bomb, SHAPE)[name]
    npz(tmp_path / f"{name.split('.')[0]}.npz", (2, 8, 4), count=0)  # its geometry
    with pytest.raises(ValueError, match="the file states 1024 x 1024 x 1025"):
        read_projections(path)


def test_kspace_that_would_unpack_to_gigabytes(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file.create_dataset("kspace", (64, 16, 1024, 1024), np.complex64, chunks=(1, 1, 1024, 1024), compression="gzip")
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["kspace"] = np.ones((2, 2, 8, 8), np.complex64)
        file.create_dataset("mask", (1 << 15, 1 << 15), np.uint8, chunks=(1024, 1024), compression="gzip")
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file["kspace"] = np.ones((2, 2, 8, 8), np.complex64)
        file.create_dataset("ismrmrd_header", (1,), f"S{1 << 30}", chunks=(1,), compression="gzip")
    told = told_by_child(KSPACE, [tmp_path / f"{n}.h5" for n in ("many", "mask", "text")])
    assert "the file states 64 x 16 x 1024 x 1024 voxels, 8.6 GB as float32" in told[0][1]
    assert "the mask has the shape (32768, 32768)" in told[1][1]
    assert "is a text of 1.1 GB: damaged" in told[2][1]
    assert max(taken for *_, taken in told) < MOST


def test_kspace_below_the_limit_is_read(tmp_path):
    with h5py.File(tmp_path / "few.h5", "w") as file:
        file["kspace"] = np.random.default_rng(0).random((2, 2, 16, 16)).astype(np.complex64)
    assert read_kspace(tmp_path / "few.h5").shape == (1, 2, 2, 16, 16, 2)
    with pytest.raises(ValueError, match="2 x 2 x 16 x 16 voxels, 0.00819 MB as float32, and at most"):
        read_kspace(tmp_path / "few.h5", limits=Limits(1e-6))
