"""A derived series is added whole, once, to the study that it belongs to; nothing else is sent, nothing deleted."""

import shutil

import pydicom
import pytest

from interslice.pacs import store as storing
from interslice.pacs.archive import ArchiveError
from interslice.pacs.store import derived_series, store
from interslice.usage import UsageError


@pytest.fixture
def series(made):
    (found,) = derived_series(made.parent.parent)
    return found


def test_a_derived_series_joins_its_study(server, ask, scan, series):
    server.add(scan.folder)
    before = dict(server.images)
    sent = []
    assert store(ask(), series, lambda n, of: sent.append((n, of))) == 5 and sent == [(5, 5)]
    assert {uid: server.images[uid] for uid in before} == before  # the scan is as it was
    new = {uid: content for uid, content in server.images.items() if uid not in before}
    assert new.keys() == series.files.keys() and len(new) == 5
    source = scan.headers[0]
    for header in server.headers()[len(before) :]:
        assert header == pydicom.dcmread(series.files[header.SOPInstanceUID], stop_before_pixels=True)
        for same in ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID", "StudyDate"):
            assert header[same].value == source[same].value
        assert header.SeriesInstanceUID != source.SeriesInstanceUID and header.SeriesNumber == 9030


def test_what_is_there_is_not_sent_again(server, ask, series):
    store(ask(), series)
    assert store(ask(), series) == 0 and server.asked("store") == 1
    del server.images[next(iter(series.files))]
    assert store(ask(), series) == 1 and server.asked("store") == 2
    assert server.asked("delete") == 0


def test_large_series_are_sent_in_parts(server, ask, series, monkeypatch):
    monkeypatch.setattr(storing, "BATCH", 1)
    sent = []
    assert store(ask(), series, lambda n, of: sent.append(n)) == 5
    assert server.asked("store") == 5 and sent == [1, 2, 3, 4, 5]


def test_a_request_that_was_lost_is_sent_again_whole(server, ask, series):
    server.faults["store"].extend([503, "hang up"])
    asking = ask()
    asking.client.set_chunk_size(500)  # as a large one: in pieces
    assert store(asking, series) == 5 and len(server.images) == 5 and len(asking.said) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("refuse", r"does not take 5 of 5 images of .*: out of resources \(A700\).*; 0 of 5 were taken before"),
        ("refuse some", r"does not take 2 of 5 images of .*: out of resources \(A700\)"),
        (400, r"refuses: Bad Request \(status 400\); 0 of 5 images were taken before"),
        ("forget", "took series .* and lists only 0 of its 5 images"),
    ],
)
def test_an_archive_that_does_not_take_all_is_told(fault, said, server, ask, series):
    server.faults["store"].append(fault)
    with pytest.raises(ArchiveError, match=said):
        store(ask(), series)
    assert store(ask(), series) > 0 and server.images.keys() == series.files.keys()  # and it goes on


def test_what_this_program_did_not_make_is_not_sent(scan, made):
    with pytest.raises(ValueError, match="was not made by this program: nothing of .* is stored"):
        derived_series(scan.folder)
    shutil.copy(next(scan.folder.iterdir()), made / "9999.dcm")
    with pytest.raises(ValueError, match="9999.dcm was not made by this program"):
        derived_series(made)
    (made / "9999.dcm").write_text("notes")
    with pytest.raises(ValueError, match="9999.dcm is no DICOM image"):
        derived_series(made)


def test_a_folder_of_two_series_is_not_sent(made, tmp_path):
    image = pydicom.dcmread(made / "0001.dcm")
    image.SeriesInstanceUID = "1.2.3"
    image.save_as(made / "0001.dcm")
    with pytest.raises(ValueError, match="holds images of 2 series"):
        derived_series(made)


def test_series_are_found_in_folders_of_results(made, tmp_path):
    results = made.parent.parent
    shutil.copytree(made, results / "scan" / "scan_std")
    assert [d.folder for d in derived_series(results)] == [d.folder for d in derived_series(made)] == [made]
    both = derived_series(results, ("recon", "std"))
    assert [d.folder.name for d in both] == ["scan_recon", "scan_std"]
    for path, kinds, said in (
        (tmp_path / "none", ("recon",), "is no folder"),
        (results, ("filled",), r"holds no DICOM series called \*_filled"),
        (results, ("all",), "kinds must be of recon, std, filled, measured, got all"),
    ):
        with pytest.raises(UsageError, match=said):
            derived_series(path, kinds)
