"""Building a test: pieces → excerpts → stimuli of one size under names that say nothing.

A test's folder appears whole or not at all, and answers are never replaced.
"""

import hashlib
import io
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import soundfile
from numpy.typing import NDArray

from tonewood.audio_io.reader import probe_audio
from tonewood.dsp.loudness import integrated_loudness
from tonewood.enhancement.output_files import FileFailure
from tonewood.errors import (
    AudioError,
    CallError,
    FolderError,
    OutputError,
    TonewoodError,
    printable,
)
from tonewood.listening import database, stimuli
from tonewood.listening.definition import (
    ANCHORS_HZ,
    ANSWERS_FILE,
    CHECKS_FOLDER,
    CONSENT_FILE,
    CONSENT_TEXT,
    QUESTIONS,
    STIMULI_FOLDER,
    TEST_FILE,
    ExcerptSelection,
    ListeningTest,
    ScreeningCheck,
    Stimulus,
    TestExcerpt,
    TestKind,
    TrialSelection,
    enumerate_trials,
)
from tonewood.listening.stimuli import MAX_STIMULUS_CHANNELS, ComparedPiece
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import FloatArray
from tonewood.utils.atomic_write import temporary_folder, write_bytes, write_text


@contextmanager
def create_test_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder that takes the name `out` when the block ends well."""
    check_test_folder(out, overwrite)
    final = out.absolute()
    with ExitStack() as stack:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            hidden = stack.enter_context(temporary_folder(final.parent))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise OutputError(f"{printable(out)} cannot be made ({why}): name another folder") from None
        yield hidden
        if final.exists():
            check_test_folder(out, overwrite)
            # Aside in one step: half a test under its name could be neither used nor replaced.
            old = stack.enter_context(temporary_folder(final.parent)) / "old"
            final.rename(old)
            try:
                hidden.rename(final)
            except OSError:
                old.rename(final)
                raise
        else:
            hidden.rename(final)


def check_test_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something but a test; answers are never replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{printable(out)} is a file; a test needs a folder: name another")
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    if TEST_FILE not in there or there - _TEST_FOLDER_CONTENT:
        raise OutputError(f"{printable(out)} holds something else: name another folder")
    if not overwrite:
        raise OutputError(f"{printable(out)} exists: name another output or pass --overwrite")
    if ANSWERS_FILE in there and database.count_answers(out / ANSWERS_FILE):
        raise OutputError(f"{printable(out)} holds answers, which are never replaced: name another")


_TEST_FOLDER_CONTENT = frozenset(
    {
        TEST_FILE,
        CONSENT_FILE,
        ANSWERS_FILE,
        f"{ANSWERS_FILE}-wal",
        f"{ANSWERS_FILE}-shm",
        STIMULI_FOLDER,
        CHECKS_FOLDER,
    }
)


_EXCERPT_SPECTRUM = SpectrumSettings()
_STIMULUS_RATES = (44_100, 48_000)
MAX_RATED_SOUNDS = 12


@dataclass(frozen=True)
class ListeningTestPlan:
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

    kind: TestKind = "pairs"
    title: str = "Listening test"
    question: str | None = None
    seconds: float = 8.0
    excerpts: int = 2
    per_listener: int | None = None
    repeats: int | None = None
    training: int = 1
    choice: TrialSelection = "random"
    checked: bool = True
    reference: str | None = None
    seed: int = 0

    def validate(self) -> None:
        """Raise CallError for what is no plan."""
        for name, known in (("kind", get_args(TestKind)), ("choice", get_args(TrialSelection))):
            if getattr(self, name) not in known:
                told = ", ".join(known)
                raise CallError(f"{name} is {getattr(self, name)!r}; choose one of {told}")
        low, high = stimuli.MIN_EXCERPT_SECONDS, stimuli.MAX_EXCERPT_SECONDS
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


def make_plan(**options: Any) -> ListeningTestPlan:  # noqa: ANN401
    """Plan of options as the user gave them; CallError for what is no plan."""
    plan = ListeningTestPlan(**options)
    plan.validate()
    return plan


class PieceProgress(NamedTuple):
    """Progress: the number-th piece of so many became excerpts."""

    number: int
    total: int
    piece: ComparedPiece
    excerpts: int


BuildEvent = PieceProgress | FileFailure | ListeningTest


def build_listening_test(
    candidates: Sequence[ComparedPiece | FileFailure],
    plan: ListeningTestPlan,
    out: Path,
    *,
    overwrite: bool = False,
) -> Iterator[BuildEvent]:
    """Make the test's folder, whole or not at all; yields its progress and, last, the `Test`.

    Raises
    ------
    CallError, FolderError, OutputError
        The plan cannot be, no piece can be used, or the folder may not be written.
    """
    plan.validate()
    pieces = [it for it in candidates if isinstance(it, ComparedPiece)]
    if plan.kind == "mushra" and pieces:
        _check_rated_count(len(pieces[0].paths) + len(ANCHORS_HZ))
    rng = np.random.default_rng(plan.seed)
    with create_test_folder(out, overwrite) as folder:
        yield from (it for it in candidates if isinstance(it, FileFailure))
        rate, channels = _common_format(pieces)
        maker = _TestBuilder(folder / STIMULI_FOLDER, rate, channels, plan, rng)
        for number, piece in enumerate(pieces, start=1):
            try:
                yield PieceProgress(number, len(pieces), piece, maker.add_piece(piece))
            except OutputError:
                raise  # the test's own folder, not the piece: a full disk, say
            except TonewoodError as error:
                yield FileFailure(next(iter(piece.paths.values())), error)
        if not maker.excerpts:
            raise FolderError("no piece can be compared: mend or replace what is named above")
        test = maker.finish(pieces)
        write_text(folder / CONSENT_FILE, CONSENT_TEXT)
        test.save(folder)
        for path in (*(folder / STIMULI_FOLDER).iterdir(), *(folder / CHECKS_FOLDER).iterdir()):
            os.utime(path, (0, 0))  # nor does the order in which they were made tell anything
    yield test


class _TestBuilder:
    """Excerpts and files made so far."""

    def __init__(
        self,
        folder: Path,
        rate: int,
        channels: int,
        plan: ListeningTestPlan,
        rng: np.random.Generator,
    ) -> None:
        self.folder, self.rate, self.channels = folder, rate, channels
        self.plan, self.rng = plan, rng
        self.samples = round(plan.seconds * rate)
        self.excerpts: list[TestExcerpt] = []
        self.stimuli: list[Stimulus] = []
        self.used_names = set[str]()
        folder.mkdir()
        (folder.parent / CHECKS_FOLDER).mkdir()

    def add_piece(self, piece: ComparedPiece) -> int:
        """Make a piece's stimuli; returns how many excerpts they are of."""
        waves = piece.read_conditions(self.rate)
        length = next(iter(waves.values())).shape[1]
        if length < self.samples:
            raise AudioError(
                f"{printable(piece.name)} lasts {length / self.rate:.1f} s; excerpts of "
                f"{self.plan.seconds:g} s are asked for: give longer ones, or fewer --seconds"
            )
        before = len(self.excerpts)
        for start, chosen in self._choose_starts(piece.effect_db(waves, self.rate)):
            first = min(round(start * self.rate), length - self.samples)
            cut = {k: self._shape_excerpt(w[:, first : first + self.samples]) for k, w in waves.items()}
            try:
                loud = stimuli.equalize_loudness(self._with_anchors(cut), self.rate)
            except ValueError:
                continue  # a condition is silent here
            self._add_excerpt(TestExcerpt(piece=piece.name, start=first / self.rate, chosen=chosen), loud)
        if len(self.excerpts) == before:
            raise AudioError(f"{printable(piece.name)} has no stretch that sounds: leave it out")
        return len(self.excerpts) - before

    def finish(self, pieces: Sequence[ComparedPiece]) -> ListeningTest:
        """The test of all that was made."""
        plan, conditions = self.plan, tuple(pieces[0].paths)
        if plan.kind == "mushra":
            conditions += tuple(ANCHORS_HZ)
        trials = enumerate_trials(plan.kind, conditions, len(self.excerpts))
        each = min(len(trials), plan.per_listener or len(trials))
        repeats = plan.repeats if plan.repeats is not None else each // 8
        checks = self._make_checks() if plan.checked else ()
        return ListeningTest(
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

    def _choose_starts(self, effect: FloatArray) -> Iterator[tuple[float, ExcerptSelection]]:
        """Beginnings in seconds: where most is done and anywhere, in turn, while there is room."""
        hop = _EXCERPT_SPECTRUM.hop / _EXCERPT_SPECTRUM.rate
        frames = min(len(effect), math.floor(self.plan.seconds / hop))
        taken: list[int] = []
        for _ in range(0, self.plan.excerpts, 2):
            start = stimuli.find_strongest_excerpt(effect, frames, tuple(taken))
            if start is None:
                return
            taken.append(start)
            yield start * hop, "mask"
            control = stimuli.draw_random_excerpt(effect, frames, self.rng)
            if len(taken) < self.plan.excerpts and control is not None:
                taken.append(control)
                yield control * hop, "random"

    def _shape_excerpt(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        if wave.shape[0] < self.channels:
            wave = np.repeat(wave, self.channels, axis=0)
        return stimuli.apply_fades(wave, self.rate)

    def _with_anchors(self, cut: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Conditions of an excerpt, with the anchors where they belong."""
        if self.plan.kind != "mushra":
            return dict(cut)
        assert self.plan.reference is not None
        whole = cut[self.plan.reference]
        low = {k: stimuli.low_pass_anchor(whole, self.rate, hz) for k, hz in ANCHORS_HZ.items()}
        return {**cut, **low}

    def _add_excerpt(self, excerpt: TestExcerpt, loud: Mapping[str, NDArray[np.float32]]) -> None:
        """Write an excerpt's files; a sound that is heard twice at once is written twice."""
        number = len(self.excerpts)
        self.excerpts.append(excerpt)
        for condition, wave in loud.items():
            twice = self.plan.kind == "abx" or condition == self.plan.reference
            for copy in range(2 if twice else 1):
                steps = stimuli.quantize_with_dither(wave, self.rng)
                heard = (steps.T / np.float32(32767)).astype(np.float32)
                file, digest = self._write_wav(steps)
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

    def _make_checks(self) -> list[ScreeningCheck]:
        made = []
        for kind, right, wave in stimuli.make_check_sounds(self.rate, self.rng):
            file, _ = self._write_wav(stimuli.quantize_with_dither(wave, self.rng), CHECKS_FOLDER)
            made.append(ScreeningCheck.model_validate({"file": file, "kind": kind, "right": right}))
        return made

    def _write_wav(self, steps: NDArray[np.int16], folder: str = STIMULI_FOLDER) -> tuple[str, str]:
        """Write samples under a drawn name; returns it and the content's SHA-256."""
        while (file := f"{self.rng.bytes(8).hex()}.wav") in self.used_names:
            pass
        self.used_names.add(file)
        stream = io.BytesIO()
        soundfile.write(stream, steps, self.rate, format="WAV", subtype="PCM_16")
        write_bytes(self.folder.parent / folder / file, stream.getvalue())
        return file, hashlib.sha256(stream.getvalue()).hexdigest()


def _check_rated_count(count: int) -> None:
    """BS.1534-3: twelve sounds on a screen at most, hidden reference and anchors among them."""
    if count > MAX_RATED_SOUNDS:
        raise CallError(
            f"{count} sounds to rate at once, with reference and anchors; MUSHRA allows "
            f"{MAX_RATED_SOUNDS}: give fewer conditions, or compare them in --kind pairs"
        )


def _common_format(pieces: Sequence[ComparedPiece]) -> tuple[int, int]:
    """Rate and channels that hold every file of the test."""
    infos = []
    for piece in pieces:
        for path in piece.paths.values():
            try:
                infos.append(probe_audio(path, max_channels=MAX_STIMULUS_CHANNELS))
            except AudioError:
                continue  # named when it is read
    if not infos:
        raise FolderError("no piece can be compared: mend or replace what is named above")
    cd, dat = _STIMULUS_RATES
    return (cd if all(cd % it.rate == 0 for it in infos) else dat), max(it.channels for it in infos)
