"""Compare the corrections of two recipes or models, by register, tilt, time and settings."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from pydantic import BaseModel

from tonewood.enhancement.recipe import Recipe
from tonewood.export.export import Correction
from tonewood.mask.components import (
    REGISTER_STEP_SECONDS,
    REGISTERS,
    gain_by_register,
    gain_events,
    mean_tilt,
)
from tonewood.setting_types import Settings

_MAX_GAIN_EVENTS = 8
_AUDIBLE_CHANGE_DB = 0.5  # smaller changes of a register's mean are not mentioned
_NEGLIGIBLE_CHANGE_DB = 0.05


class RegisterChange(Settings):
    """Mean gain of a register in both corrections, dB."""

    name: str
    low_hz: float
    high_hz: float
    a_db: float
    b_db: float
    change_db: float


class PassageChange(Settings):
    """Passage in which the change of a register differs from its average; the change there, dB."""

    name: str
    start_s: float
    end_s: float
    change_db: float


class SettingChange(Settings):
    """Setting or other statement of a recipe that differs."""

    name: str
    a: Any
    b: Any


class CorrectionDifference(Settings):
    """Changes from correction `a` to correction `b`."""

    a: str
    b: str
    registers: tuple[RegisterChange, ...]
    # Mean tilt, dB per octave
    tilt_a: float
    tilt_b: float
    # Overall gain, dB
    gain_a: float
    gain_b: float
    moments: bool  # both are of the same recording, so that passages are compared
    passages: tuple[PassageChange, ...]  # largest changes first
    stated: tuple[SettingChange, ...]  # other differences between two recipes

    @property
    def line(self) -> str:
        """Summary in one sentence."""
        changes = [
            f"{'more' if register.change_db > 0 else 'less'} {register.name} ({register.change_db:+z.1f} dB)"
            for register in sorted(self.registers, key=lambda register: -abs(register.change_db))
            if abs(register.change_db) >= _AUDIBLE_CHANGE_DB
        ]
        if changes:
            return ", ".join(changes)
        if self.passages:
            return "the same on average, but not in every passage"
        largest = max(abs(register.change_db) for register in self.registers)
        if largest < _NEGLIGIBLE_CHANGE_DB:
            return "no difference"
        return f"almost none: at most {largest:.1f} dB in one register"


def compare_corrections(a: Correction, b: Correction) -> CorrectionDifference:
    """Compare two corrections by their averages and, if both are of one recording, over time."""
    # Only outputs of one recording have passages in common.
    same_recording = bool(a.recipe and b.recipe and a.recipe.input.sha256 == b.recipe.input.sha256)
    sides = []
    for side in (a, b):
        length = side.seconds or REGISTER_STEP_SECONDS  # a model has one frame
        sides.append(gain_by_register(side.mask, np.arange(0, length, REGISTER_STEP_SECONDS)))
    means = [side.mean(axis=1) for side in sides]
    events = gain_events(sides[1] - sides[0]) if same_recording else iter(())
    return CorrectionDifference(
        a=a.name,
        b=b.name,
        registers=tuple(
            RegisterChange(
                name=register.name,
                low_hz=register.low_hz,
                high_hz=register.high_hz,
                a_db=_round_hundredths(before),
                b_db=_round_hundredths(after),
                change_db=_round_hundredths(after - before),
            )
            for register, before, after in zip(REGISTERS, *means, strict=True)
        ),
        tilt_a=_round_hundredths(mean_tilt(a.mask)),
        tilt_b=_round_hundredths(mean_tilt(b.mask)),
        gain_a=_round_hundredths(a.gain_db),
        gain_b=_round_hundredths(b.gain_db),
        moments=same_recording,
        passages=tuple(
            PassageChange(
                name=event.register.name,
                start_s=_round_hundredths(event.start_s),
                end_s=_round_hundredths(event.end_s),
                change_db=_round_hundredths(event.gain_db),
            )
            for event in islice(events, _MAX_GAIN_EVENTS)
        ),
        stated=tuple(_statement_changes(a.recipe, b.recipe)) if a.recipe and b.recipe else (),
    )


def _statement_changes(a: Recipe, b: Recipe) -> Iterator[SettingChange]:
    """Yield the differences between two recipes other than their masks."""
    statements: list[tuple[str, Any, Any]] = [
        ("recording", a.input.name, b.input.name),
        ("model", a.model.name, b.model.name),
        ("prior", a.prior, b.prior),
        ("verdict", a.certificate.verdict, b.certificate.verdict),
        (
            "score",
            _round_hundredths(a.certificate.scorer.after),
            _round_hundredths(b.certificate.scorer.after),
        ),
    ]
    judge_a, judge_b = a.certificate.judge, b.certificate.judge
    if judge_a and judge_b:
        statements.append(("judge", _round_hundredths(judge_a.after), _round_hundredths(judge_b.after)))
    # A model may have been trained again under its name.
    if a.model.name == b.model.name and a.model.digest != b.model.digest:
        statements.append(("model digest", a.model.digest[:8], b.model.digest[:8]))
    settings_b = dict(_setting_leaves(b.settings))
    statements += [(name, value, settings_b[name]) for name, value in sorted(_setting_leaves(a.settings))]
    for name, before, after in statements:
        if before != after:
            yield SettingChange(name=name, a=before, b=after)


def _setting_leaves(settings: BaseModel, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a tree with its dotted name."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _setting_leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _round_hundredths(value: float) -> float:
    return round(value, 2) + 0.0  # adding 0.0 turns -0.0 into 0.0
