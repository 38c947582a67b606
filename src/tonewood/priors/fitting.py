"""Fit the priors to two folders without pairs, and select their blend.

Held-out sessions choose how the static mask is estimated (see `static_mask`), and placebos how far the
adaptive priors are trusted (see `ShrinkageFactors`). The best blend depends on the folders: it is selected
per model (see `blend_selection`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.dsp.features import Features
from tonewood.priors.blend_selection import (
    CANDIDATE_BLENDS,
    BlendScore,
    PseudoCycles,
    score_blends,
    select_blend,
)
from tonewood.priors.folder_fitting import condense_codebook, fit_folder_statistics
from tonewood.priors.nearest_neighbours import FolderStatistics, PriorFeatures, back_translate, map_to_other
from tonewood.priors.network_training import PseudoPair, train_mask_network
from tonewood.priors.predictor import MaskNetwork
from tonewood.priors.priors import (
    NETWORK_SMOOTHING_MS,
    Priors,
    ShrinkageFactors,
    ShrinkageTable,
    Variance,
    blend_masks,
)
from tonewood.priors.static_mask import (
    SpectralDifference,
    StaticMethod,
    cluster_sessions,
    fit_static_mask,
    select_static_method,
    spectral_difference,
)
from tonewood.settings import PriorsSettings
from tonewood.utils.arrays import Levels, TakeWeights, split_generator
from tonewood.utils.parallel import parallel_starmap

_PAIR_FRAMES = 6_144  # codes of a folder in which pairs are looked up: more take longer and add little
_MIN_TAKES, _MIN_SESSIONS = 3, 10  # to halve a folder: takes if it is one session, else sessions
_NEED_TAKES = 12
_MIN_SOURCE_NEED = 0.2  # if networks and blend disagree: a smaller divisor would only scale up noise
_PLACEBO_TAKES, _PLACEBO_STEPS = 12, 0.3  # takes per folder; share of the network's training steps

LevelPair = tuple[Levels, Levels]
"""Levels [row, frame] in dB before and after a correction."""


@dataclass(frozen=True)
class PriorFit:
    """Fitted priors, and training pairs for the guide."""

    priors: Priors
    scores: tuple[BlendScore, ...]  # of all candidate blends
    # Pseudo-source under the neighbours' mask, and the reference take that it was made of
    corrected: list[LevelPair]
    corrected_held_out: list[LevelPair]  # of takes outside the fit, under the prior's mask
    ways: "Ways"
    # Training pairs of the whole-way guide: all source takes and what the prior makes of them, then
    # pseudo-source and all reference takes
    whole_ways: list[LevelPair]


class Ways(NamedTuple):
    """Starts and ends of ways from source to reference, for each take."""

    source: list[LevelPair]  # source take, and the same under the neighbours' mask
    # Pseudo-source, and the reference take that it was made of
    reference: list[LevelPair]
    held_out: list[LevelPair]


# --- Fit


def fit_priors(
    reference: Sequence[Features],
    source: Sequence[Features],
    held_out: Sequence[Features],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
    take_weights: tuple[TakeWeights, TakeWeights] = (None, None),
) -> PriorFit:
    """Fit the priors to both folders, and select the blend on held-out reference takes.

    Parameters
    ----------
    take_weights : pair of TakeWeights
        Of the reference takes, and of the held-out ones.
    """
    statistics = fit_folder_statistics(reference, source, settings.neighbours, generator, take_weights[0])
    thinned = statistics[0].thin_codebook(_PAIR_FRAMES), statistics[1].thin_codebook(_PAIR_FRAMES)
    folders = _FolderPair.from_takes((reference, source, held_out), thinned, take_weights)
    method = select_static_method(folders.reference.difference, folders.source.difference)
    static = fit_static_mask(
        folders.reference.difference, folders.source.difference, method, doubt=settings.doubt
    )
    pairs = _PseudoPairs.from_folders(folders, static, settings, hop_ms)
    networks = _train_networks(pairs, folders, static, settings, generator, take_weights[0])
    priors = _assemble_priors(folders, statistics, static, pairs, networks, settings, hop_ms, generator)

    # Blend, and how much of it a source take needs.
    takes = folders.held_out.takes
    # The networks' training pairs are made in another way; the same way would favour the networks.
    pseudo_takes = [back_translate(take, *folders.statistics, hop_ms) for take in takes]
    cycles = PseudoCycles(pseudo_takes, takes, take_weights[1])
    sides = folders.source.takes, folders.reference.takes
    scores = score_blends(priors, cycles, *sides, take_weights[0])
    priors = replace(priors, weights=select_blend(scores))
    priors = replace(priors, source_need=_measure_source_need(priors, folders.source.takes))
    held_out_pairs = list(zip(pseudo_takes, takes, strict=True))
    corrected_held_out = [
        (pseudo.rows_db + blended_prior(priors, pseudo), take.rows_db) for pseudo, take in held_out_pairs
    ]
    ways = pairs.ways(static, [(pseudo.rows_db, take.rows_db) for pseudo, take in held_out_pairs])
    whole_ways = _whole_ways(priors, folders.source.takes, ways)
    # The final static mask is fitted to all reference takes.
    priors = replace(priors, static_db=_final_static_mask(folders, method, settings.doubt))
    return PriorFit(priors, scores, pairs.corrected, corrected_held_out, ways, whole_ways)


class _FittedFolder(NamedTuple):
    """Takes relative to their folder, and their difference from the other folder."""

    statistics: FolderStatistics
    takes: list[PriorFeatures]
    difference: SpectralDifference

    @classmethod
    def from_takes(
        cls,
        takes: Sequence[Features],
        statistics: FolderStatistics,
        other: FolderStatistics,
        sign: float,
        weights: TakeWeights = None,
    ) -> Self:
        """Compare takes with the other folder; `sign` is 1 for reference takes, -1 for source takes."""
        features = [statistics.prior_features(take) for take in takes]
        difference = spectral_difference(features, statistics, other, sign=sign).with_weights(weights)
        return cls(statistics, features, difference)

    def group_by_session(self, groups: "HeldOutGroups") -> "_FittedFolder":
        """Give codes the number of the group that the neighbours' search leaves out together."""
        return self._replace(statistics=self.statistics.group_by_session(groups.held_out_group))


