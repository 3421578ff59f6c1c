"""Cone-beam CT: the physics that ties slices together.

    y_ray = length * sum over lines of voxels  x(interpolated where the ray meets the line)           (Joseph, 1982)

Every ray is followed along the steeper of its two in-plane axes, one voxel at a time, with bilinear interpolation
between the four nearest voxels across it; `length` is the ray's path per step, in mm. All rays of one detector column
lie in one upright plane, a fan. So the volume is first interpolated onto that plane (a curtain of [lines, slices]), and
the rays of the rows then read the curtain; the adjoint does the same in reverse order, hence it is exact. That holds
for flat and curved detectors, on a circle and on a helix. In tilted views a column's rays lie in no upright plane:
there each ray is a fan of its own, and one that is steepest along z is followed along z.

Three modules compute the same numbers: cone_beam_torch on any device and in any float type; in float32 and where they
are installed, cone_beam_numba on CPUs, several times faster, and cone_beam_triton on GPUs. Volumes are (..., X, Y, Z),
projections (..., views, columns, rows).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, fields, replace

import torch

from interslice.files.memory import FLOAT, array_bytes
from interslice.physics.ct import cone_beam_torch
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.ray_transform import RayTransform
from interslice.physics.ct.sparse_radon import rays_in_plane
from interslice.usage import UsageError

FAST = {"cpu": "numba", "cuda": "triton"}
"""Packages that compile for a kind of device."""
BACKENDS = ("auto", "torch", "numba", "triton")


@dataclass
class Fans:
    """The upright planes of rays, one per view and column, that are followed along one axis; float64 tensors.

    A ray starts at the source and reaches its detector element at t = 1; `F` counts fans, `R` rows. In a tilted scan
    every ray is a fan, and R is 1.

    along: the axis that is followed: 0, 1, or 2. The volume is a table [lines and voxels across, voxels up]: up is z,
        and if z is followed, y.
    ray: (F,) flat index view * columns + column, or that of the ray.
    start, step: (F,) position of the source along the followed axis, and the way to the detector.
    start_across, step_across: (F,) the same along the axis across.
    start_up: (F,) the source along the axis up;  rise: (F, R) the way up to each row.
    length: (F, R) path per voxel line, in mm.
    lines: positions of the voxel lines along the followed axis.
    scale: (4,) position of the first voxel across and of the first one up, and the spacing of both.
    stride, stride_across: rows of the table between lines, and between voxels across.
    """

    along: int
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


AXES = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
"""The axes across and up for each that is followed."""


def fans_along(along: int, geometry: ScanGeometry, grid: Grid) -> Fans:
    """The fans that are steepest along axis `along`, counted in voxels: of the axes 0 and 1, and if tilted of all."""
    source, way = (tilted_rays if geometry.tilted else upright_fans)(geometry)
    sideways = way[:, :, 0]  # the same in all rows of an upright fan
    pace = sideways.abs() / torch.tensor(grid.spacing, dtype=torch.float64)
    if not geometry.tilted:
        pace[:, 2] = -1.0
    ray = (pace.argmax(1) == along).nonzero().flatten()
    source, way, sideways = source[ray], way[ray], sideways[ray]
    across, up = AXES[along]
    first, second = grid.coordinates(across), grid.coordinates(up)
    stride, stride_across = {0: (grid.shape[1], 1), 1: (1, grid.shape[1]), 2: (1, grid.shape[2])}[along]
    return Fans(
        along=along, ray=ray, start=source[:, along].clone(), step=sideways[:, along].clone(),
        start_across=source[:, across].clone(), step_across=sideways[:, across].clone(),
        start_up=source[:, up].clone(), rise=way[:, up].clone(),
        length=grid.spacing[along] * way.norm(dim=1) / sideways[:, along, None].abs(), lines=grid.coordinates(along),
        scale=torch.stack([first[0], second[0], *first.new_tensor([grid.spacing[across], grid.spacing[up]])]),
        num_across=grid.shape[across], stride=stride, stride_across=stride_across,
    )  # fmt: skip


def upright_fans(geometry: ScanGeometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources (F, 3), and ways to the elements (F, 3, R), of every view and column."""
    starts, steps = (torch.cat(part) for part in zip(*rays_in_plane(geometry)))
    view = torch.arange(len(geometry.angles)).repeat_interleave(geometry.num_columns)
    height = geometry.per_view("source_row_offset")[view]
    rise = geometry.rows[view] - height[:, None]
    way = torch.cat([steps[:, :, None].expand(-1, 2, rise.shape[1]), rise[:, None]], 1)
    return torch.cat([starts, height[:, None]], 1), way


