"""The test's page: what a listener may know, and nothing else.

The page gets labels and sounds by their place on the screen. Which file, condition, excerpt or
answer is behind them never leaves the server, and all sounds take the same bytes.
"""

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import Body, FastAPI, Header, HTTPException
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import Field

from tonewood.errors import OutputError
from tonewood.listening import trial_order
from tonewood.listening.database import (
    AnswerDatabase,
    Listener,
    ListenerAnswer,
    list_participants,
    screen_from_json,
    screen_to_json,
    screens_of,
)
from tonewood.listening.definition import ANSWERS_FILE, CONSENT_FILE, ListeningTest
from tonewood.listening.trial_order import Screen
from tonewood.settings import Settings
from tonewood.web.errors import (
    declare_errors,
    declare_media,
    error_response,
    install_error_handlers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_PAGE_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "player.js": "text/javascript",
}
ListenerHeader = Annotated[str, Header(alias="X-Listener", max_length=64)]


class SubmittedAnswer(Settings, strict=True):
    """What the page sends of a screen: a label, a number, or ratings by label."""

    value: str | dict[str, Annotated[float, Field(ge=0, le=100)]]
    final: bool
    seconds: float = Field(ge=0, le=86_400)


class ConsentBody(Settings, strict=True):
    """What the page sends of somebody who takes part."""

    agreed: Literal[True]


def create_listening_app(test: ListeningTest, folder: Path) -> FastAPI:
    """The application of one test; to be served `secure`."""
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, responses=declare_errors(503))
    web = resources.files("tonewood.listening") / "web"
    running = ServedTest(test, folder, answers)

    install_error_handlers(made)

    @made.exception_handler(OutputError)
    async def unkept(_: Any, error: OutputError) -> Response:  # noqa: ANN401
        return error_response(503, str(error))

    @made.get("/", response_class=Response, responses=declare_media("text/html"))
    def page() -> Response:
        return Response((web / "index.html").read_bytes(), media_type="text/html")

    @made.get(
        "/{name}",
        response_class=Response,
        responses=declare_errors(404) | declare_media("text/css", "text/javascript"),
    )
    def file(name: str) -> Response:
        if name not in _PAGE_FILES:
            raise HTTPException(404)
        return Response((web / name).read_bytes(), media_type=_PAGE_FILES[name])

    @made.get("/api/test")
    def about() -> dict[str, Any]:
        return {
            "kind": test.kind,
            "title": test.title,
            "question": test.question,
            "seconds": test.seconds,
            "rate": test.rate,
            "consent": running.consent_text(),
        }

    @made.post("/api/listeners")
    def join(_: ConsentBody) -> dict[str, Any]:
        return {"listener": answers.add_listener(running.consent_text()).id}

    @made.get("/api/screen", responses=declare_errors(404))
    def screen(identity: ListenerHeader) -> dict[str, Any]:
        return running.current_state(running.require_listener(identity))

    @made.get(
        "/api/screens/{number}/sounds/{place}",
        response_class=Response,
        responses=declare_errors(404) | declare_media("audio/wav"),
    )
    def sound(number: int, place: int, identity: ListenerHeader) -> Response:
        return Response(
            running.read_sound(running.require_listener(identity), number, place),
            media_type="audio/wav",
        )

    @made.put("/api/screens/{number}", responses=declare_errors(404, 409))
    def answer(
        number: int, given: Annotated[SubmittedAnswer, Body()], identity: ListenerHeader
    ) -> dict[str, Any]:
        listener = running.require_listener(identity)
        running.record_answer(listener, number, given)
        return running.current_state(listener) if given.final else {}

    @made.delete("/api/listeners", responses=declare_errors(404))
    def leave(identity: ListenerHeader) -> dict[str, Any]:
        running.require_listener(identity)
        answers.delete_listener(identity)
        return {}

    return made


