"""Build a listening test: excerpts of pieces, as stimuli of equal length and loudness, in a new folder."""

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
    failure_reason,
    printable,
)
from tonewood.listening.database import count_answers
from tonewood.listening.definition import (
    ANCHORS_HZ,
    ANSWERS_FILE,
    CHECKS_FOLDER,
    CONSENT_FILE,
    CONSENT_TEXT,
    QUESTIONS,
    STIMULI_FOLDER,
    TEST_FILE,
    Excerpt,
    ExcerptSelection,
    ListeningTest,
    ScreeningCheck,
    Stimulus,
    TestKind,
    TrialSelection,
    enumerate_trials,
)
from tonewood.listening.stimuli import (
    EFFECT_HOP_SECONDS,
    MAX_EXCERPT_SECONDS,
    MAX_STIMULUS_CHANNELS,
    MIN_EXCERPT_SECONDS,
    ComparedPiece,
    apply_fades,
    draw_random_excerpt,
    equalize_loudness,
    find_strongest_excerpt,
    low_pass_anchor,
    make_check_sounds,
    quantize_with_dither,
)
from tonewood.utils.arrays import FloatArray, Samples
from tonewood.utils.files import make_private, temporary_folder, write_bytes, write_text

MAX_RATED_SOUNDS = 12  # on one screen, after ITU-R BS.1534-3
_STIMULUS_RATES = (44_100, 48_000)
_TEST_FOLDER_CONTENT = frozenset({
    TEST_FILE, CONSENT_FILE, ANSWERS_FILE, f"{ANSWERS_FILE}-wal", f"{ANSWERS_FILE}-shm",
    STIMULI_FOLDER, CHECKS_FOLDER,
})  # fmt: skip


@contextmanager
def create_test_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder that gets the name `out` when the block ends without an error."""
    check_test_folder(out, overwrite)
    final = out.absolute()
    with ExitStack() as stack:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            hidden = stack.enter_context(temporary_folder(final.parent))
        except OSError as error:
            reason = failure_reason(error)
            raise OutputError(
                f"{printable(out)} cannot be created ({reason}): choose another folder"
            ) from None
        make_private(hidden)  # test and answers are nobody else's
        yield hidden
        if not final.exists():
            hidden.rename(final)
            return
        check_test_folder(out, overwrite)
        # Renaming is one step, so that no interruption leaves half a test under the final name.
        old = stack.enter_context(temporary_folder(final.parent)) / "old"
        final.rename(old)
        try:
            hidden.rename(final)
        except OSError:
            old.rename(final)
            raise


def check_test_folder(out: Path, overwrite: bool) -> None:
    """Raise OutputError unless a test may be written to a folder; answers are never replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{printable(out)} is a file; a test needs a folder: choose another name")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    if TEST_FILE not in names or names - _TEST_FOLDER_CONTENT:
        raise OutputError(f"{printable(out)} contains other files: choose another folder")
    if not overwrite:
        raise OutputError(f"{printable(out)} exists: choose another output or pass --overwrite")
    if ANSWERS_FILE in names and count_answers(out / ANSWERS_FILE):
        raise OutputError(
            f"{printable(out)} contains answers, which are never replaced: choose another folder"
        )


@dataclass(frozen=True)
class ListeningTestPlan:
    """Options of a listening test."""

    kind: TestKind = "pairs"
    title: str = "Listening test"
    question: str | None = None
    seconds: float = 8.0  # duration of each excerpt
    excerpts: int = 2  # number for each piece; every second one is chosen at random, as a control
    per_listener: int | None = None  # trials of each listener; all if None
    repeats: int | None = None  # trials that are repeated; one in eight if None
    training: int = 1  # trials for practice
    choice: TrialSelection = "random"
    checked: bool = True
    reference: str | None = None  # condition that the others are rated against (MUSHRA)
    seed: int = 0

    def validate(self) -> None:
        """Raise CallError for an option that is out of range or does not fit the kind."""
        for name, values in (("kind", get_args(TestKind)), ("choice", get_args(TrialSelection))):
            value = getattr(self, name)
            if value not in values:
                raise CallError(f"--{name} is {value!r}: choose one of {', '.join(values)}")
        low, high = MIN_EXCERPT_SECONDS, MAX_EXCERPT_SECONDS
        if not low <= self.seconds <= high:
            raise CallError(f"--seconds is {self.seconds:g}: use {low:g} to {high:g} s")
        minima = {"excerpts": 1, "per_listener": 1, "repeats": 0, "training": 0, "seed": 0}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise CallError(f"--{name.replace('_', '-')} is {value}: use {minimum} or more")
        if self.kind == "mushra" and self.reference is None:
            raise CallError(
                "--kind mushra rates similarity to a reference: name the folder of the reference "
                "recordings with --reference"
            )
        if self.choice == "active" and self.kind != "pairs":
            raise CallError(
                f"--choice active cannot be used with --kind {self.kind}: use it with pairs, or remove it"
            )


