"""Small volumes under headers that are written by hand, so that a test knows what they say."""

import numpy as np

SHAPE = (6, 5, 4)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def write_nrrd(path, **fields):
    """LPS, 1 x 1.5 x 2 mm from (-10, 20, 30); fields by their names with _ for a space; None leaves one out."""
    header = {
        "type": "float", "dimension": 3, "space": "left-posterior-superior", "sizes": "6 5 4",
        "space directions": "(1,0,0) (0,1.5,0) (0,0,2)", "kinds": "domain domain domain", "endian": "little",
        "encoding": "raw", "space origin": "(-10,20,30)",
    }  # fmt: skip
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}\n" for name, value in header.items() if value is not None]
    path.write_bytes(("NRRD0005\n" + "".join(lines) + "\n").encode() + VOXELS.tobytes("F"))
    return path


def write_mha(path, data="LOCAL", **fields):
    """LPS, 1 x 1.5 x 2 mm from (-10, 20, 30); None leaves a field out."""
    header = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": True, "BinaryDataByteOrderMSB": False, "CompressedData": False,
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-10 20 30", "AnatomicalOrientation": "RAI",
        "ElementSpacing": "1 1.5 2", "DimSize": "6 5 4", "ElementType": "MET_FLOAT",
    } | fields  # fmt: skip
    lines = [f"{name} = {value}\n" for name, value in header.items() if value is not None]
    path.write_bytes(("".join(lines) + f"ElementDataFile = {data}\n").encode() + VOXELS.tobytes("F"))
    return path


def affine_of(steps=(1, 1.5, 2), origin=(-10, 20, 30), signs=(-1, -1, 1)):
    """(4, 4), RAS, of a grid along the axes of a space whose coordinates have these signs."""
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = origin
    return np.diag([*signs, 1.0]) @ affine