def tilted_rays(geometry: ScanGeometry) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for every ray: sources (F, 3), ways (F, 3, 1)."""
    frames, iso = geometry.frames, geometry.per_view("source_to_isocenter")
    offsets = [geometry.per_view(name) for name in ("source_column_offset", "source_row_offset")]
    source = torch.einsum("vk,vkx->vx", torch.stack([*offsets, -iso], 1), frames)
    across, depth = geometry.in_plane(geometry.columns)
    shape = geometry.range_shape
    place = torch.stack([across[:, :, None].expand(shape), geometry.rows[:, None].expand(shape),
                         (depth - iso[:, None])[:, :, None].expand(shape)], -1)  # fmt: skip
    way = torch.einsum("vcrk,vkx->vcrx", place, frames) - source[:, None, None]
    return source[:, None, None].expand_as(way).reshape(-1, 3), way.reshape(-1, 3, 1)


class ConeBeam(RayTransform):
    """Line integrals (mm) of a volume along the rays of a cone-beam scan: circular, helical, or tilted view by view.

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
            extra = " (the extra [ct])" if backend == "numba" else ""
            raise ImportError(
                f'backend "{backend}" needs {backend}{extra}: pip install {backend}, or use backend "torch"'
            )
        iso, det = geometry.per_view("source_to_isocenter"), geometry.per_view("source_to_detector")
        room = min(float(iso.min()), float((det - iso).min()))
        if not room > grid.radius:
            raise ValueError(
                f"the volume reaches {grid.radius:.0f} mm from the isocenter, but source and detector come as close as "
                f"{room:g} mm: reconstruct a smaller grid, or check the distances"
            )
        super().__init__(geometry, grid, background)
        self.backend = backend
        self._fans = [fans_along(axis, geometry, grid) for axis in ((0, 1, 2) if geometry.tilted else (0, 1))]
        self._placed: dict[torch.device, list[Fans]] = {torch.device("cpu"): self._fans}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        y, implementation = x.new_zeros(*x.shape[:-3], *self.range_shape), self._implementation(x)
        for volume, rays in zip(x.contiguous().view(-1, *self.domain_shape), self._rays(y)):
            for fans in self._on(x.device):
                if len(fans.ray):
                    implementation.project(fans, table_of(volume, fans.along), rays)
        return y

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "set of projections")
        x, implementation = y.new_zeros(*y.shape[:-3], *self.domain_shape), self._implementation(y)
        for volume, rays in zip(x.view(-1, *self.domain_shape), self._rays(y.contiguous())):
            for fans in self._on(y.device):
                if not len(fans.ray):
                    continue
                table = table_of(volume, fans.along)
                implementation.back_project(fans, rays, table)
                if fans.along == 2:  # the table is a copy
                    volume.copy_(table.view(volume.shape[0], volume.shape[2], volume.shape[1]).transpose(1, 2))
        return x

    def _rays(self, y: torch.Tensor) -> torch.Tensor:
        """Projections as tables [fans, rows], with one row each where every ray is a fan."""
        views, columns, rows = self.range_shape
        return y.view(-1, views * columns * rows, 1) if self.geometry.tilted else y.view(-1, views * columns, rows)

    def working_bytes(self) -> float:
        """A few curtains at a time, and of the volume a copy with empty slices; if tilted, another with turned axes."""
        copies = 2 if self.geometry.tilted else 1
        return 12 * FLOAT * cone_beam_torch.CHUNK + copies * array_bytes(self.domain_shape)

    def kept_bytes(self) -> float:
        """Of rise and length of each ray, in double precision; if tilted, of all that `Fans` has."""
        return (16 if self.geometry.tilted else 4) * array_bytes(self.range_shape)

    def _on(self, device: torch.device) -> list[Fans]:
        if device not in self._placed:
            self._placed[device] = [fans.to(device) for fans in self._fans]
        return self._placed[device]

    def _implementation(self, x: torch.Tensor):
        package = FAST.get(x.device.type)
        if package is None or x.dtype != torch.float32 or self.backend not in ("auto", package) or not has(package):
            return cone_beam_torch
        module = importlib.import_module(f"interslice.physics.ct.cone_beam_{package}")
        return module if package == "numba" or module.works(x.device) else cone_beam_torch


def table_of(volume: torch.Tensor, along: int) -> torch.Tensor:
    """A volume (X, Y, Z) as a table [X * Y, Z]; if z is followed, a copy as [X * Z, Y]."""
    if along != 2:
        return volume.flatten(0, 1)
    return volume.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(0, 1)


def has(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None
