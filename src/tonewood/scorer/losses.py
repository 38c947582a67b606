"""Neural losses for others' training: a frozen scorer over waveforms, in the manner of auraloss.

Resampling that gradients pass through: windowed sinc, one filter for each phase.
"""

import copy
import math
from fractions import Fraction
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from tonewood.dsp.filterbank import filterbank_levels, filterbank_matrix
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.errors import CallError
from tonewood.scorer.network import Scorer

_CUTOFF_RATIO = 0.957  # of the lower Nyquist frequency: where soxr's HQ, by which files are read, falls
_ZERO_CROSSINGS = 96
_KAISER_BETA = 12.3  # of Kaiser's window: 120 dB
_MAX_PHASES = 1_000  # other ratios are the nearest of so few: wrong by a millionth at most


class PolyphaseFilter(NamedTuple):
    """Filters that turn one rate into another.

    Parameters
    ----------
    kernel : Tensor [phase, 1, tap], float64
    stride : int
        Input samples for each output sample of every phase.
    reach : int
        Input samples before the first that a filter looks at.
    """

    kernel: Tensor
    stride: int
    reach: int


def design_polyphase(from_rate: int, to_rate: int) -> PolyphaseFilter:
    """Filters from one rate (Hz) to another; time zero stays in place."""
    ratio = Fraction(to_rate, from_rate).limit_denominator(_MAX_PHASES)
    count, stride = ratio.numerator, ratio.denominator
    cut = min(1.0, count / stride) * _CUTOFF_RATIO  # in units of the input's Nyquist frequency
    reach = math.ceil(_ZERO_CROSSINGS / cut)
    tap = torch.arange(-reach, reach + stride, dtype=torch.float64)
    place = tap - torch.arange(count, dtype=torch.float64)[:, None] * stride / count
    away = (place / reach).square().clamp(max=1)
    window = torch.special.i0(_KAISER_BETA * (1 - away).sqrt()) * (away < 1)
    kernel = torch.sinc(place * cut) * window
    # Each phase passes a constant as it is.
    return PolyphaseFilter((kernel / kernel.sum(dim=1, keepdim=True))[:, None], stride, reach)


