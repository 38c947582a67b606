"""A model's neural losses over waveforms, for the training of other networks.

A score alone can be fooled: a synthesiser that follows it lowers the score while its sound leaves the
reference. `NeuralLoss` therefore adds the distance from the statistics of the reference folder that a
model stores, which cannot be fooled in the same way.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tonewood.dsp.features import AUDIBLE_RANGE_DB, frame_levels, power_of_db
from tonewood.mask.certificate import WINDOW_FLOOR_DB, OutOfDomainDetector
from tonewood.model.model import Model, load_model
from tonewood.scorer.losses import ScorerFeatureLoss, ScorerLoss, without_autocast
from tonewood.utils.optional_torch import usual_torch_state

_SCORE_WEIGHT = 0.1  # relative to the windows'; more makes sounds leave the reference (docs/method-notes.md)
_FADE_DB = 5.0  # around the limit of audible frames: a step would have no gradient
_SMOOTHING = 0.5  # of the limit of usual distances, as a share of it


class LossTerms(NamedTuple):
    """Terms of a loss [batch]; each is near 0 for reference takes and about 1 for source takes.

    Parameters
    ----------
    score : Tensor
        Of the scorer, from 0 to 1.
    windows : Tensor
        Squared distance of mean and standard deviation over frames from those of the reference windows.
    """

    score: Tensor
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
        self,
        model: Model | str | Path = "cello",
        rate: int = 16_000,
        reduction: str = "mean",
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
        self,
        model: Model | str | Path = "cello",
        rate: int = 16_000,
        reduction: str = "mean",
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
