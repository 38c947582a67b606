"""Fit the priors to two folders without pairs, and select their blend.

The best blend depends on the folders. It is selected per model by a cycle: held-out reference takes
are turned into pseudo-source, corrected, and compared with the originals. Placebos decide first how
far the adaptive priors are trusted at all (see `shrinkage`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from tonewood.dsp.features import Features
from tonewood.priors.nearest_neighbours import (
    PriorFeatures,
    back_translate,
    condense_codebook,
    fit_folder_statistics,
    map_to_other,
)
from tonewood.priors.predictor import PseudoPair, train_mask_network
from tonewood.priors.priors import NETWORK_SMOOTHING_MS, BlendWeights, Priors, ShrinkageTable, blend_masks
from tonewood.priors.shrinkage import (
    ShrinkageFactors,
    SpectralDifference,
    Variance,
    cluster_sessions,
    fit_static_mask,
    spectral_difference,
)
from tonewood.settings import PriorsSettings
from tonewood.stats.sampling import TakeWeights

_BLEND_SHARES = (  # static, neighbours, forward, backward
    (1.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 1.0, 0.0),
    (0.0, 0.0, 0.0, 1.0),
    (0.0, 0.0, 0.5, 0.5),
    (0.0, 0.5, 0.0, 0.5),
    (0.0, 0.5, 0.25, 0.25),
    (0.0, 0.75, 0.0, 0.25),
    (0.0, 0.75, 0.125, 0.125),
    (0.25, 0.0, 0.0, 0.75),
    (0.25, 0.0, 0.375, 0.375),
    (0.5, 0.0, 0.0, 0.5),
    (0.5, 0.0, 0.25, 0.25),
    (0.75, 0.0, 0.0, 0.25),
    (0.25, 0.25, 0.0, 0.5),
    (0.5, 0.25, 0.125, 0.125),
)
# Half of the level closed more on four corpora (docs/method-notes.md).
CANDIDATE_BLENDS = tuple(BlendWeights(*shares, level) for shares in _BLEND_SHARES for level in (1.0, 0.5))
_AVERAGED_BLENDS = 4  # of 32 candidates
_MIN_TAKES, _MIN_SESSIONS = 3, 10  # to halve a folder: takes if it is one session, else sessions
_NEED_TAKES = 12
_MIN_SOURCE_NEED = 0.2  # if networks and blend disagree: a smaller divisor would only scale up noise
_PLACEBO_TAKES, _PLACEBO_STEPS = 12, 0.3  # takes per folder; share of the network's training steps


class CycleScore(NamedTuple):
    """A blend and its cycle distance in dB: smaller is better."""

    weights: BlendWeights
    distance_db: float


@dataclass(frozen=True)
class PriorFit:
    """Fitted priors, and training pairs for the guide.

    Parameters
    ----------
    priors : Priors
    cycle_scores : tuple of CycleScore
        Of all candidate blends.
    corrected, corrected_held_out : list of (Tensor, Tensor)
        Pseudo-source under the prior's mask, and the reference take that it was made of, both
        [row, frame] in dB; of takes in and outside the fit.
    ways : Ways
    """

    priors: Priors
    cycle_scores: tuple[CycleScore, ...]
    corrected: list[tuple[Tensor, Tensor]]
    corrected_held_out: list[tuple[Tensor, Tensor]]
    ways: "Ways"


class Ways(NamedTuple):
    """Starts and ends of ways from source to reference, (Tensor [row, frame], Tensor) in dB of each take.

    Parameters
    ----------
    source : list of (Tensor, Tensor)
        Source take, and the same under the neighbours' mask.
    reference, held_out : list of (Tensor, Tensor)
        Pseudo-source, and the reference take that it was made of.
    """

    source: list[tuple[Tensor, Tensor]]
    reference: list[tuple[Tensor, Tensor]]
    held_out: list[tuple[Tensor, Tensor]]


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
    near = settings.neighbours
    reference_folder, source_folder = fit_folder_statistics(
        reference, source, near, generator, take_weights[0]
    )
    source_takes = [source_folder.prior_features(features) for features in source]
    reference_takes = [reference_folder.prior_features(features) for features in reference]
    held_out_takes = [reference_folder.prior_features(features) for features in held_out]

    # Static mask, and the groups of takes that are left out of the neighbours' search together.
    reference_difference = spectral_difference(
        reference_takes, reference_folder, source_folder, sign=1.0
    ).with_weights(take_weights[0])
    source_difference = spectral_difference(source_takes, source_folder, reference_folder, sign=-1.0)
    held_out_difference = spectral_difference(
        held_out_takes, reference_folder, source_folder, sign=1.0
    ).with_weights(take_weights[1])
    static = fit_static_mask(reference_difference, source_difference, settings.doubt)
    reference_groups = HeldOutGroups.from_difference(reference, reference_difference)
    source_groups = HeldOutGroups.from_difference(source, source_difference)
    reference_folder = reference_folder.group_by_session(reference_groups.held_out_group)
    source_folder = source_folder.group_by_session(source_groups.held_out_group)

    # Pseudo-pairs for the networks.
    forward, backward, corrected = [], [], []
    for take, group in zip(source_takes, source_groups.held_out_group.tolist(), strict=True):
        gain = map_to_other(
            take,
            source_folder,
            reference_folder,
            near,
            hop_ms,
            skip_origin=group,
            smooth_ms=NETWORK_SMOOTHING_MS,
        )
        forward.append(PseudoPair(take, gain - static[:, None]))
    for take, group in zip(reference_takes, reference_groups.held_out_group.tolist(), strict=True):
        pseudo = back_translate(take, reference_folder, source_folder, hop_ms)
        backward.append(_inverse_pair(pseudo, take, static))
        gain = map_to_other(pseudo, source_folder, reference_folder, near, hop_ms, skip_target=group)
        corrected.append((pseudo.rows_db + gain, take.rows_db))
    folders = reference_folder, source_folder
    forward_network, backward_network = (
        train_mask_network(pairs, folders, static, settings.network, generator, weights)
        for pairs, weights in ((forward, None), (backward, take_weights[0]))
    )

    # Shrinkage and blend.
    pseudo_takes = [back_translate(take, reference_folder, source_folder, hop_ms) for take in held_out_takes]
    variances = (
        Variance.from_masks([pair.gain_db for pair in forward], source_takes),
        Variance.from_masks([backward_network.predict_gain(take) for take in source_takes], source_takes),
    )
    priors = Priors(
        condense_codebook(reference_folder, near.codes, generator),
        condense_codebook(source_folder, near.codes, generator),
        static,
        (forward_network, backward_network),
        _fit_shrinkage(variances, (reference_groups, source_groups), settings, hop_ms, generator),
        CANDIDATE_BLENDS[0],
        settings,
        hop_ms,
    )
    # Round to the stored precision, so that a model is the same before and after its file.
    priors = Priors.from_tensors(priors.tensors(), settings, hop_ms)
    cycle_scores = _score_blends(priors, pseudo_takes, held_out_takes, take_weights[1])
    priors = replace(priors, weights=_select_blend(cycle_scores))
    priors = replace(priors, source_need=_measure_source_need(priors, source_takes))
    corrected_held_out = [
        (pseudo.rows_db + blended_prior(priors, pseudo), take.rows_db)
        for pseudo, take in zip(pseudo_takes, held_out_takes, strict=True)
    ]
    ways = Ways(
        [(pair.features.rows_db, pair.features.rows_db + static[:, None] + pair.gain_db) for pair in forward],
        [
            (pair.features.rows_db, pair.features.rows_db + static[:, None] + pair.gain_db)
            for pair in backward
        ],
        [(pseudo.rows_db, take.rows_db) for pseudo, take in zip(pseudo_takes, held_out_takes, strict=True)],
    )

    # The final static mask is fitted to all reference takes.
    all_takes = SpectralDifference(
        *(torch.cat(pair) for pair in zip(reference_difference, held_out_difference, strict=True))
    )
    static = fit_static_mask(all_takes, source_difference, settings.doubt)
    priors = replace(priors, static_db=static)
    return PriorFit(priors, cycle_scores, corrected, corrected_held_out, ways)


def blended_prior(priors: Priors, take: PriorFeatures) -> Tensor:
    """Return the mask [row, frame] in dB of a model's own blend, as strong as the take needs it."""
    blend = _blend(priors, take)
    return priors.need(priors.project(take, blend)) * blend


