"""A recording and a model → how much it sounds like the source, along time and in all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tonewood.files.modelfile import Model
from tonewood.scoring.training import score_track
from tonewood.workflow.enhance import mean_score
from tonewood.workflow.hearing import InMemory, Sound, listen


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


def score(samples: NDArray[np.float32], rate: int, model: Model) -> Score:
    """Score samples (channels, samples) at any rate."""
    return score_sound(InMemory(samples, rate), model)


def score_sound(sound: Sound, model: Model) -> Score:
    """Score a recording of any length."""
    rows = listen(sound, model, pitched=False).rows_db
    along = score_track(model.scorer, rows)
    judge = mean_score(model.judge, rows) if model.judge else None
    return Score(float(along.mean()), judge, tuple(along.tolist()))
