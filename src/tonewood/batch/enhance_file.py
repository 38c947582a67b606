"""The workflow on paths, one file after the other."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.audio_io.remote import Location
from tonewood.enhancement import plotting
from tonewood.enhancement.analysis import Score
from tonewood.enhancement.output_files import (
    FileFailure,
    FileJob,
    FileStarted,
    OutputKey,
    _existing_parent,
    check_outputs,
    cleanup_on_error,
    output_conflict,
    sidecar_path,
    write_output_audio,
)
from tonewood.enhancement.pipeline import StreamedEnhancement, enhance_stream
from tonewood.enhancement.prior_mask import require_predictor
from tonewood.enhancement.reapply import MaskTransfer, apply_transfer
from tonewood.enhancement.recipe import InputRecord, MaskRecord, ModelRecord, Recipe, TransferRecord
from tonewood.errors import AudioError, OutputError, TonewoodError, printable
from tonewood.mask.certificate import Certificate, Change
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.utils.atomic_write import remove_stale_temporaries


@dataclass(frozen=True)
class FileEnhanced:
    """A file that was done.

    Parameters
    ----------
    seconds : float
        That it took.
    sha256 : str
        Of the input.
    duration : float
        Of the sound, in seconds.
    from_earlier_run : bool
        By an earlier run.
    """

    input: Location
    output: Location
    recipe: Location
    picture: Location | None
    certificate: Certificate
    prior: str
    steps: int
    gain_db: float
    seconds: float
    warnings: tuple[str, ...]
    sha256: str
    duration: float
    carried: TransferRecord | None = None
    from_earlier_run: bool = False


class FileScored(NamedTuple):
    """A file that was scored."""

    input: Location
    score: Score


def enhance_files(
    jobs: Sequence[FileJob | FileFailure],
    model: Model,
    settings: EnhanceSettings,
    *,
    plot: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    transfer: MaskTransfer | None = None,
) -> Iterator[FileStarted | SearchStep | FileEnhanced | FileFailure]:
    """Enhance file after file; a file that fails is named with its reason and the others go on.

    Parameters
    ----------
    transfer : Carried, optional
        A correction that is carried to the files, instead of one that is found for each.

    Raises
    ------
    MissingExtraError, ModelError
        Pictures, or the model's predictor, are asked for and cannot be had.
    """
    if plot:
        plotting.check_matplotlib()
    kind = settings.prior.kind if transfer is None else transfer.record.varying
    if kind == "predicted":
        require_predictor(model)
    inputs = {job.input.resolve() for job in jobs if isinstance(job, FileJob)}
    remove_stale_temporaries({job.output.parent for job in jobs if isinstance(job, FileJob)})
    for number, job in enumerate(jobs, start=1):
        if isinstance(job, FileFailure):
            yield job
            continue
        yield FileStarted(number, len(jobs), job.input)
        try:
            if why := output_conflict(job, inputs):
                raise why
            yield from enhance_file(job, model, settings, plot, overwrite, device, transfer)
        except TonewoodError as error:
            yield FileFailure(job.input, error)


def enhance_file(
    job: FileJob,
    model: Model,
    settings: EnhanceSettings,
    plot: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    transfer: MaskTransfer | None = None,
) -> Iterator[SearchStep | FileEnhanced]:
    """Enhance one file; arguments as of `enhance_files`.

    What the same recording, model and settings made before stays, and is told from its recipe.
    The sound takes its name last: where it is, all that belongs to it is.

    Raises
    ------
    TonewoodError
        It cannot be done; nothing of it is left.
    """
    side = sidecar_path(job.output)
    drawn = sidecar_path(job.output, ".png") if plot else None
    record = transfer.record if transfer else None
    wanted = OutputKey(file_sha256(job.input), model.digest, settings, record)
    recipe = None if overwrite else wanted.find_finished(job, drawn)
    if recipe is None:
        try:
            yield from _enhance_new(job, model, wanted, side, drawn, overwrite, device, transfer)
            return
        except OutputError:
            # Another run into the same folder may have been quicker.
            recipe = None if overwrite else wanted.find_finished(job, drawn)
            if recipe is None:
                raise
    yield result_from_recipe(recipe, job.input, job.output, side, drawn)


def _enhance_new(
    job: FileJob,
    model: Model,
    key: OutputKey,
    recipe_path: Path,
    picture_path: Path | None,
    overwrite: bool,
    device: str,
    transfer: MaskTransfer | None,
) -> Iterator[SearchStep | FileEnhanced]:
    """Do the work on one file."""
    began, settings = time.perf_counter(), key.settings
    outputs = [path for path in (job.output, recipe_path, picture_path) if path]
    unfinished = not overwrite and key.is_unfinished(job)
    check_outputs(job, [job.output] if unfinished else outputs, overwrite)
    stream = AudioReader(job.input)
    AudioFormat.for_path(job.output, stream.format)  # refuses a suffix before the work
    folder = _existing_parent(job.output)
    events: Iterable[SearchStep | StreamedEnhancement]
    if transfer is None:
        events = enhance_stream(stream, model, settings, device=device, scratch_dir=folder)
    else:
        events = [apply_transfer(stream, model, transfer, settings, folder)]
    reshaped: StreamedEnhancement | None = None
    for event in events:
        if isinstance(event, SearchStep):
            yield event
        else:
            reshaped = event
    assert reshaped is not None
    recipe = _build_recipe(job.input, stream, model, reshaped, transfer)
    if recipe.input.sha256 != key.input_sha256:
        raise AudioError(
            f"{printable(job.input)} changed while it was worked on: wait until it is whole, then run "
            "the same command again"
        )
    replaces = overwrite or unfinished
    with cleanup_on_error(outputs) as made:

        def ready(sound: Path) -> None:
            recipe.model_copy(update={"output_sha256": file_sha256(sound)}).save(
                recipe_path, overwrite=replaces, mask=reshaped.mask
            )
            made.append(recipe_path)
            if picture_path:
                title = printable(job.input.name)
                plotting.plot_enhancement(picture_path, reshaped, model, title=title, overwrite=replaces)
                made.append(picture_path)

        shape = (stream.channels, reshaped.input_analysis.n_samples)
        blocks = reshaped.blocks()
        write_output_audio(
            job, stream, blocks, shape, settings.render, overwrite=overwrite, before_publish=ready
        )
    yield FileEnhanced(
        input=job.input,
        output=job.output,
        recipe=recipe_path,
        picture=picture_path,
        certificate=reshaped.certificate,
        prior=reshaped.prior,
        steps=reshaped.steps,
        gain_db=round(reshaped.loudness_match.gain_db, 2),
        seconds=round(time.perf_counter() - began, 2),
        warnings=tuple(_enhancement_warnings(stream, reshaped)),
        sha256=recipe.input.sha256,
        duration=recipe.input.samples / recipe.input.rate,
        carried=recipe.carried,
    )


def result_from_recipe(
    recipe: Recipe,
    input: Location,
    output: Location,
    recipe_path: Location,
    picture_path: Location | None = None,
) -> FileEnhanced:
    """What an earlier run made, as its recipe tells it."""
    return FileEnhanced(
        input=input,
        output=output,
        recipe=recipe_path,
        picture=picture_path,
        certificate=recipe.certificate,
        prior=recipe.prior,
        steps=recipe.steps,
        gain_db=round(recipe.gain_db, 2),
        seconds=0.0,
        warnings=(),
        sha256=recipe.input.sha256,
        duration=recipe.input.samples / recipe.input.rate,
        carried=recipe.carried,
        from_earlier_run=True,
    )


def _enhancement_warnings(stream: AudioReader, enhancement: StreamedEnhancement) -> Iterator[str]:
    if stream.tracks > 1:
        yield f"the input has {stream.tracks} audio tracks; the first was taken"
    if stream.clipped:
        yield "the input is clipped; what was cut off does not come back"
    level = enhancement.loudness_match
    short = level.loudness_before - level.loudness_after
    if level.peak_limited and math.isfinite(short):
        yield f"{short:.1f} LU quieter than the input, to keep the true peak under its ceiling"
    settings = enhancement.settings.render
    if not settings.matches_loudness and enhancement.peak > 1:
        remedy = "without --no-match it would not"
        if settings.match:
            remedy = "a part's level is left alone: lower the input first"
        yield f"the output passes full scale; {remedy}"


def _build_recipe(
    path: Path,
    stream: AudioReader,
    model: Model,
    enhancement: StreamedEnhancement,
    transfer: MaskTransfer | None,
) -> Recipe:
    level = enhancement.loudness_match
    loudness = None
    if math.isfinite(level.loudness_before) and math.isfinite(level.loudness_after):
        loudness = Change(before=level.loudness_before, after=level.loudness_after)
    return Recipe(
        tonewood=version("tonewood"),
        input=InputRecord(
            name=printable(path.name),
            sha256=file_sha256(path),
            rate=stream.rate,
            channels=stream.channels,
            samples=enhancement.input_analysis.n_samples,
        ),
        model=ModelRecord(name=model.name, digest=model.digest),
        settings=enhancement.settings,
        prior=enhancement.prior,
        steps=enhancement.steps,
        gain_db=level.gain_db,
        certificate=enhancement.certificate,
        loudness_lufs=loudness,
        mask=MaskRecord.without_parts(enhancement.mask),
        spectrum=enhancement.spectrum,
        carried=transfer.record if transfer else None,
    )
