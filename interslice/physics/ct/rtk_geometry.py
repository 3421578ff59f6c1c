"""Geometry files of the Reconstruction Toolkit (RTK, openrtk.org): cone-beam trajectories in XML, view by view.

RTK turns about the world's y axis: with the scanner frame (x, y, z) of interslice.physics.ct.geometry,

    (X, Y, Z) of RTK = (x, z, -y),      the same gantry, out-of-plane and in-plane angles

and RTK's world is ITK's (LPS), so that RAS+ world coordinates are (-x, -z, -y). A detector element of the image has
the coordinates origin + index * spacing on the detector, to which a view adds its ProjectionOffsetX and Y. A
cylindrical detector of RadiusCylindricalDetector has its axis along the rows' direction, at that distance before the
middle.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from interslice.files.limits import check_text
from interslice.files.scan import Refusal
from interslice.files.xml_text import parse_xml
from interslice.physics.ct.geometry import ScanGeometry

RAS_FROM_SCANNER = ((-1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0), (0.0, -1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
FIELDS = {
    "SourceToIsocenterDistance": "source_to_isocenter",
    "SourceToDetectorDistance": "source_to_detector",
    "ProjectionOffsetX": "column_offset",
    "ProjectionOffsetY": "row_offset",
    "SourceOffsetX": "source_column_offset",
    "SourceOffsetY": "source_row_offset",
    "OutOfPlaneAngle": "out_of_plane_angle",
    "InPlaneAngle": "in_plane_angle",
}
RADIUS = "RadiusCylindricalDetector"


def read_rtk_geometry(
    path: str | Path, size: tuple[int, int], spacing: tuple[float, float], origin: tuple[float, float]
) -> ScanGeometry:
    """Read an RTK geometry file for projections of `size` (columns, rows), with their spacing and origin in mm.

    Raises:
        ValueError: not an RTK geometry, a missing or damaged value, or detectors of several curvatures.
    """
    path = Path(path)
    try:
        check_text(path)
        root = parse_xml(path.read_bytes())
    except Refusal:
        raise
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise Refusal(f"{path.name} is not XML: {error}") from None
    if root.tag != "RTKThreeDCircularGeometry":
        raise Refusal(f"{path.name} is not an RTK geometry: its root is <{root.tag}>")
    common = _values(root, path)
    views = [{**common, **_values(p, path)} for p in root.findall("Projection")]
    if not views:
        raise Refusal(f"{path.name} describes no projection")
    radii = {v.get(RADIUS, 0.0) for v in views}
    if len(radii) > 1:
        raise Refusal(f"{path.name}: {RADIUS} is {sorted(radii)}; a scan has one detector, and one radius")
    for name in ("GantryAngle", "SourceToIsocenterDistance", "SourceToDetectorDistance"):
        if missing := [i for i, v in enumerate(views) if name not in v]:
            raise Refusal(f"{path.name}: projection {missing[0]} has no {name}")
    per_view = {ours: tuple(v.get(theirs, 0.0) for v in views) for theirs, ours in FIELDS.items()}
    for name, s, o, n in zip(("column_offset", "row_offset"), spacing, origin, size):
        middle = o + (n - 1) / 2 * s
        per_view[name] = tuple(value + middle for value in per_view[name])
    return ScanGeometry(
        beam="cone",
        angles=tuple(v["GantryAngle"] for v in views),
        num_columns=size[0],
        column_size=spacing[0],
        num_rows=size[1],
        row_size=spacing[1],
        world=RAS_FROM_SCANNER,
        detector="curved" if any(radii) else "flat",
        detector_radius=max(radii) if any(radii) else None,
        **{name: values[0] if len(set(values)) == 1 else values for name, values in per_view.items()},
    )


def _values(element: ElementTree.Element, path: Path) -> dict[str, float]:
    """The numbers directly below an element."""
    values = {}
    for child in element:
        if child.tag in (*FIELDS, RADIUS, "GantryAngle"):
            try:
                values[child.tag] = float(child.text)
            except (TypeError, ValueError):
                raise Refusal(f"{path.name}: {child.tag} is {child.text!r}, not a number") from None
    return values
