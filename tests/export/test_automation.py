"""The Reaper effect, run by a small interpreter of its language."""

import csv as comma
import io
import math
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import freqz, lfilter

from tonewood.dsp.equalizer import graphic_eq_gains
from tonewood.export.formats import GainTable, format_gain_csv, format_jsfx

Floats = npt.NDArray[np.floating[Any]]
RATE, Q = 48_000, 1.4
HZ = 62.5 * 2.0 ** np.arange(8)


def drawn(rows: int = 40, seed: int = 0) -> GainTable:
    rng = np.random.default_rng(seed)
    gain = np.cumsum(rng.normal(0, 1.5, (len(HZ), rows)), axis=1)
    return GainTable(HZ, np.arange(rows) * 0.05, gain)


class Eel:
    """Interpreter of the part of EEL2, Reaper's language, that the effect uses."""

    TOKEN = re.compile(
        r"\s*(?://[^\n]*)?\s*(?:(\d+\.?\d*)|([$\w]+)|(<=|>=|==|\+=|-=|[-+*/^<>=?:(),;&\[\]]))?"
    )
    BINARY: ClassVar = {"=": 1, "+=": 1, "-=": 1, "?": 2, "<": 4, ">": 4, "<=": 4, ">=": 4, "==": 4,
              "&": 5, "+": 6, "-": 6, "*": 7, "/": 7, "^": 9}  # fmt: skip

    def __init__(self) -> None:
        self.names: dict[str, float] = {"$pi": math.pi}
        self.memory: dict[int, float] = {}
        self.functions: dict[str, Callable[..., float]] = {
            "sin": math.sin, "cos": math.cos, "floor": math.floor, "min": min, "max": max,
        }  # fmt: skip

    def compile(self, code: str) -> Callable[[], float]:
        """Compile code to a callable."""
        self.tokens, place = [], 0
        while place < len(code):
            matched = self.TOKEN.match(code, place)
            assert matched is not None
            assert matched.end() > place or not code[place:].strip(), code[place : place + 40]
            if matched.end() == place:
                break
            place = matched.end()
            if matched.lastindex:
                self.tokens.append(matched[matched.lastindex])
        self.place = 0
        python = self.block(set())
        assert self.place == len(self.tokens), self.tokens[self.place : self.place + 5]
        return self.built(python, [])

    def built(self, expression: str, arguments: list[str]) -> Callable[..., float]:
        scope = {"N": self.names, "M": self.memory, "F": self.functions, "E": self}
        code = f"lambda {', '.join(arguments)}: {expression}"
        return eval(code, scope)  # type: ignore[no-any-return]

    def take(self, expected: str | None = None) -> str:
        token = self.tokens[self.place]
        assert expected in (None, token), (expected, self.tokens[self.place : self.place + 6])
        self.place += 1
        return token

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def block(self, local: set[str]) -> str:
        """Parse statements up to a closing bracket; the last one is the value."""
        parts = []
        while self.peek() not in ("", ")"):
            if self.peek() == "function":
                self.define()
            else:
                parts.append(self.expression(0, local))
            while self.peek() == ";":
                self.take()
        return f"[{', '.join(parts)}][-1]" if parts else "0.0"

    def define(self) -> None:
        self.take("function")
        name, arguments = self.take(), list[str]()
        self.take("(")
        while self.peek() != ")":
            arguments.append(self.take())
        self.take(")")
        values = list(arguments)
        if self.peek() == "local":
            self.take()
            self.take("(")
            while self.peek() != ")":
                values.append(self.take())
            self.take(")")
        self.take("(")
        body = self.block(set(values))
        self.take(")")
        extra = [f"{other}=0.0" for other in values[len(arguments) :]]
        assert len(arguments) <= 40
        self.functions[name] = self.built(body, [*arguments, *extra])

    def expression(self, least: int, local: set[str]) -> str:
        left = self.primary(local)
        while self.peek() == "[":
            self.take()
            offset = self.expression(0, local)
            self.take("]")
            left = f"M.get(int(({left}) + ({offset})), 0.0)"
        while (operator := self.peek()) in self.BINARY and self.BINARY[operator] >= max(least, 1):
            self.take()
            strength = self.BINARY[operator]
            if operator == "?":
                first = self.expression(strength, local)
                second = "0.0"
                if self.peek() == ":":
                    self.take()
                    second = self.expression(strength, local)
                left = f"(({first}) if ({left}) else ({second}))"
            elif operator in ("=", "+=", "-="):
                right = self.expression(strength, local)
                if operator != "=":
                    right = f"({left}) {operator[0]} ({right})"
                left = self.stored(left, right)
            else:
                right = self.expression(strength + 1, local)
                if operator == "&":
                    left = f"(int({left}) & int({right}))"
                else:
                    left = f"(({left}) {operator.replace('^', '**')} ({right}))"
        return left

    @staticmethod
    def stored(place: str, value: str) -> str:
        if place.startswith("M.get("):
            return f"E.store({place.removeprefix('M.get(').removesuffix(', 0.0)')}, {value})"
        if place.startswith("N.get("):
            return f"E.name({place.removeprefix('N.get(').removesuffix(', 0.0)')}, {value})"
        return f"({place} := ({value}))"

    def store(self, place: int, value: float) -> float:
        self.memory[place] = value
        return value

    def name(self, name: str, value: float) -> float:
        self.names[name] = value
        return value

    def primary(self, local: set[str]) -> str:
        token = self.take()
        if token == "-":
            return f"(-({self.expression(8, local)}))"
        if token == "(":
            inside = self.block(local)
            self.take(")")
            return inside
        if token[0].isdigit():
            return f"{float(token)!r}"
        if self.peek() != "(":
            return token if token in local else f"N.get({token!r}, 0.0)"
        self.take()
        if token == "loop":
            count = self.expression(0, local)
            self.take(",")
            body = self.block(local)
            self.take(")")
            return f"[{body} for _ in range(int({count}))][-1]"
        arguments = []
        while self.peek() != ")":
            arguments.append(self.expression(0, local))
            if self.peek() == ",":
                self.take()
        self.take(")")
        return f"F[{token!r}]({', '.join(arguments)})"


