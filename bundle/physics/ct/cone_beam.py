"""Circular cone-beam CT with a flat detector: the physics that ties slices together.

    y_ray = length * sum over lines of voxels  x(interpolated where the ray meets the line)           (Joseph, 1982)

Every ray is followed along the steeper of its two in-plane axes, one voxel at a time, with bilinear interpolation
between the four nearest voxels across it; `length` is the ray's path per step, in mm. All rays of one detector column
lie in one upright plane, a fan. So the volume is first interpolated onto that plane (a curtain of [lines, slices]), and
the rays of the rows then read the curtain; the adjoint does the same in reverse order, hence it is exact.

Three modules compute the same numbers: cone_beam_torch on any device and in any float type; in float32 and where they
are installed, cone_beam_numba on CPUs, several times faster, and cone_beam_triton on GPUs. Volumes are (..., X, Y, Z),
projections (..., views, columns, rows).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, fields, replace

import torch

from bundle.files.memory import FLOAT, array_bytes
from bundle.physics.ct import cone_beam_torch
from bundle.physics.ct.geometry import Grid, ScanGeometry
from bundle.physics.ct.ray_transform import RayTransform
from bundle.physics.ct.sparse_radon import rays_in_plane
from bundle.usage import UsageError

FAST = {"cpu": "numba", "cuda": "triton"}
"""Packages that compile for a kind of device."""
BACKENDS = ("auto", "torch", "numba", "triton")


@dataclass
class Fans:
    """The upright planes of rays, one per view and column, that are followed along one axis; float64 tensors.

    A ray starts at the source and reaches its detector element at t = 1; `F` counts fans, `R` rows.

    ray: (F,) flat index view * columns + column.
    start, step: (F,) position of the source along the followed axis, and the way to the detector.
    start_across, step_across: (F,) the same along the other in-plane axis.
    start_up: (F,) height of the source;  rise: (F, R) the way up to each row.
    length: (F, R) path per voxel line, in mm.
    lines: positions of the voxel lines along the followed axis.
    scale: (4,) position of the first voxel across and of the first slice, and the spacing of voxels and of slices.
    stride, stride_across: rows of the [X * Y, Z] table between lines, and between voxels across.
    """

    ray: torch.Tensor
    start: torch.Tensor
    step: torch.Tensor
    start_across: torch.Tensor
    step_across: torch.Tensor
    start_up: torch.Tensor
    rise: torch.Tensor
    length: torch.Tensor
    lines: torch.Tensor
    scale: torch.Tensor
    num_across: int
    stride: int
    stride_across: int

    def to(self, device: torch.device) -> Fans:
        """The same on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if isinstance(v, torch.Tensor)})


def fans_along(along: int, geometry: ScanGeometry, grid: Grid) -> Fans:
    """The fans whose in-plane direction is steeper along axis `along` (0 or 1), counted in voxels."""
    starts, steps = (torch.cat(part) for part in zip(*rays_in_plane(geometry)))
    pace = steps.abs() / torch.tensor(grid.spacing[:2], dtype=torch.float64)
    steep = pace[:, 0] >= pace[:, 1]
    ray = (steep if along == 0 else ~steep).nonzero().flatten()
    start, step = starts[ray], steps[ray]
    view = ray // geometry.num_columns
    start_up = geometry.per_view("source_row_offset")[view]
    rise = geometry.rows[view] - start_up[:, None]
    whole = torch.sqrt(step.square().sum(1, keepdim=True) + rise.square())
    across = 1 - along
    z = grid.coordinates(2)
    return Fans(
        ray=ray, start=start[:, along].clone(), step=step[:, along].clone(), start_across=start[:, across].clone(),
        step_across=step[:, across].clone(), start_up=start_up.clone(), rise=rise,
        length=grid.spacing[along] * whole / step[:, along, None].abs(), lines=grid.coordinates(along),
        scale=torch.stack([grid.coordinates(across)[0], z[0], *z.new_tensor([grid.spacing[across], grid.spacing[2]])]),
        num_across=grid.shape[across], stride=(grid.shape[1], 1)[along], stride_across=(1, grid.shape[1])[along],
    )  # fmt: skip


class ConeBeam(RayTransform):
    """Line integrals (mm) of a volume along the rays of a circular cone-beam scan.

    Args:
        geometry: beam "cone".
        grid: the volume.
        backend: "torch", "numba", "triton", or "auto": for float32, numba on CPUs and Triton on GPUs where they can be
            imported. On the other device, and in other types, "numba" and "triton" leave the work to torch.
        background: value of air in the volume; see RayTransform.

    Raises:
        ValueError: another beam, or a volume that reaches the source or the detector.
        ImportError: backend "numba" or "triton" without that package.
    """

    def __init__(self, geometry: ScanGeometry, grid: Grid, backend: str = "auto", background: float = 0.0) -> None:
        if geometry.beam != "cone":
            raise ValueError(f'ConeBeam is for a "cone" beam, got {geometry.beam!r}: use SparseRadon')
        if backend not in BACKENDS:
            raise UsageError(f"backend must be one of {BACKENDS}, got {backend!r}")
        if backend in FAST.values() and not has(backend):
            raise ImportError(f'backend "{backend}" needs {backend}: pip install {backend}, or use backend "torch"')
        iso, det = geometry.per_view("source_to_isocenter"), geometry.per_view("source_to_detector")
        room = min(float(iso.min()), float((det - iso).min()))
        if not room > grid.radius:
            raise ValueError(
                f"the volume reaches {grid.radius:.0f} mm from the isocenter, but source and detector come as close as "
                f"{room:g} mm: reconstruct a smaller grid, or check the distances"
            )
        super().__init__(geometry, grid, background)
        self.backend = backend
        self._fans = [fans_along(axis, geometry, grid) for axis in (0, 1)]
        self._placed: dict[torch.device, list[Fans]] = {torch.device("cpu"): self._fans}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        y, implementation = x.new_zeros(*x.shape[:-3], *self.range_shape), self._implementation(x)
        tables = x.contiguous().view(-1, self.domain_shape[0] * self.domain_shape[1], self.domain_shape[2])
        for table, rays in zip(tables, y.view(-1, self.range_shape[0] * self.range_shape[1], self.range_shape[2])):
            for fans in self._on(x.device):
                implementation.project(fans, table, rays)
        return y

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "set of projections")
        x, implementation = y.new_zeros(*y.shape[:-3], *self.domain_shape), self._implementation(y)
        stacks = y.contiguous().view(-1, self.range_shape[0] * self.range_shape[1], self.range_shape[2])
        for table, rays in zip(x.view(-1, self.domain_shape[0] * self.domain_shape[1], self.domain_shape[2]), stacks):
            for fans in self._on(y.device):
                implementation.back_project(fans, rays, table)
        return x

    def working_bytes(self) -> float:
        """A few curtains at a time."""
        return 12 * FLOAT * cone_beam_torch.CHUNK

    def kept_bytes(self) -> float:
        """Of rise and length of each ray, in double precision."""
        return 4 * array_bytes(self.range_shape)

    def _on(self, device: torch.device) -> list[Fans]:
        if device not in self._placed:
            self._placed[device] = [fans.to(device) for fans in self._fans]
        return self._placed[device]

    def _implementation(self, x: torch.Tensor):
        package = FAST.get(x.device.type)
        if package is None or x.dtype != torch.float32 or self.backend not in ("auto", package) or not has(package):
            return cone_beam_torch
        module = importlib.import_module(f"bundle.physics.ct.cone_beam_{package}")
        return module if package == "numba" or module.works(x.device) else cone_beam_torch


def has(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None
