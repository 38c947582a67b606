"""Graded crops: the target of a crop is the distance that it still has to go."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tonewood.dsp.features import frame_levels
from tonewood.scorer.graded_crops import (
    MIN_CROPS,
    GradedCropSource,
    WayPair,
    graded_target,
    synthetic_rows,
)
from tonewood.settings import BandSettings, SpectrumSettings

ROWS, FRAMES = 16, 20
BANDS, SPECTRUM = BandSettings(count=ROWS), SpectrumSettings()
TILT = torch.linspace(-8, 8, ROWS)[:, None]
# Constant over time, so that every crop of the way is known.
START = (torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(1)) - 40).expand(-1, 50)
WAY: WayPair = (START.numpy(), (START + TILT).numpy())
COUNT = 80
FOLDER, FOREIGN = COUNT // 5, COUNT // 8
WAYS, CHANGED = slice(2 * FOLDER, 3 * FOLDER), slice(3 * FOLDER, COUNT - FOREIGN)

distances = st.floats(0, 5)


@pytest.fixture(autouse=True)
def plain_crops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the constants out, which have a test of their own."""
    if "constant" not in request.node.name:
        monkeypatch.setattr(GradedCropSource, "_add_constants", lambda _, rows_db: rows_db)


def crop_source(
    pairs: list[WayPair] | None = None, seed: int = 0, state: Tensor | None = None
) -> GradedCropSource:
    """Return a source whose folders' crops are constants: -10 dB in the reference, -20 in the source."""
    generator = torch.Generator().manual_seed(seed)
    if state is not None:
        generator.set_state(state)
    return GradedCropSource(
        draw_reference=lambda count: torch.full((count, ROWS, FRAMES), -10.0),
        draw_source=lambda count: torch.full((count, ROWS, FRAMES), -20.0),
        pairs=pairs or [WAY],
        bands=BANDS,
        spectrum=SPECTRUM,
        frames=FRAMES,
        generator=generator,
        seed=seed,
    )


def distance_db(change_db: Tensor) -> float:
    """Return the RMS over rows of changes [row, frame], without their overall level, mean over frames."""
    rows: list[list[float]] = (change_db - change_db.mean()).T.tolist()
    return sum(math.sqrt(sum(gain**2 for gain in frame) / len(frame)) for frame in rows) / len(rows)


@given(distances, distances)
def test_target_grows_with_the_distance_and_stays_below_the_highest(one: float, two: float) -> None:
    near, far = sorted((one, two))
    targets = graded_target(torch.tensor([near, far], dtype=torch.float64))
    assert targets[1] < 0.98
    assert targets[0] <= targets[1]
    if far > near + 1e-6:
        assert targets[0] < targets[1]


@given(st.floats(0, 0.8))
def test_target_is_the_scaled_distance_up_to_the_bend(distance: float) -> None:
    target = graded_target(torch.tensor(distance, dtype=torch.float64))
    assert float(target) == pytest.approx(0.02 + 0.96 * distance, abs=1e-12)


def test_slope_of_target_is_continuous_at_the_bend() -> None:
    at = torch.tensor([0.8 - 1e-6, 0.8, 0.8 + 1e-6], dtype=torch.float64)
    assert graded_target(at).diff() / 1e-6 == pytest.approx([0.96, 0.96], abs=1e-4)


def test_order_of_far_sounds_is_kept_in_single_precision() -> None:
    targets = graded_target(torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]))
    assert (targets.diff() > 1e-6).all()


def test_crops_of_folders_have_the_targets_of_their_folder() -> None:
    crops = crop_source().draw(COUNT)
    assert crops.rows_db.shape == (COUNT, ROWS, FRAMES)
    assert crops.target.shape == (COUNT,)
    source, reference = slice(0, FOLDER), slice(FOLDER, 2 * FOLDER)
    assert (crops.rows_db[source] == -20).all()
    assert (crops.rows_db[reference] == -10).all()
    assert crops.target[source].tolist() == pytest.approx([float(graded_target(torch.tensor(1.0)))] * FOLDER)
    assert crops.target[reference].tolist() == pytest.approx([0.02] * FOLDER)


def test_crops_on_a_way_have_the_share_that_is_left() -> None:
    crops = crop_source().draw(COUNT)
    applied = ((crops.rows_db[WAYS] - START[:, :FRAMES]) / TILT).flatten(1)
    share = applied.mean(dim=1)
    torch.testing.assert_close(applied, share[:, None].expand_as(applied), atol=1e-4, rtol=0)
    assert share.min() < 0.2
    assert share.max() > 0.8
    torch.testing.assert_close(crops.target[WAYS], graded_target(1 - share), atol=1e-5, rtol=0)


@pytest.mark.parametrize("level_db", [0.0, 7.0])
def test_target_of_changed_crops_is_their_distance_from_the_end(level_db: float) -> None:
    """The overall level of a way does not count."""
    end = START + TILT + level_db
    crops = crop_source([(START.numpy(), end.numpy())]).draw(COUNT)
    whole = distance_db(TILT.expand(-1, FRAMES))
    expected = torch.tensor([distance_db(end[:, :FRAMES] - rows) / whole for rows in crops.rows_db[CHANGED]])
    torch.testing.assert_close(crops.target[CHANGED], graded_target(expected), atol=1e-5, rtol=0)
    # Some lie before the start, and some near the end.
    assert expected.max() > 1
    assert expected.min() < 0.5


