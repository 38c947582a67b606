"""The scorer L_c (paper, section III): from spectrogram to score; 0 is reference-like, 1 source-like.

Convolutions, global average pooling, dropout and a linear layer: the mean of a class activation map
plus the bias is exactly the logit. Levels are relative to the clip's own, weighted by loudness, so
the score does not depend on the recording's level. Of a recording, every audible window is scored, each
as long as a training crop.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import ArrayTimeSeries, TimeSeries
from tonewood.dsp.features import (
    AUDIBLE_RANGE_DB,
    WINDOW_BATCH,
    apply_filterbank,
    center_frequencies,
    filterbank_gradient,
    is_audible,
    mean_level,
    power_of_db,
    window_batches,
)
from tonewood.settings import ScorerSettings, SpectrumSettings
from tonewood.utils.arrays import Array, FloatArray, Levels
from tonewood.utils.layers import (
    Network,
    apply_dropout,
    check_shapes,
    convolve,
    convolve_maps_gradient,
    pad_edges,
    pad_edges_gradient,
    sigmoid,
    silu,
    silu_slope,
)
from tonewood.utils.parallel import parallel_map

if TYPE_CHECKING:
    from torch import Generator

_SCALE_DB = 15.0  # brings levels to about unit spread


class Scorer(Network):
    """Fully convolutional scorer of log spectrograms.

    Parameters
    ----------
    settings : ScorerSettings
    spectrum : SpectrumSettings
        Analysis of the input.
    weights : dict of Array
        Named and shaped as in `scorer_shapes`; KeyError or ValueError if not.
    """

    constants = frozenset({"row_mean", "loud_row"})

    def __init__(
        self, settings: ScorerSettings, spectrum: SpectrumSettings, weights: Mapping[str, Any]
    ) -> None:
        super().__init__(weights)
        self.settings, self.spectrum = settings, spectrum
        check_shapes(self.weights, scorer_shapes(settings, spectrum))

    def __call__(self, magnitude_db: Array) -> Array:
        """Return scores [batch] in (0, 1) of log magnitudes [batch, bin, frame] in dBFS."""
        return self.score(self.rows(magnitude_db))

    def rows(self, magnitude_db: Array) -> Array:
        """Return the scorer's input rows [batch, row, frame] in dB from log magnitudes in dBFS."""
        return apply_filterbank(magnitude_db, self.settings.bands, self.spectrum)

    def score(self, rows_db: Array) -> Array:
        """Return scores [batch] of rows [batch, row, frame] in dB."""
        return sigmoid(self.logit(rows_db))

    def logit(self, rows_db: Array, generator: "Generator | None" = None) -> Array:
        """Return logits [batch] of rows [batch, row, frame] in dB; a generator enables dropout."""
        return self.logit_from_normalized(self.normalize(rows_db), generator)

    def logit_from_normalized(self, normalized: Array, generator: "Generator | None" = None) -> Array:
        """Return logits [batch] of the output of `normalize`; zeros are the mean row throughout."""
        return self.logit_from_features(self.features(normalized), generator)

    def logit_from_features(self, maps: Array, generator: "Generator | None" = None) -> Array:
        """Return logits [batch] of the last feature maps [batch, channel, row', frame']."""
        pooled = apply_dropout(maps.mean((2, 3)), self.settings.dropout, generator)
        logit: Array = (pooled @ self.weights["linear.weight"].T + self.weights["linear.bias"])[:, 0]
        return logit

    def score_gradient(self, rows_db: Levels) -> Levels:
        """Return the gradient [batch, row, frame] of the mean score of rows [batch, row, frame] in dB."""
        normalized = self.normalize(rows_db)
        sums = self._layer_sums(normalized)
        score = sigmoid(self.logit_from_features(silu(sums[-1])))
        slope = score * (1 - score) / len(rows_db)
        batch, channels, *cells = sums[-1].shape
        per_cell = (slope[:, None] * self.weights["linear.weight"])[..., None, None] / math.prod(cells)
        back = np.broadcast_to(per_cell, (batch, channels, *cells))
        for number in reversed(range(self.settings.depth)):
            weight = self.weights[f"convolutions.{number}.weight"]
            reach = weight.shape[-1] // 2
            inputs = sums[number - 1] if number > 0 else normalized
            size = tuple(length + 2 * reach for length in inputs.shape[-2:])
            back = back * silu_slope(sums[number])
            padded = convolve_maps_gradient(back, weight, self.strides[number], size)
            back = pad_edges_gradient(padded, reach)
        return self._normalization_gradient(back[:, 0], rows_db)

    def _normalization_gradient(self, gradient: Levels, rows_db: Levels) -> Levels:
        """Return the gradient of the rows in dB, of that of the output of `normalize`."""
        weighted_db = rows_db + self.weights["loud_row"][:, None]
        relative = rows_db - self.level(rows_db)
        inside = gradient / np.float32(_SCALE_DB) * (relative >= -self.settings.range_db)
        # Each cell raises the level by its share of the power.
        share = power_of_db(weighted_db - weighted_db.max(axis=(1, 2), keepdims=True))
        share /= share.sum(axis=(1, 2), keepdims=True)
        result: Levels = inside - inside.sum(axis=(1, 2), keepdims=True) * share
        return result

    def activations(self, rows_db: Array) -> Array:
        """Return the last feature maps [batch, channel, row', frame'] of rows [batch, row, frame] in dB."""
        return self.features(self.normalize(rows_db))

    def features(self, normalized: Array) -> Array:
        """Return the last feature maps [batch, channel, row', frame'] of the output of `normalize`."""
        return silu(self._layer_sums(normalized)[-1])

    def layers(self, normalized: Array) -> list[Array]:
        """Return the feature maps [batch, channel, row', frame'] of every layer."""
        return [silu(sums) for sums in self._layer_sums(normalized)]

    def _layer_sums(self, normalized: Array) -> list[Array]:
        """Return the output of every layer's convolution, before its SiLU."""
        x, sums = normalized[:, None], []
        for number in range(self.settings.depth):
            x = self.convolve_layer(number, x if number == 0 else silu(x))
            sums.append(x)
        return sums

    def convolve_layer(self, number: int, maps: Array) -> Array:
        """Return the output of a layer's convolution [batch, channel, row', frame'], before its SiLU."""
        weight, bias = (self.weights[f"convolutions.{number}.{part}"] for part in ("weight", "bias"))
        # Edges repeat: with zero padding, every border would look like an onset.
        padded = pad_edges(maps, weight.shape[-1] // 2)
        sums: Array = convolve(padded, weight, bias, stride=self.strides[number])
        return sums

    def normalize(self, rows_db: Array, level_db: Array | None = None) -> Array:
        """Return rows relative to the clip's level and the mean row, scaled to about unit variance."""
        level = self.level(rows_db) if level_db is None else level_db
        relative = (rows_db - level).clip(-self.settings.range_db)
        normalized: Array = (relative - self.weights["row_mean"][:, None]) / _SCALE_DB
        return normalized

    def level(self, rows_db: Array) -> Array:
        """Return the mean level of each clip [batch, 1, 1] in dB, without rumble."""
        level: Array = mean_level(rows_db + self.weights["loud_row"][:, None])[..., None, None]
        return level

    @property
    def strides(self) -> list[tuple[int, int]]:
        """Rows and frames from one value of each layer's output to the next, in those of its input."""
        return [(2, 2) if number < 2 else (2, 1) for number in range(self.settings.depth)]

    @property
    def crop_frames(self) -> int:
        """Number of frames in a training crop."""
        return self.spectrum.to_frames(self.settings.crop_seconds)


def scorer_shapes(settings: ScorerSettings, spectrum: SpectrumSettings) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a scorer."""
    rows = len(center_frequencies(settings.bands, spectrum))
    channels = [1] + [settings.width * (1 if i == 0 else 2) for i in range(settings.depth)]
    shapes: dict[str, tuple[int, ...]] = {"row_mean": (rows,), "loud_row": (rows,)}
    for number, (inputs, outputs) in enumerate(pairwise(channels)):
        size = 5 if number == 0 else 3
        shapes[f"convolutions.{number}.weight"] = (outputs, inputs, size, size)
        shapes[f"convolutions.{number}.bias"] = (outputs,)
    return shapes | {"linear.weight": (1, channels[-1]), "linear.bias": (1,)}


def loudness_row(settings: ScorerSettings, spectrum: SpectrumSettings) -> FloatArray:
    """Return the weighting of the rows [row] in dB with which a clip's level is measured."""
    # First-order high-pass at 60 Hz, after that of BS.1770: rumble must not determine the level.
    hz = center_frequencies(settings.bands, spectrum).astype(np.float32)
    with np.errstate(divide="ignore"):  # 0 Hz does not count at all
        return 10 * np.log10(hz**2 / (hz**2 + np.float32(60.0**2)))


def audible_windows(windows: Levels, range_db: float = AUDIBLE_RANGE_DB) -> NDArray[np.bool_]:
    """Mark windows [n] whose loudest cell is within `range_db` of the loudest of all."""
    return is_audible(windows.max(axis=(1, 2)), range_db)


def score_windows(scorer: Scorer, rows_db: Levels) -> NDArray[np.float32]:
    """Score the audible windows [n] of a take [row, frame] in dB."""
    return score_recording(scorer, ArrayTimeSeries(rows_db))


def score_recording(scorer: Scorer, rows_db: TimeSeries) -> NDArray[np.float32]:
    """Score the audible windows [n] of a recording [row, frame] of any length."""
    score, batches = partial(_score_batch, scorer), window_batches(rows_db, scorer.crop_frames)
    # A short recording is one batch, not worth a thread.
    is_one_batch = rows_db.frames <= WINDOW_BATCH * scorer.crop_frames
    scores, loudest = zip(
        *(map(score, batches) if is_one_batch else parallel_map(score, batches)), strict=True
    )
    audible_scores: NDArray[np.float32] = np.concatenate(scores)[is_audible(np.concatenate(loudest))]
    return audible_scores


def _score_batch(
    scorer: Scorer, read: Callable[[], Levels]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scores [n] of windows, and the levels [n] of their loudest cells."""
    windows = read()
    return scorer.score(windows), windows.max(axis=(1, 2))


class WindowScore:
    """Scores of windows, and their gradient: the first term of a search's objective.

    With `reads_bins`, windows hold the bins of the spectrogram instead of the scorer's rows.
    """

    def __init__(self, scorer: Scorer, *, reads_bins: bool = False) -> None:
        self._scorer, self._reads_bins = scorer, reads_bins

    def __call__(self, windows: Levels) -> NDArray[np.float32]:
        """Return the scores [window] of levels [window, row, frame] in dB."""
        return self._scorer(windows) if self._reads_bins else self._scorer.score(windows)

    def gradient(self, windows: Levels) -> Levels:
        """Return the gradient [window, row, frame] of the mean score."""
        scorer = self._scorer
        if not self._reads_bins:
            return scorer.score_gradient(windows)
        slope = scorer.score_gradient(scorer.rows(windows))
        return filterbank_gradient(slope, windows, scorer.settings.bands, scorer.spectrum)
