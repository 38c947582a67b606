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
from tonewood.listening import sessions
from tonewood.listening.answers import Answer, Answers, Listener
from tonewood.listening.design import ANSWERS, CONSENT, Test
from tonewood.listening.replies import content_of, laid, people, screen_of
from tonewood.listening.sessions import Screen
from tonewood.serving.refusals import refuse_alike, refused, refusing, sending
from tonewood.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "player.js": "text/javascript",
}
Identity = Annotated[str, Header(alias="X-Listener", max_length=64)]


class Given(Settings, strict=True):
    """What the page sends of a screen: a label, a number, or ratings by label."""

    value: str | dict[str, Annotated[float, Field(ge=0, le=100)]]
    final: bool
    seconds: float = Field(ge=0, le=86_400)


class Consent(Settings, strict=True):
    """What the page sends of somebody who takes part."""

    agreed: Literal[True]


def app(test: Test, folder: Path) -> FastAPI:
    """The application of one test; to be served `guarded`."""
    answers = Answers(folder / ANSWERS)
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, responses=refusing(503))
    web = resources.files("tonewood.listening") / "web"
    running = Running(test, folder, answers)

    refuse_alike(made)

    @made.exception_handler(OutputError)
    async def unkept(_: Any, error: OutputError) -> Response:  # noqa: ANN401
        return refused(503, str(error))

    @made.get("/", response_class=Response, responses=sending("text/html"))
    def page() -> Response:
        return Response((web / "index.html").read_bytes(), media_type="text/html")

    @made.get(
        "/{name}",
        response_class=Response,
        responses=refusing(404) | sending("text/css", "text/javascript"),
    )
    def file(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404)
        return Response((web / name).read_bytes(), media_type=_FILES[name])

    @made.get("/api/test")
    def about() -> dict[str, Any]:
        return {
            "kind": test.kind,
            "title": test.title,
            "question": test.question,
            "seconds": test.seconds,
            "rate": test.rate,
            "consent": running.consent(),
        }

    @made.post("/api/listeners")
    def join(_: Consent) -> dict[str, Any]:
        return {"listener": answers.join(running.consent()).id}

    @made.get("/api/screen", responses=refusing(404))
    def screen(identity: Identity) -> dict[str, Any]:
        return running.state(running.known(identity))

    @made.get(
        "/api/screens/{number}/sounds/{place}",
        response_class=Response,
        responses=refusing(404) | sending("audio/wav"),
    )
    def sound(number: int, place: int, identity: Identity) -> Response:
        return Response(
            running.sound(running.known(identity), number, place), media_type="audio/wav"
        )

    @made.put("/api/screens/{number}", responses=refusing(404, 409))
    def answer(number: int, given: Annotated[Given, Body()], identity: Identity) -> dict[str, Any]:
        listener = running.known(identity)
        running.keep(listener, number, given)
        return running.state(listener) if given.final else {}

    @made.delete("/api/listeners", responses=refusing(404))
    def leave(identity: Identity) -> dict[str, Any]:
        running.known(identity)
        answers.delete(identity)
        return {}

    return made


class Running:
    """A test while it is served."""

    def __init__(self, test: Test, folder: Path, answers: Answers) -> None:
        self.test, self.folder, self.answers = test, folder, answers

    def consent(self) -> str:
        """The text, as it stands now: the experimenter may edit it while the test runs."""
        return (self.folder / CONSENT).read_text(encoding="utf-8")

    def known(self, identity: str) -> Listener:
        """The listener; 404 for nobody, or one who was deleted."""
        listener = self.answers.listener(identity)
        if listener is None:
            raise HTTPException(404, "nobody is known by this number: begin anew")
        return listener

    def screens(self, listener: Listener) -> list[Screen]:
        """All screens of a listener, those chosen meanwhile in their place."""
        return [screen for _, screen in sorted(laid(self.test, self.answers, listener).items())]

    def state(self, listener: Listener) -> dict[str, Any]:
        """Where a listener is, and what the page may know of the screen."""
        given, asked = self.answers.of(listener.id), self.screens(listener)
        place = next((k for k in range(len(asked)) if not _done(given, k)), len(asked))
        if place == len(asked):
            return {"stage": "done", "code": self.test.code(listener.id)}
        screen = asked[place]
        if not screen.slots:
            screen = self._choose(listener, place, asked)
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
            "labels": [slot.label for slot in screen.slots],
            "draft": draft.value if draft else None,
        }

    def sound(self, listener: Listener, number: int, place: int) -> bytes:
        """The file behind a place on the screen that the listener is at; 404 for any other."""
        state = self.state(listener)
        if state.get("screen") != number:
            raise HTTPException(404)
        screen = self.screens(listener)[number]
        if not 0 <= place < len(screen.slots):
            raise HTTPException(404)
        return self.test.path(self.folder, screen.stage, screen.slots[place].file).read_bytes()

    def keep(self, listener: Listener, number: int, given: Given) -> None:
        """Keep an answer on the screen that the listener is at."""
        state = self.state(listener)
        if state.get("screen") != number:
            raise HTTPException(409, "this screen is answered: reload the page")
        screen = self.screens(listener)[number]
        if not sessions.fits(given.value, screen, self.test.kind, final=given.final):
            raise HTTPException(422, "this is no answer to the question")
        self.answers.keep(
            listener.id, number, given.value, final=given.final, seconds=round(given.seconds, 2)
        )

    def _choose(self, listener: Listener, place: int, asked: list[Screen]) -> Screen:
        """Settle what an open screen asks, by all that was answered; kept at once."""
        again, files = asked[place].again, self.test.files()
        if again is not None:
            screen = sessions.turned(asked[again], again)
            return screen_of(
                self.answers.ask(listener.id, place, content_of(screen)), self.test, files
            )
        wins, shown = self._so_far()
        heard = [it.trial for it in asked if it.stage == "trial" and it.trial is not None]
        screen = sessions.chosen(self.test, listener.number, place, wins, shown, heard)
        return screen_of(self.answers.ask(listener.id, place, content_of(screen)), self.test, files)

    def _so_far(self) -> tuple[NDArray[np.float64], Counter[int]]:
        """Wins [condition, condition] and how often each trial was asked, over all listeners."""
        index = {name: k for k, name in enumerate(self.test.conditions)}
        wins, shown = np.zeros((len(index), len(index))), Counter[int]()
        for person in people(self.test, self.answers):
            for reply in (it for it in person.replies if it.again is None):
                shown[reply.asked.trial or 0] += 1
                wins[index[reply.preferred.condition], index[reply.other.condition]] += 1
        return wins, shown


def _done(given: "Mapping[int, Answer]", place: int) -> bool:
    return place in given and given[place].final
