"""Do neighbouring slices move together while they are sampled? Their paths as points, and a plane to draw them in.

Paths are (S, K, P): S neighbouring slices at K steps, vectors of P pixels. Anatomy holds the paths of two slices apart
all the time, so what is compared is how they move: each path less its mean over the steps,

    m_ik = p_ik - mean_k p_ik

    agreement = mean over i of  <m_i, m_i+1> / (|m_i| |m_i+1|)     1: neighbours move as one; 0: each for itself
    distance  = mean over i, k of  |m_ik - m_i+1,k| / sqrt(P)      of neighbours' moves, in units of the voxel values

Both are taken in the full space. The plane is that of the two largest principal components of all m_ik.
"""

from __future__ import annotations

import numpy as np


def moves(paths: np.ndarray) -> np.ndarray:
    """(S, K, P): each path less its mean over the steps, float64."""
    paths = np.asarray(paths, dtype=np.float64)
    return paths - paths.mean(1, keepdims=True)


def agreement(paths: np.ndarray) -> float:
    """Mean cosine between the moves of neighbouring slices, -1 to 1; NaN if fewer than two slices move."""
    m = moves(paths).reshape(len(paths), -1)
    lengths = np.linalg.norm(m, axis=1)
    products, scales = (m[:-1] * m[1:]).sum(1), lengths[:-1] * lengths[1:]
    moving = scales > 0
    return float((products[moving] / scales[moving]).mean()) if moving.any() else float("nan")


def distance(paths: np.ndarray) -> float:
    """Mean root-mean-square difference between the moves of neighbouring slices at the same step."""
    if len(paths) < 2:
        return float("nan")
    return float(np.sqrt(np.square(np.diff(moves(paths), axis=0)).mean(2)).mean())


def in_plane(paths: np.ndarray) -> tuple[np.ndarray, float]:
    """Moves (S, K, 2) in the plane of their two principal components, and the share of the variance that this shows.

    In units of the voxel values: a distance in the plane is at most the root-mean-square difference of the slices.
    Signs are such that the slices' mean begins to the left and above.
    """
    m = moves(paths)
    count, steps, pixels = m.shape
    u, s, _ = np.linalg.svd(m.reshape(-1, pixels) / np.sqrt(pixels), full_matrices=False)
    points = np.zeros((count, steps, 2))
    points[..., : len(s)] = (u * s)[:, :2].reshape(count, steps, -1)
    points *= np.where(points[:, 0].mean(0) * (-1, 1) < 0, -1, 1)
    total = float(np.square(s).sum())
    return points, float(np.square(s[:2]).sum()) / total if total > 0 else float("nan")