class ServedTest:
    """A test while it is served."""

    def __init__(self, test: ListeningTest, folder: Path, answers: AnswerDatabase) -> None:
        self.test, self.folder, self.answers = test, folder, answers

    def consent_text(self) -> str:
        """The text, as it stands now: the experimenter may edit it while the test runs."""
        return (self.folder / CONSENT_FILE).read_text(encoding="utf-8")

    def require_listener(self, identity: str) -> Listener:
        """The listener; 404 for nobody, or one who was deleted."""
        listener = self.answers.get_listener(identity)
        if listener is None:
            raise HTTPException(404, "nobody is known by this number: begin anew")
        return listener

    def screens_for(self, listener: Listener) -> list[Screen]:
        """All screens of a listener, those chosen meanwhile in their place."""
        return [screen for _, screen in sorted(screens_of(self.test, self.answers, listener).items())]

    def current_state(self, listener: Listener) -> dict[str, Any]:
        """Where a listener is, and what the page may know of the screen."""
        given, asked = self.answers.answers_of(listener.id), self.screens_for(listener)
        place = next((k for k in range(len(asked)) if not _is_answered(given, k)), len(asked))
        if place == len(asked):
            return {"stage": "done", "code": self.test.completion_code(listener.id)}
        screen = asked[place]
        if not screen.stimuli:
            screen = self._settle_screen(listener, place, asked)
        stages = [it.stage for it in asked]
        now = stages[place]
        draft = given.get(place)
        return {
            "stage": now,
            "screen": place,
            "number": stages[: place + 1].count(now),
            "of": stages.count(now),
            "done": place,
            "screens": len(asked),
            "labels": [slot.label for slot in screen.stimuli],
            "draft": draft.value if draft else None,
        }

    def read_sound(self, listener: Listener, number: int, place: int) -> bytes:
        """The file behind a place on the screen that the listener is at; 404 for any other."""
        state = self.current_state(listener)
        if state.get("screen") != number:
            raise HTTPException(404)
        screen = self.screens_for(listener)[number]
        if not 0 <= place < len(screen.stimuli):
            raise HTTPException(404)
        return self.test.stimulus_path(self.folder, screen.stage, screen.stimuli[place].file).read_bytes()

    def record_answer(self, listener: Listener, number: int, submitted: SubmittedAnswer) -> None:
        """Keep an answer on the screen that the listener is at."""
        state = self.current_state(listener)
        if state.get("screen") != number:
            raise HTTPException(409, "this screen is answered: reload the page")
        screen = self.screens_for(listener)[number]
        if not trial_order.is_valid_answer(submitted.value, screen, self.test.kind, final=submitted.final):
            raise HTTPException(422, "this is no answer to the question")
        self.answers.save_answer(
            listener.id,
            number,
            submitted.value,
            final=submitted.final,
            seconds=round(submitted.seconds, 2),
        )

    def _settle_screen(self, listener: Listener, place: int, screens: list[Screen]) -> Screen:
        """Settle what an open screen asks, by all that was answered; kept at once."""
        again, files = screens[place].repeat_of, self.test.file_by_condition()
        if again is not None:
            screen = trial_order.swap_sides(screens[again], again)
            return screen_from_json(
                self.answers.save_question(listener.id, place, screen_to_json(screen)),
                self.test,
                files,
            )
        wins, shown = self._tally_answers()
        heard = [it.trial for it in screens if it.stage == "trial" and it.trial is not None]
        screen = trial_order.next_adaptive_screen(self.test, listener.number, place, wins, shown, heard)
        return screen_from_json(
            self.answers.save_question(listener.id, place, screen_to_json(screen)), self.test, files
        )

    def _tally_answers(self) -> tuple[NDArray[np.float64], Counter[int]]:
        """Wins [condition, condition] and how often each trial was asked, over all listeners."""
        index = {name: k for k, name in enumerate(self.test.conditions)}
        wins, shown = np.zeros((len(index), len(index))), Counter[int]()
        for person in list_participants(self.test, self.answers):
            for reply in (it for it in person.responses if it.repeat_of is None):
                shown[reply.question.trial or 0] += 1
                wins[index[reply.preferred.condition], index[reply.rejected.condition]] += 1
        return wins, shown


def _is_answered(answers: "Mapping[int, ListenerAnswer]", place: int) -> bool:
    return place in answers and answers[place].final
