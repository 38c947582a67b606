"""The mask network, on pairs with a known rule."""

import pytest
import torch

from tonewood.priors.nearest_neighbours import Codebook, FolderStatistics, PriorFeatures
from tonewood.priors.predictor import MaskNetwork, PseudoPair, train_mask_network
from tonewood.settings import NetworkSettings

ROWS, COMPONENTS, FRAMES = 12, 3, 120
STATIC = torch.zeros(ROWS)
TILT = torch.linspace(-6, 6, ROWS)[:, None]
AUDIBLE = torch.ones(FRAMES, dtype=torch.bool)


def folder(fine_mean: float = 0.0) -> FolderStatistics:
    """Return a folder whose first component is the first of 144 pitch rows."""
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(20, ROWS + COMPONENTS, generator=generator)
    book = Codebook(key, torch.zeros(20, ROWS), torch.zeros(20))
    projection = torch.eye(144, COMPONENTS)
    return FolderStatistics(torch.zeros(ROWS), fine_mean * torch.eye(144)[0], projection, book)


def pairs(count: int, seed: int) -> list[PseudoPair]:
    """Return takes whose target mask is minus each row's level, so that the rest of it is the same rule."""
    generator = torch.Generator().manual_seed(seed)
    results = []
    for _ in range(count):
        rows = 6 * torch.randn(ROWS, FRAMES, generator=generator)
        fine = torch.randn(COMPONENTS, FRAMES, generator=generator)
        results.append(PseudoPair(PriorFeatures(rows, fine, AUDIBLE, AUDIBLE.float()), -rows))
    return results


def train(training: list[PseudoPair], settings: NetworkSettings, seed: int) -> MaskNetwork:
    generator = torch.Generator().manual_seed(seed)
    return train_mask_network(training, (folder(), folder()), STATIC, settings, generator)


def test_untrained_network_gives_zero_gain() -> None:
    network = MaskNetwork(ROWS, COMPONENTS, NetworkSettings(width=8), torch.Generator())
    [pair] = pairs(1, 1)
    assert torch.equal(network.predict_gain(pair.features), torch.zeros(ROWS, FRAMES))


def test_network_learns_a_common_rule() -> None:
    settings = NetworkSettings(width=32, kernel=3, steps=150)
    network = train(pairs(6, 2), settings, seed=3)
    [held_out] = pairs(1, 9)
    error = (network.predict_gain(held_out.features) - held_out.gain_db).square().mean().sqrt()
    assert error < 0.4 * held_out.gain_db.square().mean().sqrt()


def tilted_pair(seed: int) -> PseudoPair:
    """Return noise under a tilt, whose mask is the opposite tilt: half of it is static."""
    noise = torch.randn(ROWS, FRAMES, generator=torch.Generator().manual_seed(seed))
    features = PriorFeatures(noise - TILT, torch.zeros(COMPONENTS, FRAMES), AUDIBLE, AUDIBLE.float())
    return PseudoPair(features, (TILT / 2).expand(-1, FRAMES))


@pytest.fixture(scope="module")
def tilt_network() -> MaskNetwork:
    """Return a network of tilted pairs; pitches of the target are 3 above those of the origin."""
    return train_mask_network(
        [tilted_pair(seed) for seed in range(6)],
        (folder(fine_mean=3.0), folder()),
        TILT[:, 0] / 2,
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
    fine = features.fine.clone()
    fine[0] = fine_shift
    given = features._replace(rows_db=features.rows_db + share * TILT, fine=fine)
    remaining = (TILT / 2 + tilt_network.predict_gain(given)).mean(dim=1)
    strength = (remaining * TILT[:, 0]).sum() / TILT.square().sum()
    assert float(strength) == pytest.approx(1 - share, abs=0.1)


def test_pitches_move_towards_those_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pitches of the training inputs lie between those of origin (0) and target (3)."""
    fine: list[torch.Tensor] = []
    forward = MaskNetwork.forward

    def watch(self: MaskNetwork, inputs: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        fine.append(inputs[:, ROWS:] * self.fine_scale)
        return forward(self, inputs, generator)

    monkeypatch.setattr(MaskNetwork, "forward", watch)
    folders = folder(fine_mean=3.0), folder()
    generator = torch.Generator().manual_seed(3)
    settings = NetworkSettings(width=8, steps=20)
    train_mask_network([tilted_pair(0)], folders, TILT[:, 0] / 2, settings, generator)
    moved, others = torch.cat(fine)[:, 0], torch.cat(fine)[:, 1:]
    assert (moved.min(), moved.max()) == pytest.approx((0, 3), abs=0.3)
    assert others.abs().max() == 0


def test_same_seed_gives_same_network_and_keeps_global_random_state() -> None:
    state = torch.random.get_rng_state()
    settings = NetworkSettings(width=8, steps=20)
    results = [train(pairs(2, 4), settings, seed=5) for _ in range(2)]
    weights = [network.state_dict() for network in results]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert torch.equal(state, torch.random.get_rng_state())


def test_inaudible_frames_do_not_affect_training() -> None:
    settings = NetworkSettings(width=8, steps=20)
    [pair] = pairs(1, 6)
    deaf = pair.features._replace(audible=torch.zeros(FRAMES, dtype=torch.bool))
    network = train([PseudoPair(deaf, pair.gain_db)], settings, seed=7)
    assert network.predict_gain(pair.features).abs().max() < 1e-6


def test_batch_equals_singles() -> None:
    network = MaskNetwork(ROWS, COMPONENTS, NetworkSettings(width=8), torch.Generator())
    torch.nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(8))
    inputs = torch.stack([network.inputs(pair.features) for pair in pairs(3, 10)])
    together = network(inputs)
    for one, alone in zip(together, inputs, strict=True):
        torch.testing.assert_close(one, network(alone[None])[0], atol=1e-4, rtol=1e-4)
