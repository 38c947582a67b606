"""What one worker does with one recording: a pure function of it, the model and the settings."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Protocol

from tonewood.errors import OutputError, RecipeError, TonewoodError, shown
from tonewood.files import places
from tonewood.files import recipe as recipes
from tonewood.files.audio import Stream, sha256
from tonewood.files.modelfile import Model
from tonewood.files.places import Place
from tonewood.files.recipe import Recipe
from tonewood.files.results import Row
from tonewood.masking.optimise import Step
from tonewood.settings import EnhanceSettings
from tonewood.workflow import batch, picture
from tonewood.workflow.batch import Enhanced, Scored
from tonewood.workflow.layout import Failed, Job
from tonewood.workflow.predict import predictor_of
from tonewood.workflow.resume import Wanted
from tonewood.workflow.score import Score, score_sound


class Unit(NamedTuple):
    """A recording, and what it becomes if anything."""

    input: Place
    output: Place | None = None


class Done(NamedTuple):
    """What became of a unit: a row for the table, and what a front end tells."""

    row: Row
    event: Any


class Task(Protocol):
    """Work on units."""

    @property
    def name(self) -> str:
        """The command's."""
        ...

    @property
    def told(self) -> dict[str, Any]:
        """Settings that decide what is found, as JSON."""
        ...

    def do(self, unit: Any, model: Model, known: Row | None) -> Done:  # noqa: ANN401
        """Do a unit; `known` is what an earlier run of the same model and settings found."""
        ...


def attempt(task: Task, unit: Any, model: Model, known: Row | None) -> Done:  # noqa: ANN401
    """Do a unit; what goes wrong becomes the row's error, so that the others go on."""
    began = time.perf_counter()
    try:
        done = task.do(unit, model, known)
        return done._replace(row=replace(done.row, took=round(time.perf_counter() - began, 3)))
    except TonewoodError as error:
        return lost(unit, error, time.perf_counter() - began)
    except Exception as error:
        why = " ".join(str(error).split())
        known_as = f"{shown(str(unit.input))} failed for no reason foreseen here"
        told = TonewoodError(f"{known_as} ({type(error).__name__}: {why}): please report it")
        return lost(unit, told, time.perf_counter() - began)


def lost(unit: Any, error: TonewoodError, took: float = 0.0) -> Done:  # noqa: ANN401
    """A unit that could not be done."""
    output = None if unit.output is None else str(unit.output)
    digest = None
    if isinstance(unit.input, Path):
        with suppress(TonewoodError):
            digest = sha256(unit.input)
    row = Row(str(unit.input), output, digest, error=str(error), took=round(took, 3))
    return Done(row, Failed(unit.input, error))


@dataclass(frozen=True)
class EnhanceTask:
    """Enhance; arguments as of `batch.enhance_files`."""

    settings: EnhanceSettings
    plot: bool = False
    overwrite: bool = False
    device: str = "cpu"
    name: Literal["enhance"] = "enhance"

    @property
    def told(self) -> dict[str, Any]:
        """The settings; what the picture and the device are decides no figure."""
        return self.settings.model_dump(mode="json")

    def check(self, model: Model) -> None:
        """Raise before the work what would be raised after it."""
        if self.plot:
            picture.check()
        if self.settings.prior.kind == "predicted":
            predictor_of(model)

    def do(self, unit: Unit, model: Model, known: Row | None) -> Done:
        """Enhance a recording; what it made before is known from its recipe."""
        assert unit.output is not None
        with places.fetched(unit.input) as path, named(unit.input, path):
            if isinstance(unit.output, Path):
                done = self._made(Job(path, unit.output), model)
            else:
                done = self._put(path, unit.output, model)
        done = replace(done, input=unit.input)
        return Done(_enhanced_row(done), done)

    def _made(self, job: Job, model: Model) -> Enhanced:
        for event in batch.enhance_file(
            job, model, self.settings, self.plot, self.overwrite, self.device
        ):
            if not isinstance(event, Step):
                done = event
        return done

    def _put(self, path: Path, url: str, model: Model) -> Enhanced:
        """Make the outputs here, then put them there, the sound last."""
        side = url + recipes.SUFFIX
        drawn = f"{url}.png" if self.plot else None
        if not self.overwrite:
            wanted = Wanted(sha256(path), model.digest, self.settings)
            if (recipe := _standing(url, side, drawn, wanted)) is not None:
                return batch.told(recipe, path, url, side, drawn)
        with TemporaryDirectory(prefix="tonewood-") as folder:
            # Its own folder: the input may be a copy in another, or be named like the output.
            local = Path(folder) / places.name_of(url)
            done = self._made(Job(path, local), model)
            for made, there in ((done.recipe, side), (done.picture, drawn), (local, url)):
                if made is not None and there is not None:
                    places.put(Path(made), there, overwrite=self.overwrite)
        return replace(done, output=url, recipe=side, picture=drawn)


