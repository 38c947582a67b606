"""Priors: masks from which a search starts, and towards which it is regularised.

`static` is a match EQ between matched frames of the folders. `neighbours` and two small networks
adapt to every frame. `fitting` fits them and selects the blend.

Adaptive masks are shrunk by how well the data support them. Recordings of one folder differ too: in room,
microphone and piece. A placebo measures how much: the same method learns to map one half of a folder to
its other half, where the true correction is zero. The variance that it finds is chance level.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import Features
from tonewood.mask.mask import moving_average
from tonewood.priors.nearest_neighbours import (
    Codebook,
    FolderStatistics,
    PriorFeatures,
    count_pitch_keys,
    key_vectors,
    map_to_other,
)
from tonewood.priors.predictor import MaskNetwork
from tonewood.setting_types import PriorKind
from tonewood.settings import PriorsSettings
from tonewood.utils.arrays import Levels
from tonewood.utils.layers import tensors_below


class ShrinkageFactors(NamedTuple):
    """Factors in [0, 1] that scale the adaptive part of a mask."""

    per_recording: float = 1.0  # scales the deviation of a recording's mean mask from the static mask
    per_frame: float = 1.0  # scales the deviation of each frame from the recording's mean mask

    def apply(self, mask_db: Levels, static_db: Levels, mean_db: Levels) -> Levels:
        """Return the shrunk mask [row, frame] in dB.

        Parameters
        ----------
        static_db : array [row]
            Static mask, which is shrunk already.
        mean_db : array [row]
            Mean of the mask over the recording's audible frames.
        """
        recording_db = static_db + np.float32(self.per_recording) * (mean_db - static_db)
        shrunk: Levels = recording_db[:, None] + np.float32(self.per_frame) * (mask_db - mean_db[:, None])
        return shrunk

    @classmethod
    def from_variance(cls, real: "Variance", placebo: "Variance", penalty: float = 1.0) -> Self:
        """Return 1 where the placebo's variance is small, 0 where it reaches the real one; else between."""
        factors = []
        for real_db2, placebo_db2, trusted, chance in zip(real, placebo, _TRUSTED, _CHANCE, strict=True):
            # Linear between the two ratios; the floor keeps the division defined for zero masks.
            ratio = penalty * placebo_db2 / max(real_db2, 1e-9)
            factors.append(min(max((chance - ratio) / (chance - trusted), 0.0), 1.0))
        return cls(*factors)


class Variance(NamedTuple):
    """Variance of masks in dB², split as `ShrinkageFactors` are."""

    per_recording: float  # of the recordings' mean masks, overall level removed
    per_frame: float  # of the frames around their recording's mean mask

    @classmethod
    def from_masks(cls, masks: Sequence[Levels], takes: Sequence[PriorFeatures]) -> Self:
        """Compute the variance of the masks [row, frame] of at least two takes."""
        pairs = list(zip(masks, takes, strict=True))
        means = np.stack([mean_over_audible(mask, take.audible) for mask, take in pairs])
        per_frame = [
            np.square((mask - mean[:, None])[:, take.audible]).mean()
            for (mask, take), mean in zip(pairs, means, strict=True)
        ]
        shapes = means - means.mean(axis=1, keepdims=True)
        return cls(float(shapes.var(axis=0, ddof=1).mean()), float(np.mean(per_frame)))


# Ratios of placebo to real variance at which the factor leaves 1 and reaches 0. Those per recording
# are stricter, since a folder has few recordings but many frames.
_TRUSTED, _CHANCE = Variance(0.35, 0.5), Variance(0.6, 0.9)