def make_plan(**options: Any) -> ListeningTestPlan:  # noqa: ANN401
    """Return a validated plan; raise CallError for an invalid option."""
    plan = ListeningTestPlan(**options)
    plan.validate()
    return plan


class PieceProgress(NamedTuple):
    """Progress event: piece `number` of `total` was cut into excerpts."""

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
    """Write the folder of a test, all or nothing; yield the progress and, last, the test.

    CallError, FolderError or OutputError if the plan is invalid, no piece can be used, or the folder cannot
    be written.
    """
    plan.validate()
    pieces = [piece for piece in candidates if isinstance(piece, ComparedPiece)]
    if plan.kind == "mushra" and pieces:
        _check_rated_count(len(pieces[0].paths) + len(ANCHORS_HZ))
    rng = np.random.default_rng(plan.seed)
    with create_test_folder(out, overwrite) as folder:
        yield from (failure for failure in candidates if isinstance(failure, FileFailure))
        rate, channels = _common_format(pieces)
        builder = _TestBuilder(folder / STIMULI_FOLDER, rate, channels, plan, rng)
        for number, piece in enumerate(pieces, start=1):
            try:
                yield PieceProgress(number, len(pieces), piece, builder.add_piece(piece))
            except OutputError:
                raise  # concerns the test's folder, such as a full disk, and therefore all pieces
            except TonewoodError as error:
                yield FileFailure(next(iter(piece.paths.values())), error)
        if not builder.excerpts:
            raise FolderError("no piece can be used: fix or replace the files named above")
        # The definition is written last, after all files that it names.
        test = builder.finish(pieces)
        write_text(folder / CONSENT_FILE, CONSENT_TEXT)
        test.save(folder)
        # Equal times: the order of creation would reveal the conditions.
        for path in (*(folder / STIMULI_FOLDER).iterdir(), *(folder / CHECKS_FOLDER).iterdir()):
            os.utime(path, (0, 0))
    yield test


