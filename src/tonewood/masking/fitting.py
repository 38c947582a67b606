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

from tonewood.masking.evidence import Belief, Lack, Power, lack, sessions, static_mask
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
_TAKES, _SESSIONS = 3, 10  # that a folder needs to be halved: takes of one session; sessions
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
    parted = Parted.of(reference, lacks[0]), Parted.of(source, lacks[1])
    there, here = (f.of_sessions(it.left_out) for f, it in zip((there, here), parted, strict=True))
    forward, backward, corrected = [], [], []
    for take, own in zip(sources, parted[1].left_out.tolist(), strict=True):
        gain = mapped(take, here, there, near, hop_ms, skip_here=own, smooth_ms=SMOOTH_NETWORK_MS)
        forward.append(PseudoPair(take, gain - static[:, None]))
    for take, own in zip(references, parted[0].left_out.tolist(), strict=True):
        pseudo = imitated(take, there, here, hop_ms)
        backward.append(_way_back(pseudo, take, static))
        gain = mapped(pseudo, here, there, near, hop_ms, skip_there=own)
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
        _beliefs(real, parted, settings, hop_ms, generator),
        CANDIDATES[0],
        settings,
        hop_ms,
    )
    # Through the stored precision, so that a model is the same before and after its file.
    priors = Priors.from_tensors(priors.tensors(), settings, hop_ms)
    cycles = _cycles(priors, imitations, kept)
    priors = replace(priors, weights=_chosen(cycles))
    held = [
        (pseudo.rows_db + blended(priors, pseudo), take.rows_db)
        for pseudo, take in zip(imitations, kept, strict=True)
    ]
    every = Lack(*(torch.cat(pair) for pair in zip(lacks[0], lacks[2], strict=True)))
    return Fitted(
        replace(priors, static_db=static_mask(every, lacks[1], settings.doubt)),
        cycles,
        corrected,
        held,
    )


def blended(priors: Priors, take: Take) -> Tensor:
    """Mask [row, frame] in dB of a model's own blend, for a take."""
    return mixed(priors.suggestions(take, priors.weights), priors.weights)


def _way_back(pseudo: Take, take: Take, static_db: Tensor) -> PseudoPair:
    return PseudoPair(pseudo, take.rows_db - pseudo.rows_db - static_db[:, None])


class Parted(NamedTuple):
    """Takes of a folder, and which belong together.

    Parameters
    ----------
    session : Tensor [take]
        Where all are of one, every take counts by itself.
    alike : bool
        All are of one session.
    """

    takes: Sequence[Features]
    session: Tensor
    alike: bool

    @classmethod
    def of(cls, takes: Sequence[Features], lacking: Lack) -> "Parted":
        """Told apart by what the takes lack."""
        session = sessions(lacking)
        alike = not bool(session.any())
        return cls(takes, torch.arange(len(session)) if alike else session, alike)

    @property
    def askable(self) -> bool:
        """Whether there is enough of it to be halved."""
        return len(set(self.session.tolist())) >= (_TAKES if self.alike else _SESSIONS)

    @property
    def left_out(self) -> Tensor:
        """What is left out with each take [take]: its session, or it alone where they are few."""
        return self.session if self.askable else torch.arange(len(self.session))

    def halves(self, generator: torch.Generator) -> "tuple[Parted, Parted]":
        """The folder in two, drawn by session; the second has two sessions at least."""
        known = sorted(set(self.session.tolist()))
        order = [known[i] for i in torch.randperm(len(known), generator=generator).tolist()]
        halves = []
        for half in (order[1::2], order[::2]):
            places = [i for i, of in enumerate(self.session.tolist()) if of in half]
            taken = [self.takes[i] for i in places]
            halves.append(Parted(taken, self.session[places], self.alike))
        return halves[0], halves[1]


def _beliefs(
    real: tuple[Power, Power],
    folders: tuple[Parted, Parted],
    settings: PriorsSettings,
    hop_ms: float,
    generator: torch.Generator,
) -> Beliefs:
    """Belief in neighbours and networks, from what they find where nothing is to be found.

    A reference of a few unlike sessions has no one sound that a take could be adapted to, and they
    are too few to be asked: then the static mask is all that is believed.
    """
    if settings.doubt == 0:
        return Beliefs()
    reference, _ = folders
    if not reference.askable:
        share = float(reference.alike)
        return Beliefs(Belief(share, share), Belief(share, share))
    found = [_placebo(folder, settings, hop_ms, generator) for folder in folders if folder.askable]
    placebos = [
        Power(*torch.tensor([folder[which] for folder in found]).mean(dim=0).tolist())
        for which in (0, 1)
    ]
    return Beliefs(*(Belief.of(*pair, settings.doubt) for pair in zip(real, placebos, strict=True)))


def _placebo(
    folder: Parted, settings: PriorsSettings, hop_ms: float, generator: torch.Generator
) -> tuple[Power, Power]:
    """What neighbours and network do between two halves of one folder, sessions kept whole."""
    near = settings.neighbours
    first, second = folder.halves(generator)
    there, here = learn(first.takes, second.takes, near, generator)
    here = here.of_sessions(second.session)
    pairs = [
        _way_back(imitated(take, there, here, hop_ms), take, there.row_mean - here.row_mean)
        for take in map(there.take, first.takes)
    ]
    steps = max(20, round(_PLACEBO_SHARE * settings.network.steps))
    network = train_network(
        pairs, here, settings.network.model_copy(update={"steps": steps}), generator
    )
    asked = [here.take(features) for features in second.takes[:_PLACEBO_TAKES]]
    masks = [
        mapped(take, here, there, near, hop_ms, skip_here=own)
        for take, own in zip(asked, second.session.tolist(), strict=False)
    ]
    return Power.of(masks, asked), Power.of([network.predicted(take) for take in asked], asked)


def _cycles(priors: Priors, imitations: Sequence[Take], kept: Sequence[Take]) -> tuple[Cycle, ...]:
    totals = [0.0] * len(CANDIDATES)
    for pseudo, take in zip(imitations, kept, strict=True):
        suggestions = priors.suggestions(pseudo)
        for i, weights in enumerate(CANDIDATES):
            totals[i] += cycle_distance(pseudo.rows_db + mixed(suggestions, weights), take)
    return tuple(
        Cycle(weights, total / len(kept)) for weights, total in zip(CANDIDATES, totals, strict=True)
    )


def _chosen(cycles: Sequence[Cycle]) -> Weights:
    """Mean of the best few: the cycle's own noise is larger than what parts them."""
    best = sorted(cycles, key=lambda cycle: cycle.distance_db)[:_AVERAGED]
    return Weights(*torch.tensor([c.weights for c in best], dtype=torch.float64).mean(0).tolist())


def cycle_distance(rows_db: Tensor, take: Take) -> float:
    """Mean over audible frames of the root mean square difference, one level taken off, dB."""
    difference = (rows_db - take.rows_db)[:, take.audible]
    return float((difference - difference.mean()).square().mean(dim=0).sqrt().mean())
