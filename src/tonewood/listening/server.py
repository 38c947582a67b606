"""Web server of a listening test: the page, its screens and sounds, and the answers.

The page identifies sounds by their place on the screen. File names, conditions, excerpts and correct
answers never leave the server, and all sounds have the same size.
"""

from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Header, HTTPException
from fastapi.responses import Response
from pydantic import Field

from tonewood.errors import OutputError
from tonewood.listening.database import (
    AnswerDatabase,
    Listener,
    ListenerAnswer,
    count_wins,
    list_participants,
    screen_from_json,
    screen_to_json,
    screens_of,
)
from tonewood.listening.definition import ANSWERS_FILE, CONSENT_FILE, ListeningTest, stimulus_path
from tonewood.listening.trial_order import Screen, is_valid_answer, next_adaptive_screen, swap_sides
from tonewood.setting_types import Settings
from tonewood.web.errors import declare_errors, declare_media, error_response, install_error_handlers

_PAGE_FILES = {"page.css": "text/css", "page.js": "text/javascript", "player.js": "text/javascript"}
ListenerHeader = Annotated[str, Header(alias="X-Listener", max_length=64)]


class SubmittedAnswer(Settings, strict=True):
    """An answer to a screen: a label, a number, or ratings by label."""

    value: str | dict[str, Annotated[float, Field(ge=0, le=100)]]
    final: bool
    seconds: float = Field(ge=0, le=86_400)


class ConsentBody(Settings, strict=True):
    """Consent of a new listener."""

    agreed: Literal[True]


def create_listening_app(test: ListeningTest, folder: Path) -> FastAPI:
    """Return the application of a test, without access control."""
    answers = AnswerDatabase(folder / ANSWERS_FILE)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, responses=declare_errors(503))
    web = resources.files("tonewood.listening") / "web"
    served = ServedTest(test, folder, answers)

    install_error_handlers(app)

    @app.exception_handler(OutputError)
    async def respond_to_storage_error(_: Any, error: OutputError) -> Response:  # noqa: ANN401
        return error_response(503, str(error))

    # --- the page

    @app.get("/", response_class=Response, responses=declare_media("text/html"))
    def get_page() -> Response:
        return Response((web / "index.html").read_bytes(), media_type="text/html")

    @app.get(
        "/{name}",
        response_class=Response,
        responses=declare_errors(404) | declare_media("text/css", "text/javascript"),
    )
    def get_page_file(name: str) -> Response:
        if name not in _PAGE_FILES:  # a fixed list, so no path can leave the folder
            raise HTTPException(404)
        return Response((web / name).read_bytes(), media_type=_PAGE_FILES[name])

    # --- its requests

    @app.get("/api/test")
    def get_test() -> dict[str, Any]:
        return {
            "kind": test.kind,
            "title": test.title,
            "question": test.question,
            "seconds": test.seconds,
            "rate": test.rate,
            "consent": served.consent_text(),
        }

    @app.post("/api/listeners")
    def add_listener(_: ConsentBody) -> dict[str, Any]:
        return {"listener": answers.add_listener(served.consent_text()).id}

    @app.get("/api/screen", responses=declare_errors(404))
    def get_screen(identity: ListenerHeader) -> dict[str, Any]:
        return served.current_state(served.require_listener(identity))

    @app.get(
        "/api/screens/{number}/sounds/{place}",
        response_class=Response,
        responses=declare_errors(404) | declare_media("audio/wav"),
    )
    def get_sound(number: int, place: int, identity: ListenerHeader) -> Response:
        content = served.read_sound(served.require_listener(identity), number, place)
        return Response(content, media_type="audio/wav")

    @app.put("/api/screens/{number}", responses=declare_errors(404, 409))
    def put_answer(
        number: int, submitted: Annotated[SubmittedAnswer, Body()], identity: ListenerHeader
    ) -> dict[str, Any]:
        listener = served.require_listener(identity)
        served.record_answer(listener, number, submitted)
        return served.current_state(listener) if submitted.final else {}

    @app.delete("/api/listeners", responses=declare_errors(404))
    def delete_listener(identity: ListenerHeader) -> dict[str, Any]:
        served.require_listener(identity)
        answers.delete_listener(identity)
        return {}

    return app


