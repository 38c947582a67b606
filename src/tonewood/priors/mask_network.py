"""The mask in one pass: a small network from a recording's features to its mask.

Trained without pairs, on pseudo-pairs. *Forward*: a real source take and the neighbours' mask for
it, a true input with an approximate target. *Backward*: a reference take made into pseudo-source
by the neighbours, and the way back, an approximate input with a true target (back-translation,
Sennrich et al. 2016). Their errors are of different kinds, so both are kept.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures
from tonewood.settings import NetworkSettings
from tonewood.stats.sampling import TakeWeights, sample_takes

_GAIN_DB = 8.0
_ROWS_DB = 10.0


class PseudoPair(NamedTuple):
    """An input and the mask that is wanted for it, beyond the static one.

    Parameters
    ----------
    features : Take
    gain_db : Tensor [row, frame]
    """

    features: PriorFeatures
    gain_db: Tensor


class MaskNetwork(nn.Module):
    """Residual convolutions over frames: features [row + component, frame] → gain [row, frame]."""

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
        with torch.random.fork_rng(devices=[]):  # nn.Conv1d draws weights that are not kept
            self.first = nn.Conv1d(rows + components, width, 1)
            self.middle = nn.ModuleList(
                nn.Conv1d(width, width, kernel, padding=kernel // 2) for _ in range(2)
            )
            self.last = nn.Conv1d(width, rows, 1)
        initialize_layers([self.first, *self.middle], self.last, generator)

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Gain [batch, row, frame] in dB beyond the static one; a generator turns dropout on."""
        hidden = nn.functional.gelu(self.first(inputs))
        for layer in self.middle:
            hidden = hidden + nn.functional.gelu(layer(self._apply_dropout(hidden, generator)))
        gain: Tensor = self.last(self._apply_dropout(hidden, generator))
        return gain * _GAIN_DB

    def inputs(self, take: PriorFeatures) -> Tensor:
        """Network input [row + component, frame] of a take."""
        rows = (take.rows_db - self.row_mean[:, None]) / _ROWS_DB
        return torch.cat([rows, take.fine / self.fine_scale])

    def predict_gain(self, take: PriorFeatures) -> Tensor:
        """Gain [row, frame] in dB beyond the static one."""
        with torch.no_grad():
            return self(self.inputs(take)[None])[0]  # type: ignore[no-any-return]

    def _apply_dropout(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or self.dropout == 0:
            return hidden
        keep = 1 - self.dropout
        drawn = torch.rand(hidden.shape, generator=generator, device=generator.device)
        return hidden * (drawn < keep).to(hidden.device) / keep


def initialize_layers(layers: Iterable[nn.Module], last: nn.Conv1d, generator: torch.Generator) -> None:
    """Draw the weights of all layers but the last: training starts from the static mask."""
    for layer in layers:
        assert isinstance(layer, nn.Conv1d)
        assert layer.bias is not None
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def train_mask_network(
    pairs: Sequence[PseudoPair],
    source: FolderStatistics,
    settings: NetworkSettings,
    generator: torch.Generator,
    take_weights: TakeWeights = None,
) -> MaskNetwork:
    """Fit a network to pseudo-pairs.

    The loss is each audible frame's root mean square error over rows, averaged: the error that
    the distance to a paired take would have.
    """
    first = pairs[0].features
    network = MaskNetwork(first.rows_db.shape[0], first.fine.shape[0], settings, generator)
    network.row_mean.copy_(source.row_mean)
    network.fine_scale.copy_(2 * source.codebook.key[:, first.rows_db.shape[0] :].std())
    network.to(first.rows_db.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    crop = min([settings.crop_frames, *(pair.gain_db.shape[1] for pair in pairs)])
    inputs = [network.inputs(pair.features) for pair in pairs]
    lengths = [pair.gain_db.shape[1] for pair in pairs]
    for _ in range(settings.steps):
        x, y, heard = [], [], []
        for index in sample_takes(lengths, settings.batch, generator, take_weights):
            pair = pairs[index]
            last = pair.gain_db.shape[1] - crop
            start = int(torch.randint(last + 1, (1,), generator=generator))
            cut = slice(start, start + crop)
            x.append(inputs[index][:, cut])
            y.append(pair.gain_db[:, cut])
            heard.append(pair.features.audible[cut])
        weight = torch.stack(heard).float()
        error = (network(torch.stack(x), generator) - torch.stack(y)).square().mean(dim=1)
        # A quarter of a dB² keeps the root's gradient finite where the error vanishes.
        loss = ((error + 0.25).sqrt() * weight).sum() / weight.sum().clamp_min(1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.requires_grad_(False).eval()
