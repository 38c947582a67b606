"""Static mask: the difference between the folders that all recordings share, estimated without pairs.

Recordings of one folder differ too: in room, microphone and piece. With few or very different
recordings, that looks like a difference between the folders. There are two estimates:

* The difference of matched frames, which does not depend on what is played. Each of its cosine
  components is shrunk by its variance over sessions (empirical Bayes: James & Stein 1961).
* The plain difference of the mean spectra, where matched frames hide a part of the difference.

Held-out sessions choose between them, and how much is shrunk. They seldom tell neighbouring strengths
of the shrinkage apart, so the mask is an average over those that they do not refuse.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.mask.mask import moving_average
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures, cosine_basis
from tonewood.utils.arrays import Levels
from tonewood.utils.parallel import parallel_map

if TYPE_CHECKING:
    from tonewood.utils.arrays import TakeWeights

_NEIGHBOURS = 36  # codes that a frame is compared with
_POOLED_SHAPES = 5  # adjacent cosine components that share one estimate
_SAME_SESSION_RATIO = 1.5  # most that takes of one session differ, relative to the halves of a take
_HALVINGS = 20  # random halves of both folders


PENALTIES = (1.0, 0.5, 0.25, 0.0)
"""Factors of the variance by which matched differences are shrunk; 0 leaves them as they are."""


class StaticMethod(NamedTuple):
    """Estimate of the static mask."""

    # Share of the mask of each of `PENALTIES`; empty for the plain difference of mean spectra
    shares: tuple[float, ...]


_MOST_SHRUNK = StaticMethod((1.0, 0.0, 0.0, 0.0))


class SpectralDifference(NamedTuple):
    """Difference of a folder's takes from matched frames of the other folder."""

    rows_db: Levels  # [take, row]: reference minus source
    # [take, row]: the same for the first half of each take, minus that for its second half
    half_difference_db: Levels
    spectrum_db: Levels  # [take, row]: mean spectrum of each take
    frames: NDArray[np.float32]  # [take]: number of audible frames, the weight of each take

    @property
    def mean(self) -> NDArray[np.float32]:
        """Weighted mean over the takes [row]."""
        return self._weighted_mean(self.rows_db)

    @property
    def mean_spectrum(self) -> NDArray[np.float32]:
        """Weighted mean spectrum of the takes [row]."""
        return self._weighted_mean(self.spectrum_db)

    def _weighted_mean(self, values: Levels) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = self.frames @ values / self.frames.sum()
        return mean

    def with_weights(self, take_weights: "TakeWeights") -> Self:
        """Multiply the takes' weights by others."""
        if take_weights is None:
            return self
        return self._replace(frames=self.frames * np.asarray(take_weights, np.float32))

    def merge_sessions(self) -> Self:
        """Average the takes of each session."""
        session = cluster_sessions(self)
        weights = (np.arange(session.max() + 1)[:, None] == session) * self.frames
        frames = weights.sum(axis=1)
        weights = weights / frames[:, None]
        rows, halves, spectra = (weights @ values for values in self[:3])
        return type(self)(rows, halves, spectra, frames)

    def select(self, takes: NDArray[np.int64]) -> Self:
        """Return a part of the takes."""
        return type(self)(*(values[takes] for values in self))


def spectral_difference(
    takes: Sequence[PriorFeatures], folder: FolderStatistics, other: FolderStatistics, *, sign: float
) -> SpectralDifference:
    """Compare the takes of a folder with their nearest neighbours in the other folder.

    `sign` is 1 for reference takes, -1 for source takes.
    """

    def compare(take: PriorFeatures) -> tuple[Levels, Levels, Levels]:
        matched = other.codebook.nearest_mean(folder.query_vectors(take), _NEIGHBOURS)
        difference = sign * (take.rows_db - matched)[:, take.audible]
        # Halves of a take share its room and microphone: their difference is the noise level.
        first, second = np.array_split(difference, 2, axis=1)
        half_difference = _mean_or_nan(first) - _mean_or_nan(second)
        return difference.mean(axis=1), half_difference, take.rows_db[:, take.audible].mean(axis=1)

    rows, halves, spectra = map(np.stack, zip(*parallel_map(compare, takes), strict=True))
    frames = np.array([take.audible.sum() for take in takes], dtype=np.float32)
    return SpectralDifference(rows, halves, spectra, frames)


