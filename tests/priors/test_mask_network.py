"""The mask network, on pairs with a known rule."""

import torch

from tonewood.priors.nearest_neighbours import Codebook, FolderStatistics, PriorFeatures
from tonewood.priors.predictor import MaskNetwork, PseudoPair, train_mask_network
from tonewood.settings import NetworkSettings

ROWS, COMPONENTS, FRAMES = 12, 3, 120
STATIC = torch.zeros(ROWS)
AUDIBLE = torch.ones(FRAMES, dtype=torch.bool)


def folder() -> FolderStatistics:
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(20, ROWS + COMPONENTS, generator=generator)
    book = Codebook(key, torch.zeros(20, ROWS), torch.zeros(20))
    return FolderStatistics(torch.zeros(ROWS), torch.zeros(144), torch.zeros(144, COMPONENTS), book)


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
