"""Several folders as one side, each counting by its weight."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tonewood.files.folders import Take


class Weighted(NamedTuple):
    """One of several folders, and how much it counts as a whole, however long it is."""

    folder: Path
    weight: float = 1.0


def of_several(takes: Sequence[Sequence[Take]], folders: Sequence[Weighted]) -> list[Take]:
    """Join the takes of several folders into one side, each counting by its folder's weight.

    Their groups, and the sessions of their evidence, are told apart by folder. A recording that
    two of the folders hold counts once, for the folder named first.
    """
    met = set[str]()
    joined = []
    parts = [[take for take in part if not _met(take.digest, met)] for part in takes]
    seconds = [math.fsum(take.seconds for take in part) for part in parts]
    weights = math.fsum(it.weight for it, length in zip(folders, seconds, strict=True) if length)
    for number, (part, it, length) in enumerate(zip(parts, folders, seconds, strict=True), 1):
        for take in part:
            name = f"{number} {it.folder.name}"
            evidence = replace(take.evidence, session=f"{name}/{take.evidence.session}")
            # 1 on average over all moments of all the folders.
            share = it.weight / weights * math.fsum(seconds) / length
            group = f"{name}/{take.group}"
            joined.append(replace(take, group=group, evidence=evidence, share=share))
    return joined


def _met(digest: str, met: set[str]) -> bool:
    known = digest in met
    met.add(digest)
    return known