def _mean_or_nan(rows_db: Levels) -> NDArray[np.float32]:
    """Return the mean over frames [row]; NaN without any, as for the second half of one frame."""
    if rows_db.shape[1] == 0:
        return np.full(len(rows_db), np.nan, dtype=np.float32)
    mean: NDArray[np.float32] = rows_db.mean(axis=1)
    return mean


def cluster_sessions(differences: SpectralDifference) -> NDArray[np.int64]:
    """Return the session number of each take [take], from 0.

    Recordings are cut into takes, and takes of one session share its room and microphone. Takes that
    differ little more than the halves of one take are linked (single linkage).
    """
    from scipy.sparse.csgraph import connected_components  # takes long to load; only in training

    rows, half_rows = (
        x - x.mean(axis=1, keepdims=True) for x in (differences.rows_db, differences.half_difference_db)
    )
    # A take of one audible frame has an empty half.
    spread = np.square(half_rows).mean(axis=1)
    limit = _SAME_SESSION_RATIO * float(np.nanquantile(spread, 0.5, method="lower"))
    distance = np.square(rows[:, None] - rows[None]).mean(axis=2)
    _, label = connected_components(distance <= limit, directed=False)
    return np.asarray(label, dtype=np.int64)


def fit_static_mask(
    reference: SpectralDifference,
    source: SpectralDifference,
    method: StaticMethod = _MOST_SHRUNK,
    *,
    doubt: float = 1.0,
) -> NDArray[np.float32]:
    """Return the static mask [row] in dB; `doubt` multiplies all penalties.

    Of matched frames, it is the mean of both folders' differences. Each cosine component c of it is
    scaled by 1 - penalty · v / c², where v is the variance of its mean over sessions. Both v and c² are
    averaged over adjacent components. The overall level is not shrunk.
    """
    if not method.shares:
        return reference.mean_spectrum - source.mean_spectrum
    estimate = _ShapeEstimate.from_sides(reference, source)
    masks = np.stack([estimate.shrink(doubt * penalty) for penalty in PENALTIES])
    static: NDArray[np.float32] = np.array(method.shares, np.float32) @ masks
    return static


class _ShapeEstimate(NamedTuple):
    """Difference of matched frames and the variance of its mean, as cosine components [component]."""

    shape: NDArray[np.float32]
    variance: NDArray[np.float32]

    @classmethod
    def from_sides(cls, reference: SpectralDifference, source: SpectralDifference) -> Self:
        """Average both folders' differences, with their variance over sessions."""
        # Cosine components separate broad from fine differences, so that each is shrunk by its own variance.
        basis = cosine_basis(reference.rows_db.shape[1]).astype(np.float32)
        total = np.zeros(len(basis), dtype=np.float32)
        sides = [
            side._replace(rows_db=side.rows_db @ basis.T)
            for side in (reference.merge_sessions(), source.merge_sessions())
        ]
        variances = [_session_variance(side) for side in sides]
        for side, takes, own_variance, other_variance in zip(
            sides, (reference, source), variances, variances[::-1], strict=True
        ):
            # A single take may vary as the other folder does; one session of many takes hardly varies.
            variance = other_variance if len(takes.frames) == 1 else own_variance
            if variance is not None:
                total = total + np.square(side.frames / side.frames.sum()).sum() * variance
        shape: NDArray[np.float32] = (sides[0].mean + sides[1].mean) / np.float32(2)
        return cls(shape, total)

    def shrink(self, penalty: float) -> NDArray[np.float32]:
        """Return the shrunk mask [row] in dB."""
        noise_power, power = moving_average(
            np.stack([self.variance, np.square(self.shape)])[:, 1:], _POOLED_SHAPES
        )
        factor = 1 - np.float32(penalty) * noise_power / power.clip(1e-9)
        shrunk = np.concatenate([self.shape[:1], factor.clip(0) * self.shape[1:]])
        static: NDArray[np.float32] = shrunk @ cosine_basis(len(shrunk)).astype(np.float32)
        return static


