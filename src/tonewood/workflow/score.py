"""A recording and a model → how much it sounds like the source, along time and in all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.files.modelfile import Model
from tonewood.scoring.training import score_recording
from tonewood.workflow import notebook
from tonewood.workflow.enhance import mean_score
from tonewood.workflow.hearing import ArraySource, AudioSource, analyse_source


@dataclass(frozen=True)
class Score:
    """Scores of one recording: 0 sounds like the reference, 1 like the source.

    Parameters
    ----------
    scorer : float
        Mean over windows as long as the scorer's training crops.
    judge : float or None
        The same by the judge.
    windows : tuple of float
        The scorer's score of each audible window, in time order.
    """

    scorer: float
    judge: float | None
    windows: tuple[float, ...]

    def _repr_html_(self) -> str:
        """The scores for notebooks, and the scorer's along time."""
        judge = "none" if self.judge is None else f"{self.judge:.2f}"
        score = f"{self.scorer:.2f} (0 sounds like the reference, 1 like the source)"
        windows = f"{len(self.windows)}, from {min(self.windows):.2f} to {max(self.windows):.2f}"
        rows = [("score", score), ("judge", judge), ("windows", windows)]
        return notebook.table_html(rows) + notebook.score_curve_html(self.windows)


def score_array(samples: NDArray[np.float32], rate: int, model: Model) -> Score:
    """Score samples (channels, samples) at any rate."""
    return score_source(ArraySource(samples, rate), model)


def score_source(source: AudioSource, model: Model) -> Score:
    """Score a recording of any length."""
    rows = analyse_source(source, model, with_pitch=False).rows_db
    along = score_recording(model.scorer, rows)
    judge = mean_score(model.judge, rows) if model.judge else None
    return Score(float(along.mean()), judge, tuple(along.tolist()))
