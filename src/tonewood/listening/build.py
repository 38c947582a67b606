"""Building a test: pieces → excerpts → stimuli of one size under names that say nothing."""

import hashlib
import io
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import soundfile
from numpy.typing import NDArray

from tonewood.errors import AudioError, CallError, FolderError, OutputError, TonewoodError, shown
from tonewood.files.audio import probe
from tonewood.files.output import write_bytes, write_text
from tonewood.listening import stimuli
from tonewood.listening.design import (
    ANCHORS_HZ,
    CHECKS,
    CONSENT,
    CONSENT_TEXT,
    QUESTIONS,
    STIMULI,
    Check,
    Choice,
    Chosen,
    Excerpt,
    Kind,
    Stimulus,
    Test,
    laid_trials,
)
from tonewood.listening.folder import new_folder
from tonewood.listening.pieces import MAX_CHANNELS, Piece
from tonewood.settings import SpectrumSettings
from tonewood.signal.loudness import integrated_loudness
from tonewood.workflow.layout import Failed

_SPECTRUM = SpectrumSettings()
_RATES = (44_100, 48_000)
MOST_RATED = 12


@dataclass(frozen=True)
class Plan:
    """What kind of test is wanted.

    Parameters
    ----------
    seconds : float
        Of every excerpt.
    excerpts : int
        Of each piece; every second one is drawn at random, as a control.
    per_listener : int or None
        Trials for each listener; all of them if there are fewer.
    repeats : int or None
        Trials that come again; by default one in eight.
    reference : str or None
        The condition that others are rated against.
    """

    kind: Kind = "pairs"
    title: str = "Listening test"
    question: str | None = None
    seconds: float = 8.0
    excerpts: int = 2
    per_listener: int | None = None
    repeats: int | None = None
    training: int = 1
    choice: Choice = "random"
    checked: bool = True
    reference: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise CallError for what is no plan."""
        for name, known in (("kind", get_args(Kind)), ("choice", get_args(Choice))):
            if getattr(self, name) not in known:
                told = ", ".join(known)
                raise CallError(f"{name} is {getattr(self, name)!r}; choose one of {told}")
        low, high = stimuli.SHORTEST_SECONDS, stimuli.LONGEST_SECONDS
        if not low <= self.seconds <= high:
            raise CallError(f"excerpts of {self.seconds:g} s; give {low:g} to {high:g} s")
        if self.excerpts < 1:
            raise CallError(f"{self.excerpts} excerpts of a piece; give one at least")
        for name in ("per_listener", "repeats"):
            value = getattr(self, name)
            if value is not None and value < (name == "per_listener"):
                raise CallError(f"--{name.replace('_', '-')} is {value}: give a larger number")
        if self.training < 0 or self.seed < 0:
            raise CallError("training and seed are numbers from 0 on")
        if self.kind == "mushra" and self.reference is None:
            raise CallError(
                "MUSHRA rates closeness to a reference: name the folder of the reference takes "
                "with --reference"
            )
        if self.choice == "active" and self.kind != "pairs":
            raise CallError("active choice is for pairs; leave --choice out")


def planned(**wanted: Any) -> Plan:  # noqa: ANN401
    """Plan of options as the user gave them; CallError for what is no plan."""
    plan = Plan(**wanted)
    plan.check()
    return plan


class Cut(NamedTuple):
    """Progress: the number-th piece of so many became excerpts."""

    number: int
    total: int
    piece: Piece
    excerpts: int


Event = Cut | Failed | Test


def build(
    found: Sequence[Piece | Failed], plan: Plan, out: Path, *, overwrite: bool = False
) -> Iterator[Event]:
    """Make the test's folder, whole or not at all; yields its progress and, last, the `Test`.

    Raises
    ------
    CallError, FolderError, OutputError
        The plan cannot be, no piece can be used, or the folder may not be written.
    """
    plan.check()
    pieces = [it for it in found if isinstance(it, Piece)]
    if plan.kind == "mushra" and pieces:
        _check_rated(len(pieces[0].paths) + len(ANCHORS_HZ))
    rng = np.random.default_rng(plan.seed)
    with new_folder(out, overwrite) as folder:
        yield from (it for it in found if isinstance(it, Failed))
        rate, channels = _form(pieces)
        maker = _Maker(folder / STIMULI, rate, channels, plan, rng)
        for number, piece in enumerate(pieces, start=1):
            try:
                yield Cut(number, len(pieces), piece, maker.cut(piece))
            except OutputError:
                raise  # the test's own folder, not the piece: a full disk, say
            except TonewoodError as error:
                yield Failed(next(iter(piece.paths.values())), error)
        if not maker.excerpts:
            raise FolderError("no piece can be compared: mend or replace what is named above")
        test = maker.test(pieces)
        write_text(folder / CONSENT, CONSENT_TEXT)
        test.save(folder)
        for path in (*(folder / STIMULI).iterdir(), *(folder / CHECKS).iterdir()):
            os.utime(path, (0, 0))  # nor does the order in which they were made tell anything
    yield test


class _Maker:
    """Excerpts and files made so far."""

    def __init__(
        self, folder: Path, rate: int, channels: int, plan: Plan, rng: np.random.Generator
    ) -> None:
        self.folder, self.rate, self.channels = folder, rate, channels
        self.plan, self.rng = plan, rng
        self.samples = round(plan.seconds * rate)
        self.excerpts: list[Excerpt] = []
        self.stimuli: list[Stimulus] = []
        self.names = set[str]()
        folder.mkdir()
        (folder.parent / CHECKS).mkdir()

    def cut(self, piece: Piece) -> int:
        """Make a piece's stimuli; returns how many excerpts they are of."""
        waves = piece.read(self.rate)
        length = next(iter(waves.values())).shape[1]
        if length < self.samples:
            raise AudioError(
                f"{shown(piece.name)} lasts {length / self.rate:.1f} s; excerpts of "
                f"{self.plan.seconds:g} s are asked for: give longer ones, or fewer --seconds"
            )
        before = len(self.excerpts)
        for start, chosen in self._places(piece.effect(waves, self.rate)):
            first = min(round(start * self.rate), length - self.samples)
            cut = {k: self._shaped(w[:, first : first + self.samples]) for k, w in waves.items()}
            try:
                loud = stimuli.levelled(self._conditions(cut), self.rate)
            except ValueError:
                continue  # a condition is silent here
            self._keep(Excerpt(piece=piece.name, start=first / self.rate, chosen=chosen), loud)
        if len(self.excerpts) == before:
            raise AudioError(f"{shown(piece.name)} has no stretch that sounds: leave it out")
        return len(self.excerpts) - before

    def test(self, pieces: Sequence[Piece]) -> Test:
        """The test of all that was made."""
        plan, conditions = self.plan, tuple(pieces[0].paths)
        if plan.kind == "mushra":
            conditions += tuple(ANCHORS_HZ)
        trials = laid_trials(plan.kind, conditions, len(self.excerpts))
        each = min(len(trials), plan.per_listener or len(trials))
        repeats = plan.repeats if plan.repeats is not None else each // 8
        checks = self._checks() if plan.checked else ()
        return Test(
            tonewood=version("tonewood"),
            kind=plan.kind,
            title=plan.title,
            question=plan.question or QUESTIONS[plan.kind],
            seed=plan.seed,
            key=secrets.token_hex(16),
            rate=self.rate,
            channels=self.channels,
            samples=self.samples,
            conditions=conditions,
            reference=plan.reference,
            per_listener=each,
            repeats=min(repeats, each),
            training=min(plan.training, len(trials)),
            choice=plan.choice,
            excerpts=tuple(self.excerpts),
            stimuli=tuple(self.stimuli),
            trials=trials,
            checks=tuple(checks),
        )

    def _places(self, effect: NDArray[np.float64]) -> Iterator[tuple[float, Chosen]]:
        """Beginnings in seconds: where most is done and anywhere, in turn, while there is room."""
        hop = _SPECTRUM.hop / _SPECTRUM.rate
        frames = min(len(effect), math.floor(self.plan.seconds / hop))
        taken: list[int] = []
        for _ in range(0, self.plan.excerpts, 2):
            start = stimuli.most(effect, frames, tuple(taken))
            if start is None:
                return
            taken.append(start)
            yield start * hop, "mask"
            control = stimuli.anywhere(effect, frames, self.rng)
            if len(taken) < self.plan.excerpts and control is not None:
                taken.append(control)
                yield control * hop, "random"

    def _shaped(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        if wave.shape[0] < self.channels:
            wave = np.repeat(wave, self.channels, axis=0)
        return stimuli.faded(wave, self.rate)

    def _conditions(self, cut: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Conditions of an excerpt, with the anchors where they belong."""
        if self.plan.kind != "mushra":
            return dict(cut)
        assert self.plan.reference is not None
        whole = cut[self.plan.reference]
        low = {k: stimuli.low_passed(whole, self.rate, hz) for k, hz in ANCHORS_HZ.items()}
        return {**cut, **low}

    def _keep(self, excerpt: Excerpt, loud: Mapping[str, NDArray[np.float32]]) -> None:
        """Write an excerpt's files; a sound that is heard twice at once is written twice."""
        number = len(self.excerpts)
        self.excerpts.append(excerpt)
        for condition, wave in loud.items():
            twice = self.plan.kind == "abx" or condition == self.plan.reference
            for copy in range(2 if twice else 1):
                steps = stimuli.quantised(wave, self.rng)
                heard = (steps.T / np.float32(32767)).astype(np.float32)
                file, digest = self._write(steps)
                self.stimuli.append(
                    Stimulus(
                        file=file,
                        sha256=digest,
                        excerpt=number,
                        condition=condition,
                        copy_number=copy,
                        loudness=round(integrated_loudness(heard, self.rate), 3),
                    )
                )

    def _checks(self) -> list[Check]:
        made = []
        for kind, right, wave in stimuli.checks(self.rate, self.rng):
            file, _ = self._write(stimuli.quantised(wave, self.rng), CHECKS)
            made.append(Check.model_validate({"file": file, "kind": kind, "right": right}))
        return made

    def _write(self, steps: NDArray[np.int16], folder: str = STIMULI) -> tuple[str, str]:
        """Write samples under a drawn name; returns it and the content's SHA-256."""
        while (file := f"{self.rng.bytes(8).hex()}.wav") in self.names:
            pass
        self.names.add(file)
        stream = io.BytesIO()
        soundfile.write(stream, steps, self.rate, format="WAV", subtype="PCM_16")
        write_bytes(self.folder.parent / folder / file, stream.getvalue())
        return file, hashlib.sha256(stream.getvalue()).hexdigest()


def _check_rated(count: int) -> None:
    """BS.1534-3: twelve sounds on a screen at most, hidden reference and anchors among them."""
    if count > MOST_RATED:
        raise CallError(
            f"{count} sounds to rate at once, with reference and anchors; MUSHRA allows "
            f"{MOST_RATED}: give fewer conditions, or compare them in --kind pairs"
        )


def _form(pieces: Sequence[Piece]) -> tuple[int, int]:
    """Rate and channels that hold every file of the test."""
    infos = []
    for piece in pieces:
        for path in piece.paths.values():
            try:
                infos.append(probe(path, max_channels=MAX_CHANNELS))
            except AudioError:
                continue  # named when it is read
    if not infos:
        raise FolderError("no piece can be compared: mend or replace what is named above")
    cd, dat = _RATES
    return (cd if all(cd % it.rate == 0 for it in infos) else dat), max(it.channels for it in infos)