def select_static_method(reference: SpectralDifference, source: SpectralDifference) -> StaticMethod:
    """Return the method that held-out sessions prefer (takes, if there is one session).

    A mask that is fitted to one half of both folders predicts the difference of mean spectra of the
    other half. The plain difference is used where its error is the smallest; else strengths of the
    shrinkage are averaged, weighted by exp(-(d / s)²). Here d is a strength's mean error beyond the smallest
    one, and s the standard deviation of this excess over random halves. Folders of a single take
    cannot be halved: they get the first method.
    """
    units = [_held_out_units(side) for side in (reference, source)]
    if min(unit.max() for unit in units) == 0:
        return _MOST_SHRUNK
    rng = np.random.default_rng(0)  # the choice depends on the folders alone
    errors = []
    for _ in range(_HALVINGS):
        first, second = zip(*(_halve(unit, rng) for unit in units), strict=True)
        errors.append(
            [_held_out_errors(reference, source, *halves) for halves in ((first, second), (second, first))]
        )
    by_halving = np.mean(errors, axis=1)
    best = int(by_halving.mean(axis=0).argmin())
    if best == len(PENALTIES):
        return StaticMethod(())
    excess = by_halving[:, :-1] - by_halving[:, [best]]
    # The best method has neither excess nor spread.
    weights = np.exp(-np.square(excess.mean(axis=0) / excess.std(axis=0).clip(1e-9)))
    return StaticMethod(tuple((weights / weights.sum()).tolist()))


def _held_out_errors(
    reference: SpectralDifference,
    source: SpectralDifference,
    fitted: Sequence[NDArray[np.int64]],
    held_out: Sequence[NDArray[np.int64]],
) -> list[float]:
    """Return the error of each of `PENALTIES`, then that of the plain difference."""
    sides = _without_others(reference, source, *fitted)
    target = reference.select(held_out[0]).mean_spectrum - source.select(held_out[1]).mean_spectrum
    estimate = _ShapeEstimate.from_sides(*sides)
    masks = [*map(estimate.shrink, PENALTIES), sides[0].mean_spectrum - sides[1].mean_spectrum]
    return [_shape_error(mask, target) for mask in masks]


def _without_others(
    reference: SpectralDifference,
    source: SpectralDifference,
    reference_takes: NDArray[np.int64],
    source_takes: NDArray[np.int64],
) -> tuple[SpectralDifference, SpectralDifference]:
    """Return a part of the takes of both folders, as if the others were not there.

    Takes are compared with frames of the whole other folder. Its mean is replaced by that of the part.
    """
    part, other_part = reference.select(reference_takes), source.select(source_takes)
    return (
        part._replace(rows_db=part.rows_db + other_part.mean - source.mean),
        other_part._replace(rows_db=other_part.rows_db + part.mean - reference.mean),
    )


def _held_out_units(side: SpectralDifference) -> NDArray[np.int64]:
    """Return the number of the unit of each take that is held out together."""
    session = cluster_sessions(side)
    return session if session.any() else np.arange(len(session))


def _halve(unit: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the takes of both halves; each has at least one unit."""
    order = rng.permutation(unit.max() + 1)
    in_first = np.isin(unit, order[: len(order) // 2])
    return np.flatnonzero(in_first), np.flatnonzero(~in_first)


def _shape_error(mask_db: Levels, target_db: Levels) -> float:
    """Return the mean squared difference in dB², the overall level removed."""
    return float((mask_db - target_db).var())


def _session_variance(side: SpectralDifference) -> NDArray[np.float32] | None:
    """Return the variance over sessions [component]; None for a single session."""
    weight = side.frames / side.frames.sum()
    # Bessel's correction for weighted observations.
    unbiased = 1 - float(np.square(weight).sum())
    if unbiased < 1e-3:
        return None
    variance: NDArray[np.float32] = weight @ np.square(side.rows_db - side.mean) / np.float32(unbiased)
    return variance
