"""Rigid motions as six numbers about a centre c.

T(p) = R(w) (p - c) + c + s            w: rotation vector, degrees; s: shift, mm; in this order (w, s)
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation


def rigid(numbers: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """The motion (4, 4) float64 of six numbers."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.from_rotvec(numbers[:3].numpy(), degrees=True).as_matrix())
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + numbers[3:]
    return matrix


def numbers_of(matrix: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """The six numbers of a rigid motion (4, 4), the inverse of `rigid`."""
    turn = Rotation.from_matrix(np.asarray(matrix[:3, :3])).as_rotvec(degrees=True)
    return torch.cat([torch.from_numpy(turn), matrix[:3, :3] @ centre + matrix[:3, 3] - centre])


def angle_of(matrix: torch.Tensor) -> float:
    """Degrees by which a motion turns."""
    return float(np.degrees(Rotation.from_matrix(np.asarray(matrix[:3, :3])).magnitude()))


def is_rigid(matrix: torch.Tensor, tolerance: float = 1e-4) -> bool:
    """Whether a (4, 4) turns and shifts, and neither mirrors nor stretches."""
    turn = matrix[:3, :3]
    last = matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    straight = torch.allclose(turn @ turn.mT, torch.eye(3, dtype=turn.dtype), atol=tolerance)
    return straight and float(torch.linalg.det(turn)) > 0 and torch.allclose(matrix[3], last, atol=tolerance)
