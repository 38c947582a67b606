"""Neural losses for others' training: a frozen scorer over waveforms, in the manner of auraloss."""

import copy
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from tonewood.errors import CallError
from tonewood.scoring.scorer import Scorer
from tonewood.signal.bands import filterbank_levels, filterbank_matrix
from tonewood.signal.resample import design_polyphase, resample_polyphase
from tonewood.signal.spectrum import log_magnitude, stft

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
            raise CallError(
                f"waveform has shape {tuple(waveform.shape)}; give [batch, channels, samples]"
            )
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
                (ours - theirs).abs().mean(dim=(1, 2, 3))
                / (theirs.abs().mean(dim=(1, 2, 3)) + 1e-6)
                for ours, theirs in zip(made, wanted, strict=True)
            ]
            return self._reduce(torch.stack(ratios).mean(dim=0))

    def _layers(self, waveform: Tensor) -> list[Tensor]:
        rows = self.rows(self._to_loss_precision(waveform))
        return self.scorer.layers(self.scorer.normalize(rows))
