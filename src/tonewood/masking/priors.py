"""Where a mask starts and what it is pulled towards: four suggestions, and the choice among them.

`static`, the difference of the folders' mean spectra, is a match EQ. `neighbours` adapts to every
frame; so do two small networks (`predict`). Which serves best depends on the folders, and is
chosen per model without pairs, by the cycle: reference takes that nothing was learnt from are made
into pseudo-source, enhanced, and compared with what they were. The blend with the smallest cycle
distance becomes the model's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tonewood.masking.mask import smoothed
from tonewood.masking.neighbours import (
    Codebook,
    Folder,
    Take,
    condensed,
    imitated,
    keys,
    learn,
    mapped,
    mean_rows,
    presence,
)
from tonewood.masking.predict import MaskNetwork, PseudoPair, train_network
from tonewood.settings import PriorKind, PriorsSettings
from tonewood.signal.features import Features

_SMOOTH_NETWORK_MS = 50.0


class Weights(NamedTuple):
    """Share of each suggestion in a blend, summing to 1, and how much of its level survives.

    `level` scales the mean over rows of each frame's mask: how loud the reference would have been
    at that moment is what the folders tell least about.
    """

    static: float
    neighbours: float
    forward: float
    backward: float
    level: float = 1.0


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
_SINGLE = {
    "static": Weights(1.0, 0.0, 0.0, 0.0),
    "neighbours": Weights(0.0, 1.0, 0.0, 0.0),
    "network": Weights(0.0, 0.0, 0.5, 0.5),
}
_AVERAGED = 4


@dataclass(frozen=True)
class Priors:
    """What the masks start from; all of it is stored in the model.

    Parameters
    ----------
    reference, source : Folder
    static_db : Tensor [row]
        Difference of the folders' mean spectra; of all takes, also those held out elsewhere.
    networks : tuple of MaskNetwork
        Forward, backward.
    weights : Weights
        The blend that the cycle chose.
    settings : PriorsSettings
    hop_ms : float
    """

    reference: Folder
    source: Folder
    static_db: Tensor
    networks: tuple[MaskNetwork, MaskNetwork]
    weights: Weights
    settings: PriorsSettings
    hop_ms: float

    def mask(self, features: Features, kind: PriorKind) -> Tensor:
        """Mask [row, frame] in dB for a recording; `auto` is the blend that was chosen."""
        weights = self.weights if kind == "auto" else _SINGLE[kind]
        take = self.source.take(features)
        static = self.static_db[:, None]
        # Where nothing sounds there is nothing to adapt to, and noise must not be pumped.
        return static + presence(take.rows_db) * (self.blended(take, weights) - static)

    def blended(self, take: Take, weights: Weights) -> Tensor:
        """Mask [row, frame] in dB of a blend; what weighs nothing is not computed."""
        return mixed(self.suggestions(take, weights), weights)

    def suggestions(self, take: Take, weights: Weights | None = None) -> list[Tensor | None]:
        """Masks [row, frame] in the order of `Weights`; those that weigh nothing are left out."""
        wanted = (True,) * 4 if weights is None else tuple(share > 0 for share in weights[:4])
        made: list[Tensor | None] = [
            self.static_db[:, None].expand_as(take.rows_db) if wanted[0] else None
        ]
        near = self.settings.neighbours
        made.append(
            mapped(take, self.source, self.reference, near, self.hop_ms) if wanted[1] else None
        )
        base = (self.reference.row_mean - self.source.row_mean)[:, None]
        span = round(_SMOOTH_NETWORK_MS / self.hop_ms)
        for network, asked in zip(self.networks, wanted[2:], strict=True):
            made.append(base + smoothed(network.predicted(take), span) if asked else None)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, in half precision where that is enough, to be stored."""
        named = {
            "weights": torch.tensor(self.weights, dtype=torch.float64),
            "projection": self.reference.projection,
            "static_db": self.static_db,
        }
        rows = self.reference.row_mean.shape[0]
        for name, folder in (("reference", self.reference), ("source", self.source)):
            named |= {
                f"{name}.row_mean": folder.row_mean,
                f"{name}.fine_mean": folder.fine_mean,
                f"{name}.rows_db": folder.codebook.rows_db.half(),
                f"{name}.fine": folder.codebook.key[:, rows:].half(),
            }
        for name, network in zip(("forward", "backward"), self.networks, strict=True):
            named |= {f"{name}.{k}": v.half() for k, v in network.state_dict().items()}
        return named

    @classmethod
    def from_tensors(
        cls, named: Mapping[str, Tensor], settings: PriorsSettings, hop_ms: float
    ) -> "Priors":
        """Inverse of `tensors`; KeyError or RuntimeError where they do not fit."""
        folders, networks = [], []
        for name in ("reference", "source"):
            row_mean, rows = named[f"{name}.row_mean"], named[f"{name}.rows_db"].float()
            book = Codebook(
                keys(rows, named[f"{name}.fine"].float(), row_mean),
                rows,
                torch.full((rows.shape[0],), -1),
            )
            folders.append(Folder(row_mean, named[f"{name}.fine_mean"], named["projection"], book))
        for name in ("forward", "backward"):
            network = MaskNetwork(
                folders[0].row_mean.shape[0],
                named["projection"].shape[1],
                settings.network,
                torch.Generator(),
            )
            own = {
                k.removeprefix(f"{name}."): v.float()
                for k, v in named.items()
                if k.startswith(f"{name}.")
            }
            network.load_state_dict(own)
            networks.append(network.requires_grad_(False).eval())
        weights = Weights(*named["weights"].tolist())
        static = named["static_db"]
        nets = (networks[0], networks[1])
        return cls(folders[0], folders[1], static, nets, weights, settings, hop_ms)


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
    static = (there.row_mean - here.row_mean)[:, None]
    forward, backward, corrected = [], [], []
    for index, features in enumerate(source):
        take = here.take(features)
        gain = mapped(
            take, here, there, near, hop_ms, skip_here=index, smooth_ms=_SMOOTH_NETWORK_MS
        )
        forward.append(PseudoPair(take, gain - static))
    for index, features in enumerate(reference):
        take = there.take(features)
        pseudo = imitated(take, there, here, hop_ms)
        backward.append(PseudoPair(pseudo, take.rows_db - pseudo.rows_db - static))
        gain = mapped(pseudo, here, there, near, hop_ms, skip_there=index)
        corrected.append((pseudo.rows_db + gain, take.rows_db))
    first, second = (
        train_network(pairs, here, settings.network, generator) for pairs in (forward, backward)
    )
    kept = [there.take(features) for features in held_out]
    imitations = [imitated(take, there, here, hop_ms) for take in kept]
    priors = Priors(
        condensed(there, near.codes, generator),
        condensed(here, near.codes, generator),
        static[:, 0],
        (first, second),
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
    whole = mean_rows([*reference, *held_out]) - here.row_mean
    return Fitted(replace(priors, static_db=whole), cycles, corrected, held)


def mixed(suggestions: Sequence[Tensor | None], weights: Weights) -> Tensor:
    """Blend masks [row, frame] that stand in the order of `Weights`."""
    parts = [s * share for s, share in zip(suggestions, weights[:4], strict=True) if s is not None]
    mask = torch.stack(parts).sum(dim=0)
    level = mask.mean(dim=0, keepdim=True)
    return mask - (1 - weights.level) * level


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