class ServedTest:
    """A test with its answers while it is served."""

    def __init__(self, test: ListeningTest, folder: Path, answers: AnswerDatabase) -> None:
        self.test, self.folder, self.answers = test, folder, answers

    def consent_text(self) -> str:
        """Return the current consent text, which the experimenter may edit while the test runs."""
        return (self.folder / CONSENT_FILE).read_text(encoding="utf-8")

    def require_listener(self, identity: str) -> Listener:
        """Return a listener; respond 404 if unknown or deleted."""
        listener = self.answers.get_listener(identity)
        if listener is None:
            raise HTTPException(404, "this listener number is unknown: start the test again")
        return listener

    def screens_for(self, listener: Listener) -> list[Screen]:
        """Return all screens of a listener, including those chosen while the test runs."""
        return [screen for _, screen in sorted(screens_of(self.test, self.answers, listener).items())]

    def current_state(self, listener: Listener) -> dict[str, Any]:
        """Return a listener's progress and the part of the current screen that the page may show."""
        answers, screens = self.answers.answers_of(listener.id), self.screens_for(listener)
        current = next((k for k in range(len(screens)) if not _is_answered(answers, k)), len(screens))
        if current == len(screens):
            return {"stage": "done", "code": self.test.completion_code(listener.id)}
        screen = screens[current]
        if not screen.stimuli:
            screen = self._settle_screen(listener, current, screens)
        stages = [s.stage for s in screens]
        draft = answers.get(current)
        return {
            "stage": screen.stage,
            "screen": current,
            "number": stages[: current + 1].count(screen.stage),
            "of": stages.count(screen.stage),
            "done": current,
            "screens": len(screens),
            "labels": [stimulus.label for stimulus in screen.stimuli],
            "draft": draft.value if draft else None,
        }

    def read_sound(self, listener: Listener, number: int, place: int) -> bytes:
        """Return the file of a place on the current screen; respond 404 for any other screen."""
        if self.current_state(listener).get("screen") != number:
            raise HTTPException(404)
        screen = self.screens_for(listener)[number]
        if not 0 <= place < len(screen.stimuli):
            raise HTTPException(404)
        file = screen.stimuli[place].file
        return stimulus_path(self.folder, screen.stage, file).read_bytes()

    def record_answer(self, listener: Listener, number: int, submitted: SubmittedAnswer) -> None:
        """Store an answer to the current screen; respond 409 or 422 to an invalid one."""
        if self.current_state(listener).get("screen") != number:
            raise HTTPException(409, "this screen is answered already: reload the page")
        screen = self.screens_for(listener)[number]
        if not is_valid_answer(submitted.value, screen, self.test.kind, final=submitted.final):
            raise HTTPException(422, "the answer does not fit the question: reload the page")
        seconds = round(submitted.seconds, 2)
        # Of two final answers at once, from two pages, the database keeps one: the other page is told.
        if not self.answers.save_answer(
            listener.id, number, submitted.value, final=submitted.final, seconds=seconds
        ):
            raise HTTPException(409, "this screen is answered already: reload the page")

    def _settle_screen(self, listener: Listener, number: int, screens: list[Screen]) -> Screen:
        """Choose what an open screen asks, given all answers so far, and store the choice."""
        repeat_of = screens[number].repeat_of
        if repeat_of is not None:
            screen = swap_sides(screens[repeat_of], repeat_of)
        else:
            participants = list_participants(self.test, self.answers)
            answers = [answer for participant in participants for answer in participant.first_answers]
            wins, counts = count_wins(self.test, answers), Counter(answer.trial for answer in answers)
            past = [s.trial for s in screens if s.stage == "trial" and s.trial is not None]
            screen = next_adaptive_screen(self.test, listener.number, number, wins, counts, past)
        # A second tab may have stored its choice meanwhile; the stored one counts.
        content = self.answers.save_question(listener.id, number, screen_to_json(screen))
        return screen_from_json(content, self.test, self.test.file_by_condition())


def _is_answered(answers: Mapping[int, ListenerAnswer], number: int) -> bool:
    return number in answers and answers[number].final
