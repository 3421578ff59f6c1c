"""All images of a series arrive as they are, or none."""

import pydicom
import pytest

from interslice.files.dicom_read import find_stack
from interslice.pacs.archive import ArchiveError
from interslice.pacs.fetch import Series, fetch, one, search
from interslice.usage import UsageError
from tests.support.dicom_files import AFFINE, VOXELS, write_series


@pytest.fixture
def wanted(scan):
    return Series(scan.study, scan.series, count=len(scan.uids))


def test_a_series_arrives_as_it_is(server, ask, scan, wanted, tmp_path):
    server.add(scan.folder)
    steps = []
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "old.dcm").write_bytes(b"of an earlier time")
    assert fetch(ask(), wanted, tmp_path / "got", lambda n, of: steps.append((n, of))) == 6
    files = sorted((tmp_path / "got").iterdir())
    assert len(files) == 6 and steps == [(n, 6) for n in range(1, 7)]
    originals = {h.SOPInstanceUID: h for h in (pydicom.dcmread(p) for p in scan.folder.iterdir())}
    for path in files:
        image = pydicom.dcmread(path)
        assert image == originals[image.SOPInstanceUID]  # private attributes and pixels, too
        assert image.file_meta.TransferSyntaxUID == originals[image.SOPInstanceUID].file_meta.TransferSyntaxUID
    before, after = find_stack(scan.folder), find_stack(tmp_path / "got")
    assert (before.affine == after.affine).all() and (before.voxels() == after.voxels()).all()
    asked = next(headers for kind, headers, _ in server.log if kind == "retrieve")
    assert "transfer-syntax=*" in asked["Accept"]
    assert {headers["Host"] for _, headers, _ in server.log} == {server.url.split("/")[2]}


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        ("retrieve", "one less", "1 of 6 images of series .* did not arrive"),
        ("retrieve", "short pixels", "arrived damaged: "),
        ("retrieve", "another's", "an image arrived that is not of series"),
    ],
)
def test_half_a_series_is_refused_and_leaves_nothing(kind, fault, said, server, ask, scan, wanted, tmp_path):
    server.add(scan.folder)
    write_series(tmp_path / "other", VOXELS, AFFINE)
    server.add(tmp_path / "other")
    server.faults[kind].append(fault)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "old.dcm").write_bytes(b"of an earlier time")
    with pytest.raises(ArchiveError, match=said):
        fetch(ask(), wanted, tmp_path / "got")
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["old.dcm"]
    assert not list(tmp_path.glob(".partial*"))


def test_an_answer_that_is_cut_off_is_asked_for_again(server, ask, scan, wanted, tmp_path):
    server.add(scan.folder)
    server.faults["retrieve"].append("cut")
    asking = ask()
    assert fetch(asking, wanted, tmp_path / "got") == 6 and len(list((tmp_path / "got").iterdir())) == 6
    assert "ended in the midst of its answer; try 2 of 4" in asking.said[0]


def test_a_series_that_is_still_being_sent_is_refused(server, ask, scan, wanted, tmp_path):
    server.add(scan.folder)
    (late, content), *_ = server.images.items()
    del server.images[late]
    server.faults["retrieve"].append(lambda: server.put(content))
    with pytest.raises(ArchiveError, match="had 5 images .* and now has 6: it is still being sent"):
        fetch(ask(), Series(scan.study, scan.series), tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_an_archive_that_lists_less_than_it_promises_is_not_believed(server, ask, scan, tmp_path):
    server.add(scan.folder)
    server.faults["series"].append("promise one more")
    (series,) = search(ask(), study=scan.study)
    with pytest.raises(ArchiveError, match="lists 6 images of series .*, and says that it has 7"):
        fetch(ask(), series, tmp_path / "got")
    assert server.asked("retrieve") == 0


def test_a_series_that_is_not_there(ask, tmp_path):
    with pytest.raises(ArchiveError, match="lists 0 images"):
        fetch(ask(), Series("1.2", "3.4"), tmp_path / "got")


@pytest.mark.parametrize("fault", [None, "no pages"], ids=["pages", "always from the start"])
def test_searches_come_to_an_end_with_all_answers(fault, server, ask, scan, wanted, tmp_path):
    server.add(scan.folder)
    server.page = 4 if fault is None else 1000
    server.faults["instances"].extend([fault] * 9)
    assert ask().instances(scan.study, scan.series) == scan.uids
    assert server.asked("instances") <= 3


def test_series_are_found_by_what_is_known_of_them(server, ask, scan, tmp_path):
    server.add(scan.folder)
    write_series(tmp_path / "other", VOXELS, AFFINE, number=4, description="t1_mpr_sag [1]")
    server.add(tmp_path / "other")
    by = lambda **known: [s.description for s in search(ask(), **known)]  # noqa: E731
    assert by(patient="P4711") == ["t2_tse_tra", "t1_mpr_sag [1]"]
    assert by(patient="P4711", description="T2*") == ["t2_tse_tra"]
    assert by(patient="P4711", description="t1_mpr_sag [?]") == ["t1_mpr_sag [1]"]
    assert by(study=scan.study, series=scan.series) == by(series=scan.series) == ["t2_tse_tra"]
    assert by(patient="P47") == by(patient="P*") == by(patient="P4711", description="t3*") == []
    (found,) = search(ask(), series=scan.series)
    assert found == Series(scan.study, scan.series, "MR", "3", "t2_tse_tra", "20220304", 6)
    with pytest.raises(UsageError, match="say which series"):
        search(ask(), description="t2*")


def test_which_of_several_is_asked_for(server, ask, scan, tmp_path):
    server.add(scan.folder)
    write_series(tmp_path / "other", VOXELS, AFFINE, number=4, description="t1")
    server.add(tmp_path / "other")
    with pytest.raises(
        ArchiveError, match=r"2 series match, name one:\n  MR 3 't2_tse_tra' of 20220304, 6 images: --s"
    ):
        one(search(ask(), patient="P4711"), "here")
    with pytest.raises(ArchiveError, match="here holds no series that matches"):
        one([], "here")


def test_an_archive_that_does_not_say_whose_a_series_is_may_hold_anothers(server, ask, scan):
    server.add(scan.folder)
    server.silent.add("PatientID")
    with pytest.raises(ArchiveError, match="does not say whose series these are"):
        search(ask(), patient="P4711")
    assert len(search(ask(), study=scan.study)) == 1


@pytest.mark.parametrize("uid", ["../../etc", "", ".", "1/2", "1" * 65])
def test_names_that_lead_elsewhere_are_no_uids(uid):
    with pytest.raises(ArchiveError, match="is no UID"):
        Series("1.2", uid)
