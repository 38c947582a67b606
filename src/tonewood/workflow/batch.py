"""The workflow on paths, one file after the other."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import (
    AudioError,
    OutputError,
    TonewoodError,
    shown,
)
from tonewood.files.audio import Stream, sha256, write_blocks
from tonewood.files.formats import AudioFormat
from tonewood.files.modelfile import Model
from tonewood.files.output import atomic_path, sweep
from tonewood.files.places import Place
from tonewood.files.recipe import CarriedRecord, InputRecord, MaskRecord, ModelRecord, Recipe
from tonewood.masking.certify import Certificate, Change
from tonewood.masking.optimise import Step
from tonewood.settings import EnhanceSettings, RenderSettings
from tonewood.workflow import picture
from tonewood.workflow.carry import Carried, carry
from tonewood.workflow.enhance import Reshaped, reshape
from tonewood.workflow.layout import Failed, Job, beside, refused
from tonewood.workflow.predict import predictor_of
from tonewood.workflow.resume import Wanted
from tonewood.workflow.score import Score


class Started(NamedTuple):
    """Work on a file begins; it is the number-th of so many."""

    number: int
    total: int
    input: Place


@dataclass(frozen=True)
class Enhanced:
    """A file that was done.

    Parameters
    ----------
    seconds : float
        That it took.
    sha256 : str
        Of the input.
    duration : float
        Of the sound, in seconds.
    already : bool
        By an earlier run.
    """

    input: Place
    output: Place
    recipe: Place
    picture: Place | None
    certificate: Certificate
    prior: str
    steps: int
    gain_db: float
    seconds: float
    warnings: tuple[str, ...]
    sha256: str
    duration: float
    carried: CarriedRecord | None = None
    already: bool = False


class Scored(NamedTuple):
    """A file that was scored."""

    input: Place
    score: Score


def enhance_files(
    laid: Sequence[Job | Failed],
    model: Model,
    settings: EnhanceSettings,
    *,
    plot: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    carried: Carried | None = None,
) -> Iterator[Started | Step | Enhanced | Failed]:
    """Enhance file after file; a file that fails is named with its reason and the others go on.

    Parameters
    ----------
    carried : Carried, optional
        A correction that is carried to the files, instead of one that is found for each.

    Raises
    ------
    MissingExtraError, ModelError
        Pictures, or the model's predictor, are asked for and cannot be had.
    """
    if plot:
        picture.check()
    kind = settings.prior.kind if carried is None else carried.record.varying
    if kind == "predicted":
        predictor_of(model)
    inputs = {job.input.resolve() for job in laid if isinstance(job, Job)}
    sweep({job.output.parent for job in laid if isinstance(job, Job)})
    for number, job in enumerate(laid, start=1):
        if isinstance(job, Failed):
            yield job
            continue
        yield Started(number, len(laid), job.input)
        try:
            if why := refused(job, inputs):
                raise why
            yield from enhance_file(job, model, settings, plot, overwrite, device, carried)
        except TonewoodError as error:
            yield Failed(job.input, error)


def enhance_file(
    job: Job,
    model: Model,
    settings: EnhanceSettings,
    plot: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    carried: Carried | None = None,
) -> Iterator[Step | Enhanced]:
    """Enhance one file; arguments as of `enhance_files`.

    What the same recording, model and settings made before stays, and is told from its recipe.
    The sound takes its name last: where it is, all that belongs to it is.

    Raises
    ------
    TonewoodError
        It cannot be done; nothing of it is left.
    """
    side = beside(job.output)
    drawn = beside(job.output, ".png") if plot else None
    record = carried.record if carried else None
    wanted = Wanted(sha256(job.input), model.digest, settings, record)
    recipe = None if overwrite else wanted.done(job, drawn)
    if recipe is None:
        try:
            yield from _made(job, model, wanted, side, drawn, overwrite, device, carried)
            return
        except OutputError:
            # Another run into the same folder may have been quicker.
            recipe = None if overwrite else wanted.done(job, drawn)
            if recipe is None:
                raise
    yield told(recipe, job.input, job.output, side, drawn)


def _made(
    job: Job,
    model: Model,
    wanted: Wanted,
    side: Path,
    drawn: Path | None,
    overwrite: bool,
    device: str,
    carried: Carried | None,
) -> Iterator[Step | Enhanced]:
    """Do the work on one file."""
    began, settings = time.perf_counter(), wanted.settings
    outputs = [path for path in (job.output, side, drawn) if path]
    unfinished = not overwrite and wanted.waits(job)
    check_outputs(job, [job.output] if unfinished else outputs, overwrite)
    stream = Stream(job.input)
    AudioFormat.for_path(job.output, stream.format)  # refuses a suffix before the work
    folder = _there(job.output)
    events: Iterable[Step | Reshaped]
    if carried is None:
        events = reshape(stream, model, settings, device=device, folder=folder)
    else:
        events = [carry(stream, model, carried, settings, folder)]
    reshaped: Reshaped | None = None
    for event in events:
        if isinstance(event, Step):
            yield event
        else:
            reshaped = event
    assert reshaped is not None
    recipe = _recipe(job.input, stream, model, reshaped, carried)
    if recipe.input.sha256 != wanted.input_sha256:
        raise AudioError(
            f"{shown(job.input)} changed while it was worked on: wait until it is whole, then run "
            "the same command again"
        )
    replaces = overwrite or unfinished
    with all_or_none(outputs) as made:

        def ready(sound: Path) -> None:
            recipe.model_copy(update={"output_sha256": sha256(sound)}).save(
                side, overwrite=replaces, mask=reshaped.mask
            )
            made.append(side)
            if drawn:
                title = shown(job.input.name)
                picture.draw(drawn, reshaped, model, title=title, overwrite=replaces)
                made.append(drawn)

        shape = (stream.channels, reshaped.before.samples)
        blocks = reshaped.blocks()
        save_sound(job, stream, blocks, shape, settings.render, overwrite=overwrite, ready=ready)
    yield Enhanced(
        input=job.input,
        output=job.output,
        recipe=side,
        picture=drawn,
        certificate=reshaped.certificate,
        prior=reshaped.prior,
        steps=reshaped.steps,
        gain_db=round(reshaped.matching.gain_db, 2),
        seconds=round(time.perf_counter() - began, 2),
        warnings=tuple(_warnings(stream, reshaped)),
        sha256=recipe.input.sha256,
        duration=recipe.input.samples / recipe.input.rate,
        carried=recipe.carried,
    )


def told(
    recipe: Recipe, input: Place, output: Place, side: Place, drawn: Place | None = None
) -> Enhanced:
    """What an earlier run made, as its recipe tells it."""
    return Enhanced(
        input=input,
        output=output,
        recipe=side,
        picture=drawn,
        certificate=recipe.certificate,
        prior=recipe.prior,
        steps=recipe.steps,
        gain_db=round(recipe.gain_db, 2),
        seconds=0.0,
        warnings=(),
        sha256=recipe.input.sha256,
        duration=recipe.input.samples / recipe.input.rate,
        carried=recipe.carried,
        already=True,
    )


def save_sound(
    job: Job,
    stream: Stream,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int],
    settings: RenderSettings,
    *,
    overwrite: bool,
    ready: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write what became of a recording, in its own format or what the output's name asks for.

    `ready` is called with the file once it is whole, before it takes its name.
    """
    form = AudioFormat.for_path(job.output, stream.format)
    if settings.amount == 0 and form == stream.format:
        # The file itself: exact even where a float32 is not, as in 32-bit integers and mp3.
        with atomic_path(job.output, overwrite) as temporary:
            try:
                shutil.copyfile(job.input, temporary)
            except FileNotFoundError as error:
                raise AudioError(f"{shown(job.input)} does not exist: check its name") from error
            ready(temporary)
    else:
        rate, like = stream.rate, job.input
        write_blocks(
            job.output, blocks, shape, rate, form, overwrite=overwrite, ready=ready, like=like
        )


