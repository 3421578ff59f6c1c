"""Builds operators of thick slices: for a scan that was measured, or for a volume that is to be measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from interslice.files.acquired import acquired_of
from interslice.files.profile_table import SUFFIXES, is_profile_file, read_profile
from interslice.files.values import choice, number, whole_number
from interslice.physics.thick.profile import PROFILES, Profile, Table
from interslice.physics.thick.through_plane import MIN_RATIO, SLACK, ThroughPlane, slice_weights
from interslice.usage import UsageError

MAX_RATIO, RATIO = 10.0, 5.0
MAX_OVERLAP = 4.0
"""Slices may overlap; none is thicker than so many times their distance."""
EDGE = 0.01
"""Share of a fine voxel by which thick slices may reach past the fine grid: headers are rounded."""
ESTIMATE, IN_PLANE = "estimate", ("voxels", "measured")


@dataclass
class ThroughPlaneSampling:
    """How a scanner samples thick slices; builds the operator for a scan or for a volume.

    Args:
        axis: 0, 1, 2, or "auto" for the axis with the largest spacing.
        thickness: slice thickness in mm; by default the distance of the slices less `gap`. "estimate": what the scan
            itself tells (interslice.physics.thick.estimate), where it tells one.
        gap: empty space between slices in mm; negative for slices that overlap. By default what a scan's metadata say
            ("slice_thickness" in mm, from DICOM), or 0.
        profile: "box", "gaussian", "sinc" (FWHM = thickness), a Table, or a file of one, whose width at half maximum
            is then the thickness unless it is given.
        spacing: voxel size to reconstruct along the axis in mm; by default the finest in-plane spacing, but at least a
            tenth of the slices' distance, with a warning.
        ratio: distance of thick slices in fine voxels, 1.5 to 10, whole or not; for a scan instead of `spacing`, and
            by default none; for a volume to sample, 5 by default.
        packages: in which the slices were acquired, whose different brightness is evened before the reconstruction
            (interslice.physics.thick.bands): a number, 1 to leave them, or "auto" for what the scan shows.
        in_plane: "voxels", or "measured": the default `spacing` goes by what the scan resolves in its slices, where
            the scanner interpolated them (interslice.physics.thick.in_plane).
    """

    axis: int | str = "auto"
    thickness: float | str | None = None
    gap: float | None = None
    profile: Profile = "box"
    spacing: float | None = None
    ratio: float | None = None
    packages: int | str = "auto"
    in_plane: str = "voxels"

    def __post_init__(self) -> None:
        if self.axis not in ("auto", 0, 1, 2) or isinstance(self.axis, bool):
            raise UsageError(f'axis must be 0, 1, 2 or "auto", got {self.axis!r}')
        self.profile = _profile(self.profile)
        for name in ("thickness", "spacing"):
            value = getattr(self, name)
            if value is not None and not (name == "thickness" and value == ESTIMATE):
                number(name, value, above=0, kind="a number of mm", fix='or "estimate"' * (name == "thickness"))
        if self.packages != "auto":
            whole_number("packages", self.packages, 1, fix='or "auto"')
        choice("in_plane", self.in_plane, IN_PLANE)
        if self.gap is not None:
            number("gap", self.gap, kind="a number of mm", fix="negative for slices that overlap")
        if self.ratio is not None:
            self._check_ratio(self.ratio)
            if self.spacing is not None:
                raise UsageError(f"set the spacing ({self.spacing:g} mm) or the ratio ({self.ratio:g}), not both")

    def for_measurement(self, scan) -> ThroughPlane:
        """The operator whose measurement is this thick scan, (1, X, Y, Z) with its spacing; see `for_scan`."""
        meta = getattr(scan, "meta", {})
        stated, stated_by = float(meta.get("slice_thickness", 0)), meta.get("slice_thickness_by", "the header")
        operator = self.for_scan(
            tuple(scan.shape[1:]), tuple(scan.pixdim.tolist()), stated, stated_by, acquired_of(scan)
        )
        finest = min(s for a, s in enumerate(scan.pixdim.tolist()) if a != operator.axis)
        if self.spacing is None and self.ratio is None and operator.pitch / finest > MAX_RATIO + SLACK:
            warnings.warn(
                f"{meta.get('filename_or_obj', 'the image')}: slices {operator.pitch:g} mm apart are reconstructed at "
                f"{operator.spacing:g} mm, a ratio of {MAX_RATIO:g}: the {finest:g} mm of the other axes would take "
                f"{operator.pitch / finest:.3g}",
                stacklevel=2,
            )
        return operator

    def for_volume(self, volume) -> ThroughPlane:
        """The operator that samples this volume, (1, X, Y, Z) with its spacing; see `for_grid`."""
        return self.for_grid(tuple(volume.shape[1:]), tuple(volume.pixdim.tolist()))

    def for_scan(
        self,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float],
        stated: float = 0.0,
        stated_by: str = "the header",
        acquired: Mapping[str, object] | None = None,
    ) -> ThroughPlane:
        """The operator whose measurement is a thick scan of this shape and spacing (mm).

        `stated` is the thickness of slices (mm) that `stated_by` says, 0 for none; `thickness` and `gap` go before it.
        `acquired` is what the scan itself tells (interslice.physics.thick.as_acquired), for options that ask for that.

        Raises:
            ValueError: no axis is thick, or the ratio of its spacing to the fine one is out of range.
        """
        axis, acquired = self.thick_axis(spacing), acquired or {}
        pitch = spacing[axis]
        finest = min(s for a, s in enumerate(spacing) if a != axis)
        if self.in_plane == "measured" and (resolved := acquired.get("in_plane_resolution_mm")):
            finest = min(max(finest, min(resolved)), max(finest, pitch / MIN_RATIO))
        if pitch / finest > MAX_RATIO + SLACK:
            finest = pitch / MAX_RATIO
        fine = self.spacing or (pitch / self.ratio if self.ratio else finest)
        self._check_ratio(pitch / fine, f"slices {pitch:g} mm apart, to reconstruct at {fine:g} mm")
        thickness = self._thickness(pitch, stated, stated_by, acquired.get("thickness_estimated_mm"))
        length = (shape[axis] - 1) * pitch + thickness
        return self._build(shape, spacing, axis, math.ceil(length / fine - EDGE), fine, shape[axis], pitch, thickness)

    def for_grid(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> ThroughPlane:
        """The operator that samples a fine volume of this shape and spacing (mm) every `ratio` voxels.

        The domain ends with the last whole thick slice: crop the volume to `domain_shape`. With axis "auto" the
        slices are stacked along axis 2.

        Raises:
            ValueError: the volume is thinner than two thick slices, or `spacing` is not the volume's.
        """
        axis = 2 if self.axis == "auto" else self.axis
        fine = spacing[axis]
        if self.spacing is not None and not math.isclose(self.spacing, fine, rel_tol=1e-3):
            raise ValueError(
                f"a simulated scan is reconstructed on the volume's own grid, {fine:g} mm along axis {axis}, and not "
                f"at a spacing of {self.spacing:g} mm: leave the spacing alone, and set the ratio"
            )
        pitch = (self.ratio or RATIO) * fine
        thickness = self._thickness(pitch)
        length = shape[axis] * fine
        num_thick = math.floor((length - thickness + EDGE * fine) / pitch) + 1
        if num_thick < 2:
            raise ValueError(
                f"the volume is {length:g} mm thick along axis {axis}, less than two slices of {thickness:g} mm, "
                f"{pitch:g} mm apart, that a simulated scan has at least: lower the ratio ({pitch / fine:g}) or the "
                "thickness, or set another axis"
            )
        num_fine = math.ceil(((num_thick - 1) * pitch + thickness) / fine - EDGE)
        return self._build(shape, spacing, axis, num_fine, fine, num_thick, pitch, thickness)

    def _build(self, shape, spacing, axis, num_fine, fine, num_thick, pitch, thickness) -> ThroughPlane:
        weights = slice_weights(num_fine, fine, num_thick, pitch, thickness, self.profile)
        domain, voxel_size = list(shape), list(spacing)
        domain[axis], voxel_size[axis] = num_fine, fine
        return ThroughPlane(tuple(domain), axis, weights, fine, pitch, thickness, voxel_size)

    def _thickness(
        self, pitch: float, stated: float = 0.0, stated_by: str = "", estimated: float | None = None
    ) -> float:
        if self.thickness == ESTIMATE and estimated:
            return estimated
        if self.thickness in (None, ESTIMATE) and self.gap is None and isinstance(self.profile, Table):
            if not pitch / MAX_RATIO <= self.profile.width <= MAX_OVERLAP * pitch:
                raise ValueError(
                    f"the profile is {self.profile.width:.3g} mm wide at half maximum, and slices {pitch:g} mm apart "
                    f"can have {pitch / MAX_RATIO:g} to {MAX_OVERLAP * pitch:g} mm: are its depths in mm?"
                )
            return self.profile.width
        if self.thickness in (None, ESTIMATE) and self.gap is None and stated:
            if not pitch / MAX_RATIO <= stated <= 2 * pitch:
                raise ValueError(
                    f"{stated_by} states slices {stated:g} mm thick, but they are {pitch:g} mm apart: set the "
                    "thickness in mm, --operator#thickness"
                )
            return stated
        given = self.thickness if self.thickness != ESTIMATE else None
        thickness = given if given is not None else pitch - (self.gap or 0.0)
        if not thickness > 0:
            raise ValueError(
                f"a gap of {self.gap:g} mm leaves no slice between centres {pitch:g} mm apart: lower the gap"
            )
        if thickness > MAX_OVERLAP * pitch:
            given = "" if self.gap is None else f" (gap {self.gap:g} mm)"
            raise ValueError(
                f"a thickness of {thickness:g} mm{given} is more than {MAX_OVERLAP:g} times the distance of the "
                f"slices, {pitch:g} mm: set thickness and gap in mm, as the scanner's protocol states them"
            )
        return thickness

    def thick_axis(self, spacing: tuple[float, float, float]) -> int:
        """The axis across the slices of a scan of this spacing (mm); raises ValueError where none is thick."""
        if self.axis != "auto":
            return self.axis
        thickest, others = max(spacing), sorted(spacing)[:2]
        if thickest < MIN_RATIO * others[1]:
            raise ValueError(
                f"no thick axis found: spacing {tuple(round(s, 3) for s in spacing)} mm, but the thick one must be at "
                f"least {MIN_RATIO} times the others; this scan needs no super-resolution, or set the axis"
            )
        return list(spacing).index(thickest)

    @staticmethod
    def _check_ratio(ratio: float, what: str = "ratio") -> None:
        if not isinstance(ratio, Real):
            raise UsageError(f"ratio must be a number from {MIN_RATIO} to {MAX_RATIO:g}, got {ratio!r}")
        if not MIN_RATIO - SLACK <= ratio <= MAX_RATIO + SLACK:
            raise UsageError(
                f"{what}: ratio {ratio:.3g} is outside {MIN_RATIO} to {MAX_RATIO:g}; set the spacing to reconstruct at"
            )


def _profile(profile: Profile) -> Profile:
    """One that is known by name, a table, or the table in a file."""
    if isinstance(profile, Table) or (isinstance(profile, str) and profile in PROFILES):
        return profile
    if not is_profile_file(profile):
        ends = ", ".join(SUFFIXES)
        raise UsageError(f"profile must be one of {', '.join(PROFILES)}, or a file ({ends}), got {profile!r}")
    try:
        return Table(*read_profile(profile))
    except ValueError as error:
        raise UsageError(f"{'' if 'profile:' in str(error) else f'profile: {profile}: '}{error}") from None
