"""Several folders as one side, each counting by its weight."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tonewood.files.folders import TrainingRecording


class WeightedFolder(NamedTuple):
    """One of several folders, and how much it counts as a whole, however long it is."""

    folder: Path
    weight: float = 1.0


def merge_folders(takes: Sequence[Sequence[TrainingRecording]], folders: Sequence[WeightedFolder]) -> list[TrainingRecording]:
    """Join the takes of several folders into one side, each counting by its folder's weight.

    Their groups, and the sessions of their evidence, are told apart by folder. A recording that
    two of the folders hold counts once, for the folder named first.
    """
    met = set[str]()
    joined = []
    parts = [[take for take in part if not _seen_before(take.digest, met)] for part in takes]
    seconds = [math.fsum(take.seconds for take in part) for part in parts]
    weights = math.fsum(it.weight for it, length in zip(folders, seconds, strict=True) if length)
    for number, (part, it, length) in enumerate(zip(parts, folders, seconds, strict=True), 1):
        for take in part:
            name = f"{number} {it.folder.name}"
            evidence = replace(take.audit_features, session=f"{name}/{take.audit_features.session}")
            # 1 on average over all moments of all the folders.
            share = it.weight / weights * math.fsum(seconds) / length
            group = f"{name}/{take.group}"
            joined.append(replace(take, group=group, audit_features=evidence, weight=share))
    return joined


def _seen_before(digest: str, seen: set[str]) -> bool:
    known = digest in seen
    seen.add(digest)
    return known
