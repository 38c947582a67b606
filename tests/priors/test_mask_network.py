"""The mask network, on pairs with a known rule."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tonewood.priors.nearest_neighbours import Codebook, FolderStatistics, PriorFeatures
from tonewood.priors.network_training import PseudoPair, draw_initial_weights, train_mask_network
from tonewood.priors.predictor import MaskNetwork, mask_network_shapes
from tonewood.settings import NetworkSettings

ROWS, COMPONENTS, FRAMES = 12, 3, 120
STATIC = np.zeros(ROWS, np.float32)
TILT = np.linspace(-6, 6, ROWS, dtype=np.float32)[:, None]
AUDIBLE = np.ones(FRAMES, dtype=bool)
ACTIVITY = np.ones(FRAMES, np.float32)


def folder(fine_mean: float = 0.0) -> FolderStatistics:
    """Return a folder whose first component is the first of 144 pitch rows."""
    key = noise(torch.Generator().manual_seed(0), 20, ROWS + COMPONENTS)
    book = Codebook(key, np.zeros((20, ROWS), np.float32), np.zeros(20, np.int64))
    pitches = np.eye(144, dtype=np.float32)
    return FolderStatistics(STATIC, np.float32(fine_mean) * pitches[0], pitches[:, :COMPONENTS], book)


def noise(generator: torch.Generator, *shape: int) -> NDArray[np.float32]:
    return torch.randn(*shape, generator=generator).numpy()


def untrained() -> MaskNetwork:
    settings = NetworkSettings(width=8)
    shapes = mask_network_shapes(ROWS, COMPONENTS, settings)
    weights = draw_initial_weights(shapes, torch.Generator())
    return MaskNetwork(settings, weights | {"fine_scale": torch.ones(())}).as_arrays()


def pairs(count: int, seed: int) -> list[PseudoPair]:
    """Return takes whose target mask is minus each row's level, so that the rest of it is the same rule."""
    generator = torch.Generator().manual_seed(seed)
    results = []
    for _ in range(count):
        rows = 6 * noise(generator, ROWS, FRAMES)
        fine = noise(generator, COMPONENTS, FRAMES)
        results.append(PseudoPair(PriorFeatures(rows, fine, AUDIBLE, ACTIVITY), -rows))
    return results


def train(training: list[PseudoPair], settings: NetworkSettings, seed: int) -> MaskNetwork:
    generator = torch.Generator().manual_seed(seed)
    return train_mask_network(training, (folder(), folder()), STATIC, settings, generator)


def test_untrained_network_gives_zero_gain() -> None:
    [pair] = pairs(1, 1)
    assert np.array_equal(untrained().predict_gain(pair.features), np.zeros((ROWS, FRAMES)))


def test_network_learns_a_common_rule() -> None:
    settings = NetworkSettings(width=32, kernel=3, steps=150)
    network = train(pairs(6, 2), settings, seed=3)
    [held_out] = pairs(1, 9)
    error = network.predict_gain(held_out.features) - held_out.gain_db
    assert np.square(error).mean() < 0.4**2 * np.square(held_out.gain_db).mean()


def tilted_pair(seed: int) -> PseudoPair:
    """Return noise under a tilt, whose mask is the opposite tilt: half of it is static."""
    rows = noise(torch.Generator().manual_seed(seed), ROWS, FRAMES) - TILT
    features = PriorFeatures(rows, np.zeros((COMPONENTS, FRAMES), np.float32), AUDIBLE, ACTIVITY)
    return PseudoPair(features, np.repeat(TILT / 2, FRAMES, axis=1))


@pytest.fixture(scope="module")
def tilt_network() -> MaskNetwork:
    """Return a network of tilted pairs; pitches of the target are 3 above those of the origin."""
    return train_mask_network(
        [tilted_pair(seed) for seed in range(6)],
        (folder(fine_mean=3.0), folder()),
        TILT[:, 0] / np.float32(2),
        NetworkSettings(width=32, kernel=3, steps=300),
        torch.Generator().manual_seed(3),
    )


@pytest.mark.parametrize("fine_shift", [0.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_network_predicts_what_an_input_still_needs(
    tilt_network: MaskNetwork, share: float, fine_shift: float
) -> None:
    """Whatever part of the mask is applied, for pitches of origin and target."""
    features = tilted_pair(99).features
    fine = features.fine.copy()
    fine[0] = fine_shift
    given = features._replace(rows_db=features.rows_db + np.float32(share) * TILT, fine=fine)
    remaining = (TILT / 2 + tilt_network.predict_gain(given)).mean(axis=1)
    strength = (remaining * TILT[:, 0]).sum() / np.square(TILT).sum()
    assert float(strength) == pytest.approx(1 - share, abs=0.1)


def test_pitches_move_towards_those_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pitches of the training inputs lie between those of origin (0) and target (3)."""
    fine: list[torch.Tensor] = []
    call = MaskNetwork.__call__

    def watch(self: MaskNetwork, inputs: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        fine.append(inputs[:, ROWS:] * self.weights["fine_scale"])
        return call(self, inputs, generator)

    monkeypatch.setattr(MaskNetwork, "__call__", watch)
    folders = folder(fine_mean=3.0), folder()
    generator = torch.Generator().manual_seed(3)
    settings = NetworkSettings(width=8, steps=20)
    train_mask_network([tilted_pair(0)], folders, TILT[:, 0] / np.float32(2), settings, generator)
    moved, others = torch.cat(fine)[:, 0], torch.cat(fine)[:, 1:]
    assert (moved.min(), moved.max()) == pytest.approx((0, 3), abs=0.3)
    assert others.abs().max() == 0


def test_same_seed_gives_same_network_and_keeps_global_random_state() -> None:
    state = torch.random.get_rng_state()
    settings = NetworkSettings(width=8, steps=20)
    results = [train(pairs(2, 4), settings, seed=5) for _ in range(2)]
    weights = [network.weights for network in results]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(state, torch.random.get_rng_state())


def test_inaudible_frames_do_not_affect_training() -> None:
    settings = NetworkSettings(width=8, steps=20)
    [pair] = pairs(1, 6)
    deaf = pair.features._replace(audible=~AUDIBLE)
    network = train([PseudoPair(deaf, pair.gain_db)], settings, seed=7)
    assert np.abs(network.predict_gain(pair.features)).max() < 1e-6


def test_batch_equals_singles() -> None:
    network = untrained()
    network.weights["last.weight"] = noise(torch.Generator().manual_seed(8), ROWS, 8, 1)
    inputs = np.stack([network.inputs(pair.features) for pair in pairs(3, 10)])
    together = network(inputs)
    for one, alone in zip(together, inputs, strict=True):
        np.testing.assert_allclose(one, network(alone[None])[0], atol=1e-4, rtol=1e-4)
