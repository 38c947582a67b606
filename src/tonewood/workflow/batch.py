"""The workflow on paths: which input becomes which output, one file after the other."""

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import (
    AudioError,
    CallError,
    FolderError,
    OutputError,
    TonewoodError,
    shown,
)
from tonewood.files import recipe as recipes
from tonewood.files.audio import Stream, audio_files, sha256, write_blocks
from tonewood.files.formats import SUFFIXES, AudioFormat, output_name
from tonewood.files.modelfile import Model
from tonewood.files.output import write_bytes
from tonewood.files.recipe import CarriedRecord, InputRecord, MaskRecord, ModelRecord, Recipe
from tonewood.masking.certify import Certificate, Change
from tonewood.masking.optimise import Step
from tonewood.settings import EnhanceSettings, RenderSettings
from tonewood.workflow import picture
from tonewood.workflow.carry import Carried, carry
from tonewood.workflow.enhance import Reshaped, reshape
from tonewood.workflow.predict import predictor_of
from tonewood.workflow.score import Score, score_sound


class Job(NamedTuple):
    """One recording and the file it becomes."""

    input: Path
    output: Path


class Started(NamedTuple):
    """Work on a file begins; it is the number-th of so many."""

    number: int
    total: int
    input: Path


class Failed(NamedTuple):
    """A file could not be done; the others go on."""

    input: Path
    error: TonewoodError


@dataclass(frozen=True)
class Enhanced:
    """A file that was done."""

    input: Path
    output: Path
    recipe: Path
    picture: Path | None
    certificate: Certificate
    prior: str
    steps: int
    gain_db: float
    seconds: float
    warnings: tuple[str, ...]
    carried: CarriedRecord | None = None


class Scored(NamedTuple):
    """A file that was scored."""

    input: Path
    score: Score


def recordings(inputs: Sequence[Path]) -> Iterator[Path | Failed]:
    """Every recording that the inputs name: files as they are, folders with all below them.

    A folder without audio is a `Failed` in its place.
    """
    for item in inputs:
        try:
            yield from audio_files(item) if item.is_dir() else [item]
        except FolderError as error:
            yield Failed(item, error)


def jobs(inputs: Sequence[Path], out: Path) -> list[Job | Failed]:
    """Lay out which recording becomes which file; folders keep their tree.

    `out` is a file when there is one input file and `out` is named like one; else a folder. What
    lies below `out` with a recipe beside it is an earlier output, and no input. A folder without
    audio is a `Failed` in its place.

    Raises
    ------
    CallError
        Two recordings would become one file, or `out` is a file where a folder is needed.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and not out.is_dir() and out.suffix.lower() in SUFFIXES:
        return [Job(inputs[0], out)]
    if not out.is_dir() and (out.exists() or (not single and out.suffix.lower() in SUFFIXES)):
        raise CallError(f"{shown(out)} names a file; several outputs need a folder: name one")
    if single and out.suffix and not out.is_dir():
        raise CallError(
            f"{shown(out)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or an existing folder"
        )
    laid: list[Job | Failed] = []
    taken: dict[Path, Path] = {}
    for job in _laid(inputs, out):
        if isinstance(job, Job):
            other = taken.get(job.output)
            if other and _same(other, job.input):
                continue  # named twice
            if other:
                raise CallError(
                    f"{shown(other)} and {shown(job.input)} would both become "
                    f"{shown(job.output)}: enhance them into two folders"
                )
            taken[job.output] = job.input
        laid.append(job)
    return laid


def _laid(inputs: Sequence[Path], out: Path) -> Iterator[Job | Failed]:
    for item in inputs:
        if not item.is_dir():
            yield Job(item, out / output_name(Path(item.name)))
            continue
        try:
            inside = [path for path in audio_files(item) if not _is_output(path, out)]
        except FolderError as error:
            yield Failed(item, error)
            continue
        if not inside:
            yield Failed(
                item,
                FolderError(f"{shown(item)} holds nothing but earlier outputs: name another input"),
            )
        for path in inside:
            yield Job(path, out / output_name(path.relative_to(item)))


def _is_output(path: Path, out: Path) -> bool:
    return beside(path).exists() and path.resolve().is_relative_to(out.resolve())


def beside(output: Path, suffix: str = recipes.SUFFIX) -> Path:
    """Name of a file that belongs to an output: its recipe, or its picture."""
    return output.with_name(output.name + suffix)


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
    inputs = {job.input.resolve() for job in laid}
    for number, job in enumerate(laid, start=1):
        if isinstance(job, Failed):
            yield job
            continue
        yield Started(number, len(laid), job.input)
        try:
            if job.output.resolve() in inputs:
                which = "the input itself" if _same(*job) else "an input too"
                raise OutputError(f"{shown(job.output)} is {which}: name another output")
            yield from _enhance_file(job, model, settings, plot, overwrite, device, carried)
        except TonewoodError as error:
            yield Failed(job.input, error)


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def score_files(
    paths: Sequence[Path | Failed], model: Model
) -> Iterator[Started | Scored | Failed]:
    """Score file after file."""
    for number, path in enumerate(paths, start=1):
        if isinstance(path, Failed):
            yield path
            continue
        yield Started(number, len(paths), path)
        try:
            yield Scored(path, score_sound(Stream(path), model))
        except TonewoodError as error:
            yield Failed(path, error)


def _enhance_file(
    job: Job,
    model: Model,
    settings: EnhanceSettings,
    plot: bool,
    overwrite: bool,
    device: str,
    carried: Carried | None,
) -> Iterator[Step | Enhanced]:
    began = time.perf_counter()
    side = beside(job.output)
    drawn = beside(job.output, ".png") if plot else None
    outputs = [path for path in (job.output, side, drawn) if path]
    check_outputs(job, outputs, overwrite)
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
    with all_or_none(outputs):
        shape = (stream.channels, reshaped.before.samples)
        blocks = reshaped.blocks()
        save_sound(job, stream, blocks, shape, settings.render, overwrite=overwrite)
        recipe = recipe.model_copy(update={"output_sha256": sha256(job.output)})
        recipe.save(side, overwrite=overwrite)
        if drawn:
            title = shown(job.input.name)
            picture.draw(drawn, reshaped, model, title=title, overwrite=overwrite)
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
        carried=recipe.carried,
    )


def save_sound(
    job: Job,
    stream: Stream,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int],
    settings: RenderSettings,
    *,
    overwrite: bool,
) -> None:
    """Write what became of a recording, in its own format or what the output's name asks for."""
    form = AudioFormat.for_path(job.output, stream.format)
    if settings.amount == 0 and form == stream.format:
        # The file itself: exact even where a float32 is not, as in 32-bit integers and mp3.
        write_bytes(job.output, job.input.read_bytes(), overwrite=overwrite)
    else:
        rate, like = stream.rate, job.input
        write_blocks(job.output, blocks, shape, rate, form, overwrite=overwrite, like=like)


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
def all_or_none(outputs: Sequence[Path]) -> Iterator[None]:
    """Make the outputs' folder; if a later output fails, remove the earlier ones again."""
    new = [path for path in outputs if not path.exists()]
    try:
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(outputs[0].parent, (error.strerror or str(error)).lower()) from None
    try:
        yield
    except BaseException:
        for path in new:
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
        mask=MaskRecord.of(reshaped.mask),
        spectrum=reshaped.spectrum,
        carried=carried.record if carried else None,
    )
