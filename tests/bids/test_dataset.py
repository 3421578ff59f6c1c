"""Which scans of a BIDS data set are used; what is not is named, with the reason."""

import json

import pytest

from interslice.bids.dataset import find_scans, open_dataset
from interslice.usage import UsageError
from tests.support.bids_sets import write_dataset, write_scan


@pytest.fixture
def two_people(tmp_path):
    names = ("sub-01_T1w", "sub-01_T2w", "sub-02_ses-a_FLAIR", "sub-02_ses-b_FLAIR", "sub-02_ses-b_acq-cor_T2w")
    return open_dataset(write_dataset(tmp_path / "set", **dict.fromkeys(names, 0)))


def names(scans):
    return [path.name.removesuffix(".nii.gz") for path in scans.paths]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["sub-01_T1w", "sub-01_T2w", "sub-02_ses-a_FLAIR", "sub-02_ses-b_FLAIR", "sub-02_ses-b_acq-cor_T2w"]),
        ({"participants": ["sub-01"]}, ["sub-01_T1w", "sub-01_T2w"]),
        ({"participants": ["02", "sub-02"], "suffixes": ["T2w"]}, ["sub-02_ses-b_acq-cor_T2w"]),
        ({"sessions": ["ses-a"]}, ["sub-02_ses-a_FLAIR"]),
        ({"sessions": ["b", "a"], "suffixes": ["FLAIR"]}, ["sub-02_ses-a_FLAIR", "sub-02_ses-b_FLAIR"]),
    ],
)
def test_labels_choose(two_people, asked, found):
    assert sorted(names(find_scans(two_people, **asked))) == sorted(found)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"participants": ["03", "01"]}, "participant_label 03 is not there: there are 01, 02"),
        ({"sessions": ["c"]}, "session_label c is not there: there are a, b"),
        ({"participants": ["01"], "sessions": ["a"]}, "session_label a is not there: there are none"),
        ({"suffixes": ["T1map"]}, "suffix must be of T1w, T2w.*got 'T1map'"),
        ({"suffixes": ["PDw"]}, "nothing to reconstruct.*no PDw of sub-01, sub-02"),
    ],
)
def test_what_is_not_there_is_said(two_people, asked, message):
    with pytest.raises(UsageError, match=message):
        find_scans(two_people, **asked)


def test_what_cannot_be_used_is_named_and_the_others_are_taken(two_people):
    anat = two_people.root / "sub-01" / "anat"
    write_scan(two_people.root, "sub-01_part-phase_T2w")
    (anat / "T2w new.nii.gz").write_bytes(b"")
    (anat / "sub-02_T2w.nii").write_bytes(b"")
    (anat / "sub-01_run-2_T2w.nii.gz").symlink_to("nowhere")
    (anat / "sub-01_T1map.nii.gz").write_bytes(b"")
    (anat / "sub-01_T2w.json").write_text("{}")
    (anat / ".sub-01_FLAIR.nii.gz").write_bytes(b"")
    scans = find_scans(two_people, ["01"])
    assert names(scans) == ["sub-01_T1w", "sub-01_T2w"]
    refused = {path.rsplit("/", 1)[1]: why for path, why in scans.refused.items()}
    assert refused.keys() == {"T2w new.nii.gz", "sub-02_T2w.nii", "sub-01_run-2_T2w.nii.gz"}
    assert "none of BIDS" in refused["T2w new.nii.gz"] and "datalad get" in refused["sub-01_run-2_T2w.nii.gz"]
    assert refused["sub-02_T2w.nii"] == "its name says sub-02, and it lies in sub-01"
    left_out = {path.rsplit("/", 1)[1]: why for path, why in scans.left_out.items()}
    assert left_out.keys() == {"sub-01_part-phase_T2w.nii.gz", "sub-01_T1map.nii.gz"}
    assert left_out["sub-01_T1map.nii.gz"] == "T1map was not asked for (--suffix)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no dataset_description.json.*--skip-bids-validation"),
        ("{", "dataset_description.json cannot be read.*--skip-bids-validation"),
        (json.dumps({"Name": "x"}), "states no Name and BIDSVersion"),
        ("[]", "states no Name and BIDSVersion"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_unless_it_is_not_looked_at(tmp_path, content, message):
    root = write_dataset(tmp_path / "set", **{"sub-01_T2w": 0})
    path = root / "dataset_description.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UsageError, match=message):
        open_dataset(root)
    assert names(find_scans(open_dataset(root, described=False))) == ["sub-01_T2w"]


def test_an_empty_folder_and_none_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="nowhere is no folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds no participant, no folder sub-\*"):
        find_scans(open_dataset(tmp_path, described=False))
