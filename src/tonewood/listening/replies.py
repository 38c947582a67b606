"""What listeners said, joined with what they heard: the only place where both meet."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tonewood.listening.answers import MAX_LISTENERS, ListenerAnswer, AnswerDatabase, Listener
from tonewood.listening.design import TestExcerpt, ListeningTest
from tonewood.listening.sessions import REFERENCE_LABEL, Screen, LabelledStimulus, X_LABEL, is_valid_answer, draw_screens

StimulusFiles = Mapping[tuple[int, str, int], str]

MIN_HEADPHONES_CORRECT = 5  # of six, as Woods et al. (2017) ask


class TrialResponse(NamedTuple):
    """One answer and what it was about.

    Parameters
    ----------
    repeat_of : int or None
        Number of the screen that this one repeats.
    """

    screen_number: int
    question: Screen
    excerpt: TestExcerpt
    value: Any
    seconds: float
    repeat_of: int | None

    @property
    def preferred(self) -> LabelledStimulus:
        """The sound that was chosen of two."""
        return next(slot for slot in self.question.stimuli if slot.label == self.value)

    @property
    def rejected(self) -> LabelledStimulus:
        """The sound that was not."""
        return next(s for s in self.question.stimuli if s.label != self.value and s.label in "AB")

    @property
    def correct(self) -> bool:
        """Whether an ABX answer is right."""
        return bool(self.value == self.question.correct_answer)

    @property
    def ratings(self) -> dict[str, tuple[LabelledStimulus, float]]:
        """Sound and rating by condition."""
        by_label = {slot.label: slot for slot in self.question.stimuli}
        return {by_label[k].condition: (by_label[k], float(v)) for k, v in self.value.items()}


class Participant(NamedTuple):
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
    responses: tuple[TrialResponse, ...]


def screens_of(test: ListeningTest, answers: AnswerDatabase, listener: Listener) -> dict[int, Screen]:
    """A listener's screens by number: as drawn beforehand, or kept while the test ran.

    Those who took part elsewhere have negative numbers, and only what was imported of them.
    """
    if listener.number >= MAX_LISTENERS:
        raise answers.damaged_error()
    drawn = dict(enumerate(draw_screens(test, listener.number))) if listener.number >= 0 else {}
    try:
        files = test.file_by_condition()
        kept = {at: screen_from_json(it, test, files) for at, it in answers.questions_of(listener.id).items()}
    except ValueError:
        raise answers.damaged_error() from None
    return drawn | kept


def list_participants(test: ListeningTest, answers: AnswerDatabase) -> list[Participant]:
    """Everybody who took part, with their final answers to trials that count."""
    return [_build_participant(test, answers, listener) for listener in answers.list_listeners()]


def _build_participant(test: ListeningTest, answers: AnswerDatabase, listener: Listener) -> Participant:
    asked, given = screens_of(test, answers, listener), answers.answers_of(listener.id)
    final = {place: it for place, it in given.items() if it.final and place in asked}
    if not all(is_valid_answer(it.value, asked[k], test.kind, final=True) for k, it in final.items()):
        raise answers.damaged_error()
    phones = _check_results(asked, final, "headphones")
    ears = _check_results(asked, final, "hearing")
    return Participant(
        listener=listener,
        name=f"L{listener.number + 1}" if listener.number >= 0 else f"I{-listener.number}",
        code=test.completion_code(listener.id),
        finished=len(final) == len(asked),
        headphones=None if phones is None else sum(phones) >= MIN_HEADPHONES_CORRECT,
        hearing=None if ears is None else sum(ears) / len(ears),
        responses=tuple(
            TrialResponse(
                place,
                asked[place],
                test.excerpts[test.trials[asked[place].trial or 0].excerpt],
                it.value,
                it.seconds,
                asked[place].repeat_of,
            )
            for place, it in sorted(final.items())
            if asked[place].stage == "trial"
        ),
    )


def _check_results(
    screens: Mapping[int, Screen], answers: Mapping[int, ListenerAnswer], stage: str
) -> list[bool] | None:
    places = [place for place, screen in screens.items() if screen.stage == stage]
    if not places or not all(place in answers for place in places):
        return None
    return [answers[place].value == screens[place].correct_answer for place in places]


def screen_to_json(screen: Screen) -> dict[str, Any]:
    """A screen as JSON, to be kept."""
    slots = [[it.label, it.file, it.condition] for it in screen.stimuli]
    return {
        "stage": screen.stage, "trial": screen.trial, "slots": slots, "right": screen.correct_answer,
        "again": screen.repeat_of,
    }  # fmt: skip


def screen_from_json(content: Any, test: ListeningTest, files: StimulusFiles) -> Screen:  # noqa: ANN401
    """Inverse of `screen_to_json`; ValueError for what is no screen of the test with these files."""
    try:
        slots = tuple(LabelledStimulus(*it) for it in content["slots"])
        screen = Screen("trial", content["trial"], slots, content["right"], content.get("again"))
        trial = test.trials[content["trial"]]
        labels = sorted(it.label for it in slots if it.label not in (REFERENCE_LABEL, X_LABEL))
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
        or (test.kind == "abx") != (screen.correct_answer in labels)
        or not isinstance(screen.repeat_of, int | None)
    ):
        raise ValueError("a screen is about something else")
    return screen
