"""Scorer and judge, trained: by two folders, by listeners, or by both; kept on the way."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from tonewood.files import folders
from tonewood.files.checkpoint import Checkpoint
from tonewood.files.folders import Split, Take, shares_of
from tonewood.scoring import course
from tonewood.scoring.ears import Heard, train_by_ears
from tonewood.scoring.training import Check, Fit, Takes, train_scorer
from tonewood.settings import ModelSettings
from tonewood.workflow import opinions
from tonewood.workflow.audit import Side

Who = Literal["scorer", "judge"]
Both = Mapping[Side, Sequence[Take]]


class Checked(NamedTuple):
    """Scorer or judge was checked on takes that it does not learn from."""

    who: Who
    check: Check


def fit_scorers(
    takes: Both | None,
    heard: Heard | None,
    settings: ModelSettings,
    device: str,
    checkpoint: Checkpoint | None = None,
) -> Generator[Checked, None, dict[Who, Fit]]:
    """Train scorer and, if wanted, judge, yielding every check; returns how they do.

    Parameters
    ----------
    takes : mapping of side to takes, optional
        Whose labels teach.
    heard : Heard, optional
        What listeners said; one of both is given.
    checkpoint : Checkpoint, optional
        Where they are kept, and gone on from; not by several processes together.

    Raises
    ------
    ModelError
        The checkpoint is of another training.
    """
    if course.world() > 1:
        checkpoint = None  # each process is elsewhere in its draws, and none waits to be kept
    if checkpoint is not None:
        checkpoint.open(_decides(takes, heard, settings))
    fits: dict[Who, Fit] = {}
    for who, seed in roles(settings):
        state = checkpoint.state(who) if checkpoint is not None else None
        labels = hold_out(takes, settings.training.held_out, seed) if takes is not None else None
        if heard is not None:
            parts = opinions.hold_out(heard, settings.training.held_out, seed)
            progress = train_by_ears(
                *parts,
                settings.scorer,
                settings.spectrum,
                settings.training,
                labels=labels,
                seed=seed,
                device=device,
                state=state,
            )
        else:
            assert labels is not None
            progress = train_scorer(
                *labels,
                settings.scorer,
                settings.spectrum,
                settings.training,
                seed=seed,
                device=device,
                state=state,
            )
        for event in progress:
            if isinstance(event, Fit):
                fits[who] = event
                continue
            if checkpoint is not None and event.course is not None:
                checkpoint.keep(who, event.course.state())
            yield Checked(who, event)
    return fits


def roles(settings: ModelSettings) -> list[tuple[Who, int]]:
    """Who is trained, each by a seed of its own."""
    seed = settings.training.seed
    wanted: list[tuple[Who, int]] = [("scorer", seed), ("judge", seed + 1)]
    return wanted if settings.training.judge else wanted[:1]


def hold_out(takes: Both, share: float, seed: int) -> tuple[Takes, Takes]:
    """Row levels to learn from and row levels held out, split by the seed."""
    splits = [folders.split(takes[side], share, seed) for side in get_args(Side)]
    return _rows(splits, "train"), _rows(splits, "held_out")


def _rows(splits: list[Split], part: Literal["train", "held_out"]) -> Takes:
    sides: list[list[Take]] = [getattr(split, part) for split in splits]
    reference, source = ([take.rows_db for take in side] for side in sides)
    return Takes(reference, source, shares_of(sides[0]))


def _decides(takes: Both | None, heard: Heard | None, settings: ModelSettings) -> list[str]:
    """All that a scorer depends on, told in a few words."""
    hasher = hashlib.sha256()
    for side, part in (takes or {}).items():
        for take in part:
            hasher.update(f"{side} {take.digest} {take.group} {take.share}\n".encode())
    if heard is not None:
        for answers in (heard.better, heard.worse, heard.rated, heard.target, *heard.rows):
            hasher.update(answers.contiguous().numpy().tobytes())
    return [settings.model_dump_json(), hasher.hexdigest()]
