"""The layout of k-space, found from where its energy lies: files seldom state it.

For the points k_j of an axis that was transformed, j counted from the centre at N // 2, of an image m_x with x counted
from the middle of the field of view,

    |k_j|^2                        is largest at j = 0, by orders of magnitude
    sum_j k_j conj(k_(j+1))  =  sum_x |m_x|^2 exp(2 pi i x / N)           (orthonormal transform; Wiener and Khinchin)

so the second sum is positive if the image lies in the middle and negative if it is shifted by half a field of view:
neighbouring points then have opposite signs. Both take measured points alone, and so hold for undersampled k-space. An
axis of coils or slices has neither property. Slices spread their energy and their transform gathers it; planes of 3-D
k-space gather it and their transform spreads it, which tells the two apart where the subject fills many slices. Few
bright slices gather it, too. But with a_j the image of slice j in one coil

    |sum_x a_i(x) conj(a_j(x))|  =  sum_x |a_i(x)| |a_j(x)|         for slices of one subject, whose phases agree

while the planes k_z of 3-D k-space, a transform along z for each x, have phases of their own in each x.
"""

from __future__ import annotations

import numpy as np

from interslice.files.scan import Refusal

PEAKED, PEAKED_IF_SPARSE = 10.0, 3.0
"""Times that the strongest position of a transformed axis has the energy of the median one, at least. Measured: 15 to
50 with noise of a tenth of the maximum, 1000 and more with usual noise; coils and slices 1 to 3. Where some are not
measured the others lie near the centre, and are more alike (5 and more); coils and slices lack none."""
NEAR = 1 / 16
"""Share of an axis within which its centre is expected."""
SPREAD = 0.1
"""What the second sum is, over the energy, for an image that fills nine tenths of the field of view."""
GATHERED = 1.5
"""How many times fewer planes of 3-D k-space share the energy than slices do, at least. Measured on heads: 1.6 for 4
slices, 4 for 12. It is 1 where the subject is so small that its slices gather the energy as much: nothing is said."""
AGREE = 0.9
"""Share of the second sum that the first one reaches for slices, at least. Measured: the least of two neighbours on
each side 0.99 for compact subjects, 0.2 to 0.8 for planes."""
BRIGHT = 0.1
"""Share of the largest product of two images from which it counts; below lies noise."""
LAYOUTS = ("auto", "as_stored", "three_d")
"""Found from the energy; as docs/how_to/kspace.md states; found, but for the third transform, which is done."""
FEW = 4
"""Fewer slices are not told from planes of 3-D k-space."""
EXPECTED = "(slices, coils, readout, phase)"