def resample_polyphase(wave: Tensor, kernel: Tensor, stride: int, reach: int) -> Tensor:
    """Resample waveforms [batch, sample] by the `design_polyphase` of two rates, differentiably.

    Returns
    -------
    Tensor [batch, sample]
        As many samples as last as long, rounded up.
    """
    count = kernel.shape[0]
    length = -(-wave.shape[-1] * count // stride)
    padded = torch.nn.functional.pad(wave, (reach, reach + stride))
    made = torch.nn.functional.conv1d(padded[:, None], kernel, stride=stride)
    return made.transpose(1, 2).reshape(wave.shape[0], -1)[:, :length]


Reduction = Literal["mean", "sum", "none"]
_MIN_LOSS_RATE = 4_000


class _ScorerFrontEnd(nn.Module):
    """A frozen scorer's ears: waveforms at any rate to the rows that the scorer hears."""

    kernel: Tensor | None
    weights: Tensor | None

    def __init__(self, scorer: Scorer, rate: int, reduction: str) -> None:
        super().__init__()
        if rate < _MIN_LOSS_RATE:
            raise CallError(f"the rate is {rate} Hz; give one from {_MIN_LOSS_RATE} Hz")
        if reduction not in get_args(Reduction):
            raise CallError(f"reduction is {reduction!r}; choose 'mean', 'sum' or 'none'")
        # Its own copy: whoever moves or converts a loss must not convert the model along.
        self.scorer = copy.deepcopy(scorer).requires_grad_(False).eval()
        self.rate, self.reduction = rate, cast("Reduction", reduction)
        spectrum, bands = scorer.spectrum, scorer.settings.bands
        self.stride = self.reach = 0
        kernel = weights = None
        if rate != spectrum.rate:
            kernel, self.stride, self.reach = design_polyphase(rate, spectrum.rate)
            kernel = kernel.float()
        if bands.scale == "mel":
            weights = filterbank_matrix(bands, spectrum).clone()
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def rows(self, waveform: Tensor) -> Tensor:
        """Row levels [batch, row, frame] in dB of waveforms [batch, channels, samples]."""
        if waveform.ndim != 3:
            raise CallError(f"waveform has shape {tuple(waveform.shape)}; give [batch, channels, samples]")
        spectrum = self.scorer.spectrum
        wave = waveform.mean(dim=1)
        if wave.shape[-1] * spectrum.rate < spectrum.window * self.rate:
            raise CallError(
                f"waveforms of {wave.shape[-1]} samples at {self.rate} Hz are shorter than the "
                f"analysis window of {spectrum.window_ms:g} ms: give longer ones"
            )
        if self.kernel is not None:
            wave = resample_polyphase(wave, self.kernel, self.stride, self.reach)
        return filterbank_levels(log_magnitude(stft(wave, spectrum), spectrum), self.weights)

    def _to_loss_precision(self, waveform: Tensor) -> Tensor:
        """The waveform in the loss's own precision: half of it would not hold 140 dB."""
        return waveform.to(self.scorer.row_mean.dtype)

    def _reduce(self, loss: Tensor) -> Tensor:
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


class ScorerLoss(_ScorerFrontEnd):
    """A frozen scorer as a loss over waveforms: 0 sounds like the reference, 1 like the source.

    Parameters
    ----------
    scorer : Scorer
        Copied; converting or moving the loss leaves the scorer alone.
    rate : int
        Of the waveforms, Hz; other rates than the scorer's are resampled, differentiably.
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> from tonewood.settings import ScorerSettings, SpectrumSettings
    >>> generator = torch.Generator().manual_seed(0)
    >>> loss = NeuralLoss(Scorer(ScorerSettings(), SpectrumSettings(), generator), rate=22_050)
    >>> wave = torch.randn(2, 1, 22_050, generator=generator, requires_grad=True)
    >>> value = loss(wave)
    >>> value.backward()
    >>> value.shape, bool(wave.grad.isfinite().all())
    (torch.Size([]), True)
    """

    def __init__(self, scorer: Scorer, rate: int, reduction: str = "mean") -> None:
        super().__init__(scorer, rate, reduction)

    def forward(self, waveform: Tensor) -> Tensor:
        """Score of waveforms [batch, channels, samples].

        Channels are mixed to mono first, as `tonewood score` does. Autocast is left outside.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            return self._reduce(self.scorer.score(self.rows(self._to_loss_precision(waveform))))


class ScorerFeatureLoss(_ScorerFrontEnd):
    """How far a sound is from a target in the scorer's own features (feature matching).

    The mean absolute difference of every layer's feature maps, relative to the target's mean
    absolute value, averaged over layers (as discriminators' features are matched in MelGAN, Kumar
    et al. 2019). It is 0 where both sound the same to the scorer, whatever their level.

    Parameters
    ----------
    scorer, rate, reduction
        As of `ScorerLoss`.
    """

    def __init__(self, scorer: Scorer, rate: int, reduction: str = "mean") -> None:
        super().__init__(scorer, rate, reduction)

    def forward(self, waveform: Tensor, target: Tensor) -> Tensor:
        """Distance of waveforms from targets, both [batch, channels, samples].

        No gradient goes to the target.
        """
        if waveform.shape[::2] != target.shape[::2]:
            raise CallError(
                f"waveform and target have shapes {tuple(waveform.shape)} and "
                f"{tuple(target.shape)}; give as many, equally long"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            made = self._layers(waveform)
            with torch.no_grad():
                wanted = self._layers(target)
            ratios = [
                (ours - theirs).abs().mean(dim=(1, 2, 3)) / (theirs.abs().mean(dim=(1, 2, 3)) + 1e-6)
                for ours, theirs in zip(made, wanted, strict=True)
            ]
            return self._reduce(torch.stack(ratios).mean(dim=0))

    def _layers(self, waveform: Tensor) -> list[Tensor]:
        rows = self.rows(self._to_loss_precision(waveform))
        return self.scorer.layers(self.scorer.normalize(rows))
