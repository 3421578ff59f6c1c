"""The compiled cone beam leaves nothing behind: whatever is computed before, beside and after it has the same bits."""

import importlib
import json
from threading import Thread

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from interslice.physics.ct import ConeBeam, Grid
from tests.physics.ct.test_cone_beam import scan, tiny
from tests.support.helpers import normal

pytest.importorskip("numba")


@pytest.fixture
def compiled(monkeypatch):
    """The module, which starts threads for small work too."""
    module = importlib.import_module("interslice.physics.ct.cone_beam_numba")
    monkeypatch.setattr(module, "SMALL", 0)
    return module


@pytest.fixture
def threads():
    """Sets the number of torch's threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def known(compiled, threads):
    """An operator, what goes in, and what comes out on one thread."""
    operator = tiny("numba")
    x, y = normal(*operator.domain_shape), normal(*operator.range_shape)
    threads(1)
    return operator, (x, y), (operator.forward(x), operator.adjoint(y))


@pytest.mark.parametrize("number", [2, 3, 64])
def test_the_same_bits_on_any_number_of_threads(known, threads, number):
    operator, (x, y), (ax, aty) = known
    threads(number)
    assert torch.equal(operator.forward(x), ax)
    assert torch.equal(operator.adjoint(y), aty)
    assert torch.get_num_threads() == number


def test_the_same_bits_from_many_threads_at_once(known, threads):
    operator, (x, y), expected = known
    threads(2)
    found = {}

    def work(name):
        found[name] = [(operator.forward(x), operator.adjoint(y)) for _ in range(5)]

    workers = [Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    assert all(torch.equal(a, b) for results in found.values() for r in results for a, b in zip(r, expected))


def test_the_same_bits_in_a_process_that_forks_after_use(known, threads):
    """numba's own threads end such a process."""
    operator, (x, _), (ax, _) = known
    threads(2)
    operator.forward(x)
    for found in DataLoader([x, x], batch_size=None, num_workers=1, collate_fn=operator.forward, timeout=60):
        assert torch.equal(found, ax)


@pytest.mark.slow
@pytest.mark.parametrize("stated", [1, 2])
def test_torch_computes_with_as_many_threads_after_as_before(fresh_python, stated):
    """Whatever OMP_NUM_THREADS says; numba's own threads are not even started."""
    out = fresh_python(f"""
import os
os.environ["OMP_NUM_THREADS"] = "{stated}"
import numba, torch
from interslice.physics.ct import cone_beam_numba
from tests.physics.ct.test_cone_beam import normal, tiny
cone_beam_numba.SMALL = 0
before = torch.get_num_threads(), torch.__config__.parallel_info()
operator = tiny("numba")
operator.adjoint(operator.forward(normal(*operator.domain_shape)))
assert (torch.get_num_threads(), torch.__config__.parallel_info()) == before
try:
    print("numba started", numba.threading_layer())
except ValueError:
    print("left alone")
""")
    assert out.strip().splitlines()[-1] == "left alone"


@pytest.mark.slow
def test_a_case_after_a_cone_beam_is_as_it_is_alone(tmp_path, run_bundle):
    """A parallel beam, reconstructed alone and in a folder behind a cone beam."""
    projections = np.random.default_rng(0).random((12, 32, 4), dtype=np.float32) * 0.3 + 1
    parallel = {
        "beam": "parallel", "angles": [15.0 * i for i in range(12)], "num_columns": 32, "column_size": 2.0,
        "num_rows": 4, "row_size": 2.0,
    }  # fmt: skip
    cone = parallel | {"beam": "cone", "source_to_isocenter": 500.0, "source_to_detector": 1000.0}
    found = []
    for folder, cases in (("alone", {"z": parallel}), ("behind", {"a": cone, "z": parallel})):
        (tmp_path / folder).mkdir()
        for name, geometry in cases.items():
            np.savez(tmp_path / folder / f"{name}.npz", projections=projections)
            (tmp_path / folder / f"{name}.json").write_text(json.dumps(geometry))
        done = run_bundle("inference", "['configs/inference.json','configs/task_svct.json']", {
            "dataset_dir": tmp_path / folder, "output_dir": tmp_path / "out" / folder, "device": "cpu", "report": False,
            "num_steps": 1, "num_draws": 1,
        })  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(np.asarray(nib.load(tmp_path / "out" / folder / "z" / "z_recon.nii.gz").dataobj))
    assert (tmp_path / "out" / "behind" / "a" / "a_recon.nii.gz").exists()
    np.testing.assert_array_equal(*found)


def test_it_compiles_once_whichever_way_the_rays_run(compiled):
    grid = Grid((4, 5, 3), (1.0, 1.0, 1.0))
    for angles, columns in (((0.0, 90.0), 6), ((0.0, 10.0), 6), ((80.0, 90.0), 6), ((0.0, 90.0), 1)):
        operator = ConeBeam(scan(angles, columns), grid, "numba")
        operator.adjoint(operator.forward(normal(4, 5, 3)))
    # Arrays in another memory layout would make it compile again, for tens of seconds.
    assert len(compiled._project.signatures) == len(compiled._back_project.signatures) == 1
