"""Bodies: the seed decides them, air and water keep their values, and a change of voxel size moves nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.data import synthesise_bodies
from scripts.data.synthesise_bodies import AIR, MIN_SLICES, SOFT_TISSUE, BodySynthesiser, pieces, resample
from tests.support.helpers import normal, repeatable

SHAPE = (22, 18, 30)


def ball(shape=SHAPE, level=40.0):
    """A ball of tissue with texture, a bone in it, air around them."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = grid.square().sum(0).sqrt()
    volume = torch.where(radius < 0.9, level + 10 * normal(*shape), AIR)
    return torch.where(radius < 0.3, 800.0, volume)


def checkerboard(side):
    return torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij")).sum(0) % 2 * 2.0 - 1


# -- bodies ---------------------------------------------------------------------------------------
def test_the_seed_alone_decides_the_body():
    volumes, spacings = [ball(), ball(level=60.0)], [1.5, 2.0]
    before = [v.clone() for v in volumes]
    draw = BodySynthesiser(volumes, spacings)
    body, spacing = draw(3)
    torch.manual_seed(1)
    others = [draw(seed)[0] for seed in (4, 5)]
    assert not any(o.shape == body.shape and torch.equal(o, body) for o in others)
    for again in (draw(3), BodySynthesiser(before, spacings)(3)):
        assert torch.equal(again[0], body) and again[1] == spacing
    assert all(map(torch.equal, volumes, before))  # the sources are left as they are


def test_nothing_but_air_stays_nothing_but_air():
    draw = BodySynthesiser([torch.full(SHAPE, AIR)], [1.5])
    for seed in range(6):
        torch.testing.assert_close(draw(seed)[0], torch.full_like(draw(seed)[0], AIR), atol=1, rtol=0)


def test_a_body_has_no_value_that_its_volume_lacks_but_for_contrast():
    """Interpolation, blur and air from outside stay within the volume's range; the gain is at most 1.2."""
    volume = ball()
    top = SOFT_TISSUE + 1.2 * (volume.max() - SOFT_TISSUE)
    for seed in range(8):
        body, _ = BodySynthesiser([volume], [1.5])(seed)
        assert body.min() >= AIR - 1e-2 and body.max() <= top + 1e-2
        assert torch.isfinite(body).all() and (body > 0).float().mean() > 0.05


@pytest.mark.parametrize("seed", range(6))
def test_contrast_changes_bone_and_keeps_air_water_and_the_order_of_tissues(monkeypatch, seed):
    """Without deformation or change of voxel size, each value of the volume becomes one value of the body."""
    monkeypatch.setattr(synthesise_bodies, "displacement", lambda rng, shape, *_: torch.zeros(3, *shape))
    levels = torch.tensor([-1000.0, -500, -100, 0, 40, 80, 81, 200, 700, 3000])
    volume = levels.repeat_interleave(3)[None, None].expand(6, 6, 30)
    body, spacing = BodySynthesiser([volume], [3.0])(seed)
    body = body[2, 3]
    volume = volume[0, 0, 2:-2]  # the ends are cut off
    assert spacing == 3.0 and body.shape == volume.shape
    soft = volume <= SOFT_TISSUE
    torch.testing.assert_close(body[soft], volume[soft], atol=1e-2, rtol=0)
    gain = (body[~soft] - SOFT_TISSUE) / (volume[~soft] - SOFT_TISSUE)
    assert 0.6 - 1e-3 <= gain.min() <= gain.max() <= 1.2 + 1e-3
    steps = body.diff()[volume.diff() > 0]
    assert len(steps) == 9 and (steps > 0).all()  # no two tissues swap or merge


def test_contrast_is_stretched_in_some_bodies_and_shrunk_in_others(monkeypatch):
    monkeypatch.setattr(synthesise_bodies, "displacement", lambda rng, shape, *_: torch.zeros(3, *shape))
    draw = BodySynthesiser([torch.full((4, 4, 24), 580.0)], [3.0])
    peaks = [float(draw(seed)[0].max()) for seed in range(12)]
    assert min(peaks) < 500 and max(peaks) > 580


def test_bodies_are_shown_both_ways_round(monkeypatch):
    monkeypatch.setattr(synthesise_bodies, "displacement", lambda rng, shape, *_: torch.zeros(3, *shape))
    volume = torch.full((6, 4, 24), 10.0)
    volume[:3] = 50
    draw = BodySynthesiser([volume], [3.0])
    assert {round(float(draw(seed)[0][0, 0, 0])) for seed in range(8)} == {10, 50}


