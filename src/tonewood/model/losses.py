"""Frozen scorers and models as losses over waveforms, for the training of other networks (as in auraloss).

Waveforms at other rates are resampled by windowed-sinc polyphase filters, which are differentiable.

A score alone can be fooled: a synthesiser that follows it lowers the score while its sound leaves the
reference. `NeuralLoss` therefore adds the distance from the statistics of the reference folder that a
model stores, which cannot be fooled in the same way.
"""

import math
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tonewood.audio_io.recording import to_whole_rate
from tonewood.dsp.features import AUDIBLE_RANGE_DB, filterbank_matrix, frame_levels, power_of_db
from tonewood.dsp.stft import power_spectrum, stft
from tonewood.errors import CallError
from tonewood.mask.certificate import WINDOW_FLOOR_DB, OutOfDomainDetector
from tonewood.model.model import Model, load_model
from tonewood.scorer.network import Scorer
from tonewood.utils.arrays import usual_torch_state

Reduction = Literal["mean", "sum", "none"]
_MIN_LOSS_RATE, _MAX_LOSS_RATE = 4_000, 768_000
_CUTOFF_RATIO = 0.957  # of the lower Nyquist frequency; as soxr's HQ, with which files are read
_ZERO_CROSSINGS = 96
_KAISER_BETA = 12.3  # 120 dB stopband attenuation
_MAX_PHASES = 1_000  # limits the rate's error to 1e-6


class PolyphaseFilter(NamedTuple):
    """Filters for a conversion between two sample rates."""

    kernel: Tensor  # [phase, 1, tap], float64
    stride: int  # input samples per output sample of each phase
    reach: int  # input samples that a filter needs before its first


def design_polyphase(from_rate: int, to_rate: int) -> PolyphaseFilter:
    """Design zero-phase filters from one rate to another, Hz."""
    ratio = Fraction(to_rate, from_rate).limit_denominator(_MAX_PHASES)
    count, stride = ratio.numerator, ratio.denominator
    cut = min(1.0, count / stride) * _CUTOFF_RATIO  # in units of the input's Nyquist frequency
    reach = math.ceil(_ZERO_CROSSINGS / cut)
    # Output sample count · n + p lies at input sample stride · n + p · stride / count.
    tap = torch.arange(-reach, reach + stride, dtype=torch.float64)
    position = tap - torch.arange(count, dtype=torch.float64)[:, None] * stride / count
    squared = (position / reach).square().clamp(max=1)
    window = torch.special.i0(_KAISER_BETA * (1 - squared).sqrt()) * (squared < 1)
    kernel = torch.sinc(position * cut) * window
    # Normalised per phase: otherwise a constant would be modulated.
    return PolyphaseFilter((kernel / kernel.sum(dim=1, keepdim=True))[:, None], stride, reach)


