"""Definition of a listening test: its excerpts, stimuli and trials, stored as `test.json`.

A test is a folder with this file (which identifies the stimuli and is never served), stimuli under
random names, a consent text that the experimenter may edit, and the answers.
"""

import hashlib
import hmac
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tonewood.errors import FolderError, failure_reason, printable
from tonewood.setting_types import Settings
from tonewood.utils.files import make_private, read_regular, write_text

TestKind = Literal["pairs", "abx", "mushra"]
ExcerptSelection = Literal["mask", "random"]
TrialSelection = Literal["random", "active"]
FileByCondition = dict[tuple[int, str, int], str]
"""Stimulus files by excerpt, condition and copy."""

TEST_FILE, CONSENT_FILE, ANSWERS_FILE = "test.json", "consent.txt", "answers.sqlite"
STIMULI_FOLDER, CHECKS_FOLDER = "stimuli", "checks"
# Low and mid anchor of ITU-R BS.1534-3.
ANCHORS_HZ = {"anchor 3.5 kHz": 3_500.0, "anchor 7 kHz": 7_000.0}
MID_ANCHOR_NAME = "anchor 7 kHz"

QUESTIONS: dict[TestKind, str] = {
    "pairs": "Which do you prefer?",
    "abx": "Is X the same as A or as B?",
    "mushra": "How close is each sound to the reference?",
}
CONSENT_TEXT = """\
You are about to compare short pieces of sound. Your answers are stored on the computer of the person
who runs this test, under a random number. Your name and address are neither asked for nor stored, and
nothing is sent anywhere else.

You may stop at any time and continue later. On this page you can also delete all your answers.

Use headphones in a quiet room, if you can.
"""


# The name of a file that is served must not contain a path.
StimulusFileName = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]+\.wav$", max_length=100)]


class Excerpt(Settings):
    """An excerpt of a piece."""

    piece: str
    start: float  # seconds from the beginning of the piece
    chosen: ExcerptSelection  # where the conditions differ most, or at random as a control


class Stimulus(Settings):
    """A sound file, its excerpt and its condition."""

    file: StimulusFileName
    sha256: str
    excerpt: int
    condition: str
    # Copies differ in their dither only, so that equal sounds cannot be recognised by their bytes
    copy_number: int = 0
    loudness: float  # LUFS, measured on the file


class ListeningTrial(Settings):
    """An excerpt and the conditions that a listener compares."""

    excerpt: int
    conditions: tuple[str, ...]


class ScreeningCheck(Settings):
    """A hearing or headphone check; `right` is the correct answer, counted from 1."""

    file: StimulusFileName
    kind: Literal["headphones", "hearing"]
    right: int


class ListeningTest(Settings):
    """A complete listening test."""

    format: Literal["tonewood-listening-test"] = "tonewood-listening-test"
    version: Literal[1] = 1
    tonewood: str
    kind: TestKind
    title: str
    question: str
    seed: int = Field(ge=0)  # seed of excerpts, file names, and the order and sides of each listener
    key: str  # secret of completion codes and of the page's address
    rate: int = Field(ge=1)
    channels: int = Field(ge=1)
    samples: int = Field(ge=1)
    conditions: tuple[str, ...] = Field(min_length=2)
    reference: str | None = None
    # Numbers of trials of each listener: rated once, rated again, and for practice
    per_listener: int = Field(ge=1)
    repeats: int = Field(ge=0)
    training: int = Field(ge=0)
    choice: TrialSelection = "random"
    excerpts: tuple[Excerpt, ...]
    stimuli: tuple[Stimulus, ...]
    trials: tuple[ListeningTrial, ...] = Field(min_length=1)
    checks: tuple[ScreeningCheck, ...] = ()

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        known, files = set(self.conditions), self.file_by_condition()
        if len(known) < len(self.conditions):
            raise ValueError("a condition is named twice")
        if (self.kind == "mushra") != (self.reference in known):
            raise ValueError("MUSHRA has a reference among its conditions, other kinds have none")
        if self.choice == "active" and self.kind != "pairs":
            raise ValueError("only tests of pairs choose trials actively")
        if max(self.per_listener, self.training, self.repeats) > len(self.trials):
            raise ValueError("a listener gets more trials than the test has")
        for trial in self.trials:
            compared = set(trial.conditions)
            if len(compared) < len(trial.conditions) or not compared <= known:
                raise ValueError("a trial has an unknown condition, or one twice")
            if len(compared) != (len(known) if self.kind == "mushra" else 2):
                raise ValueError("a trial has too many conditions, or too few")
            if not 0 <= trial.excerpt < len(self.excerpts):
                raise ValueError("a trial has an unknown excerpt")
            # X of an ABX trial, and the open reference of MUSHRA, are second copies.
            copied = compared if self.kind == "abx" else compared & {self.reference}
            required = {(name, 0) for name in compared} | {(name, 1) for name in copied}
            if any((trial.excerpt, *key) not in files for key in required):
                raise ValueError("a trial lacks the file of a condition")
        return self

    @property
    def seconds(self) -> float:
        """Duration of every stimulus."""
        return self.samples / self.rate

    def file_by_condition(self) -> FileByCondition:
        """Return the stimulus files by excerpt, condition and copy."""
        return {(s.excerpt, s.condition, s.copy_number): s.file for s in self.stimuli}

    def completion_code(self, listener: str) -> str:
        """Return the code with which a listener proves to have completed the test."""
        # 16⁸ codes for at most 10,000 listeners: a guess is right in one of 400,000 cases.
        digest = self._sign(listener)
        return f"{digest[:4]}-{digest[4:8]}".upper()

    @property
    def access_token(self) -> str:
        """Token in the page's address, the same after each restart."""
        return self._sign("token")[:32]  # 128 bits, too many to try

    def _sign(self, text: str) -> str:
        return hmac.new(self.key.encode(), text.encode(), hashlib.sha256).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `test.json` into the test's folder."""
        write_text(folder / TEST_FILE, self.model_dump_json(indent=1) + "\n")
        make_private(folder / TEST_FILE)  # it has the key of the completion codes


def enumerate_trials(
    kind: TestKind, conditions: tuple[str, ...], excerpts: int
) -> tuple[ListeningTrial, ...]:
    """Return a trial for each excerpt and pair of conditions; MUSHRA compares all conditions at once."""
    sets = [conditions] if kind == "mushra" else list(combinations(conditions, 2))
    return tuple(ListeningTrial(excerpt=k, conditions=names) for k in range(excerpts) for names in sets)


def stimulus_path(folder: Path, stage: str, file: str) -> Path:
    """Return the path of a file that a stage of a test plays."""
    return folder / (CHECKS_FOLDER if stage in ("hearing", "headphones") else STIMULI_FOLDER) / file


def load_listening_test(folder: Path) -> ListeningTest:
    """Read a test; raise FolderError if the folder has no valid one."""
    path = folder / TEST_FILE
    try:
        return ListeningTest.model_validate_json(read_regular(path))
    except OSError as error:
        reason = failure_reason(error)
        raise FolderError(
            f"{printable(folder)} is not a listening test ({TEST_FILE}: {reason}): make one with "
            "tonewood listen new"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            raise FolderError(
                f"{printable(path)} has version {first['input']}; this Tonewood reads 1: update Tonewood"
            ) from None
        raise FolderError(
            f"{printable(path)} is damaged or is not a listening test: make the test again"
        ) from None