def with_coils_second(stored: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """k-space as (slices, coils, readout, phase), or (slices, readout, phase), and what was done to it, in words.

    Args:
        stored: 4-D or 3-D, complex.

    Raises:
        ValueError: energy says that other axes than the last two were transformed, in an order that is not known.
    """
    axes = [a for a in range(stored.ndim) if peak_of(stored, a) is not None]
    last_two = {stored.ndim - 2, stored.ndim - 1}
    if len(axes) < 2 or last_two <= set(axes):
        return stored, []
    sizes = " x ".join(map(str, stored.shape))
    if axes == [stored.ndim - 3, stored.ndim - 2]:
        said = (
            f"k-space of {sizes} has its energy along axes {axes[0]} and {axes[1]}, counted from 0: it is taken as "
            f"{'(slices, readout, phase, coils)' if stored.ndim == 4 else '(readout, phase, coils)'}, and the "
            f"{stored.shape[-1]} coils are moved; save it as {EXPECTED}"
        )
        stored = stored if stored.ndim == 4 else stored[None]
        return np.ascontiguousarray(np.moveaxis(stored, -1, 1)), [said]
    raise Refusal(
        f"k-space of {sizes} has its energy along axes {' and '.join(map(str, axes))}, counted from 0, and not along "
        f"the last two: bring its axes into the order {EXPECTED}"
    )


def centred(
    kspace: np.ndarray, mask: np.ndarray | None, layout: str = "auto"
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """k-space with its centre at N // 2 and its image in the middle, its mask, and what was done to them, in words.

    Args:
        kspace: (C, Z, KY, KX), complex.
        mask: (KY, KX) or (Z, KY, KX), or None.
        layout: "auto", or "three_d" for k-space that is known to be 3-D.

    Raises:
        ValueError: 3-D k-space that is undersampled along the third axis.
    """
    said = []
    corner = [a for a in (-2, -1) if peak_of(kspace, a) == 0]
    if corner:
        kspace = np.fft.fftshift(kspace, corner)
        moved = [a for a in corner if mask is not None and starts_at_zero(mask, a)]
        mask = np.fft.fftshift(mask, moved) if moved else mask
        said.append(f"the centre of k-space is at index 0 {along(corner)}, and is moved to N // 2 (fftshift)")
    strayed = {a: p for a in (-2, -1) if (p := peak_of(kspace, a)) is not None and p != kspace.shape[a] // 2}
    if strayed:
        places = " and ".join(f"{p} of {kspace.shape[a]} {along([a])}" for a, p in strayed.items())
        said.append(
            f"the energy of k-space is largest at index {places}: the centre is expected at N // 2; is a part of "
            "k-space missing? Fill it up with 0"
        )
    gathered = layout == "auto" and gathers_energy(kspace)
    if gathered and slices_agree(kspace):
        said.append(
            "a few slices hold the energy, as planes of 3-D k-space do, and look like slices of one subject: they are "
            "taken for slices; set --read#0#layout three_d if k-space is 3-D, and as_stored if not"
        )
    elif gathered or layout == "three_d":
        kspace, more = third_transform(kspace, mask)
        said += more
    shifted = [a for a in (-2, -1) if is_shifted(kspace, a)]
    if shifted:
        kspace = with_image_shifted(kspace, shifted)
        said.append(
            f"the image is shifted by half a field of view {along(shifted)}, as by a transform without ifftshift "
            "before it, and is moved back to the middle"
        )
    return kspace, mask, said


def along(axes: list[int]) -> str:
    return "along " + " and ".join({-3: "the slices", -2: "readout", -1: "phase"}[a] for a in axes)


def peak_of(kspace: np.ndarray, axis: int) -> int | None:
    """Index of the centre of k-space along an axis: 0 or N // 2 if near them; None if the axis was not transformed."""
    energy = energy_along(kspace, axis)
    measured = energy[energy > 0]
    least = PEAKED if len(measured) == len(energy) else PEAKED_IF_SPARSE
    if len(measured) < FEW or not energy.max() > least * np.median(measured):
        return None
    size, peak = len(energy), int(energy.argmax())
    for expected in (size // 2, 0):
        away = abs(peak - expected)
        if min(away, size - away) <= max(1, NEAR * size):
            return expected
    return peak


def starts_at_zero(mask: np.ndarray, axis: int) -> bool:
    """Whether a mask, too, has its complete centre at index 0 of an axis, and not at N // 2."""
    lines = mask.any(tuple(a for a in range(mask.ndim) if a != axis % mask.ndim))
    middle = len(lines) // 2
    return bool(lines[[-1, 0, 1]].all() and not lines[middle - 1 : middle + 2].all())


def energy_along(kspace: np.ndarray, axis: int) -> np.ndarray:
    """Energy at each position of an axis; no copy of k-space is made."""
    axes = list(range(kspace.ndim))
    return sum(
        np.einsum(part, axes, part, axes, [axis % kspace.ndim], dtype=np.float64) for part in (kspace.real, kspace.imag)
    )


def neighbours(kspace: np.ndarray, axis: int) -> tuple[complex, float, int]:
    """sum k_j conj(k_(j+1)) over neighbours that were both measured, their mean energy, and their number."""
    total, energy, count = 0j, 0.0, 0
    for coil in kspace:
        lines = np.moveaxis(coil, axis if axis < 0 else axis - 1, 0)
        both = (lines[:-1] != 0) & (lines[1:] != 0)
        one, other = lines[:-1][both], lines[1:][both]
        total += complex(np.vdot(other, one))
        energy += float(np.vdot(one, one).real + np.vdot(other, other).real) / 2
        count += len(one)
    return total, energy, count


def is_shifted(kspace: np.ndarray, axis: int) -> bool:
    """Whether the image is nearer to the border of the field of view than to its middle, by all that is known."""
    total, energy, count = neighbours(kspace, axis)
    # Noise alone gives energy / sqrt(count).
    known = abs(total) > energy * max(SPREAD, 5 / np.sqrt(max(count, 1)))
    return bool(known and abs(np.angle(total)) > 3 * np.pi / 4)


def with_image_shifted(kspace: np.ndarray, axes: list[int]) -> np.ndarray:
    """k-space, its centre at N // 2, of the image whose first voxel is moved to N // 2."""
    for axis in axes:
        size = kspace.shape[axis]
        k = np.arange(size) - size // 2
        phase = np.exp(2j * np.pi * k * (size // 2) / size).astype(np.complex64)
        kspace = kspace * phase.reshape([-1 if a == axis % kspace.ndim else 1 for a in range(kspace.ndim)])
    return kspace


def gathers_energy(kspace: np.ndarray) -> bool:
    """Whether few slices, the middle or the first one the strongest, hold energy that their transform spreads out."""
    slices = kspace.shape[1]
    energy = energy_along(kspace, 1)
    peak = int(energy.argmax())
    if slices < FEW or peak not in (0, slices // 2):
        return False
    transformed = sum(energy_along(np.fft.ifft(coil[None], axis=1), 1) for coil in kspace)
    # A bright slice among empty ones gathers energy, too; but what lies beside it is noise.
    structured = all(is_structured(kspace[:, [i % slices]]) for i in (peak - 1, peak + 1))
    return structured and GATHERED * sharing(energy) < sharing(transformed)


def is_structured(plane: np.ndarray) -> bool:
    """Whether (C, 1, KY, KX) holds more than noise: its energy has a peak."""
    return any(peak_of(plane, a) is not None for a in (-2, -1))


def slices_agree(kspace: np.ndarray) -> bool:
    """Whether the strongest of (C, Z, KY, KX) and those beside it, as far as they hold more than noise, are slices."""
    slices = kspace.shape[1]
    peak = int(energy_along(kspace, 1).argmax())
    beside = [kspace[:, [(peak + i) % slices]] for i in (-2, -1, 1, 2)]
    return all(agreement(kspace[:, peak], plane[:, 0]) >= AGREE for plane in beside if is_structured(plane))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Of the phases of two planes (C, KY, KX): 1 for slices of one subject.

    By the inner half of what both measured, under a cosine window: there is the least noise.
    """
    both = (one != 0) & (other != 0)
    inner = tuple(slice(n // 4, n - n // 4) for n in one.shape[-2:])
    rows, columns = (np.hanning(n + 2)[1:-1] for n in both[:, *inner].shape[-2:])
    a, b = (np.fft.ifft2((k * both)[:, *inner] * rows[:, None] * columns) for k in (one, other))
    product = a * b.conj()
    size = np.abs(product)
    counts = size > BRIGHT * size.max()
    return float(np.abs(product[counts].sum()) / max(size[counts].sum(), np.finfo(np.float32).tiny))


def sharing(energy: np.ndarray) -> float:
    """How many positions share the energy: 1 if one has it all, N if all have the same."""
    return float(energy.sum() ** 2 / max(np.square(energy).sum(), np.finfo(np.float32).tiny))


def third_transform(kspace: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """Slices (C, Z, KY, KX) of 3-D k-space."""
    measured = (kspace != 0).any(0) if mask is None else np.broadcast_to(mask, kspace.shape[1:])
    if not (measured == measured[0]).all():
        raise Refusal(
            "k-space is 3-D and undersampled along its third axis: reconstruct it along that axis, or save 2-D "
            "slices; if it is not 3-D, set --read#0#layout as_stored"
        )
    said = [
        "k-space is 3-D: its third transform, along the slices, is done here; if it is not 3-D, set "
        "--read#0#layout as_stored"
    ]
    if energy_along(kspace, 1).argmax() == 0:
        kspace = np.fft.fftshift(kspace, 1)
    if is_shifted(kspace, 1):
        kspace = with_image_shifted(kspace, [1])
        said.append(f"the volume is shifted by half its extent {along([-3])}, and is moved back to the middle")
    slices = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, 1), axis=1, norm="ortho"), 1)
    return slices.astype(np.complex64), said
