"""Two recipes or models → what changed from one to the other, in musicians' words."""

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
from tonewood.settings import Settings

_MAX_GAIN_EVENTS = 8
_AUDIBLE_CHANGE_DB = 0.5  # a smaller change of a register's mean is not named
_NEGLIGIBLE_CHANGE_DB = 0.05


class RegisterChange(Settings):
    """A register's mean gain on both sides, dB."""

    name: str
    low_hz: float
    high_hz: float
    a_db: float
    b_db: float
    change_db: float


class PassageChange(Settings):
    """Where a register's change departs from its average; the change there, dB."""

    name: str
    start_s: float
    end_s: float
    change_db: float


class SettingChange(Settings):
    """A setting, or another thing that a recipe states, that differs."""

    name: str
    a: Any
    b: Any


class CorrectionDifference(Settings):
    """What changed from `a` to `b`.

    Parameters
    ----------
    registers : tuple of RegisterChange
    tilt_a, tilt_b : float
        Mean tilt, dB per octave.
    gain_a, gain_b : float
        Of the whole output, dB.
    moments : bool
        Whether both are of one take, so that moments could be compared.
    passages : tuple of PassageChange
        The most striking first.
    stated : tuple of SettingChange
    """

    a: str
    b: str
    registers: tuple[RegisterChange, ...]
    tilt_a: float
    tilt_b: float
    gain_a: float
    gain_b: float
    moments: bool
    passages: tuple[PassageChange, ...]
    stated: tuple[SettingChange, ...]

    @property
    def line(self) -> str:
        """What changed, in one sentence."""
        named = [
            f"{'more' if it.change_db > 0 else 'less'} {it.name} ({it.change_db:+.1f} dB)"
            for it in sorted(self.registers, key=lambda it: -abs(it.change_db))
            if abs(it.change_db) >= _AUDIBLE_CHANGE_DB
        ]
        if named:
            return ", ".join(named)
        if self.passages:
            return "on the whole the same; not at every moment"
        largest = max(abs(it.change_db) for it in self.registers)
        if largest < _NEGLIGIBLE_CHANGE_DB:
            return "no difference"
        return f"hardly anything: {largest:.1f} dB in one register at most"


def compare_corrections(a: Correction, b: Correction) -> CorrectionDifference:
    """Compare two corrections by their averages and, where both are of one take, by moments."""
    moments = bool(a.recipe and b.recipe and a.recipe.input.sha256 == b.recipe.input.sha256)
    sides = []
    for side in (a, b):
        length = side.seconds or REGISTER_STEP_SECONDS
        sides.append(gain_by_register(side.mask, np.arange(0, length, REGISTER_STEP_SECONDS)))
    means = [side.mean(axis=1) for side in sides]
    found = gain_events(sides[1] - sides[0]) if moments else iter(())
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
        moments=moments,
        passages=tuple(
            PassageChange(
                name=it.register.name,
                start_s=_round_hundredths(it.start_s),
                end_s=_round_hundredths(it.end_s),
                change_db=_round_hundredths(it.gain_db),
            )
            for it in islice(found, _MAX_GAIN_EVENTS)
        ),
        stated=tuple(_statement_changes(a.recipe, b.recipe)) if a.recipe and b.recipe else (),
    )


def _statement_changes(a: Recipe, b: Recipe) -> Iterator[SettingChange]:
    """What two recipes say differently, apart from the masks."""
    pairs: list[tuple[str, Any, Any]] = [
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
    first, second = a.certificate.judge, b.certificate.judge
    if first and second:
        pairs.append(("judge", _round_hundredths(first.after), _round_hundredths(second.after)))
    if a.model.name == b.model.name and a.model.digest != b.model.digest:
        pairs.append(("model digest", a.model.digest[:8], b.model.digest[:8]))
    one, other = dict(_setting_leaves(a.settings)), dict(_setting_leaves(b.settings))
    pairs += [(name, one.get(name), other.get(name)) for name in sorted(one | other)]
    for name, before, after in pairs:
        if before != after:
            yield SettingChange(name=name, a=before, b=after)


def _setting_leaves(settings: BaseModel, path: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _setting_leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _round_hundredths(value: float) -> float:
    return round(value, 2) + 0.0  # rounding may leave a minus before nought
