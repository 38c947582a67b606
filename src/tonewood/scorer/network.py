"""The scorer L_c (paper, section III): from spectrogram to score; 0 is reference-like, 1 source-like.

Convolutions, global average pooling, dropout and a linear layer: the mean of a class activation map
plus the bias is exactly the logit. Levels are relative to the clip's own, weighted by loudness, so
the score does not depend on the recording's level.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from tonewood.dsp.features import apply_filterbank, center_frequencies, mean_level
from tonewood.settings import ScorerSettings, SpectrumSettings

_SCALE_DB = 15.0  # brings levels to about unit spread


class Scorer(nn.Module):
    """Fully convolutional scorer of log spectrograms.

    Parameters
    ----------
    settings : ScorerSettings
    spectrum : SpectrumSettings
        Analysis of the input.
    generator : torch.Generator
        For the initial weights.
    """

    def __init__(
        self, settings: ScorerSettings, spectrum: SpectrumSettings, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.settings, self.spectrum = settings, spectrum
        hz = torch.from_numpy(center_frequencies(settings.bands, spectrum)).float()
        self.register_buffer("row_mean", torch.zeros(len(hz)))
        self.loud_row: Tensor
        self.row_mean: Tensor
        # First-order high-pass at 60 Hz, after that of BS.1770: rumble must not determine the level.
        self.register_buffer("loud_row", 10 * torch.log10(hz.square() / (hz.square() + 60.0**2)))
        channels = [1] + [settings.width * (1 if i == 0 else 2) for i in range(settings.depth)]
        with torch.random.fork_rng(devices=[]):  # nn.Conv2d draws weights that are replaced
            self.convolutions = nn.ModuleList(
                nn.Conv2d(a, b, 5 if i == 0 else 3, stride=2 if i < 2 else (2, 1), padding="valid")
                for i, (a, b) in enumerate(pairwise(channels))
            )
            self.linear = nn.Linear(channels[-1], 1)
        # He initialisation, drawn from the generator instead of the global state.
        for layer in (*self.convolutions, self.linear):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)  # first scores near 0.5, where the sigmoid is not flat

    def forward(self, magnitude_db: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scores [batch] in (0, 1) of log magnitudes [batch, bin, frame] in dBFS."""
        return torch.sigmoid(self.logit(self.rows(magnitude_db), generator))

    def rows(self, magnitude_db: Tensor) -> Tensor:
        """Return the scorer's input rows [batch, row, frame] in dB from log magnitudes in dBFS."""
        return apply_filterbank(magnitude_db, self.settings.bands, self.spectrum)

    def score(self, rows_db: Tensor) -> Tensor:
        """Return scores [batch] of rows [batch, row, frame] in dB."""
        return torch.sigmoid(self.logit(rows_db))

    def logit(self, rows_db: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return logits [batch] of rows [batch, row, frame] in dB; a generator enables dropout."""
        return self.logit_from_normalized(self.normalize(rows_db), generator)

    def logit_from_normalized(self, normalized: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return logits [batch] of the output of `normalize`; zeros are the mean row throughout."""
        pooled = self.features(normalized).mean(dim=(2, 3))
        pooled = apply_dropout(pooled, self.settings.dropout, generator)
        return self.linear(pooled).squeeze(1)  # type: ignore[no-any-return]

    def activations(self, rows_db: Tensor) -> Tensor:
        """Return the last feature maps [batch, channel, row', frame'] of rows [batch, row, frame] in dB."""
        return self.features(self.normalize(rows_db))

    def features(self, normalized: Tensor) -> Tensor:
        """Return the last feature maps [batch, channel, row', frame'] of the output of `normalize`."""
        return self.layers(normalized)[-1]

    def layers(self, normalized: Tensor) -> list[Tensor]:
        """Return the feature maps [batch, channel, row', frame'] of every layer."""
        x, maps = normalized.unsqueeze(1), []
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d)
            reach = layer.kernel_size[0] // 2
            # Edges repeat: with zero padding, every border would look like an onset.
            x = _pad_replicate(x, reach)
            x = nn.functional.silu(layer(x))
            maps.append(x)
        return maps

    def normalize(self, rows_db: Tensor, level_db: Tensor | None = None) -> Tensor:
        """Return rows relative to the clip's level and the mean row, scaled to about unit variance."""
        level = self.level(rows_db) if level_db is None else level_db
        relative = (rows_db - level).clamp_min(-self.settings.range_db)
        return (relative - self.row_mean[:, None]) / _SCALE_DB

    def level(self, rows_db: Tensor) -> Tensor:
        """Return the mean level of each clip [batch, 1, 1] in dB, without rumble."""
        return mean_level(rows_db + self.loud_row[:, None])[..., None, None]

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def crop_frames(self) -> int:
        """Number of frames in a training crop."""
        return self.spectrum.to_frames(self.settings.crop_seconds)


def tensors_below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def apply_dropout(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Set values to 0 with a probability, and scale the others to keep the mean; no-op without generator."""
    if generator is None or probability == 0:
        return x
    keep = 1 - probability
    uniform = torch.rand(x.shape, generator=generator, device=generator.device)
    return x * (uniform < keep).to(x) / keep


def _pad_replicate(x: Tensor, reach: int) -> Tensor:
    """Repeat the edges of maps [..., row, frame] on every side."""
    if not torch.compiler.is_compiling():
        return nn.functional.pad(x, (reach,) * 4, mode="replicate")
    # torch 2.13's inductor computes wrong strides for the gradient of replicate padding.
    for axis in (-2, -1):
        index = torch.arange(-reach, x.shape[axis] + reach, device=x.device)
        x = x.index_select(axis, index.clamp(0, x.shape[axis] - 1))
    return x