class _TestBuilder:
    """Excerpts and stimuli of a test that is being built."""

    def __init__(
        self, folder: Path, rate: int, channels: int, plan: ListeningTestPlan, rng: np.random.Generator
    ) -> None:
        self.folder, self.rate, self.channels = folder, rate, channels
        self.plan, self.rng = plan, rng
        self.samples = round(plan.seconds * rate)
        self.excerpts: list[Excerpt] = []
        self.stimuli: list[Stimulus] = []
        self.used_names = set[str]()
        folder.mkdir()
        (folder.parent / CHECKS_FOLDER).mkdir()

    def add_piece(self, piece: ComparedPiece) -> int:
        """Write the stimuli of a piece; return its number of excerpts."""
        waves = piece.read_conditions(self.rate)
        length = next(iter(waves.values())).shape[1]
        if length < self.samples:
            raise AudioError(
                f"{printable(piece.name)} lasts {length / self.rate:.1f} s, less than an excerpt of "
                f"{self.plan.seconds:g} s: use a longer recording or fewer --seconds"
            )
        before = len(self.excerpts)
        for start, chosen in self._choose_starts(piece.effect_db(waves, self.rate)):
            # The analysis has one frame more than whole hops, so the last start may be too late.
            first = min(round(start * self.rate), length - self.samples)
            cut = {k: self._shape_excerpt(w[:, first : first + self.samples]) for k, w in waves.items()}
            try:
                waves_by_condition = equalize_loudness(self._with_anchors(cut), self.rate)
            except ValueError:
                continue  # a condition is silent in this excerpt
            excerpt = Excerpt(piece=piece.name, start=first / self.rate, chosen=chosen)
            self._add_excerpt(excerpt, waves_by_condition)
        if len(self.excerpts) == before:
            raise AudioError(f"{printable(piece.name)} is silent in every excerpt: remove it")
        return len(self.excerpts) - before

    def finish(self, pieces: Sequence[ComparedPiece]) -> ListeningTest:
        """Return the test of all excerpts."""
        plan, conditions = self.plan, tuple(pieces[0].paths)
        if plan.kind == "mushra":
            conditions += tuple(ANCHORS_HZ)
        trials = enumerate_trials(plan.kind, conditions, len(self.excerpts))
        per_listener = min(len(trials), plan.per_listener or len(trials))
        repeats = plan.repeats if plan.repeats is not None else per_listener // 8
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
            per_listener=per_listener,
            repeats=min(repeats, per_listener),
            training=min(plan.training, len(trials)),
            choice=plan.choice,
            excerpts=tuple(self.excerpts),
            stimuli=tuple(self.stimuli),
            trials=trials,
            checks=tuple(checks),
        )

    def _choose_starts(self, effect: FloatArray) -> Iterator[tuple[float, ExcerptSelection]]:
        """Yield the start of each excerpt in seconds: strongest effect and random control, in turn."""
        frames = min(len(effect), math.floor(self.plan.seconds / EFFECT_HOP_SECONDS))
        used: list[int] = []
        for _ in range(0, self.plan.excerpts, 2):
            start = find_strongest_excerpt(effect, frames, tuple(used))
            if start is None:  # no room for another excerpt without overlap
                return
            used.append(start)
            yield start * EFFECT_HOP_SECONDS, "mask"
            control = draw_random_excerpt(effect, frames, self.rng)
            if len(used) < self.plan.excerpts and control is not None:
                used.append(control)
                yield control * EFFECT_HOP_SECONDS, "random"

    def _shape_excerpt(self, wave: Samples) -> Samples:
        if wave.shape[0] < self.channels:
            wave = np.repeat(wave, self.channels, axis=0)
        return apply_fades(wave, self.rate)

    def _with_anchors(self, cut: Mapping[str, Samples]) -> dict[str, Samples]:
        if self.plan.kind != "mushra":
            return dict(cut)
        assert self.plan.reference is not None
        reference = cut[self.plan.reference]
        anchors = {name: low_pass_anchor(reference, self.rate, hz) for name, hz in ANCHORS_HZ.items()}
        return {**cut, **anchors}

    def _add_excerpt(self, excerpt: Excerpt, waves: Mapping[str, Samples]) -> None:
        """Write the files of an excerpt; a sound that occurs twice on a screen gets two files."""
        number = len(self.excerpts)
        self.excerpts.append(excerpt)
        for condition, wave in waves.items():
            copies = 2 if self.plan.kind == "abx" or condition == self.plan.reference else 1
            for copy in range(copies):
                steps = quantize_with_dither(wave, self.rng)
                # Measured on the quantized samples, because those are played.
                written = (steps.T / np.float32(32767)).astype(np.float32)
                file, digest = self._write_wav(steps)
                self.stimuli.append(
                    Stimulus(
                        file=file,
                        sha256=digest,
                        excerpt=number,
                        condition=condition,
                        copy_number=copy,
                        loudness=round(integrated_loudness(written, self.rate), 3),
                    )
                )

    def _make_checks(self) -> list[ScreeningCheck]:
        checks = []
        for kind, answer, wave in make_check_sounds(self.rate, self.rng):
            file, _ = self._write_wav(quantize_with_dither(wave, self.rng), CHECKS_FOLDER)
            checks.append(ScreeningCheck.model_validate({"file": file, "kind": kind, "right": answer}))
        return checks

    def _write_wav(self, steps: NDArray[np.int16], folder: str = STIMULI_FOLDER) -> tuple[str, str]:
        """Write samples under a random name; return it and the SHA-256 of the content."""
        while (file := f"{self.rng.bytes(8).hex()}.wav") in self.used_names:
            pass
        self.used_names.add(file)  # random names do not reveal the order of conditions
        stream = io.BytesIO()
        soundfile.write(stream, steps, self.rate, format="WAV", subtype="PCM_16")
        write_bytes(self.folder.parent / folder / file, stream.getvalue())
        return file, hashlib.sha256(stream.getvalue()).hexdigest()


def _check_rated_count(count: int) -> None:
    if count > MAX_RATED_SOUNDS:
        raise CallError(
            f"a screen would have {count} sounds, including reference and anchors; --kind mushra allows "
            f"{MAX_RATED_SOUNDS}: use fewer conditions or --kind pairs"
        )


def _common_format(pieces: Sequence[ComparedPiece]) -> tuple[int, int]:
    """Return the rate and the channels of all stimuli: 44.1 kHz if all rates divide it, else 48 kHz."""
    infos = []
    for piece in pieces:
        for path in piece.paths.values():
            try:
                infos.append(probe_audio(path, max_channels=MAX_STIMULUS_CHANNELS))
            except AudioError:
                continue  # reported when the piece is read
    if not infos:
        raise FolderError("no piece can be used: fix or replace the files named above")
    cd_rate, dat_rate = _STIMULUS_RATES
    rate = cd_rate if all(cd_rate % info.rate == 0 for info in infos) else dat_rate
    return rate, max(info.channels for info in infos)
