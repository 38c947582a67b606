"""A model's card: what it was taught and how well it does, as it travels inside the model file."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import SerializerFunctionWrapHandler, model_serializer

from tonewood.scoring.findings import ConfoundAudit
from tonewood.settings import Normalization, Settings


class Quartiles(NamedTuple):
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Quartiles":
        """Quartiles of values [n]."""
        return cls(*np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75]).tolist())


class ScorerCard(Settings):
    """How a scorer or judge does on takes that it never saw.

    The accuracy's 95 % interval counts takes, not windows: what a take has, all its windows have.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    windows: int
    takes: int
    calibration_error: float
    reference_scores: Quartiles
    source_scores: Quartiles
    parameters: int
    steps: int
    seed: int


class ListenerCard(Settings):
    """What listeners taught, and how far the scorer agrees with them on what it never heard.

    Parameters
    ----------
    comparisons, ratings : int
        Answers, of recordings that fall into so many groups.
    learnt_from, held_out : int
        Answers on either side; what joins both sides is on neither.
    independent : int
        What the interval counts: held-out pairs of recordings, each once; of ratings, recordings.
    agreement : float
        Share of the held-out answers that the scorer orders alike; for ratings, of their pairs.
    """

    comparisons: int
    ratings: int
    recordings: int
    groups: int
    learnt_from: int
    held_out: int
    independent: int
    agreement: float
    agreement_interval: tuple[float, float]


class FolderCard(Settings):
    """What a training folder held."""

    name: str
    takes: int
    hours: float


class PriorCard(Settings):
    """The blend of priors that the cycle chose, and the cycle distance of every candidate, dB.

    Weights are the shares of static, neighbours, forward and backward network, and the share of
    the level that survives. Beliefs are in the neighbours' and the networks' masks, each in what
    it does from take to take and from moment to moment. The guide's gains are of the cycle
    distance, for every weight tried.
    """

    weights: tuple[float, float, float, float, float]
    beliefs: tuple[tuple[float, float], tuple[float, float]]
    cycle_db: tuple[tuple[tuple[float, float, float, float, float], float], ...]
    guide_weight: float
    guide_gains: tuple[tuple[float, float], ...]


class PredictorCard(Settings):
    """How a predictor does on takes that it never saw.

    It misses the masks of the whole method by so much, which themselves depart from the static
    one by so much, rms; and the cycle distances of nothing done, of the prior and of the
    predictor. All dB.
    """

    parameters: int
    takes: int
    missed_db: float
    spread_db: float
    cycle_db: tuple[float, float, float]


class ModelCard(Settings):
    """What a model is made of and how well it does; travels inside the model file.

    The audit is of the recordings as they were learnt from, a fix applied. A model learnt from
    listeners alone has no prior; its folders are the halves of what they heard.
    """

    reference: FolderCard
    source: FolderCard
    scorer: ScorerCard
    judge: ScorerCard | None
    prior: PriorCard | None
    seconds: float
    seed: int
    versions: dict[str, str]
    domain: str = ""
    licence: str = ""
    notice: str = ""
    audit: ConfoundAudit | None = None
    fix: Normalization | None = None
    predictor: PredictorCard | None = None
    ears: ListenerCard | None = None

    @model_serializer(mode="wrap")
    def _omit_absent_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what most models have nothing of, so that their files stay what they were."""
        told: dict[str, Any] = handler(self)
        if self.ears is None:
            told.pop("ears", None)
        return told
