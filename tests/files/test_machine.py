"""What the machine has to give: the least of all limits, of which a process may have several."""

import json
import math

import psutil
import pytest
import torch

from interslice.files import machine
from interslice.files.limits import Limits
from interslice.files.machine import available_memory, free_disk, in_gigabytes, left_by_groups

GB = 1_000_000_000


def group(folder, limit, used, cached, names=("memory.max", "memory.current", "inactive_file")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\nunevictable 0\n")


VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture
def of_process(tmp_path):
    def write(text):
        (tmp_path / "cgroup").write_text(text)
        return sorted(left_by_groups(tmp_path / "fs", tmp_path / "cgroup"))

    return write


def test_groups_of_version_2(tmp_path, of_process):
    group(tmp_path / "fs/a/b", "max", 5 * GB, 0)
    group(tmp_path / "fs/a", 8 * GB, 5 * GB, GB)
    assert of_process("0::/a/b\n") == [4 * GB]  # cached files do not count, and no limit is none
    group(tmp_path / "fs/a/b", 6 * GB, 5 * GB, 0)
    assert of_process("0::/a/b\n") == [GB, 4 * GB]
    group(tmp_path / "fs", 3 * GB, GB, 0)
    assert of_process("0::/host/path\n") == [2 * GB]  # in a container the root is its own group


def test_groups_of_version_1(tmp_path, of_process):
    group(tmp_path / "fs/memory/job", 4 * GB, GB, GB // 2, VERSION_1)
    group(tmp_path / "fs/memory", 9223372036854771712, 20 * GB, 0, VERSION_1)
    assert of_process("3:cpu,cpuacct:/job\n12:memory:/job\n") == [3 * GB + GB // 2]


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/none\n", "12:memory:\n"])
def test_what_is_not_there_is_no_limit(of_process, text):
    assert of_process(text) == []


def test_no_more_than_the_system_has():
    assert 0 < available_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_a_process_bound_it(fresh_python, name):
    code = f"""
import json, resource
from interslice.files.machine import available_memory
before = available_memory()
resource.setrlimit(resource.{name}, (10 << 30, 10 << 30))
print(json.dumps([before, available_memory()]))
"""
    before, after = json.loads(fresh_python(code).splitlines()[-1])
    assert after < min(before + GB, 10 << 30)  # others on this machine come and go
    assert after > 0


def test_memory_that_is_said_to_be_there_can_be_taken(fresh_python):
    code = """
import resource
import numpy as np
from interslice.files.machine import available_memory
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
there = available_memory()
fits = np.ones(int(0.95 * there), np.int8)
del fits
try:
    np.ones(int(1.05 * there), np.int8)
except MemoryError:
    print("right")
"""
    assert fresh_python(code).splitlines()[-1] == "right"


def test_memory_of_a_gpu_is_that_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GB)
    assert available_memory("cuda:1") == 4 * GB  # what torch keeps for later is free to it


def test_a_number_takes_the_place_of_what_there_is():
    assert Limits(max_memory=2.5).memory() == 2.5 * GB
    assert Limits(max_memory="off").memory() == Limits(max_memory=False).memory() == math.inf
    assert 0 < Limits().memory() <= psutil.virtual_memory().total


def test_the_disk_is_asked_where_a_folder_will_be(tmp_path, monkeypatch):
    assert free_disk(tmp_path / "a" / "b") == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.1)
    usage = type(machine.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage(0, 0, 0))
    assert free_disk(tmp_path) is None  # network file systems that state nothing


def test_bytes_in_words():
    assert [in_gigabytes(n) for n in (4.294e9, 12e6, 950e6)] == ["4.3 GB", "12 MB", "0.9 GB"]