def test_voxel_sizes_lie_between_the_volumes_own_and_the_coarsest_and_the_extent_is_kept():
    drawn = [BodySynthesiser([ball()], [1.5], 2.5)(seed) for seed in range(12)]
    spacings = [spacing for _, spacing in drawn]
    assert 1.5 <= min(spacings) < 1.8 and 2.2 < max(spacings) < 2.5
    for body, spacing in drawn:
        for n, m in zip(SHAPE[:2], body.shape):
            assert 0 <= n * 1.5 - m * spacing < spacing


@pytest.mark.parametrize("coarsest", [2.0, 3.0])
def test_a_volume_that_is_coarse_already_keeps_its_voxel_size(coarsest):
    body, spacing = BodySynthesiser([ball()], [3.0], coarsest)(0)
    assert spacing == 3.0 and body.shape[:2] == SHAPE[:2]


def test_large_pieces_are_drawn_more_often():
    """In proportion to their voxels: 3 of 4."""
    small, large = torch.full((6, 6, 24), 10.0), torch.full((6, 6, 72), 50.0)
    draw = BodySynthesiser([small, large], [3.0, 3.0])
    assert 60 <= sum(draw(seed)[0].max() > 30 for seed in range(100)) <= 90


def test_each_volume_needs_a_spacing():
    with pytest.raises(ValueError, match="one spacing per volume, got 2 volumes, 1 spacings"):
        BodySynthesiser([ball(), ball()], [1.5])
    with pytest.raises(ValueError, match="one spacing per volume, got 0 volumes, 0 spacings"):
        BodySynthesiser([], [])


# -- pieces ---------------------------------------------------------------------------------------
def counted(slices):
    """A volume whose values are the numbers of its slices."""
    return torch.arange(float(slices)).expand(2, 2, slices)


def slices_of(piece):
    return [int(v) for v in piece[0, 0]]


@pytest.mark.parametrize("margin", [0, 4, 7])
def test_the_kept_slab_and_a_margin_on_each_side_are_missing_from_the_rest(margin):
    rest, kept = pieces(counted(120), (40, 72), margin)
    assert slices_of(kept) == list(range(40, 72))
    assert [slices_of(p) for p in rest] == [list(range(40 - margin)), list(range(72 + margin, 120))]


def test_the_margin_is_four_slices_unless_told():
    assert [slices_of(p) for p in pieces(counted(120), (40, 72))[0]] == [list(range(36)), list(range(76, 120))]


def test_without_a_kept_slab_the_volume_is_one_piece():
    volume = counted(30)
    rest, kept = pieces(volume, None)
    assert len(rest) == 1 and torch.equal(rest[0], volume) and kept is None


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ((MIN_SLICES + 4, 60), [0]),  # just thick enough
        ((MIN_SLICES + 3, 60), []),  # one slice short
        ((0, 32), [36]),  # nothing below it
        ((3, 32), [36]),  # less than the margin below it
        ((20, 80 - 4 - MIN_SLICES), [80 - MIN_SLICES]),
        ((20, 80), []),  # nothing above it
    ],
)
def test_thin_pieces_are_dropped(kept, left):
    rest, slab = pieces(counted(80), kept)
    assert [slices_of(p)[0] for p in rest] == left
    assert all(p.shape[2] >= MIN_SLICES for p in rest)
    assert slices_of(slab) == list(range(*kept))


@pytest.mark.parametrize("kept", [(-32, 10), (70, 102), (80, 112), (50, 50), (50, 40)])
def test_a_kept_slab_that_is_not_in_the_volume_is_refused(kept):
    """Else a typing error would leave the validation volumes empty, or in training."""
    with pytest.raises(ValueError, match="slices"):
        pieces(counted(80), kept)


# -- voxel sizes ----------------------------------------------------------------------------------
@pytest.mark.parametrize("new", [0.9, 1.5, 1.9, 2.75, 6.0])
@pytest.mark.parametrize("value", [AIR, 40.0])
def test_a_constant_volume_stays_constant_up_to_its_border(new, value):
    resampled = resample(torch.full((12, 10, 14), value), 1.5, new)
    torch.testing.assert_close(resampled, torch.full_like(resampled, value), atol=0.5, rtol=0)