def test_changed_crops_at_the_end_have_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradedCropSource, "_share_of_changed_crop", lambda _: 1.0)
    target = crop_source().draw(COUNT).target[CHANGED]
    assert (target > graded_target(torch.tensor(0.001))).all()
    assert target.median() > graded_target(torch.tensor(0.3))


def test_short_way_counts_half_as_long_as_usual() -> None:
    """Ways of 1 and 0.1 have a mean of 0.55, so the short one is 0.1 / 0.275 from its end at most."""
    short = START.numpy(), (START + 0.1 * TILT).numpy()
    crops = crop_source([WAY, short]).draw(COUNT)
    gain = (crops.rows_db[WAYS] - START[:, :FRAMES]) / TILT  # share of the long way
    left = (crops.target[WAYS] - 0.02) / 0.96
    straight = left < 0.8
    is_short = (gain.mean(dim=(1, 2)) <= 0.1) & straight
    assert is_short.any()
    expected = (0.1 - gain.mean(dim=(1, 2))) / 0.275
    torch.testing.assert_close(left[is_short], expected[is_short], atol=1e-4, rtol=0)


def test_pair_shorter_than_a_crop_is_repeated() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(ROWS, 7, generator=generator) - 40
    crops = crop_source([(start.numpy(), (start + TILT).numpy())]).draw(COUNT)
    for rows, target in zip(crops.rows_db[WAYS], crops.target[WAYS], strict=True):
        torch.testing.assert_close(rows[:, 7:], rows[:, :-7], atol=1e-4, rtol=0)
        assert 0.02 <= target < 0.98


def test_foreign_crops_have_the_target_of_two_ways() -> None:
    foreign = crop_source().draw(COUNT).target[-FOREIGN:]
    assert foreign.tolist() == pytest.approx([float(graded_target(torch.tensor(2.0)))] * FOREIGN)
    assert foreign.min() > 0.979


def test_constants_raise_the_lowest_rows_of_half_of_the_crops() -> None:
    rows = crop_source().draw(10 * COUNT).rows_db[: 2 * FOLDER * 10]  # those of the folders are constants
    raised = rows[:, :, 0] - rows[:, -1:, 0]
    # 0 Hz leaks into bands within the main lobe of a Hann window, 2 / 30 ms = 67 Hz; the rest hardly moves.
    assert 0.4 < float((raised[:, 0] > 1e-3).float().mean()) < 0.6
    assert float(raised[:, 4:].abs().max()) < 1.0


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(MIN_CROPS, 40))
def test_any_number_of_crops_has_every_kind(count: int) -> None:
    crops = crop_source().draw(count)
    assert crops.rows_db.shape == (count, ROWS, FRAMES)
    assert crops.rows_db.isfinite().all()
    assert crops.target[-1] == graded_target(torch.tensor(2.0))
    assert (crops.rows_db[0] == -20).all()
    assert (crops.target == graded_target(torch.tensor(0.0))).any()


def test_same_seed_draws_the_same_crops() -> None:
    draws = [crop_source(seed=seed).draw(COUNT) for seed in (0, 0, 1)]
    assert torch.equal(draws[0].rows_db, draws[1].rows_db)
    assert torch.equal(draws[0].target, draws[1].target)
    assert not torch.equal(draws[0].rows_db, draws[2].rows_db)


def test_drawing_continues_from_a_saved_random_state() -> None:
    """The synthetic sounds are drawn again in a resumed training, and must not move its random state."""
    whole = crop_source()
    whole.draw(COUNT)
    state = whole.generator.get_state()
    # Enough crops, of which one in 24 is synthetic.
    expected, resumed = whole.draw(4 * COUNT), crop_source(state=state).draw(4 * COUNT)
    assert any((rows == sound).all() for rows in expected.rows_db for sound in whole._synthetic_sounds)
    assert torch.equal(resumed.rows_db, expected.rows_db)
    assert torch.equal(resumed.target, expected.target)


def test_drawing_keeps_global_random_state() -> None:
    before = torch.random.get_rng_state()
    crop_source().draw(COUNT)
    assert torch.equal(before, torch.random.get_rng_state())


@given(st.integers(0, 2**31 - 1))
def test_synthetic_sounds_are_finite_and_depend_on_the_seed_alone(seed: int) -> None:
    first, again = (
        synthetic_rows(FRAMES, BANDS, SPECTRUM, torch.Generator().manual_seed(seed)) for _ in range(2)
    )
    assert first.shape == (ROWS, FRAMES)
    assert first.isfinite().all()
    assert torch.equal(first, again)


def test_synthetic_sounds_are_steady_or_moving_and_narrow_or_broad() -> None:
    generator = torch.Generator().manual_seed(0)
    sounds = [synthetic_rows(FRAMES, BANDS, SPECTRUM, generator) for _ in range(24)]
    means = torch.stack([rows.mean(dim=1) for rows in sounds])
    assert (torch.cdist(means, means) + 1e9 * torch.eye(24)).min() > 1
    level_spread, row_spread = (
        [float(values.std()) for values in each]
        for each in ([frame_levels(rows) for rows in sounds], [rows.mean(dim=1) for rows in sounds])
    )
    assert min(level_spread) < 0.1
    assert max(level_spread) > 20  # clicks
    assert min(row_spread) < 2  # noise
    assert max(row_spread) > 25  # sine tones
