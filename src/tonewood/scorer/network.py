"""The scorer L_c (paper III): spectrogram → score, 0 = reference-like, 1 = source-like.

A stack of convolutions, global average pooling, dropout and one linear layer, so that the mean of
a class activation map plus the bias *is* the logit. Whatever the level of the recording, the
score is the same: levels are taken relative to the clip's own, frame by loudness-weighted frame.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from tonewood.dsp.filterbank import apply_filterbank, center_frequencies, mean_level
from tonewood.settings import ScorerSettings, SpectrumSettings

_SCALE_DB = 15.0  # brings levels to about unit spread


class Scorer(nn.Module):
    """Fully convolutional scorer of log spectrograms.

    Parameters
    ----------
    settings : ScorerSettings
        Rows, depth, width, dropout.
    spectrum : SpectrumSettings
        Analysis that its input comes from.
    generator : torch.Generator
        Draws the initial weights.
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
        # Rows below 100 Hz hardly count for loudness (BS.1770's high-pass); rumble must not set it.
        self.register_buffer("loud_row", 10 * torch.log10(hz.square() / (hz.square() + 60.0**2)))
        channels = [1] + [settings.width * (1 if i == 0 else 2) for i in range(settings.depth)]
        with torch.random.fork_rng(devices=[]):  # nn.Conv2d draws weights that are not kept
            self.convolutions = nn.ModuleList(
                nn.Conv2d(a, b, 5 if i == 0 else 3, stride=2 if i < 2 else (2, 1), padding="valid")
                for i, (a, b) in enumerate(pairwise(channels))
            )
            self.linear = nn.Linear(channels[-1], 1)
        for layer in (*self.convolutions, self.linear):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)

    def forward(self, magnitude_db: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Score [batch] in (0, 1) of log magnitudes [batch, bin, frame] in dBFS."""
        return torch.sigmoid(self.logit(self.rows(magnitude_db), generator))

    def rows(self, magnitude_db: Tensor) -> Tensor:
        """Rows [batch, row, frame] in dB that the scorer hears of log magnitudes in dBFS."""
        return apply_filterbank(magnitude_db, self.settings.bands, self.spectrum)

    def score(self, rows_db: Tensor) -> Tensor:
        """Score [batch] of rows [batch, row, frame] in dB."""
        return torch.sigmoid(self.logit(rows_db))

    def logit(self, rows_db: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logit [batch] of rows [batch, row, frame] in dB; a generator turns dropout on."""
        return self.logit_from_normalized(self.normalize(rows_db), generator)

    def logit_from_normalized(self, normalized: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logit [batch] of rows that `normalized` made; all zeros are the mean row throughout."""
        pooled = self.features(normalized).mean(dim=(2, 3))
        if generator is not None and self.settings.dropout > 0:
            keep = 1 - self.settings.dropout
            drawn = torch.rand(pooled.shape, generator=generator, device=generator.device)
            pooled = pooled * (drawn < keep).to(pooled) / keep
        return self.linear(pooled).squeeze(1)  # type: ignore[no-any-return]

    def activations(self, rows_db: Tensor) -> Tensor:
        """Last feature maps [batch, channel, row', frame'] of rows [batch, row, frame] in dB."""
        return self.features(self.normalize(rows_db))

    def features(self, normalized: Tensor) -> Tensor:
        """Last feature maps [batch, channel, row', frame'] of rows that `normalized` made."""
        return self.layers(normalized)[-1]

    def layers(self, normalized: Tensor) -> list[Tensor]:
        """Every layer's feature maps [batch, channel, row', frame'], the first layer's first."""
        x, made = normalized.unsqueeze(1), []
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d)
            reach = layer.kernel_size[0] // 2
            # Edges repeat instead of falling to zero: silence beyond a border would be an event.
            x = _pad_replicate(x, reach)
            x = nn.functional.silu(layer(x))
            made.append(x)
        return made

    def normalize(self, rows_db: Tensor, level_db: Tensor | None = None) -> Tensor:
        """Rows relative to the clip's own level and to the mean row, in units of about one."""
        level = self.level(rows_db) if level_db is None else level_db
        relative = (rows_db - level).clamp_min(-self.settings.range_db)
        return (relative - self.row_mean[:, None]) / _SCALE_DB

    def level(self, rows_db: Tensor) -> Tensor:
        """Mean power of each clip [batch, 1, 1] in dB, low rumble discounted."""
        return mean_level(rows_db + self.loud_row[:, None])[..., None, None]

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def crop_frames(self) -> int:
        """Frames in one training crop."""
        return self.spectrum.to_frames(self.settings.crop_seconds)


def _pad_replicate(x: Tensor, reach: int) -> Tensor:
    """Maps [..., row, frame] with their edges repeated `radius` times on every side."""
    if not torch.compiler.is_compiling():
        return nn.functional.pad(x, (reach,) * 4, mode="replicate")
    # torch 2.13's inductor takes the strides of that one's gradient for other than they are.
    for axis in (-2, -1):
        place = torch.arange(-reach, x.shape[axis] + reach, device=x.device)
        x = x.index_select(axis, place.clamp(0, x.shape[axis] - 1))
    return x