class Effect:
    """A .jsfx as Reaper would run it: sections, sliders, one block after the other."""

    def __init__(self, text: str, rate: int) -> None:
        head, *parts = re.split(r"^@(\w+)\n", text, flags=re.MULTILINE)
        self.title = head.splitlines()[0]
        self.code, self.eel = dict(zip(parts[::2], parts[1::2], strict=True)), Eel()
        self.eel.names["srate"] = float(rate)
        for number, value in re.findall(r"^slider(\d+):(-?[\d.]+)<", head, re.MULTILINE):
            self.eel.names[f"slider{number}"] = float(value)
        self.eel.compile(self.code["init"])()
        self.block, self.sample = (self.eel.compile(self.code[section]) for section in ("block", "sample"))

    def play(self, wave: Floats, start: float) -> Floats:
        """Return the left channel of a wave that is played from a given time."""
        names, rate = self.eel.names, self.eel.names["srate"]
        names |= {"play_state": 1.0, "play_position": start}
        self.eel.compile(self.code["slider"])()
        out = []
        for index, value in enumerate(wave):
            if index % 512 == 0:
                names["play_position"] = start + index / rate
                self.block()
            names["spl0"], names["spl1"] = value, -value
            self.sample()
            out.append(names["spl0"])
            assert abs(names["spl0"] + names["spl1"]) < 1e-9  # both channels alike
        return np.array(out)


def effect_of(table: GainTable, gain_db: float = 0.0) -> Effect:
    filters = graphic_eq_gains(table.gain_db, table.hz, Q, RATE)
    return Effect(format_jsfx(table, filters, Q, gain_db, "Tonewood: a take"), RATE)


def in_force(effect: Effect) -> list[tuple[list[float], list[float]]]:
    first = int(effect.eel.names["coef"])
    filters = []
    for band in range(int(effect.eel.names["bands"])):
        b0, b1, b2, a1, a2 = (effect.eel.memory[first + 5 * band + i] for i in range(5))
        filters.append(([b0, b1, b2], [1.0, a1, a2]))
    return filters


@pytest.mark.parametrize("moment", [-1.0, 0.0, 0.05, 0.61, 1.93, 1.95, 60.0])
def test_effect_applies_gains_of_the_table(moment: float) -> None:
    table = drawn()
    effect = effect_of(table)
    effect.eel.functions["update"](moment)
    total = np.zeros(len(HZ))
    for b, a in in_force(effect):
        _, h = freqz(b, a, worN=HZ, fs=RATE)
        total += 20 * np.log10(np.abs(h))
    expected = [np.interp(moment, table.seconds, row) for row in table.gain_db]
    assert np.abs(total - expected).max() < 0.1


def test_effect_filters_audio_by_current_gains() -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(1_000)
    held = drawn(1)
    effect = effect_of(held, gain_db=-3.0)
    assert effect.title == "desc:Tonewood: a take"
    played = effect.play(wave, 0.3)
    still = wave * 10 ** (-3 / 20)
    for b, a in in_force(effect):
        still = lfilter(b, a, still)
    assert played == pytest.approx(still, abs=1e-9)


def test_effect_follows_the_play_cursor() -> None:
    table = GainTable(HZ, np.array([0.0, 0.01, 0.02]), np.zeros((len(HZ), 3)))
    table.gain_db[4, 2] = 12.0  # at 1 kHz, 20 ms into the recording
    tone = np.sin(2 * np.pi * 1_000 * np.arange(1_440) / RATE)
    effect = effect_of(table)
    effect.eel.names["slider2"] = 5.0  # which starts at 5 s of the project
    played = effect.play(tone, 5.0)
    before, after = played[:400].max(), played[-200:].max()
    assert 20 * np.log10(before) == pytest.approx(0, abs=0.2)
    assert 20 * np.log10(after) == pytest.approx(12, abs=0.7)
    effect.eel.names["slider1"] = 0.0
    assert effect.play(tone, 5.0)[-200:].max() == pytest.approx(1, abs=0.02)


def test_csv_round_trip() -> None:
    table = drawn()
    head, *rows = comma.reader(io.StringIO(format_gain_csv(table)))
    assert head == ["seconds", *(f"{hz:g} Hz" for hz in HZ)]
    values = np.array(rows, dtype=float)
    assert values[:, 0] == pytest.approx(table.seconds)
    assert np.abs(values[:, 1:].T - table.gain_db).max() <= 0.0051
    assert "-0.00" not in format_gain_csv(GainTable(HZ, np.zeros(1), np.full((8, 1), -0.001)))


def test_thinning_removes_interpolated_rows() -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(500) * 0.05
    corners = np.cumsum(rng.normal(0, 3, (3, 26)), axis=1)
    gain = np.stack([np.interp(seconds, np.arange(26), row) for row in corners])
    thin = GainTable(np.array([100.0, 200.0, 400.0]), seconds, gain).thin()
    assert len(thin.seconds) < 120
    assert thin.seconds[[0, -1]] == pytest.approx(seconds[[0, -1]])
    for row, expected in zip(thin.gain_db, gain, strict=True):
        assert np.abs(np.interp(seconds, thin.seconds, row) - expected).max() <= 0.051
