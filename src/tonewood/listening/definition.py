"""What a listening test is: its stimuli, its trials, and what becomes of them for a listener.

A test is a folder: `test.json`, which knows what is what and is never served, stimuli under names
that say nothing, texts that the experimenter edits, and the answers.
"""

import hashlib
import hmac
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tonewood.errors import FolderError, printable
from tonewood.settings import Settings
from tonewood.utils.atomic_write import write_text

TestKind = Literal["pairs", "abx", "mushra"]
ExcerptSelection = Literal["mask", "random"]
TrialSelection = Literal["random", "active"]

TEST_FILE, CONSENT_FILE, ANSWERS_FILE = "test.json", "consent.txt", "answers.sqlite"
STIMULI_FOLDER, CHECKS_FOLDER = "stimuli", "checks"
ANCHORS_HZ = {"anchor 3.5 kHz": 3_500.0, "anchor 7 kHz": 7_000.0}
MID_ANCHOR_NAME = "anchor 7 kHz"

QUESTIONS: dict[TestKind, str] = {
    "pairs": "Which do you prefer?",
    "abx": "Is X the same as A or as B?",
    "mushra": "How close is each sound to the reference?",
}
CONSENT_TEXT = """\
You are about to compare short pieces of sound. Your answers are kept on the computer of the person
who runs this test, under a random number. No name and no address is asked for or kept, and nothing
is sent anywhere else.

You may stop at any time. Your place is kept, and you may have all your answers deleted from this
page.

Use headphones in a quiet room, if you can.
"""


StimulusFileName = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]+\.wav$", max_length=100)]
"""Of a file that is served: nothing that could lead out of its folder."""


class TestExcerpt(Settings):
    """A moment of a piece.

    Parameters
    ----------
    start : float
        Seconds from the beginning of the piece.
    chosen : {"mask", "random"}
        Where most was done, or anywhere, as a control.
    """

    piece: str
    start: float
    chosen: ExcerptSelection


class Stimulus(Settings):
    """A file, and what it is.

    Parameters
    ----------
    copy_number : int
        Several files of one sound differ in their dither alone, so that the same sound twice
        cannot be told by comparing bytes.
    loudness : float
        As written, LUFS.
    """

    file: StimulusFileName
    sha256: str
    excerpt: int
    condition: str
    copy_number: int = 0
    loudness: float


class ListeningTrial(Settings):
    """An excerpt under the conditions to be compared."""

    excerpt: int
    conditions: tuple[str, ...]


class ScreeningCheck(Settings):
    """A question on hearing or headphones with one right answer, counted from 1."""

    file: StimulusFileName
    kind: Literal["headphones", "hearing"]
    right: int


class ListeningTest(Settings):
    """A listening test, complete.

    Parameters
    ----------
    seed : int
        Of all that is random: excerpts, names of files, every listener's order and sides.
    key : str
        Makes completion codes that nobody can guess.
    per_listener, repeats, training : int
        Trials that each listener gets, those of them that come again, and those to get used to it.
    """

    __test__ = False  # no test of pytest's

    format: Literal["tonewood-listening-test"] = "tonewood-listening-test"
    version: Literal[1] = 1
    tonewood: str
    kind: TestKind
    title: str
    question: str
    seed: int = Field(ge=0)
    key: str
    rate: int = Field(ge=1)
    channels: int = Field(ge=1)
    samples: int = Field(ge=1)
    conditions: tuple[str, ...] = Field(min_length=2)
    reference: str | None = None
    per_listener: int = Field(ge=1)
    repeats: int = Field(ge=0)
    training: int = Field(ge=0)
    choice: TrialSelection = "random"
    excerpts: tuple[TestExcerpt, ...]
    stimuli: tuple[Stimulus, ...]
    trials: tuple[ListeningTrial, ...] = Field(min_length=1)
    checks: tuple[ScreeningCheck, ...] = ()

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        known, files = set(self.conditions), self.file_by_condition()
        if len(known) < len(self.conditions):
            raise ValueError("a condition is named twice")
        if (self.kind == "mushra") != (self.reference in known):
            raise ValueError("MUSHRA has a reference among its conditions, no other kind has one")
        if self.choice == "active" and self.kind != "pairs":
            raise ValueError("only pairs are chosen meanwhile")
        if max(self.per_listener, self.training, self.repeats) > len(self.trials):
            raise ValueError("there are fewer trials than a listener gets")
        for trial in self.trials:
            asked = set(trial.conditions)
            if len(asked) < len(trial.conditions) or not asked <= known:
                raise ValueError("a trial has conditions that there are not, or one twice")
            if len(asked) != (len(known) if self.kind == "mushra" else 2):
                raise ValueError("a trial is about too many conditions, or too few")
            if not 0 <= trial.excerpt < len(self.excerpts):
                raise ValueError("a trial is of an excerpt that there is not")
            twice = asked if self.kind == "abx" else asked & {self.reference}
            for condition, copy in (*((it, 0) for it in asked), *((it, 1) for it in twice)):
                if (trial.excerpt, condition, copy) not in files:
                    raise ValueError("a trial has no file of a condition")
        return self

    @property
    def seconds(self) -> float:
        """Duration of every stimulus."""
        return self.samples / self.rate

    def file_by_condition(self) -> dict[tuple[int, str, int], str]:
        """File of each excerpt, condition and copy."""
        return {(it.excerpt, it.condition, it.copy_number): it.file for it in self.stimuli}

    def completion_code(self, listener: str) -> str:
        """Completion code of a listener: proves the end was reached, says nothing else."""
        digest = hmac.new(self.key.encode(), listener.encode(), hashlib.sha256).hexdigest()
        return f"{digest[:4]}-{digest[4:8]}".upper()

    @property
    def access_token(self) -> str:
        """Of the page's address; the same after a restart, so that links stay good."""
        return hmac.new(self.key.encode(), b"token", hashlib.sha256).hexdigest()[:32]

    def stimulus_path(self, folder: Path, stage: str, file: str) -> Path:
        """Where a stage's file lies."""
        return folder / (CHECKS_FOLDER if stage in ("hearing", "headphones") else STIMULI_FOLDER) / file

    def save(self, folder: Path) -> None:
        """Write `test.json` into the test's folder."""
        write_text(folder / TEST_FILE, self.model_dump_json(indent=1) + "\n")


def enumerate_trials(
    kind: TestKind, conditions: tuple[str, ...], excerpts: int
) -> tuple[ListeningTrial, ...]:
    """Every excerpt under every two conditions, or under all of them at once for MUSHRA."""
    sets = [conditions] if kind == "mushra" else list(combinations(conditions, 2))
    return tuple(ListeningTrial(excerpt=e, conditions=those) for e in range(excerpts) for those in sets)


def load_listening_test(folder: Path) -> ListeningTest:
    """Read a test; FolderError if the folder holds none."""
    path = folder / TEST_FILE
    try:
        return ListeningTest.model_validate_json(path.read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise FolderError(
            f"{printable(folder)} holds no listening test ({TEST_FILE}: {why}): "
            "make one with tonewood listen new"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            raise FolderError(
                f"{printable(path)} has version {first['input']}; this Tonewood reads 1: update it"
            ) from None
        raise FolderError(
            f"{printable(path)} is not a listening test, or is damaged: make the test again"
        ) from None
