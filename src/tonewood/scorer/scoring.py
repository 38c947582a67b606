"""Score recordings: every audible window, each as long as a training crop."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.chunking import ArrayTimeSeries, TimeSeries
from tonewood.dsp.features import (
    AUDIBLE_RANGE_DB,
    WINDOW_BATCH,
    filterbank_gradient,
    is_audible,
    window_batches,
)
from tonewood.scorer.network import Scorer
from tonewood.utils.arrays import Levels
from tonewood.utils.parallel import parallel_map


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


def _score_batch(scorer: Scorer, windows: Levels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scores [n] of windows, and the levels [n] of their loudest cells."""
    return scorer.score(windows), windows.max(axis=(1, 2))


class WindowScore:
    """Scores of windows, and their gradient: the first term of a search's objective.

    Parameters
    ----------
    reads_bins : bool
        Windows hold the bins of the spectrogram instead of the scorer's rows.
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
