"""How the priors are learnt: from takes of both folders, without pairs; and which blend is taken.

Which suggestion serves best depends on the folders, and is chosen per model by the cycle: reference
takes that nothing was learnt from are made into pseudo-source, enhanced, and compared with what
they were. The blend with the smallest cycle distance becomes the model's. How far anything that
adapts is believed at all is settled before that, by placebo (`audit_features`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tonewood.dsp.features import Features
from tonewood.priors.mask_network import PseudoPair, train_mask_network
from tonewood.priors.nearest_neighbours import (
    PriorFeatures,
    back_translate,
    condense_codebook,
    fit_folder_statistics,
    map_to_other,
)
from tonewood.priors.priors import (
    NETWORK_SMOOTHING_MS,
    BlendWeights,
    Priors,
    ShrinkageTable,
    blend_masks,
)
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

_BLEND_SHARES = (
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
CANDIDATE_BLENDS = tuple(BlendWeights(*shares, level) for shares in _BLEND_SHARES for level in (1.0, 0.5))
_AVERAGED_BLENDS = 4
_MIN_TAKES, _MIN_SESSIONS = (
    3,
    10,
)  # that a folder needs to be halved: takes of one session; sessions
_PLACEBO_TAKES, _PLACEBO_SHARE = 12, 0.3  # asked of each folder; of the network's steps


class CycleScore(NamedTuple):
    """A blend and its cycle distance, dB: smaller is better."""

    weights: BlendWeights
    distance_db: float


@dataclass(frozen=True)
class PriorFit:
    """Priors, how they were chosen, and pairs for teaching what comes after them.

    Parameters
    ----------
    priors : Priors
    cycle_scores : tuple of CycleScore
        Every candidate's cycle distance.
    corrected : list of (Tensor, Tensor)
        Of reference takes learnt from: pseudo-source as the prior corrects it, and the take
        itself, both [row, frame] in dB.
    corrected_held_out : list of (Tensor, Tensor)
        The same of reference takes held out.
    """

    priors: Priors
    cycle_scores: tuple[CycleScore, ...]
    corrected: list[tuple[Tensor, Tensor]]
    corrected_held_out: list[tuple[Tensor, Tensor]]


def fit_priors(
    reference: Sequence[Features],
    source: Sequence[Features],
    held_out: Sequence[Features],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
    take_weights: tuple[TakeWeights, TakeWeights] = (None, None),
) -> PriorFit:
    """Learn from takes of both folders; choose the blend on reference takes that are held out.

    Parameters
    ----------
    take_weights : pair of TakeWeights
        Of the reference takes, and of those held out.
    """
    near = settings.neighbours
    there, here = fit_folder_statistics(reference, source, near, generator, take_weights[0])
    sources = [here.prior_features(features) for features in source]
    references = [there.prior_features(features) for features in reference]
    kept = [there.prior_features(features) for features in held_out]
    lacks = [
        spectral_difference(references, there, here, sign=1.0).with_weights(take_weights[0]),
        spectral_difference(sources, here, there, sign=-1.0),
        spectral_difference(kept, there, here, sign=1.0).with_weights(take_weights[1]),
    ]
    static = fit_static_mask(lacks[0], lacks[1], settings.doubt)
    parted = (
        HeldOutGroups.from_difference(reference, lacks[0]),
        HeldOutGroups.from_difference(source, lacks[1]),
    )
    there, here = (f.group_by_session(it.held_out_group) for f, it in zip((there, here), parted, strict=True))
    forward, backward, corrected = [], [], []
    for take, own in zip(sources, parted[1].held_out_group.tolist(), strict=True):
        gain = map_to_other(take, here, there, near, hop_ms, skip_origin=own, smooth_ms=NETWORK_SMOOTHING_MS)
        forward.append(PseudoPair(take, gain - static[:, None]))
    for take, own in zip(references, parted[0].held_out_group.tolist(), strict=True):
        pseudo = back_translate(take, there, here, hop_ms)
        backward.append(_inverse_pair(pseudo, take, static))
        gain = map_to_other(pseudo, here, there, near, hop_ms, skip_target=own)
        corrected.append((pseudo.rows_db + gain, take.rows_db))
    first, second = (
        train_mask_network(pairs, here, settings.network, generator, share)
        for pairs, share in ((forward, None), (backward, take_weights[0]))
    )
    imitations = [back_translate(take, there, here, hop_ms) for take in kept]
    real = (
        Variance.from_masks([pair.gain_db for pair in forward], sources),
        Variance.from_masks([second.predict_gain(take) for take in sources], sources),
    )
    priors = Priors(
        condense_codebook(there, near.codes, generator),
        condense_codebook(here, near.codes, generator),
        static,
        (first, second),
        _fit_shrinkage(real, parted, settings, hop_ms, generator),
        CANDIDATE_BLENDS[0],
        settings,
        hop_ms,
    )
    # Through the stored precision, so that a model is the same before and after its file.
    priors = Priors.from_tensors(priors.tensors(), settings, hop_ms)
    cycles = _score_blends(priors, imitations, kept, take_weights[1])
    priors = replace(priors, weights=_select_blend(cycles))
    held = [
        (pseudo.rows_db + blended_prior(priors, pseudo), take.rows_db)
        for pseudo, take in zip(imitations, kept, strict=True)
    ]
    every = SpectralDifference(*(torch.cat(pair) for pair in zip(lacks[0], lacks[2], strict=True)))
    return PriorFit(
        replace(priors, static_db=fit_static_mask(every, lacks[1], settings.doubt)),
        cycles,
        corrected,
        held,
    )


def blended_prior(priors: Priors, take: PriorFeatures) -> Tensor:
    """Mask [row, frame] in dB of a model's own blend, for a take."""
    return blend_masks(priors.suggestions(take, priors.weights), priors.weights)


