"""A small network that maps a recording's features to its mask, trained on pseudo-pairs.

*Forward* pairs are a source take and the neighbours' mask for it: a true input with an approximate
target. *Backward* pairs are pseudo-source made of a reference take, and the mask that undoes it: an
approximate input with a true target (back-translation, Sennrich et al. 2016). Their errors differ,
so one network is trained on each.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures
from tonewood.settings import NetworkSettings
from tonewood.stats.sampling import TakeWeights, sample_takes

_GAIN_DB = 8.0  # outputs and inputs are scaled to about unit variance
_ROWS_DB = 10.0


class PseudoPair(NamedTuple):
    """An input, and its target mask [row, frame] relative to the static one."""

    features: PriorFeatures
    gain_db: Tensor


class MaskNetwork(nn.Module):
    """Residual convolutions over frames, from features [row + component] to gains [row]."""

    def __init__(
        self, rows: int, components: int, settings: NetworkSettings, generator: torch.Generator
    ) -> None:
        super().__init__()
        width, kernel = settings.width, settings.kernel
        self.dropout = settings.dropout
        self.register_buffer("row_mean", torch.zeros(rows))
        self.register_buffer("fine_scale", torch.ones(()))
        self.row_mean: Tensor
        self.fine_scale: Tensor
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are replaced
            self.first = nn.Conv1d(rows + components, width, 1)
            self.middle = nn.ModuleList(
                nn.Conv1d(width, width, kernel, padding=kernel // 2) for _ in range(2)
            )
            self.last = nn.Conv1d(width, rows, 1)
        initialize_layers([self.first, *self.middle], self.last, generator)

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return gains [batch, row, frame] in dB relative to the static mask; a generator enables dropout."""
        hidden = nn.functional.gelu(self.first(inputs))
        for layer in self.middle:
            hidden = hidden + nn.functional.gelu(layer(self._apply_dropout(hidden, generator)))
        gain: Tensor = self.last(self._apply_dropout(hidden, generator))
        return gain * _GAIN_DB

    def inputs(self, take: PriorFeatures) -> Tensor:
        """Return the network's input [row + component, frame]."""
        rows = (take.rows_db - self.row_mean[:, None]) / _ROWS_DB
        return torch.cat([rows, take.fine / self.fine_scale])

    def predict_gain(self, take: PriorFeatures) -> Tensor:
        """Return the gain [row, frame] in dB relative to the static mask."""
        with torch.no_grad():
            return self(self.inputs(take)[None])[0]  # type: ignore[no-any-return]

    def _apply_dropout(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or self.dropout == 0:
            return hidden
        keep = 1 - self.dropout
        uniform = torch.rand(hidden.shape, generator=generator, device=generator.device)
        return hidden * (uniform < keep).to(hidden.device) / keep


def initialize_layers(layers: Iterable[nn.Module], last: nn.Conv1d, generator: torch.Generator) -> None:
    """Draw the weights of all layers but the last, which starts at zero: the static mask."""
    for layer in layers:
        assert isinstance(layer, nn.Conv1d)
        assert layer.bias is not None
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class OneCycleOptimiser:
    """AdamW with a one-cycle learning rate (Smith & Topin 2019) and gradients clipped to norm 1."""

    def __init__(self, network: nn.Module, learning_rate: float, steps: int) -> None:
        self._network = network
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, learning_rate, total_steps=steps, pct_start=0.1
        )

    def step(self, loss: Tensor) -> None:
        """Descend along the gradient of a loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()


def train_mask_network(
    pairs: Sequence[PseudoPair],
    source: FolderStatistics,
    settings: NetworkSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> MaskNetwork:
    """Train a network on pseudo-pairs.

    The loss is the mean over audible frames of the RMS error over rows, as in the cycle distance.
    """
    first = pairs[0].features
    network = MaskNetwork(first.rows_db.shape[0], first.fine.shape[0], settings, generator)
    network.row_mean.copy_(source.row_mean)
    network.fine_scale.copy_(2 * source.codebook.key[:, first.rows_db.shape[0] :].std())
    network.to(first.rows_db.device)
    optimiser = OneCycleOptimiser(network, settings.learning_rate, settings.steps)
    # Crops of equal length, so that a batch is one tensor; the shortest take limits it.
    crop = min([settings.crop_frames, *(pair.gain_db.shape[1] for pair in pairs)])
    inputs = [network.inputs(pair.features) for pair in pairs]
    # Longer takes are drawn more often.
    lengths = [pair.gain_db.shape[1] for pair in pairs]
    for _ in range(settings.steps):
        inputs_batch, targets, audible = [], [], []
        for index in sample_takes(lengths, settings.batch, generator, take_weights):
            pair = pairs[index]
            last = pair.gain_db.shape[1] - crop
            start = int(torch.randint(last + 1, (1,), generator=generator))
            window = slice(start, start + crop)
            inputs_batch.append(inputs[index][:, window])
            targets.append(pair.gain_db[:, window])
            audible.append(pair.features.audible[window])
        weight = torch.stack(audible).float()
        gain = network(torch.stack(inputs_batch), generator)
        error = (gain - torch.stack(targets)).square().mean(dim=1)
        # 0.25 dB² keeps the gradient of the root finite where the error vanishes.
        optimiser.step(((error + 0.25).sqrt() * weight).sum() / weight.sum().clamp_min(1))
    return network.requires_grad_(False).eval()