def resample_polyphase(wave: Tensor, kernel: Tensor, stride: int, reach: int) -> Tensor:
    """Resample waveforms [batch, sample], differentiably; the length is rounded up."""
    count = kernel.shape[0]
    length = -(-wave.shape[-1] * count // stride)
    padded = torch.nn.functional.pad(wave, (reach, reach + stride))
    phases = torch.nn.functional.conv1d(padded[:, None], kernel, stride=stride)
    return phases.transpose(1, 2).reshape(wave.shape[0], -1)[:, :length]


class _FrozenScorer(nn.Module):
    """A scorer's weights as buffers, so that they follow the module to a device or precision."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self._settings, self._spectrum = scorer.settings, scorer.spectrum
        # Copied tensors: moving or converting the module leaves the scorer alone.
        # Sorted, because a model file is read in no fixed order.
        for name, weight in sorted(scorer.as_arrays().as_tensors().weights.items()):
            # Names of buffers have no dots, but those of modules in modules do.
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_buffer(last, weight)

    def forward(self) -> Scorer:
        """Return the scorer with the buffers as they are now."""
        return Scorer(self._settings, self._spectrum, dict(self.named_buffers()))


def without_autocast(waveform: Tensor) -> torch.autocast:
    """Return a context without autocast on the device of a waveform; CallError if it is not a tensor."""
    if not isinstance(waveform, Tensor):
        raise CallError(
            f"waveform is a {type(waveform).__name__}; give a tensor [batch, channels, samples] of floats"
        )
    return torch.autocast(waveform.device.type, enabled=False)


class _ScorerFrontEnd(nn.Module):
    """A frozen scorer and its analysis of waveforms at one rate."""

    kernel: Tensor | None
    weights: Tensor | None

    def __init__(self, scorer: Scorer, rate: int, reduction: str = "mean") -> None:
        super().__init__()
        whole = to_whole_rate(rate, _MIN_LOSS_RATE, _MAX_LOSS_RATE)
        if reduction not in get_args(Reduction):
            raise CallError(f"reduction is {reduction!r}; choose 'mean', 'sum' or 'none'")
        self.rate, self.reduction = whole, cast("Reduction", reduction)
        with usual_torch_state():  # a loss made within inference_mode is used outside
            self._make_buffers(scorer)

    def _make_buffers(self, scorer: Scorer) -> None:
        self.scorer = _FrozenScorer(scorer)
        spectrum, bands = scorer.spectrum, scorer.settings.bands
        self.spectrum = spectrum
        self.stride = self.reach = 0
        kernel = weights = None
        if self.rate != spectrum.rate:
            kernel, self.stride, self.reach = design_polyphase(self.rate, spectrum.rate)
            kernel = kernel.float()
        if bands.scale == "mel":
            weights = torch.tensor(filterbank_matrix(bands, spectrum))
        # Buffers, to follow the module to a device; not stored, since the settings determine them.
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def rows(self, waveform: Tensor) -> Tensor:
        """Return levels [batch, row, frame] in dB of waveforms [batch, channels, samples]."""
        if waveform.ndim != 3:
            raise CallError(f"waveform has shape {tuple(waveform.shape)}; give [batch, channels, samples]")
        spectrum = self.spectrum
        wave = waveform.mean(dim=1)
        if wave.shape[-1] * spectrum.rate < spectrum.window * self.rate:
            raise CallError(
                f"waveforms of {wave.shape[-1]} samples at {self.rate} Hz are shorter than the "
                f"analysis window of {spectrum.window_ms:g} ms: give longer ones"
            )
        if self.kernel is not None:
            wave = resample_polyphase(wave, self.kernel, self.stride, self.reach)
        power = power_spectrum(stft(wave, spectrum), spectrum)
        return 10 * torch.log10(power if self.weights is None else self.weights @ power)

    def _to_loss_precision(self, waveform: Tensor) -> Tensor:
        """Convert a waveform to the precision of the loss: half precision cannot hold 140 dB."""
        if not waveform.is_floating_point():
            raise CallError(f"waveform is {waveform.dtype}: give floats with full scale 1")
        return waveform.to(self.scorer.get_buffer("row_mean").dtype)

    def _reduce(self, loss: Tensor) -> Tensor:
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


class ScorerLoss(_ScorerFrontEnd):
    """Score of waveforms as a loss: 0 is reference-like, 1 source-like.

    Parameters
    ----------
    scorer : Scorer
        Copied; converting or moving the loss does not affect it.
    rate : int
        Of the waveforms, Hz.
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> from tonewood.scorer.training_loop import initial_scorer
    >>> from tonewood.settings import ScorerSettings, SpectrumSettings
    >>> generator = torch.Generator().manual_seed(0)
    >>> loss = ScorerLoss(initial_scorer(ScorerSettings(), SpectrumSettings(), generator), rate=22_050)
    >>> wave = torch.randn(2, 1, 22_050, generator=generator, requires_grad=True)
    >>> value = loss(wave)
    >>> value.backward()
    >>> value.shape, bool(wave.grad.isfinite().all())
    (torch.Size([]), True)
    """

    def forward(self, waveform: Tensor) -> Tensor:
        """Score waveforms [batch, channels, samples], mixed to mono; autocast is disabled."""
        with without_autocast(waveform):
            return self._reduce(self.scorer().score(self.rows(self._to_loss_precision(waveform))))


class ScorerFeatureLoss(_ScorerFrontEnd):
    """Distance of waveforms from targets in the scorer's features (feature matching).

    The mean absolute difference of each layer's feature maps, relative to the target's mean absolute
    value, averaged over layers (MelGAN, Kumar et al. 2019). It does not depend on the levels.

    Parameters
    ----------
    scorer, rate, reduction
        As in `ScorerLoss`.
    """

    def forward(self, waveform: Tensor, target: Tensor) -> Tensor:
        """Return the distance of waveforms from targets, both [batch, channels, samples].

        The target gets no gradient.
        """
        if waveform.shape[::2] != target.shape[::2]:
            raise CallError(
                f"waveform and target have shapes {tuple(waveform.shape)} and "
                f"{tuple(target.shape)}; give the same batch size and length"
            )
        with without_autocast(waveform):
            scorer = self.scorer()
            output = self._layers(scorer, waveform)
            with torch.no_grad():
                reference = self._layers(scorer, target)
            # Relative to the target, so that layers with large activations do not dominate.
            ratios = [
                (a - b).abs().mean(dim=(1, 2, 3)) / (b.abs().mean(dim=(1, 2, 3)) + 1e-6)
                for a, b in zip(output, reference, strict=True)
            ]
            return self._reduce(torch.stack(ratios).mean(dim=0))

    def _layers(self, scorer: Scorer, waveform: Tensor) -> list[Tensor]:
        return scorer.layers(scorer.normalize(self.rows(self._to_loss_precision(waveform))))


_SCORE_WEIGHT = 0.1  # relative to the windows'; more makes sounds leave the reference (docs/method-notes.md)
_FADE_DB = 5.0  # around the limit of audible frames: a step would have no gradient
_SMOOTHING = 0.5  # of the limit of usual distances, as a share of it


class LossTerms(NamedTuple):
    """Terms of a loss [batch]; each is near 0 for reference takes and about 1 for source takes."""

    score: Tensor  # of the scorer, from 0 to 1
    # Squared distance of mean and standard deviation over frames from those of the reference windows
    windows: Tensor

    @property
    def mean(self) -> Tensor:
        """Weighted mean of the terms [batch]."""
        return (_SCORE_WEIGHT * self.score + self.windows) / (_SCORE_WEIGHT + 1)


class NeuralLoss(ScorerLoss):
    """Distance of [batch, channels, samples] from a model's reference folder, as a differentiable loss.

    It is near 0 for reference takes, about 1 for source takes, and larger for sounds farther away. It is
    the weighted mean of the score and of a distance (`LossTerms`). For models of earlier versions and of
    listeners, it is the score alone.

    Parameters
    ----------
    model : Model, path or name
    rate : int
        Sample rate of the waveforms in Hz, at least 4000; they are resampled if necessary.
    reduction : {"mean", "sum", "none"}
    """

    def __init__(
        self, model: Model | str | Path = "cello", rate: int = 16_000, reduction: str = "mean"
    ) -> None:
        loaded = _load(model)
        super().__init__(loaded.scorer, rate, reduction)
        self.windows: _WindowDistance | None = None
        if loaded.has_graded_scorer:
            with usual_torch_state():  # a loss made within inference_mode is used outside
                self.windows = _WindowDistance(loaded.reference_likeness, loaded.source_likeness)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the loss of waveforms [batch, channels, samples], mixed to mono; autocast is disabled."""
        if self.windows is None:
            return super().forward(waveform)
        return self._reduce(self.terms(waveform).mean)

    def terms(self, waveform: Tensor) -> LossTerms:
        """Return the terms of the loss; for models with the score alone, the distance is 0."""
        with without_autocast(waveform):
            rows_db = self.rows(self._to_loss_precision(waveform))
            score = self.scorer().score(rows_db)
            return LossTerms(
                score, score.new_zeros(len(score)) if self.windows is None else self.windows(rows_db)
            )


class FeatureLoss(ScorerFeatureLoss):
    """Distance from a target in the features of a model's scorer, over [batch, channels, samples].

    It has the parameters of `NeuralLoss`, and is called with waveform and target.
    """

    def __init__(
        self, model: Model | str | Path = "cello", rate: int = 16_000, reduction: str = "mean"
    ) -> None:
        super().__init__(_load(model).scorer, rate, reduction)


class _WindowDistance(nn.Module):
    """Squared distance of clips from the windows of the reference folder, about 1 for source windows.

    Half of it is the Mahalanobis distance, which finds shapes that the folder does not have. It hardly
    opposes what all clips may vary by, such as a tilt, so the other half is the mean square of z-scores.
    """

    mean: Tensor
    scaling: Tensor

    def __init__(self, reference: OutOfDomainDetector, source: OutOfDomainDetector) -> None:
        super().__init__()
        shift = reference.mean - source.mean
        own, others = (np.linalg.inv(each.whitening.T @ each.whitening) for each in (reference, source))
        scalings, usual = [], 0.0
        for scaling in (reference.whitening, np.diag(1 / np.sqrt(np.diag(own)))):
            # E|S(x - μ)|² over source windows, and over reference windows.
            square = np.square(scaling @ shift).sum() + np.trace(scaling @ others @ scaling.T)
            usual += float(np.trace(scaling @ own @ scaling.T) / square) / 2
            scalings.append(scaling / np.sqrt(2 * square))
        self.usual = usual
        # Not stored: they belong to the model that is given.
        self.register_buffer("mean", torch.tensor(reference.mean), persistent=False)
        self.register_buffer("scaling", torch.tensor(np.concatenate(scalings)).float(), persistent=False)

    def forward(self, rows_db: Tensor) -> Tensor:
        """Return the distance [batch] of rows [batch, row, frame] in dB."""
        deviation = window_statistics(rows_db) - self.mean
        square = (deviation @ self.scaling.T).square().sum(dim=1)
        return _beyond(square, self.usual) / _beyond(torch.ones_like(square), self.usual)


def _beyond(square: Tensor, usual: float) -> Tensor:
    """Return how much squared distances exceed what is usual: smoothly, so that the slope stays."""
    width = _SMOOTHING * usual
    beyond: Tensor = functional.softplus((square - usual) / width) * width
    return beyond


def window_statistics(rows_db: Tensor) -> Tensor:
    """Return mean and standard deviation over the audible frames of clips [batch, feature].

    As `describe_windows`, but differentiable: frames fade out around the limit, and a clip is one window.
    """
    level = frame_levels(rows_db)
    weight = _fade(level, AUDIBLE_RANGE_DB)
    weight = weight / weight.sum(dim=1, keepdim=True)
    power = (power_of_db(level - level.amax(dim=1, keepdim=True)) * weight).sum(dim=1)
    mean_db = level.amax(dim=1) + 10 * power.log10()
    relative = (rows_db - mean_db[:, None, None]).clip(WINDOW_FLOOR_DB)
    mean = (relative * weight[:, None]).sum(dim=2)
    variance = ((relative - mean[:, :, None]).square() * weight[:, None]).sum(dim=2)
    # The summand keeps the slope of the root finite where all frames are the same.
    return torch.cat([mean, (variance + 1e-4).sqrt()], dim=1)


def _fade(level_db: Tensor, range_db: float) -> Tensor:
    """Return weights [batch, frame] of frame levels: 1 within a range of the loudest, falling to 0 below."""
    loudest = level_db.amax(dim=1, keepdim=True)
    return ((level_db - loudest + range_db) / _FADE_DB + 0.5).clip(0, 1)


def _load(model: Model | str | Path) -> Model:
    return model if isinstance(model, Model) else load_model(model)