def mean_over_audible(mask_db: Levels, audible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean [row] over the audible frames of [row, frame]."""
    mean: NDArray[np.float32] = mask_db[:, audible].mean(axis=1)
    return mean


NETWORK_SMOOTHING_MS = 50.0


class BlendWeights(NamedTuple):
    """Share of each prior in a blend, summing to 1, and a factor for the level of the result.

    `level` scales the mean over rows of each frame's mask. Folders without pairs tell little about
    how loud the reference would be at a moment, so less of it may be better.
    """

    static: float
    neighbours: float
    forward: float
    backward: float
    level: float = 1.0


class ShrinkageTable(NamedTuple):
    """Shrinkage of each kind of adaptive prior."""

    neighbours: ShrinkageFactors = ShrinkageFactors()
    networks: ShrinkageFactors = ShrinkageFactors()


AdaptiveMasks = Sequence[Levels | None]
"""Masks of the neighbours and both networks; None for a prior of weight 0."""

_ALL_PRIORS = BlendWeights(1.0, 1.0, 1.0, 1.0)
_WEIGHTS_OF_KIND = {
    "static": BlendWeights(1.0, 0.0, 0.0, 0.0),
    "neighbours": BlendWeights(0.0, 1.0, 0.0, 0.0),
    "network": BlendWeights(0.0, 0.0, 0.5, 0.5),
}


@dataclass(frozen=True)
class Priors:
    """All priors of a model."""

    reference: FolderStatistics
    source: FolderStatistics
    # [row]: fitted to all takes, including those held out from the other priors; the networks learned gains
    # relative to the mask of the others
    static_db: NDArray[np.float32]
    networks: tuple[MaskNetwork, MaskNetwork]  # forward, backward
    shrinkage: ShrinkageTable
    weights: BlendWeights  # the selected blend: prior `auto`
    settings: PriorsSettings
    hop_ms: float
    # Typical `MaskProjection.ratio` of source takes, which need the whole blend. None in models of earlier
    # versions, whose networks do not say what a recording still needs.
    source_need: float | None = None

    def mask(self, features: Features, kind: PriorKind) -> Levels:
        """Return the mask [row, frame] in dB for a whole recording."""
        take, weights = self.source.prior_features(features), self.weights_of(kind)
        adapted = self.adaptive_masks(take, weights)
        mask = self.combine(take.activity, adapted, _audible_means(adapted, take.audible), weights)
        if not self.scales_by_need(kind):
            return mask
        return np.float32(self.need(self.project(take, mask, adapted))) * mask

    def weights_of(self, kind: PriorKind) -> BlendWeights:
        """Return the blend of a kind of prior."""
        return self.weights if kind == "auto" else _WEIGHTS_OF_KIND[kind]

    def adaptive_masks(self, take: PriorFeatures, weights: BlendWeights) -> AdaptiveMasks:
        """Compute the adaptive masks, without shrinkage; those of weight 0 are left out."""
        functions: tuple[Callable[[PriorFeatures], Levels], ...] = (
            self._neighbours_mask,
            *(partial(self._network_mask, network) for network in self.networks),
        )
        shares = weights[1:4]
        return [f(take) if share > 0 else None for f, share in zip(functions, shares, strict=True)]

    def combine(
        self,
        activity: NDArray[np.float32],
        adapted: AdaptiveMasks,
        means_db: AdaptiveMasks,
        weights: BlendWeights,
    ) -> Levels:
        """Shrink and blend masks; return the mask [row, frame] in dB of a recording or a segment.

        `activity` is [frame], `adapted` has masks [row, frame], and `means_db` their means [row] over the
        audible frames of the whole recording.
        """
        static = self.static_db[:, None]
        blend = blend_masks(self._shrink(len(activity), adapted, means_db, weights), weights)
        # Silence gives nothing to adapt to, and background noise must not be modulated.
        mask: Levels = static + activity * (blend - static)
        return mask

    def scales_by_need(self, kind: PriorKind) -> bool:
        """Return True if masks of a kind are as strong as a recording needs them."""
        # The other kinds are chosen by hand, to be used as they are.
        return kind == "auto" and self.source_need is not None

    def remaining_mask(self, take: PriorFeatures, adapted: AdaptiveMasks = (None, None, None)) -> Levels:
        """Return what a recording still needs in the view of both networks: mask [row, frame] in dB.

        `adapted` are masks of `adaptive_masks`, so that a network is not evaluated twice.
        """
        forward, backward = (
            self._network_mask(network, take) if mask is None else mask
            for network, mask in zip(self.networks, adapted[1:], strict=True)
        )
        return (forward + backward) / np.float32(2)

    def project(
        self, take: PriorFeatures, mask_db: Levels, adapted: AdaptiveMasks = (None, None, None)
    ) -> "MaskProjection":
        """Return the projection of a recording's remaining mask on another mask [row, frame] in dB."""
        return MaskProjection.from_masks(self.remaining_mask(take, adapted), mask_db, take.activity)

    def need(self, projection: "MaskProjection") -> float:
        """Return the share of the blend that a recording needs: 0 for the reference, 1 for the source."""
        if self.source_need is None:
            return 1.0
        return min(max(projection.ratio / self.source_need, 0.0), 1.0)

    def suggestions(self, take: PriorFeatures, weights: BlendWeights = _ALL_PRIORS) -> list[Levels | None]:
        """Return shrunk masks [row, frame] in the order of `BlendWeights`; None for those of weight 0."""
        adapted = self.adaptive_masks(take, weights)
        means = _audible_means(adapted, take.audible)
        return self._shrink(len(take.audible), adapted, means, weights)

    def _shrink(
        self, frames: int, adapted: AdaptiveMasks, means_db: AdaptiveMasks, weights: BlendWeights
    ) -> list[Levels | None]:
        """Apply the shrinkage to adaptive masks, and put the static mask first."""
        static = np.repeat(self.static_db[:, None], frames, axis=1) if weights.static > 0 else None
        factors = (self.shrinkage.neighbours, self.shrinkage.networks, self.shrinkage.networks)
        return [
            static,
            *(
                None if mask is None or mean is None else factor.apply(mask, self.static_db, mean)
                for factor, mask, mean in zip(factors, adapted, means_db, strict=True)
            ),
        ]

    def _neighbours_mask(self, take: PriorFeatures) -> Levels:
        near = self.settings.neighbours
        return map_to_other(take, self.source, self.reference, near, self.hop_ms)

    def _network_mask(self, network: MaskNetwork, take: PriorFeatures) -> Levels:
        span = round(NETWORK_SMOOTHING_MS / self.hop_ms)
        return self.static_db[:, None] + moving_average(network.predict_gain(take), span)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all values by name, to be stored; in half precision where that suffices."""
        named: dict[str, NDArray[Any]] = {
            "weights": np.array(self.weights),
            "projection": self.reference.projection,
            "static_db": self.static_db,
            "beliefs": np.array(self.shrinkage),
        }
        if self.source_need is not None:
            named["source_need"] = np.array(self.source_need)
        # Half precision has steps of at most 0.06 dB within ±128 dB. Of the keys only the pitch keys are
        # stored; the rest follows from the rows.
        for name, folder in (("reference", self.reference), ("source", self.source)):
            named |= {
                f"{name}.row_mean": folder.row_mean,
                f"{name}.fine_mean": folder.fine_mean,
                f"{name}.rows_db": folder.codebook.rows_db.astype(np.float16),
                f"{name}.fine": folder.pitch_keys.astype(np.float16),
            }
        for name, network in zip(("forward", "backward"), self.networks, strict=True):
            named |= {f"{name}.{k}": v.astype(np.float16) for k, v in network.weights.items()}
        return named

    @classmethod
    def from_tensors(cls, named: Mapping[str, NDArray[Any]], settings: PriorsSettings, hop_ms: float) -> Self:
        """Undo `tensors`; KeyError or ValueError if they do not match the settings."""
        folders, networks = [], []
        for name in ("reference", "source"):
            row_mean, rows = named[f"{name}.row_mean"], named[f"{name}.rows_db"].astype(np.float32)
            pitch_keys, projection = named[f"{name}.fine"].astype(np.float32), named["projection"]
            # In models of earlier versions, the keys have no surroundings.
            surroundings = pitch_keys.shape[1] > projection.shape[1]
            if pitch_keys.shape[1] != count_pitch_keys(projection.shape[1], surroundings=surroundings):
                raise ValueError(f"{pitch_keys.shape[1]} pitch keys for {projection.shape[1]} components")
            key = key_vectors(rows, pitch_keys, row_mean, surroundings=surroundings)
            book = Codebook(key, rows, np.full(len(rows), -1))
            folders.append(FolderStatistics(row_mean, named[f"{name}.fine_mean"], projection, book))
        for name in ("forward", "backward"):
            weights = {k: v.astype(np.float32) for k, v in tensors_below(f"{name}.", named).items()}
            networks.append(MaskNetwork(settings.network, weights))
        reference, source = folders
        forward, backward = networks
        return cls(
            reference,
            source,
            named["static_db"],
            (forward, backward),
            ShrinkageTable(*(ShrinkageFactors(*pair) for pair in named["beliefs"].tolist())),
            BlendWeights(*named["weights"].tolist()),
            settings,
            hop_ms,
            float(named["source_need"]) if "source_need" in named else None,
        )


class MaskProjection(NamedTuple):
    """Projection of the mask that is needed on a mask that is offered, without their overall levels.

    Sums over parts of a recording can be added. `product` and `square` are sums over cells of needed times
    offered mask, and of the offered mask squared, in dB².
    """

    product: float
    square: float

    @classmethod
    def from_masks(cls, needed_db: Levels, offered_db: Levels, activity: NDArray[np.float32]) -> Self:
        """Sum over cells [row, frame], weighted by the activity [frame]."""
        needed, offered = (mask - mask.mean(axis=0) for mask in (needed_db, offered_db))
        weighted = offered * activity
        # Double precision, since an hour has millions of cells.
        return cls(*(float((mask * weighted).sum(dtype=np.float64)) for mask in (needed, offered)))

    def add(self, other: "MaskProjection") -> "MaskProjection":
        """Return the projection of two parts together."""
        return MaskProjection(self.product + other.product, self.square + other.square)

    @property
    def ratio(self) -> float:
        """Share of the offered mask that is needed; 0 for a mask of zeros."""
        return self.product / self.square if self.square > 0 else 0.0


def blend_masks(suggestions: Sequence[Levels | None], weights: BlendWeights) -> Levels:
    """Blend masks [row, frame] in the order of `BlendWeights`."""
    pairs = zip(suggestions, weights[:4], strict=True)
    terms = [mask * np.float32(share) for mask, share in pairs if mask is not None]
    mask = reduce(np.add, terms)
    # Scales the mean over rows, and leaves the shape of each frame as it is.
    level = mask.mean(axis=0, keepdims=True)  # [1, frame]
    blend: Levels = mask - np.float32(1 - weights.level) * level
    return blend


def _audible_means(masks: AdaptiveMasks, audible: NDArray[np.bool_]) -> AdaptiveMasks:
    return [None if mask is None else mean_over_audible(mask, audible) for mask in masks]