def _blend(priors: Priors, take: PriorFeatures) -> Tensor:
    return blend_masks(priors.suggestions(take, priors.weights), priors.weights)


def _measure_source_need(priors: Priors, source_takes: Sequence[PriorFeatures]) -> float:
    """Return the median need of source takes, before it is scaled; at least `_MIN_SOURCE_NEED`."""
    # The median of a dozen takes is as good as that of all.
    takes = source_takes[:: -(-len(source_takes) // _NEED_TAKES)]
    needs = [priors.project(take, _blend(priors, take)).ratio for take in takes]
    return max(float(torch.tensor(needs).median()), _MIN_SOURCE_NEED)


def _inverse_pair(pseudo: PriorFeatures, take: PriorFeatures, static_db: Tensor) -> PseudoPair:
    return PseudoPair(pseudo, take.rows_db - pseudo.rows_db - static_db[:, None])


class HeldOutGroups(NamedTuple):
    """Takes of a folder, and the session of each.

    Parameters
    ----------
    session : Tensor [take]
        If all takes are of one session, each is a group of its own.
    single_session : bool
    """

    takes: Sequence[Features]
    session: Tensor
    single_session: bool

    @classmethod
    def from_difference(cls, takes: Sequence[Features], difference: SpectralDifference) -> Self:
        """Cluster takes into sessions."""
        session = cluster_sessions(difference)
        single_session = not bool(session.any())
        return cls(takes, torch.arange(len(session)) if single_session else session, single_session)

    @property
    def is_testable(self) -> bool:
        """True if the folder is large enough to be halved."""
        return len(set(self.session.tolist())) >= (_MIN_TAKES if self.single_session else _MIN_SESSIONS)

    @property
    def held_out_group(self) -> Tensor:
        """Group that is left out with each take [take]: its session, or the take alone in small folders."""
        return self.session if self.is_testable else torch.arange(len(self.session))

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
    by_folder = [
        _placebo_variance(folder, settings, hop_ms, generator) for folder in folders if folder.is_testable
    ]
    placebos = [Variance(*torch.tensor(each).mean(dim=0).tolist()) for each in zip(*by_folder, strict=True)]
    return ShrinkageTable(
        *(ShrinkageFactors.from_variance(*pair, settings.doubt) for pair in zip(real, placebos, strict=True))
    )


def _placebo_variance(
    folder: HeldOutGroups, settings: PriorsSettings, hop_ms: float, generator: torch.Generator
) -> tuple[Variance, Variance]:
    """Return the variance of neighbours and network between two halves of one folder."""
    near = settings.neighbours
    first, second = folder.halve(generator)
    target, origin = fit_folder_statistics(first.takes, second.takes, near, generator)
    origin = origin.group_by_session(second.session)
    # The difference of the means is the static mask between the halves.
    static = target.row_mean - origin.row_mean
    pairs = [
        _inverse_pair(back_translate(take, target, origin, hop_ms), take, static)
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


def _score_blends(
    priors: Priors,
    pseudo_takes: Sequence[PriorFeatures],
    takes: Sequence[PriorFeatures],
    take_weights: TakeWeights,
) -> tuple[CycleScore, ...]:
    """Return the weighted mean cycle distance of every candidate."""
    totals, counts = [0.0] * len(CANDIDATE_BLENDS), take_weights or [1.0] * len(takes)
    for pseudo, take, count in zip(pseudo_takes, takes, counts, strict=True):
        suggestions = priors.suggestions(pseudo)
        for i, weights in enumerate(CANDIDATE_BLENDS):
            totals[i] += count * cycle_distance(pseudo.rows_db + blend_masks(suggestions, weights), take)
    total = sum(counts)
    return tuple(
        CycleScore(weights, distance / total)
        for weights, distance in zip(CANDIDATE_BLENDS, totals, strict=True)
    )


def _select_blend(scores: Sequence[CycleScore]) -> BlendWeights:
    """Average the best blends: the cycle's noise exceeds the differences between them."""
    best = sorted(scores, key=lambda score: score.distance_db)[:_AVERAGED_BLENDS]
    weights = torch.tensor([score.weights for score in best], dtype=torch.float64)
    return BlendWeights(*weights.mean(0).tolist())


def cycle_distance(rows_db: Tensor, take: PriorFeatures) -> float:
    """Return the mean over audible frames of the RMS difference in dB, the overall level removed."""
    difference = (rows_db - take.rows_db)[:, take.audible]
    return float((difference - difference.mean()).square().mean(dim=0).sqrt().mean())
