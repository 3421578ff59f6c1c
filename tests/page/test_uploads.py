"""Files that come from a browser: none is written outside of its folder, and none is larger than was said."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.scan import Refusal
from interslice.page.uploads import MOST_FILES, check_sizes, pieces, safe_name, source_of, unpack

OUTSIDE = [
    "../x.nii",
    "a/../../x.nii",
    "..",
    "/etc/passwd",
    "\\\\server\\x",
    "..\\x.nii",
    "C:\\x.nii",
    "c:x",
    "",
    "a\0b",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(Refusal, match="leads out of the folder"):
        safe_name(name)


@given(st.text(max_size=300))
def test_a_name_stays_inside_and_is_plain(name):
    try:
        path = safe_name(name)
    except Refusal:
        return
    assert not path.is_absolute() and ".." not in path.parts and path.parts
    for part in path.parts:
        assert 0 < len(part) <= 120 and part[0] not in ".-" and part[-1] not in " ." and part.isprintable()
        assert not set(part) & set('/\\:*?"<>|$`\n\0')
    assert safe_name(str(path)) == path  # once is enough


def test_names_of_scans_stay_as_they_are():
    for name in ("scan.nii.gz", "sub-01_T1w.nii.gz", "Müller T2 (5 mm).nii", "DICOM/series 1/IM_0001"):
        assert str(safe_name(name)) == name
    assert str(safe_name("-o$(x).nii")) == "_o__x_.nii".replace("__x_", "_(x)")
    assert safe_name("x" * 200 + ".nii.gz").name.endswith("x.nii.gz")


def test_sizes_numbers_and_namesakes_are_limited(tmp_path):
    assert [str(p) for p in check_sizes(["a/b", "c"], [60, 40], 100, tmp_path)] == ["a/b", "c"]
    for names, sizes, said in (
        (
            ["a", "b"],
            [60, 41],
            "at most 0.0001 MB are taken: if it is no mistake, start the page with --max-gigabytes 1",
        ),
        (["a"], [-1], "sizes are whole numbers from 0"),
        (["a"], ["5"], "sizes are whole numbers from 0"),
        (["a"], [True], "sizes are whole numbers from 0"),
        (["a?", "A*"], [1, 1], "two files are called A_"),
        (["a", "a/b"], [1, 1], "a is a file and a folder"),
        ([*map(str, range(MOST_FILES + 1))], [0] * (MOST_FILES + 1), f"at most {MOST_FILES} are taken"),
    ):
        with pytest.raises(Refusal, match=said):
            check_sizes(names, sizes, 100, tmp_path)
    with pytest.raises(Refusal, match="of disk are free"):
        check_sizes(["a"], [10**18], 1e19, tmp_path)


def test_an_upload_that_breaks_off_is_no_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    with (tmp_path / "x").open("rb") as file:
        assert b"".join(pieces(file, 3)) == b"abc"
    with (tmp_path / "x").open("rb") as file, pytest.raises(Refusal, match="broke off"):
        list(pieces(file, 4))


def zipped(path, members, encrypted=False):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if encrypted:
        content = bytearray(path.read_bytes())
        content[6] |= 1
        content[content.rindex(b"PK\1\2") + 8] |= 1
        path.write_bytes(content)
    return path


def test_an_archive_becomes_its_folder(tmp_path):
    members = {"series/1": b"abc", "series/2": b"def", "__MACOSX/series/._1": b"x", "series/.DS_Store": b"x", "e/": b""}
    unpack(zipped(tmp_path / "head.zip", members), 100)
    assert source_of(tmp_path) == tmp_path / "head"
    assert {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == {
        "head/series/1": b"abc", "head/series/2": b"def",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../x.nii": b"a"}, "leads out of the folder"),
        ({"a/../../x.nii": b"a"}, "leads out of the folder"),
        ({"/tmp/x.nii": b"a"}, "leads out of the folder"),
        ({"x.nii": bytes(10_000)}, "and at most 0.001 MB are taken"),
        ({"a": b"1", "A": b"2"}, "two files are called A"),
    ],
)
def test_an_archive_does_not_lead_out_or_grow(members, said, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(Refusal, match=said):
        unpack(zipped(inside / "x.zip", members), 1000)
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "x.zip"]


def test_links_secrets_and_damage_in_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("x.nii")
    link.external_attr = 0o120777 << 16
    with pytest.raises(Refusal, match="holds a link"):
        unpack(zipped(tmp_path / "a.zip", {link: b"/etc/passwd"}), 1000)
    with pytest.raises(Refusal, match="is encrypted"):
        unpack(zipped(tmp_path / "b.zip", {"x": b"a"}, encrypted=True), 1000)
    (tmp_path / "c.zip").write_bytes(b"no archive")
    with pytest.raises(Refusal, match="c.zip cannot be unpacked, is it damaged?"):
        unpack(tmp_path / "c.zip", 1000)
    damaged = zipped(tmp_path / "d.zip", {"x": b"a" * 500})
    content = bytearray(damaged.read_bytes())
    content[31:36] = b"\xff" * 5
    damaged.write_bytes(content)
    with pytest.raises(Refusal, match="d.zip cannot be unpacked, is it damaged?"):
        unpack(damaged, 1000)


def test_an_archive_that_holds_more_than_it_states_is_damaged(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"x": bytes(5000)})
    content = bytearray(archive.read_bytes())
    for at in (22, content.rindex(b"PK\1\2") + 24):  # the size that it states
        content[at : at + 4] = (100).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(Refusal, match="is it damaged?"):
        unpack(archive, 1000)
    assert sum(p.stat().st_size for p in (tmp_path / "x").iterdir()) <= 100


def test_what_is_reconstructed_is_the_file_or_the_folder(tmp_path):
    with pytest.raises(Refusal, match="holds no file"):
        source_of(tmp_path)
    Path(tmp_path / "list.TXT").write_text("/etc/passwd")
    with pytest.raises(Refusal, match="a list of files that lie elsewhere"):
        source_of(tmp_path)
    (tmp_path / "scan.npz").touch()
    assert source_of(tmp_path) == tmp_path
