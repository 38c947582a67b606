"""The workflow on paths: which input becomes which output, one file after the other."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from tonewood.errors import AudioError, CallError, OutputError, TonewoodError, shown
from tonewood.files import recipe as recipes
from tonewood.files.audio import Recording, audio_files, read, sha256, write
from tonewood.files.formats import SUFFIXES, AudioFormat
from tonewood.files.modelfile import Model
from tonewood.files.recipe import Change, InputRecord, MaskRecord, ModelRecord, Recipe
from tonewood.masking.optimise import Step
from tonewood.settings import EnhanceSettings
from tonewood.workflow import picture
from tonewood.workflow.enhance import Enhancement, enhance
from tonewood.workflow.score import Score, score


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
    scorer: Change
    judge: Change | None
    prior: str
    steps: int
    gain_db: float
    largest_db: float
    rms_db: float
    seconds: float
    warnings: tuple[str, ...]


class Scored(NamedTuple):
    """A file that was scored."""

    input: Path
    score: Score


def recordings(inputs: Sequence[Path]) -> list[Path]:
    """Every recording that the inputs name: files as they are, folders with all below them."""
    found: list[Path] = []
    for item in inputs:
        found += audio_files(item) if item.is_dir() else [item]
    return found


def jobs(inputs: Sequence[Path], out: Path) -> list[Job]:
    """Lay out which recording becomes which file; folders keep their tree.

    `out` is a file when there is one input file and `out` is named like one; else a folder.

    Raises
    ------
    CallError
        Two recordings would become one file, or `out` is a file where a folder is needed.
    FolderError
        An input folder holds no audio.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and not out.is_dir() and out.suffix.lower() in SUFFIXES:
        return [Job(inputs[0], out)]
    if out.exists() and not out.is_dir():
        raise CallError(f"{shown(out)} is a file; several outputs need a folder: name one")
    if single and out.suffix and not out.is_dir():
        raise CallError(
            f"{shown(out)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or a folder"
        )
    laid: list[Job] = []
    for item in inputs:
        if item.is_dir():
            inside = [p for p in audio_files(item) if not p.resolve().is_relative_to(out.resolve())]
            laid += [Job(path, out / path.relative_to(item)) for path in inside]
        else:
            laid.append(Job(item, out / item.name))
    taken: dict[Path, Path] = {}
    for job in laid:
        if job.output in taken:
            raise CallError(
                f"{shown(taken[job.output])} and {shown(job.input)} would both become "
                f"{shown(job.output)}: enhance them into two folders"
            )
        taken[job.output] = job.input
    return laid


def enhance_files(
    laid: Sequence[Job],
    model: Model,
    settings: EnhanceSettings,
    *,
    plot: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
) -> Iterator[Started | Step | Enhanced | Failed]:
    """Enhance file after file; a file that fails is named with its reason and the others go on."""
    if plot:
        picture.check()
    for number, job in enumerate(laid, start=1):
        yield Started(number, len(laid), job.input)
        try:
            yield from _enhance_file(job, model, settings, plot, overwrite, device)
        except TonewoodError as error:
            yield Failed(job.input, error)


def score_files(paths: Sequence[Path], model: Model) -> Iterator[Started | Scored | Failed]:
    """Score file after file."""
    for number, path in enumerate(paths, start=1):
        yield Started(number, len(paths), path)
        try:
            recording = read(path)
            yield Scored(path, score(recording.samples, recording.rate, model))
        except TonewoodError as error:
            yield Failed(path, error)


def _enhance_file(
    job: Job, model: Model, settings: EnhanceSettings, plot: bool, overwrite: bool, device: str
) -> Iterator[Step | Enhanced]:
    began = time.perf_counter()
    side = job.output.with_name(job.output.name + recipes.SUFFIX)
    drawn = job.output.with_name(job.output.name + ".png") if plot else None
    _check_outputs(job, [p for p in (job.output, side, drawn) if p], overwrite)
    recording = read(job.input)
    form = AudioFormat.for_path(job.output, recording.format)
    enhancement: Enhancement | None = None
    for event in enhance(recording.samples, recording.rate, model, settings, device=device):
        if isinstance(event, Step):
            yield event
        else:
            enhancement = event
    assert enhancement is not None
    recipe = _recipe(job.input, recording, model, enhancement)
    write(job.output, enhancement.samples, recording.rate, form, overwrite=overwrite)
    recipe.save(side, overwrite=overwrite)
    if drawn:
        picture.draw(
            drawn, recording.samples, enhancement, model, title=job.input.name, overwrite=overwrite
        )
    yield Enhanced(
        input=job.input,
        output=job.output,
        recipe=side,
        picture=drawn,
        scorer=enhancement.scorer,
        judge=enhancement.judge,
        prior=enhancement.prior,
        steps=enhancement.steps,
        gain_db=round(enhancement.rendered.gain_db, 2),
        largest_db=round(enhancement.mask.largest_db, 2),
        rms_db=round(enhancement.mask.rms_db, 2),
        seconds=round(time.perf_counter() - began, 2),
        warnings=tuple(_warnings(recording, enhancement)),
    )


def _check_outputs(job: Job, outputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse before the work what would be refused after it; make the output's folder."""
    if not job.input.exists():
        raise AudioError(f"{shown(job.input)} does not exist: check the name")
    if job.output.resolve() == job.input.resolve():
        raise OutputError(f"{shown(job.output)} is the input itself: name another output")
    for path in outputs:
        if path.exists() and not overwrite:
            raise OutputError(f"{shown(path)} exists: name another output or pass --overwrite")
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(
            f"{shown(job.output.parent)} cannot be made ({why}): name another output folder"
        ) from None


def _warnings(recording: Recording, enhancement: Enhancement) -> Iterator[str]:
    if recording.clipped:
        yield "the input is clipped; what was cut off does not come back"
    if enhancement.rendered.held:
        short = enhancement.rendered.loudness_before - enhancement.rendered.loudness_after
        yield f"{short:.1f} LU quieter than the input, to keep the true peak under its ceiling"
    if not enhancement.settings.render.match and abs(enhancement.samples).max() > 1:
        yield "the output passes full scale; without --no-match it would not"


def _recipe(path: Path, recording: Recording, model: Model, enhancement: Enhancement) -> Recipe:
    channels, count = recording.samples.shape
    made = enhancement.rendered
    loudness = None
    if math.isfinite(made.loudness_before) and math.isfinite(made.loudness_after):
        loudness = Change(before=made.loudness_before, after=made.loudness_after)
    return Recipe(
        tonewood=version("tonewood"),
        input=InputRecord(
            name=path.name,
            sha256=sha256(path),
            rate=recording.rate,
            channels=channels,
            samples=count,
        ),
        model=ModelRecord(name=model.name, digest=model.digest),
        settings=enhancement.settings,
        prior=enhancement.prior,
        steps=enhancement.steps,
        gain_db=made.gain_db,
        scorer=enhancement.scorer,
        judge=enhancement.judge,
        loudness_lufs=loudness,
        mask=MaskRecord.of(enhancement.mask),
    )
