"""Where a mask starts and what it is pulled towards: four suggestions and their blend.

`static` is a match EQ that compares like with like (`evidence`). `neighbours` adapts to every
frame; so do two small networks (`predict`). How they are learnt, how far each is believed and
which blend a model takes stands in `fitting`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tonewood.masking.evidence import Belief
from tonewood.masking.mask import smoothed
from tonewood.masking.neighbours import Codebook, Folder, Take, keys, mapped, presence
from tonewood.masking.predict import MaskNetwork
from tonewood.settings import PriorKind, PriorsSettings
from tonewood.signal.features import Features

SMOOTH_NETWORK_MS = 50.0


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


class Beliefs(NamedTuple):
    """How far each suggestion that adapts is believed."""

    neighbours: Belief = Belief()
    networks: Belief = Belief()


_SINGLE = {
    "static": Weights(1.0, 0.0, 0.0, 0.0),
    "neighbours": Weights(0.0, 1.0, 0.0, 0.0),
    "network": Weights(0.0, 0.0, 0.5, 0.5),
}


@dataclass(frozen=True)
class Priors:
    """What the masks start from; all of it is stored in the model.

    Parameters
    ----------
    reference, source : Folder
    static_db : Tensor [row]
        Of all takes, also those held out elsewhere.
    networks : tuple of MaskNetwork
        Forward, backward.
    beliefs : Beliefs
        How far what adapts is believed.
    weights : Weights
        The blend that the cycle chose.
    settings : PriorsSettings
    hop_ms : float
    """

    reference: Folder
    source: Folder
    static_db: Tensor
    networks: tuple[MaskNetwork, MaskNetwork]
    beliefs: Beliefs
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
        adapting: list[tuple[Belief, Callable[[Take], Tensor]]] = [
            (self.beliefs.neighbours, self._by_neighbours),
            *((self.beliefs.networks, partial(self._by_network, net)) for net in self.networks),
        ]
        for asked, (belief, adapted) in zip(wanted[1:], adapting, strict=True):
            made.append(
                belief.applied(adapted(take), self.static_db, take.audible) if asked else None
            )
        return made

    def _by_neighbours(self, take: Take) -> Tensor:
        near = self.settings.neighbours
        return mapped(take, self.source, self.reference, near, self.hop_ms)

    def _by_network(self, network: MaskNetwork, take: Take) -> Tensor:
        span = round(SMOOTH_NETWORK_MS / self.hop_ms)
        return self.static_db[:, None] + smoothed(network.predicted(take), span)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, in half precision where that is enough, to be stored."""
        named = {
            "weights": torch.tensor(self.weights, dtype=torch.float64),
            "projection": self.reference.projection,
            "static_db": self.static_db,
            "beliefs": torch.tensor(self.beliefs, dtype=torch.float64),
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
        beliefs = Beliefs(*(Belief(*pair) for pair in named["beliefs"].tolist()))
        return cls(folders[0], folders[1], static, nets, beliefs, weights, settings, hop_ms)


def mixed(suggestions: Sequence[Tensor | None], weights: Weights) -> Tensor:
    """Blend masks [row, frame] that stand in the order of `Weights`."""
    parts = [s * share for s, share in zip(suggestions, weights[:4], strict=True) if s is not None]
    mask = torch.stack(parts).sum(dim=0)
    level = mask.mean(dim=0, keepdim=True)
    return mask - (1 - weights.level) * level