def _standing(url: str, side: str, drawn: str | None, wanted: Wanted) -> Recipe | None:
    """Recipe of what an earlier run put at a URL; None if nothing is there.

    Raises
    ------
    OutputError
        Something else is there.
    """
    content = places.content(side)
    try:
        recipe = None if content is None else recipes.parse(content, side)
    except RecipeError:
        recipe = None
    ours = recipe is not None and wanted.made(recipe)
    there = places.exists(url)
    if there and ours and (drawn is None or places.exists(drawn)):
        return recipe
    if not there and ours:  # a run was killed between the two
        for left in filter(None, (drawn, side)):
            if places.exists(left):
                places.remove(left)
        return None
    for taken, name in ((there, url), (content is not None, side)):
        if taken:
            raise OutputError(f"{shown(name)} exists: name another output or pass --overwrite")
    return None


def _enhanced_row(done: Enhanced) -> Row:
    found = done.certificate
    return Row(
        path=str(done.input),
        output=str(done.output),
        sha256=done.sha256,
        seconds=done.duration,
        scorer=found.scorer.before,
        scorer_after=found.scorer.after,
        judge=found.judge.before if found.judge else None,
        judge_after=found.judge.after if found.judge else None,
        verdict=found.verdict,
        certificate=found.model_dump_json(),
        details=json.dumps({"already": done.already, "warnings": list(done.warnings)}),
    )


@dataclass(frozen=True)
class ScoreTask:
    """Score."""

    name: Literal["score"] = "score"

    @property
    def told(self) -> dict[str, Any]:
        """Nothing decides scores but the model."""
        return {}

    def do(self, unit: Unit, model: Model, known: Row | None) -> Done:
        """Score a recording."""
        with places.fetched(unit.input) as path:
            digest = sha256(path)
            if known is not None and known.sha256 == digest and known.scorer is not None:
                windows = tuple(json.loads(known.details or "[]"))
                return Done(known, Scored(unit.input, Score(known.scorer, known.judge, windows)))
            stream = Counted(path)
            with named(unit.input, path):
                found = score_sound(stream, model)
        row = Row(
            path=str(unit.input),
            sha256=digest,
            seconds=stream.samples / stream.rate,
            scorer=found.scorer,
            judge=found.judge,
            details=json.dumps(list(found.windows)),
        )
        return Done(row, Scored(unit.input, found))


class Counted(Stream):
    """A stream that knows how long it was, once it was run through."""

    samples = 0

    def blocks(self) -> Iterator[Any]:
        """As of `Stream`."""
        self.samples = 0
        for block in super().blocks():
            self.samples += block.shape[1]
            yield block


@contextmanager
def named(place: Place, copy: Path) -> Iterator[None]:
    """Let errors about a copy name the place that it is a copy of."""
    try:
        yield
    except TonewoodError as error:
        if isinstance(place, Path):
            raise
        raise type(error)(str(error).replace(shown(copy), shown(place))) from error