class _FolderPair(NamedTuple):
    """Reference, source and held-out reference takes, and the groups of the first two."""

    reference: _FittedFolder
    source: _FittedFolder
    held_out: _FittedFolder
    reference_groups: "HeldOutGroups"
    source_groups: "HeldOutGroups"

    @classmethod
    def from_takes(
        cls,
        takes: tuple[Sequence[Features], Sequence[Features], Sequence[Features]],
        statistics: tuple[FolderStatistics, FolderStatistics],
        take_weights: tuple[TakeWeights, TakeWeights],
    ) -> Self:
        """Compare reference, source and held-out takes with the other folder."""
        of_reference, of_source = statistics
        reference = _FittedFolder.from_takes(takes[0], of_reference, of_source, 1.0, take_weights[0])
        source = _FittedFolder.from_takes(takes[1], of_source, of_reference, -1.0)
        held_out = _FittedFolder.from_takes(takes[2], of_reference, of_source, 1.0, take_weights[1])
        groups = [
            HeldOutGroups.from_difference(side, folder.difference)
            for side, folder in zip(takes, (reference, source), strict=False)
        ]
        return cls(
            reference.group_by_session(groups[0]), source.group_by_session(groups[1]), held_out, *groups
        )

    @property
    def statistics(self) -> tuple[FolderStatistics, FolderStatistics]:
        """Statistics of reference and source."""
        return self.reference.statistics, self.source.statistics

    @property
    def single_frames(self) -> tuple[FolderStatistics, FolderStatistics]:
        """Statistics of both that compare each frame by itself."""
        reference, source = self.statistics
        return reference.without_surroundings(), source.without_surroundings()


class _PseudoPairs(NamedTuple):
    """Pairs of source takes and of reference takes for the networks, and corrected takes for the guide."""

    forward: list[PseudoPair]
    backward: list[PseudoPair]
    corrected: list[LevelPair]

    @classmethod
    def from_folders(
        cls, folders: _FolderPair, static_db: NDArray[np.float32], settings: PriorsSettings, hop_ms: float
    ) -> Self:
        """Pair takes with neighbours; a take's own group is left out."""
        near, (reference, source) = settings.neighbours, folders.statistics
        single_frames = folders.single_frames

        def pair_source(take: PriorFeatures, group: int) -> PseudoPair:
            gain = map_to_other(
                take, source, reference, near, hop_ms, skip_origin=group, smooth_ms=NETWORK_SMOOTHING_MS
            )
            return PseudoPair(take, gain - static_db[:, None])

        def pair_reference(take: PriorFeatures, group: int) -> tuple[PseudoPair, LevelPair]:
            pseudo = back_translate(take, *single_frames, hop_ms)
            gain = map_to_other(pseudo, source, reference, near, hop_ms, skip_target=group)
            return _inverse_pair(pseudo, take, static_db), (pseudo.rows_db + gain, take.rows_db)

        source_groups, reference_groups = (
            side.held_out_group.tolist() for side in (folders.source_groups, folders.reference_groups)
        )
        forward = parallel_starmap(pair_source, zip(folders.source.takes, source_groups, strict=True))
        pairs = parallel_starmap(pair_reference, zip(folders.reference.takes, reference_groups, strict=True))
        backward, corrected = zip(*pairs, strict=True)
        return cls(list(forward), list(backward), list(corrected))

    def ways(self, static_db: NDArray[np.float32], held_out: list[LevelPair]) -> Ways:
        """Return the ways of all pairs and of the held-out takes."""
        source, reference = (
            [
                (pair.features.rows_db, pair.features.rows_db + static_db[:, None] + pair.gain_db)
                for pair in pairs
            ]
            for pairs in (self.forward, self.backward)
        )
        return Ways(source, reference, held_out)


