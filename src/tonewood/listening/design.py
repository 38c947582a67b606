"""What a listening test is: its stimuli, its trials, and what becomes of them for a listener.

A test is a folder: `test.json`, which knows what is what and is never served, stimuli under names
that say nothing, texts that the experimenter edits, and the answers.
"""

import hashlib
import hmac
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tonewood.errors import FolderError, shown
from tonewood.files.output import write_text
from tonewood.settings import Settings

Kind = Literal["pairs", "abx", "mushra"]
Chosen = Literal["mask", "random"]
Choice = Literal["random", "active"]

TEST, CONSENT, ANSWERS = "test.json", "consent.txt", "answers.sqlite"
STIMULI, CHECKS = "stimuli", "checks"
ANCHORS_HZ = {"anchor 3.5 kHz": 3_500.0, "anchor 7 kHz": 7_000.0}
MID_ANCHOR = "anchor 7 kHz"

QUESTIONS: dict[Kind, str] = {
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


class Excerpt(Settings):
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
    chosen: Chosen


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

    file: str
    sha256: str
    excerpt: int
    condition: str
    copy_number: int = 0
    loudness: float


class Trial(Settings):
    """An excerpt under the conditions to be compared."""

    excerpt: int
    conditions: tuple[str, ...]


class Check(Settings):
    """A question on hearing or headphones with one right answer, counted from 1."""

    file: str
    kind: Literal["headphones", "hearing"]
    right: int


class Test(Settings):
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
    kind: Kind
    title: str
    question: str
    seed: int
    key: str
    rate: int
    channels: int
    samples: int
    conditions: tuple[str, ...]
    reference: str | None = None
    per_listener: int = Field(ge=1)
    repeats: int = Field(ge=0)
    training: int = Field(ge=0)
    choice: Choice = "random"
    excerpts: tuple[Excerpt, ...]
    stimuli: tuple[Stimulus, ...]
    trials: tuple[Trial, ...]
    checks: tuple[Check, ...] = ()

    @property
    def seconds(self) -> float:
        """Duration of every stimulus."""
        return self.samples / self.rate

    def files(self) -> dict[tuple[int, str, int], str]:
        """File of each excerpt, condition and copy."""
        return {(it.excerpt, it.condition, it.copy_number): it.file for it in self.stimuli}

    def code(self, listener: str) -> str:
        """Completion code of a listener: proves the end was reached, says nothing else."""
        digest = hmac.new(self.key.encode(), listener.encode(), hashlib.sha256).hexdigest()
        return f"{digest[:4]}-{digest[4:8]}".upper()

    @property
    def token(self) -> str:
        """Of the page's address; the same after a restart, so that links stay good."""
        return hmac.new(self.key.encode(), b"token", hashlib.sha256).hexdigest()[:32]

    def path(self, folder: Path, stage: str, file: str) -> Path:
        """Where a stage's file lies."""
        return folder / (CHECKS if stage in ("hearing", "headphones") else STIMULI) / file

    def save(self, folder: Path) -> None:
        """Write `test.json` into the test's folder."""
        write_text(folder / TEST, self.model_dump_json(indent=1) + "\n")


def laid_trials(kind: Kind, conditions: tuple[str, ...], excerpts: int) -> tuple[Trial, ...]:
    """Every excerpt under every two conditions, or under all of them at once for MUSHRA."""
    sets = [conditions] if kind == "mushra" else list(combinations(conditions, 2))
    return tuple(Trial(excerpt=e, conditions=those) for e in range(excerpts) for those in sets)


def load(folder: Path) -> Test:
    """Read a test; FolderError if the folder holds none."""
    path = folder / TEST
    try:
        return Test.model_validate_json(path.read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise FolderError(
            f"{shown(folder)} holds no listening test ({TEST}: {why}): "
            "make one with tonewood listen new"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            raise FolderError(
                f"{shown(path)} has version {first['input']}; this Tonewood reads 1: update it"
            ) from None
        raise FolderError(
            f"{shown(path)} is not a listening test, or is damaged: make the test again"
        ) from None