def check_outputs(job: Job, outputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse before the work what would be refused after it."""
    if not job.input.exists():
        raise AudioError(f"{shown(job.input)} does not exist: check its name")
    for path in outputs:
        if path.is_dir():
            raise OutputError(f"{shown(path)} is a folder, not a file: name another output")
        if path.exists() and not overwrite:
            raise OutputError(f"{shown(path)} exists: name another output or pass --overwrite")
    there = _there(job.output)
    why = "" if there.is_dir() else f"{shown(there)} is a file"
    if not why and not os.access(there, os.W_OK | os.X_OK):
        why = "permission denied"
    if why:
        raise _refused(job.output.parent, why)


def _there(output: Path) -> Path:
    """The nearest of an output's folders that exists."""
    return next(folder for folder in output.absolute().parents if folder.exists())


@contextmanager
def all_or_none(outputs: Sequence[Path]) -> Iterator[list[Path]]:
    """Make the outputs' folder; yields a list of what was made, which goes if something fails.

    What was there before stays.
    """
    before = {path for path in outputs if path.exists()}
    try:
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(outputs[0].parent, (error.strerror or str(error)).lower()) from None
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            if path not in before:
                path.unlink(missing_ok=True)
        raise


def _refused(folder: Path, why: str) -> OutputError:
    return OutputError(f"{shown(folder)} cannot be written to ({why}): name another output folder")


def _warnings(stream: Stream, reshaped: Reshaped) -> Iterator[str]:
    if stream.tracks > 1:
        yield f"the input has {stream.tracks} audio tracks; the first was taken"
    if stream.clipped:
        yield "the input is clipped; what was cut off does not come back"
    level = reshaped.matching
    short = level.loudness_before - level.loudness_after
    if level.held and math.isfinite(short):
        yield f"{short:.1f} LU quieter than the input, to keep the true peak under its ceiling"
    settings = reshaped.settings.render
    if not settings.matches and reshaped.peak > 1:
        remedy = "without --no-match it would not"
        if settings.match:
            remedy = "a part's level is left alone: lower the input first"
        yield f"the output passes full scale; {remedy}"


def _recipe(
    path: Path, stream: Stream, model: Model, reshaped: Reshaped, carried: Carried | None
) -> Recipe:
    level = reshaped.matching
    loudness = None
    if math.isfinite(level.loudness_before) and math.isfinite(level.loudness_after):
        loudness = Change(before=level.loudness_before, after=level.loudness_after)
    return Recipe(
        tonewood=version("tonewood"),
        input=InputRecord(
            name=shown(path.name),
            sha256=sha256(path),
            rate=stream.rate,
            channels=stream.channels,
            samples=reshaped.before.samples,
        ),
        model=ModelRecord(name=model.name, digest=model.digest),
        settings=reshaped.settings,
        prior=reshaped.prior,
        steps=reshaped.steps,
        gain_db=level.gain_db,
        certificate=reshaped.certificate,
        loudness_lufs=loudness,
        mask=MaskRecord.outline(reshaped.mask),
        spectrum=reshaped.spectrum,
        carried=carried.record if carried else None,
    )