def _inverse_pair(pseudo: PriorFeatures, take: PriorFeatures, static_db: Tensor) -> PseudoPair:
    return PseudoPair(pseudo, take.rows_db - pseudo.rows_db - static_db[:, None])


class HeldOutGroups(NamedTuple):
    """Takes of a folder, and which belong together.

    Parameters
    ----------
    session : Tensor [take]
        Where all are of one, every take counts by itself.
    single_session : bool
        All are of one session.
    """

    takes: Sequence[Features]
    session: Tensor
    single_session: bool

    @classmethod
    def from_difference(cls, takes: Sequence[Features], difference: SpectralDifference) -> "HeldOutGroups":
        """Told apart by what the takes lack."""
        session = cluster_sessions(difference)
        alike = not bool(session.any())
        return cls(takes, torch.arange(len(session)) if alike else session, alike)

    @property
    def is_testable(self) -> bool:
        """Whether there is enough of it to be halved."""
        return len(set(self.session.tolist())) >= (_MIN_TAKES if self.single_session else _MIN_SESSIONS)

    @property
    def held_out_group(self) -> Tensor:
        """What is left out with each take [take]: its session, or it alone where they are few."""
        return self.session if self.is_testable else torch.arange(len(self.session))

    def halve(self, generator: torch.Generator) -> "tuple[HeldOutGroups, HeldOutGroups]":
        """The folder in two, drawn by session; the second has two sessions at least."""
        known = sorted(set(self.session.tolist()))
        order = [known[i] for i in torch.randperm(len(known), generator=generator).tolist()]
        halves = []
        for half in (order[1::2], order[::2]):
            places = [i for i, of in enumerate(self.session.tolist()) if of in half]
            taken = [self.takes[i] for i in places]
            halves.append(HeldOutGroups(taken, self.session[places], self.single_session))
        return halves[0], halves[1]


def _fit_shrinkage(
    real: tuple[Variance, Variance],
    folders: tuple[HeldOutGroups, HeldOutGroups],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> ShrinkageTable:
    """Belief in neighbours and networks, from what they find where nothing is to be found.

    A reference of a few unlike sessions has no one sound that a take could be adapted to, and they
    are too few to be asked: then the static mask is all that is believed.
    """
    if settings.doubt == 0:
        return ShrinkageTable()
    reference, _ = folders
    if not reference.is_testable:
        share = float(reference.single_session)
        return ShrinkageTable(ShrinkageFactors(share, share), ShrinkageFactors(share, share))
    found = [
        _placebo_variance(folder, settings, hop_ms, generator) for folder in folders if folder.is_testable
    ]
    placebos = [
        Variance(*torch.tensor([folder[which] for folder in found]).mean(dim=0).tolist()) for which in (0, 1)
    ]
    return ShrinkageTable(
        *(ShrinkageFactors.from_variance(*pair, settings.doubt) for pair in zip(real, placebos, strict=True))
    )


def _placebo_variance(
    folder: HeldOutGroups, settings: PriorsSettings, hop_ms: float, generator: torch.Generator
) -> tuple[Variance, Variance]:
    """What neighbours and network do between two halves of one folder, sessions kept whole."""
    near = settings.neighbours
    first, second = folder.halve(generator)
    there, here = fit_folder_statistics(first.takes, second.takes, near, generator)
    here = here.group_by_session(second.session)
    pairs = [
        _inverse_pair(back_translate(take, there, here, hop_ms), take, there.row_mean - here.row_mean)
        for take in map(there.prior_features, first.takes)
    ]
    steps = max(20, round(_PLACEBO_SHARE * settings.network.steps))
    network = train_mask_network(pairs, here, settings.network.model_copy(update={"steps": steps}), generator)
    asked = [here.prior_features(features) for features in second.takes[:_PLACEBO_TAKES]]
    masks = [
        map_to_other(take, here, there, near, hop_ms, skip_origin=own)
        for take, own in zip(asked, second.session.tolist(), strict=False)
    ]
    return Variance.from_masks(masks, asked), Variance.from_masks(
        [network.predict_gain(take) for take in asked], asked
    )


def _score_blends(
    priors: Priors,
    imitations: Sequence[PriorFeatures],
    takes: Sequence[PriorFeatures],
    take_weights: TakeWeights,
) -> tuple[CycleScore, ...]:
    totals, counts = [0.0] * len(CANDIDATE_BLENDS), take_weights or [1.0] * len(takes)
    for pseudo, take, count in zip(imitations, takes, counts, strict=True):
        suggestions = priors.suggestions(pseudo)
        for i, weights in enumerate(CANDIDATE_BLENDS):
            distance = cycle_distance(pseudo.rows_db + blend_masks(suggestions, weights), take)
            totals[i] += count * distance
    counted = sum(counts)
    return tuple(
        CycleScore(weights, total / counted) for weights, total in zip(CANDIDATE_BLENDS, totals, strict=True)
    )


def _select_blend(cycles: Sequence[CycleScore]) -> BlendWeights:
    """Mean of the best few: the cycle's own noise is larger than what parts them."""
    best = sorted(cycles, key=lambda cycle: cycle.distance_db)[:_AVERAGED_BLENDS]
    return BlendWeights(*torch.tensor([c.weights for c in best], dtype=torch.float64).mean(0).tolist())


def cycle_distance(rows_db: Tensor, take: PriorFeatures) -> float:
    """Mean over audible frames of the root mean square difference, one level taken off, dB."""
    difference = (rows_db - take.rows_db)[:, take.audible]
    return float((difference - difference.mean()).square().mean(dim=0).sqrt().mean())
