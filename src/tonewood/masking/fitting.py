"""How the priors are learnt: from takes of both folders, without pairs; and which blend is taken.

Which suggestion serves best depends on the folders, and is chosen per model by the cycle: reference
takes that nothing was learnt from are made into pseudo-source, enhanced, and compared with what
they were. The blend with the smallest cycle distance becomes the model's. How far anything that
adapts is believed at all is settled before that, by placebo (`evidence`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tonewood.masking.evidence import Belief, Lack, Power, lack, static_mask
from tonewood.masking.neighbours import Take, condensed, imitated, learn, mapped
from tonewood.masking.predict import PseudoPair, train_network
from tonewood.masking.priors import SMOOTH_NETWORK_MS, Beliefs, Priors, Weights, mixed
from tonewood.settings import PriorsSettings
from tonewood.signal.features import Features

_SHARES = (
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
CANDIDATES = tuple(Weights(*shares, level) for shares in _SHARES for level in (1.0, 0.5))
_AVERAGED = 4
_SPLITS = 3  # takes that a folder needs to be halved
_PLACEBO_TAKES, _PLACEBO_SHARE = 12, 0.3  # asked of each folder; of the network's steps


class Cycle(NamedTuple):
    """A blend and its cycle distance, dB: smaller is better."""

    weights: Weights
    distance_db: float


@dataclass(frozen=True)
class Fitted:
    """Priors, how they were chosen, and pairs for teaching what comes after them.

    Parameters
    ----------
    priors : Priors
    cycles : tuple of Cycle
        Every candidate's cycle distance.
    corrected : list of (Tensor, Tensor)
        Of reference takes learnt from: pseudo-source as the prior corrects it, and the take
        itself, both [row, frame] in dB.
    corrected_held_out : list of (Tensor, Tensor)
        The same of reference takes held out.
    """

    priors: Priors
    cycles: tuple[Cycle, ...]
    corrected: list[tuple[Tensor, Tensor]]
    corrected_held_out: list[tuple[Tensor, Tensor]]


def fit(
    reference: Sequence[Features],
    source: Sequence[Features],
    held_out: Sequence[Features],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> Fitted:
    """Learn from takes of both folders; choose the blend on reference takes that are held out."""
    near = settings.neighbours
    there, here = learn(reference, source, near, generator)
    sources = [here.take(features) for features in source]
    references = [there.take(features) for features in reference]
    kept = [there.take(features) for features in held_out]
    lacks = [
        lack(references, there, here, sign=1.0),
        lack(sources, here, there, sign=-1.0),
        lack(kept, there, here, sign=1.0),
    ]
    static = static_mask(lacks[0], lacks[1], settings.doubt)
    forward, backward, corrected = [], [], []
    for index, take in enumerate(sources):
        gain = mapped(take, here, there, near, hop_ms, skip_here=index, smooth_ms=SMOOTH_NETWORK_MS)
        forward.append(PseudoPair(take, gain - static[:, None]))
    for index, take in enumerate(references):
        pseudo = imitated(take, there, here, hop_ms)
        backward.append(_way_back(pseudo, take, static))
        gain = mapped(pseudo, here, there, near, hop_ms, skip_there=index)
        corrected.append((pseudo.rows_db + gain, take.rows_db))
    first, second = (
        train_network(pairs, here, settings.network, generator) for pairs in (forward, backward)
    )
    imitations = [imitated(take, there, here, hop_ms) for take in kept]
    real = (
        Power.of([pair.gain_db for pair in forward], sources),
        Power.of([second.predicted(take) for take in sources], sources),
    )
    priors = Priors(
        condensed(there, near.codes, generator),
        condensed(here, near.codes, generator),
        static,
        (first, second),
        _beliefs(real, (reference, source), settings, hop_ms, generator),
        CANDIDATES[0],
        settings,
        hop_ms,
    )
    # Through the stored precision, so that a model is the same before and after its file.
    priors = Priors.from_tensors(priors.tensors(), settings, hop_ms)
    cycles = _cycles(priors, imitations, kept)
    priors = replace(priors, weights=_chosen(cycles))
    held = [
        (pseudo.rows_db + priors.blended(pseudo, priors.weights), take.rows_db)
        for pseudo, take in zip(imitations, kept, strict=True)
    ]
    every = Lack(*(torch.cat(pair) for pair in zip(lacks[0], lacks[2], strict=True)))
    return Fitted(
        replace(priors, static_db=static_mask(every, lacks[1], settings.doubt)),
        cycles,
        corrected,
        held,
    )


def _way_back(pseudo: Take, take: Take, static_db: Tensor) -> PseudoPair:
    return PseudoPair(pseudo, take.rows_db - pseudo.rows_db - static_db[:, None])


def _beliefs(
    real: tuple[Power, Power],
    folders: Sequence[Sequence[Features]],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> Beliefs:
    """Belief in neighbours and networks, from what they find where nothing is to be found."""
    if settings.doubt == 0:
        return Beliefs()
    found = [
        _placebo(takes, settings, hop_ms, generator) for takes in folders if len(takes) >= _SPLITS
    ]
    if not found:
        return Beliefs()
    placebos = [
        Power(*torch.tensor([folder[which] for folder in found]).mean(dim=0).tolist())
        for which in (0, 1)
    ]
    return Beliefs(*(Belief.of(*pair, settings.doubt) for pair in zip(real, placebos, strict=True)))


def _placebo(
    takes: Sequence[Features], settings: PriorsSettings, hop_ms: float, generator: torch.Generator
) -> tuple[Power, Power]:
    """What neighbours and network do between two halves of one folder."""
    near = settings.neighbours
    order = torch.randperm(len(takes), generator=generator).tolist()
    first, second = ([takes[i] for i in half] for half in (order[::2], order[1::2]))
    if len(second) < 2:
        first, second = second, first
    there, here = learn(first, second, near, generator)
    pairs = [
        _way_back(imitated(take, there, here, hop_ms), take, there.row_mean - here.row_mean)
        for take in map(there.take, first)
    ]
    steps = max(20, round(_PLACEBO_SHARE * settings.network.steps))
    network = train_network(
        pairs, here, settings.network.model_copy(update={"steps": steps}), generator
    )
    asked = [here.take(features) for features in second[:_PLACEBO_TAKES]]
    masks = [
        mapped(take, here, there, near, hop_ms, skip_here=index) for index, take in enumerate(asked)
    ]
    return Power.of(masks, asked), Power.of([network.predicted(take) for take in asked], asked)


def _cycles(priors: Priors, imitations: Sequence[Take], kept: Sequence[Take]) -> tuple[Cycle, ...]:
    totals = [0.0] * len(CANDIDATES)
    for pseudo, take in zip(imitations, kept, strict=True):
        suggestions = priors.suggestions(pseudo)
        for i, weights in enumerate(CANDIDATES):
            totals[i] += _distance(pseudo.rows_db + mixed(suggestions, weights), take)
    return tuple(
        Cycle(weights, total / len(kept)) for weights, total in zip(CANDIDATES, totals, strict=True)
    )


def _chosen(cycles: Sequence[Cycle]) -> Weights:
    """Mean of the best few: the cycle's own noise is larger than what parts them."""
    best = sorted(cycles, key=lambda cycle: cycle.distance_db)[:_AVERAGED]
    return Weights(*torch.tensor([c.weights for c in best], dtype=torch.float64).mean(0).tolist())


def _distance(rows_db: Tensor, take: Take) -> float:
    """Mean over audible frames of the root mean square difference, one level taken off, dB."""
    difference = (rows_db - take.rows_db)[:, take.audible]
    return float((difference - difference.mean()).square().mean(dim=0).sqrt().mean())