def test_the_same_voxel_size_changes_nothing():
    volume = ball()
    torch.testing.assert_close(resample(volume, 1.7, 1.7), volume, atol=1e-2, rtol=0)


@pytest.mark.parametrize("new", [0.8, 1.1, 2.0, 2.75])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_keeps_its_place(new, axis):
    """Its value is the distance in mm from the first corner, at the centre of each voxel, before and after."""
    shape, spacing = (20, 24, 28), 1.5
    ramp = ((torch.arange(shape[axis]) + 0.5) * spacing).view([-1 if a == axis else 1 for a in range(3)]).expand(shape)
    resampled = resample(ramp, spacing, new)
    assert resampled.shape == tuple(int(n * spacing / new) for n in shape)
    inner = resampled[4:-4, 4:-4, 4:-4].movedim(axis, 0)  # the blur knows nothing of what is outside
    expected = ((torch.arange(resampled.shape[axis]) + 0.5) * new)[4:-4, None, None].expand_as(inner)
    torch.testing.assert_close(inner, expected, atol=2e-3, rtol=1e-4)


@repeatable
@given(spacing=st.floats(0.5, 3.0), new=st.floats(0.5, 3.0), n=st.integers(4, 12))
def test_the_new_grid_covers_the_old_one_to_within_a_voxel(spacing, new, n):
    m = resample(torch.zeros(n, 4, 6), spacing, new).shape[0]
    assert -1e-3 < n * spacing - m * new < new + 1e-3


@pytest.mark.parametrize("new", [1.0, 2.25, 3.0, 4.5])
def test_the_mean_is_kept(new):
    """Of a smooth ball in empty space, on grids that fit a whole number of times."""
    radius = torch.stack(torch.meshgrid(*[torch.arange(36) - 16.0] * 3, indexing="ij")).norm(dim=0)
    volume = 100 * torch.exp(-radius.square() / 50)
    torch.testing.assert_close(resample(volume, 1.5, new).mean(), volume.mean(), rtol=5e-3, atol=0)


@pytest.mark.parametrize("ratio", [3, 5])
def test_coarsening_blurs_what_the_coarse_grid_cannot_hold(ratio):
    """Every new voxel's centre is that of an old one: without the blur, the checkerboard would keep its contrast."""
    board = checkerboard(5 * ratio)
    assert board[ratio // 2 :: ratio, 0, 0].abs().min() == 1
    inner = resample(board, 1.0, ratio)[1:-1, 1:-1, 1:-1]
    assert inner.numel() == 27 and inner.abs().max() < 0.05


def test_a_little_coarser_is_blurred_a_little():
    """The contrast of stripes, one voxel wide, falls steadily with the voxel size, and not by interpolation alone."""
    stripes = (torch.arange(60) % 2 * 2.0 - 1)[:, None, None].expand(60, 16, 16)
    contrasts = [float(resample(stripes, 1.0, new)[4:-4, 3:-3, 3:-3].std()) for new in (1.0, 1.2, 1.5, 1.8)]
    assert contrasts[0] == pytest.approx(1, abs=0.02) and contrasts == sorted(contrasts, reverse=True)
    assert contrasts[-1] < 0.15  # interpolation at all phases would leave 1/sqrt(3)


@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_the_blur_adds_to_the_width_in_quadrature(ratio):
    """A Gaussian of 0.42 voxels (half maximum one voxel wide) grows from fine voxels to coarse ones."""
    position, width = torch.arange(72) - 35.5, 5.0
    blob = torch.exp(-(position**2) / (2 * width**2))
    blob = blob[:, None, None] * blob[:, None] * blob
    profile = resample(blob, 1.0, ratio).sum((1, 2))
    x = (torch.arange(len(profile)) + 0.5) * ratio - 36
    variance = float((profile * x**2).sum() / profile.sum() - ((profile * x).sum() / profile.sum()) ** 2)
    # Within the width that averaging over a voxel and interpolation between two may add.
    assert 0 <= variance - width**2 - 0.42**2 * (ratio**2 - 1) < 0.4


def test_a_finer_grid_is_not_blurred():
    board = checkerboard(8)
    torch.testing.assert_close(resample(board, 1.5, 0.5)[1::3, 1::3, 1::3], board, atol=1e-3, rtol=0)