def _inverse_pair(pseudo: PriorFeatures, take: PriorFeatures, static_db: NDArray[np.float32]) -> PseudoPair:
    return PseudoPair(pseudo, take.rows_db - pseudo.rows_db - static_db[:, None])


def _train_networks(
    pairs: _PseudoPairs,
    folders: _FolderPair,
    static_db: NDArray[np.float32],
    settings: PriorsSettings,
    generator: torch.Generator,
    reference_weights: TakeWeights,
) -> tuple[MaskNetwork, MaskNetwork]:
    """Return the networks of forward and backward pairs."""

    def train(side: list[PseudoPair], weights: TakeWeights, own: torch.Generator) -> MaskNetwork:
        return train_mask_network(side, folders.statistics, static_db, settings.network, own, weights)

    generators = split_generator(generator, 2)
    items = zip((pairs.forward, pairs.backward), (None, reference_weights), generators, strict=True)
    forward, backward = parallel_starmap(train, items)
    return forward, backward


def _assemble_priors(
    folders: _FolderPair,
    statistics: tuple[FolderStatistics, FolderStatistics],
    static_db: NDArray[np.float32],
    pairs: _PseudoPairs,
    networks: tuple[MaskNetwork, MaskNetwork],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> Priors:
    """Condense the codebooks and fit the shrinkage; the blend is still the first candidate."""
    takes = folders.source.takes
    variances = (
        Variance.from_masks([pair.gain_db for pair in pairs.forward], takes),
        Variance.from_masks([networks[1].predict_gain(take) for take in takes], takes),
    )
    reference, source = (condense_codebook(side, settings.neighbours.codes, generator) for side in statistics)
    groups = folders.reference_groups, folders.source_groups
    shrinkage = _fit_shrinkage(variances, groups, settings, hop_ms, generator)
    priors = Priors(reference, source, static_db, networks, shrinkage, CANDIDATE_BLENDS[0], settings, hop_ms)
    # Round to the stored precision, so that a model is the same before and after its file.
    return Priors.from_tensors(priors.tensors(), settings, hop_ms)


def _final_static_mask(folders: _FolderPair, method: StaticMethod, doubt: float) -> NDArray[np.float32]:
    """Return the static mask [row] in dB of all takes, including those held out."""
    differences = folders.reference.difference, folders.held_out.difference
    joined = SpectralDifference(*map(np.concatenate, zip(*differences, strict=True)))
    return fit_static_mask(joined, folders.source.difference, method, doubt=doubt)


def blended_prior(priors: Priors, take: PriorFeatures) -> Levels:
    """Return the mask [row, frame] in dB of a model's own blend, as strong as the take needs it."""
    blend = _blend(priors, take)
    return np.float32(priors.need(priors.project(take, blend))) * blend


def _blend(priors: Priors, take: PriorFeatures) -> Levels:
    return blend_masks(priors.suggestions(take, priors.weights), priors.weights)


def _whole_ways(priors: Priors, source_takes: Sequence[PriorFeatures], ways: Ways) -> list[LevelPair]:
    """Return source takes under no and under the whole blend, and pseudo-source with its reference."""
    pairs = [(take.rows_db, take.rows_db + _blend(priors, take)) for take in source_takes]
    # Where adaptive masks are not trusted, a reference take only teaches that it needs nothing.
    trust = np.float32(priors.shrinkage.networks.per_frame)
    return pairs + [(target + trust * (pseudo - target), target) for pseudo, target in ways.reference]


def _measure_source_need(priors: Priors, source_takes: Sequence[PriorFeatures]) -> float:
    """Return the lower quartile of the source takes' need, before it is scaled; at least `_MIN_SOURCE_NEED`.

    Most source takes then get the whole blend, although their needs vary.
    """
    # The quartile of a dozen takes is as good as that of all.
    takes = source_takes[:: -(-len(source_takes) // _NEED_TAKES)]
    needs = [priors.project(take, _blend(priors, take)).ratio for take in takes]
    # In single precision, as models store it.
    return max(float(np.quantile(np.array(needs, dtype=np.float32), 0.25, method="lower")), _MIN_SOURCE_NEED)


# --- Shrinkage


class HeldOutGroups(NamedTuple):
    """Takes of a folder, and the session of each."""

    takes: Sequence[Features]
    session: NDArray[np.int64]  # [take]: session, or the take's own number if all are of one session
    single_session: bool

    @classmethod
    def from_difference(cls, takes: Sequence[Features], difference: SpectralDifference) -> Self:
        """Cluster takes into sessions."""
        session = cluster_sessions(difference)
        single_session = not bool(session.any())
        return cls(takes, np.arange(len(session)) if single_session else session, single_session)

    @property
    def is_testable(self) -> bool:
        """True if the folder is large enough to be halved."""
        return len(set(self.session.tolist())) >= (_MIN_TAKES if self.single_session else _MIN_SESSIONS)

    @property
    def held_out_group(self) -> NDArray[np.int64]:
        """Group that is left out with each take [take]: its session, or the take alone in small folders."""
        return self.session if self.is_testable else np.arange(len(self.session))

    def halve(self, generator: torch.Generator) -> "tuple[HeldOutGroups, HeldOutGroups]":
        """Split the folder at random by session; the second half has at least two sessions."""
        sessions = sorted(set(self.session.tolist()))
        order = [sessions[i] for i in torch.randperm(len(sessions), generator=generator).tolist()]
        halves = []
        # Of an odd number of sessions, the second half gets one more: a variance needs two.
        for half in (order[1::2], order[::2]):
            indices = [i for i, session in enumerate(self.session.tolist()) if session in half]
            takes = [self.takes[i] for i in indices]
            halves.append(HeldOutGroups(takes, self.session[indices], self.single_session))
        return halves[0], halves[1]


def _fit_shrinkage(
    real: tuple[Variance, Variance],
    folders: tuple[HeldOutGroups, HeldOutGroups],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> ShrinkageTable:
    """Compare the variance of neighbours and networks with that of placebos.

    A reference of a few different sessions has no single sound to adapt to, and is too small to be
    halved: only the static mask is used then.
    """
    if settings.doubt == 0:
        return ShrinkageTable()
    reference, _ = folders
    if not reference.is_testable:
        factor = float(reference.single_session)
        return ShrinkageTable(ShrinkageFactors(factor, factor), ShrinkageFactors(factor, factor))
    testable = [folder for folder in folders if folder.is_testable]
    by_folder = parallel_starmap(
        lambda folder, own: _placebo_variance(folder, settings, hop_ms, own),
        zip(testable, split_generator(generator, len(testable)), strict=True),
    )
    placebos = [Variance(*np.mean(each, axis=0).tolist()) for each in zip(*by_folder, strict=True)]
    return ShrinkageTable(
        *(ShrinkageFactors.from_variance(*pair, settings.doubt) for pair in zip(real, placebos, strict=True))
    )


def _placebo_variance(
    folder: HeldOutGroups, settings: PriorsSettings, hop_ms: float, generator: torch.Generator
) -> tuple[Variance, Variance]:
    """Return the variance of neighbours and network between two halves of one folder."""
    near = settings.neighbours
    first, second = folder.halve(generator)
    halves = fit_folder_statistics(first.takes, second.takes, near, generator)
    target, origin = (half.thin_codebook(_PAIR_FRAMES) for half in halves)
    origin = origin.group_by_session(second.session)
    single_frames = target.without_surroundings(), origin.without_surroundings()
    # The difference of the means is the static mask between the halves.
    static = target.row_mean - origin.row_mean
    pairs = [
        _inverse_pair(back_translate(take, *single_frames, hop_ms), take, static)
        for take in map(target.prior_features, first.takes)
    ]
    steps = max(20, round(_PLACEBO_STEPS * settings.network.steps))
    network_settings = settings.network.replace(steps=steps)
    network = train_mask_network(pairs, (target, origin), static, network_settings, generator)
    takes = [origin.prior_features(features) for features in second.takes[:_PLACEBO_TAKES]]
    masks = [
        map_to_other(take, origin, target, near, hop_ms, skip_origin=session)
        for take, session in zip(takes, second.session.tolist(), strict=False)
    ]
    gains = [network.predict_gain(take) for take in takes]
    return Variance.from_masks(masks, takes), Variance.from_masks(gains, takes)
