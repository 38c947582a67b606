"""What listeners said, joined with what they heard: the only place where both meet."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tonewood.listening.answers import MOST_LISTENERS, Answer, Answers, Listener
from tonewood.listening.design import Excerpt, Test
from tonewood.listening.sessions import REFERENCE, Screen, Slot, X, fits, screens

Files = Mapping[tuple[int, str, int], str]

HEADPHONES_RIGHT = 5  # of six, as Woods et al. (2017) ask


class Reply(NamedTuple):
    """One answer and what it was about.

    Parameters
    ----------
    again : int or None
        Number of the screen that this one repeats.
    """

    screen: int
    asked: Screen
    excerpt: Excerpt
    value: Any
    seconds: float
    again: int | None

    @property
    def preferred(self) -> Slot:
        """The sound that was chosen of two."""
        return next(slot for slot in self.asked.slots if slot.label == self.value)

    @property
    def other(self) -> Slot:
        """The sound that was not."""
        return next(s for s in self.asked.slots if s.label != self.value and s.label in "AB")

    @property
    def correct(self) -> bool:
        """Whether an ABX answer is right."""
        return bool(self.value == self.asked.right)

    @property
    def ratings(self) -> dict[str, tuple[Slot, float]]:
        """Sound and rating by condition."""
        by_label = {slot.label: slot for slot in self.asked.slots}
        return {by_label[k].condition: (by_label[k], float(v)) for k, v in self.value.items()}


class Person(NamedTuple):
    """A listener: a number, what the checks found, and the replies.

    Parameters
    ----------
    headphones : bool or None
        Whether the check was passed; None while it was not finished, or for a test without.
    hearing : float or None
        Share of the right answers.
    """

    listener: Listener
    name: str
    code: str
    finished: bool
    headphones: bool | None
    hearing: float | None
    replies: tuple[Reply, ...]


def laid(test: Test, answers: Answers, listener: Listener) -> dict[int, Screen]:
    """A listener's screens by number: as drawn beforehand, or kept while the test ran.

    Those who took part elsewhere have negative numbers, and only what was imported of them.
    """
    if listener.number >= MOST_LISTENERS:
        raise answers.damaged()
    drawn = dict(enumerate(screens(test, listener.number))) if listener.number >= 0 else {}
    try:
        files = test.files()
        kept = {at: screen_of(it, test, files) for at, it in answers.asked(listener.id).items()}
    except ValueError:
        raise answers.damaged() from None
    return drawn | kept


def people(test: Test, answers: Answers) -> list[Person]:
    """Everybody who took part, with their final answers to trials that count."""
    return [_person(test, answers, listener) for listener in answers.listeners()]


def _person(test: Test, answers: Answers, listener: Listener) -> Person:
    asked, given = laid(test, answers, listener), answers.of(listener.id)
    final = {place: it for place, it in given.items() if it.final and place in asked}
    if not all(fits(it.value, asked[k], test.kind, final=True) for k, it in final.items()):
        raise answers.damaged()
    phones = _right(asked, final, "headphones")
    ears = _right(asked, final, "hearing")
    return Person(
        listener=listener,
        name=f"L{listener.number + 1}" if listener.number >= 0 else f"I{-listener.number}",
        code=test.code(listener.id),
        finished=len(final) == len(asked),
        headphones=None if phones is None else sum(phones) >= HEADPHONES_RIGHT,
        hearing=None if ears is None else sum(ears) / len(ears),
        replies=tuple(
            Reply(
                place,
                asked[place],
                test.excerpts[test.trials[asked[place].trial or 0].excerpt],
                it.value,
                it.seconds,
                asked[place].again,
            )
            for place, it in sorted(final.items())
            if asked[place].stage == "trial"
        ),
    )


def _right(
    asked: Mapping[int, Screen], given: Mapping[int, Answer], stage: str
) -> list[bool] | None:
    places = [place for place, screen in asked.items() if screen.stage == stage]
    if not places or not all(place in given for place in places):
        return None
    return [given[place].value == asked[place].right for place in places]


def content_of(screen: Screen) -> dict[str, Any]:
    """A screen as JSON, to be kept."""
    slots = [[it.label, it.file, it.condition] for it in screen.slots]
    return {
        "stage": screen.stage, "trial": screen.trial, "slots": slots, "right": screen.right,
        "again": screen.again,
    }  # fmt: skip


def screen_of(content: Any, test: Test, files: Files) -> Screen:  # noqa: ANN401
    """Inverse of `content_of`; ValueError for what is no screen of the test with these files."""
    try:
        slots = tuple(Slot(*it) for it in content["slots"])
        screen = Screen("trial", content["trial"], slots, content["right"], content.get("again"))
        trial = test.trials[content["trial"]]
        labels = sorted(it.label for it in slots if it.label not in (REFERENCE, X))
        told = {it.condition for it in slots}
        ours = all(
            it.file in [files.get((trial.excerpt, it.condition, copy)) for copy in (0, 1)]
            for it in slots
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("a screen lacks something") from error
    if (
        content.get("stage") != "trial"
        or content["trial"] < 0
        or not ours
        or told != set(trial.conditions)
        or labels != [chr(ord("A") + k) for k in range(len(trial.conditions))]
        or (test.kind == "abx") != (screen.right in labels)
        or not isinstance(screen.again, int | None)
    ):
        raise ValueError("a screen is about something else")
    return screen
