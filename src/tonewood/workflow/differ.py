"""Two recipes or models → what changed from one to the other, in musicians' words."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from pydantic import BaseModel

from tonewood.files.recipe import Recipe
from tonewood.masking.words import (
    REGISTERS,
    STEP_SECONDS,
    in_registers,
    mean_tilt,
    passages,
)
from tonewood.settings import Settings
from tonewood.workflow.corrections import Correction

_PASSAGES = 8
_HEARD_DB = 0.5  # a smaller change of a register's mean is not named
_NOTHING_DB = 0.05


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


class Difference(Settings):
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
            if abs(it.change_db) >= _HEARD_DB
        ]
        if named:
            return ", ".join(named)
        if self.passages:
            return "on the whole the same; not at every moment"
        largest = max(abs(it.change_db) for it in self.registers)
        if largest < _NOTHING_DB:
            return "no difference"
        return f"hardly anything: {largest:.1f} dB in one register at most"


def difference(a: Correction, b: Correction) -> Difference:
    """Compare two corrections by their averages and, where both are of one take, by moments."""
    moments = bool(a.recipe and b.recipe and a.recipe.input.sha256 == b.recipe.input.sha256)
    sides = []
    for side in (a, b):
        length = side.seconds or STEP_SECONDS
        sides.append(in_registers(side.mask, np.arange(0, length, STEP_SECONDS)))
    means = [side.mean(axis=1) for side in sides]
    found = passages(sides[1] - sides[0]) if moments else iter(())
    return Difference(
        a=a.name,
        b=b.name,
        registers=tuple(
            RegisterChange(
                name=register.name,
                low_hz=register.low_hz,
                high_hz=register.high_hz,
                a_db=_rounded(before),
                b_db=_rounded(after),
                change_db=_rounded(after - before),
            )
            for register, before, after in zip(REGISTERS, *means, strict=True)
        ),
        tilt_a=_rounded(mean_tilt(a.mask)),
        tilt_b=_rounded(mean_tilt(b.mask)),
        gain_a=_rounded(a.gain_db),
        gain_b=_rounded(b.gain_db),
        moments=moments,
        passages=tuple(
            PassageChange(
                name=it.register.name,
                start_s=_rounded(it.start_s),
                end_s=_rounded(it.end_s),
                change_db=_rounded(it.gain_db),
            )
            for it in islice(found, _PASSAGES)
        ),
        stated=tuple(_stated(a.recipe, b.recipe)) if a.recipe and b.recipe else (),
    )


def _stated(a: Recipe, b: Recipe) -> Iterator[SettingChange]:
    """What two recipes say differently, apart from the masks."""
    pairs: list[tuple[str, Any, Any]] = [
        ("recording", a.input.name, b.input.name),
        ("model", a.model.name, b.model.name),
        ("prior", a.prior, b.prior),
        ("verdict", a.certificate.verdict, b.certificate.verdict),
        ("score", _rounded(a.certificate.scorer.after), _rounded(b.certificate.scorer.after)),
    ]
    first, second = a.certificate.judge, b.certificate.judge
    if first and second:
        pairs.append(("judge", _rounded(first.after), _rounded(second.after)))
    if a.model.name == b.model.name and a.model.digest != b.model.digest:
        pairs.append(("model digest", a.model.digest[:8], b.model.digest[:8]))
    one, other = dict(_leaves(a.settings)), dict(_leaves(b.settings))
    pairs += [(name, one.get(name), other.get(name)) for name in sorted(one | other)]
    for name, before, after in pairs:
        if before != after:
            yield SettingChange(name=name, a=before, b=after)


def _leaves(settings: BaseModel, path: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _rounded(value: float) -> float:
    return round(value, 2) + 0.0  # rounding may leave a minus before nought
