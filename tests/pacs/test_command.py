"""`python -m interslice.pacs`: a series from an archive, its reconstruction, and back; a small and a real archive."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest

from interslice.files.dicom_read import find_stack
from interslice.pacs.__main__ import main
from interslice.pacs.archive import ArchiveError
from interslice.pacs.reconstruct import check_options
from interslice.pacs.store import derived_series
from interslice.usage import UsageError
from tests.support.orthanc import orthanc


@pytest.fixture(params=["small", "Orthanc"])
def place(request, tmp_path):
    """An archive with its password: `place.url`, `place.add(folder)`."""
    if request.param == "small":
        server = request.getfixturevalue("server")
        server.user = "reader:a secret"
        yield server
    else:
        (tmp_path / "orthanc").mkdir()
        with orthanc(tmp_path / "orthanc") as running:
            yield running


@pytest.fixture
def who(monkeypatch):
    """The password that the archives ask for, in the environment."""
    monkeypatch.setenv("INTERSLICE_PACS_USER", "reader")
    monkeypatch.setenv("INTERSLICE_PACS_PASSWORD", "a secret")


@pytest.mark.slow
def test_a_series_is_read_reconstructed_and_stored_beside_its_source(
    place, scan, tmp_path, tiny_weights, who, capfd, monkeypatch
):
    place.add(scan.folder)
    patient, out = ["--url", place.url, "--patient", "P4711"], tmp_path / "out"
    options = ["--checkpoint", str(tiny_weights), "--num_steps", "1", "--report", "no"]
    chosen = ["--description", "t2*", "--output_dir", str(out), "--kinds", "recon", "std"]
    main(["run", *patient, *chosen, "--", *options])
    said = "".join(capfd.readouterr())
    assert f"reading MR 3 't2_tse_tra' of 20220304, 6 images: --study {scan.study}" in said
    assert said.count("stored 24 images: 't2_tse_tra ") == 2
    assert [p.name for p in out.iterdir()] == [scan.series]  # and the source is not kept
    written = [p.read_bytes() for p in out.rglob("*") if p.is_file()]
    assert len(written) == 49 and not any(b"a secret" in content for content in [*written, said.encode()])

    main(["store", "--url", place.url, "--folder", str(out)])
    assert "stored 24 images, 24 of them before: 't2_tse_tra diffusion recon'" in capfd.readouterr().out
    (made,) = derived_series(out)
    back = tmp_path / "back"
    main(["fetch", "--url", place.url, "--study", scan.study, "--series", made.series, "--folder", str(back)])
    assert f"read 24 images into {back}" in capfd.readouterr().out
    sent, received, source = (find_stack(p) for p in (made.folder, back, scan.folder))
    assert np.array_equal(sent.voxels(), received.voxels()) and np.array_equal(sent.affine, received.affine)
    assert received.header.StudyInstanceUID == source.header.StudyInstanceUID
    assert received.header.FrameOfReferenceUID == source.header.FrameOfReferenceUID
    corners = np.array([[-0.5, -0.5, -0.5], np.array(source.shape) - 0.5])
    ours = np.array([[-0.5, -0.5, -0.5], np.array(received.shape) - 0.5])
    np.testing.assert_allclose(
        nib.affines.apply_affine(received.affine, ours), nib.affines.apply_affine(source.affine, corners), atol=1e-3
    )  # it lies where the scan lies

    main(["find", *patient])
    listed = capfd.readouterr().out.splitlines()
    assert sorted(line.split("'")[1] for line in listed) == [
        "t2_tse_tra", "t2_tse_tra diffusion recon", "t2_tse_tra standard deviation of draws"
    ]  # fmt: skip
    monkeypatch.delenv("INTERSLICE_PACS_USER")
    monkeypatch.delenv("INTERSLICE_PACS_PASSWORD")
    with pytest.raises(ArchiveError, match="does not allow this to nobody in particular"):
        main(["find", *patient])


def test_a_reconstruction_that_fails_stores_nothing_and_knows_no_password(server, scan, tmp_path, monkeypatch, who):
    server.add(scan.folder)
    server.user = "reader:a secret"
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps([sys.argv, dict(os.environ)]))\nsys.exit(2)\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match="ended with status 2, as said above: nothing is stored"):
        main(["run", "--url", server.url, "--study", scan.study, "--output_dir", str(tmp_path / "out"),
              "--", "--noise", "rice"])  # fmt: skip
    assert server.asked("retrieve") == 1 and server.asked("store") == 0 and not list((tmp_path / "out").iterdir())
    words, environment = json.loads((tmp_path / "seen").read_text())
    assert words[1:5] == ["-P", "-m", "interslice", "run"] and words[-4:-1] == ["--noise", "rice", "--"]
    assert not any("a secret" in text for text in [*words, *environment.values()])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output_dir", "x"], "--output_dir is set by this command"),
        (["--output-format=nifti"], "--output_format is set by this command"),
        (["scan.nii.gz"], "'scan.nii.gz' is no option"),
    ],
)
def test_options_that_this_command_sets_are_refused(options, said, server):
    with pytest.raises(UsageError, match=said):
        main(["run", "--url", server.url, "--patient", "P4711", "--", *options])
    assert not server.log
    check_options(["--preset", "fast", "--noise=matern"])


def test_words_that_make_no_sense_end_with_status_2(server, capsys):
    for words in (
        ["find"],
        ["find", "--url", server.url, "--patient", "P", "--", "--preset", "fast"],
        ["store", "--url", server.url, "--folder", "x", "--kinds", "all"],
        ["burn", "--url", server.url],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "only run takes options of the reconstruction" in capsys.readouterr().err and not server.log


def test_a_patient_without_series(server, capsys):
    main(["find", "--url", server.url, "--patient", "nobody"])
    assert capsys.readouterr().out == f"{server.url[7:].split('/')[0]} holds no series that matches\n"
