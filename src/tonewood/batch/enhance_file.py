"""Enhance one file: audio, recipe, picture and delta, all or none."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import AudioReader, storable_format, write_recording_blocks
from tonewood.audio_io.recording import file_sha256
from tonewood.audio_io.remote import Location
from tonewood.enhancement.mask_search import settings_for_model
from tonewood.enhancement.output_files import (
    DELTA_SUFFIX,
    OutputKey,
    check_outputs,
    cleanup_on_error,
    sidecar_path,
    write_output_audio,
)
from tonewood.enhancement.pipeline import StreamedEnhancement, build_recipe, enhance_stream
from tonewood.enhancement.recipe import InputRecord, MaskRecord, ModelRecord, Recipe, TransferRecord
from tonewood.errors import AudioError, OutputError, printable
from tonewood.mask.certificate import Certificate
from tonewood.mask.components import component_labels
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.utils.files import exclusive_lock, existing_parent, is_inside

if TYPE_CHECKING:
    from tonewood.enhancement.reapply import MaskTransfer


@dataclass(frozen=True)
class FileEnhanced:
    """Result for one enhanced file; picture and delta are None if they were not requested."""

    input: Location
    output: Location
    recipe: Location
    picture: Location | None
    certificate: Certificate
    prior: str  # that was used
    steps: int  # of the search
    gain_db: float  # that matches the loudness
    settings: EnhanceSettings  # that were used: those given, with the defaults of method and model
    seconds: float  # of processing
    warnings: tuple[str, ...]
    sha256: str  # of the input
    model: ModelRecord
    duration: float  # of the audio, s
    carried: TransferRecord | None = None  # recipe that the mask comes from, if it was transferred
    from_earlier_run: bool = False  # nothing was done, because an earlier run made the same output
    delta: Location | None = None


@dataclass(frozen=True)
class EnhanceOptions:
    """Options of an enhancement that do not change its audio."""

    plot: bool = False  # draw input, mask and output as a PNG
    overwrite: bool = False  # replace existing outputs
    delta: bool = False  # write output minus input as a .wav of 32-bit floats
    root: Path | None = None  # folder that no input or output may lead out of, not even by a link


def enhance_file(
    source: Path,
    output: Path,
    model: Model,
    settings: EnhanceSettings,
    options: EnhanceOptions = EnhanceOptions(),
    transfer: "MaskTransfer | None" = None,
) -> Iterator[SearchStep | FileEnhanced]:
    """Enhance one file; yields each step of the search and, last, the result.

    An output that the same recording, model and settings made earlier is kept, and the result is
    read from its recipe. The audio is published last: if it exists, its other files do.

    Parameters
    ----------
    transfer : MaskTransfer, optional
        Mask to use instead of searching for one.

    Raises
    ------
    TonewoodError
        The file cannot be enhanced; no partial output is left.
    """
    paths = _OutputPaths.of(output, options)
    if options.root is not None:
        for path in (source, *filter(None, paths)):
            if not is_inside(path, options.root):
                raise OutputError(
                    f"{printable(path)} is a link that leads out of the allowed folders: replace it by a file"
                )
    key = _output_key(source, model, settings, transfer)
    recipe = None if options.overwrite else key.find_finished(output, paths.extras)
    if recipe is None:
        try:
            yield from _enhance_new(source, paths, model, key, options, transfer)
            return
        except OutputError:
            # A concurrent run into the same folder may have published the same output first.
            recipe = None if options.overwrite else key.find_finished(output, paths.extras)
            if recipe is None:
                raise
    yield result_from_recipe(recipe, source, *paths)


def find_finished_file(
    source: Path,
    output: Path,
    model: Model,
    settings: EnhanceSettings,
    options: EnhanceOptions,
    transfer: "MaskTransfer | None" = None,
) -> FileEnhanced | None:
    """Return the result of an earlier run that made the same output; arguments as of `enhance_file`."""
    paths = _OutputPaths.of(output, options)
    key = _output_key(source, model, settings, transfer)
    recipe = key.find_finished(output, paths.extras)
    return None if recipe is None else result_from_recipe(recipe, source, *paths)


def _output_key(
    source: Path, model: Model, settings: EnhanceSettings, transfer: "MaskTransfer | None"
) -> OutputKey:
    """Return the key of an output, with the settings that the model is used with."""
    if transfer is None:
        return OutputKey(file_sha256(source), model.digest, settings_for_model(settings, model))
    return OutputKey(file_sha256(source), model.digest, settings, transfer.record)


class _OutputPaths(NamedTuple):
    """Files made from one recording."""

    audio: Path
    recipe: Path
    picture: Path | None
    delta: Path | None

    @classmethod
    def of(cls, output: Path, options: EnhanceOptions) -> Self:
        """Return the paths of an output's files."""
        picture = sidecar_path(output, ".png") if options.plot else None
        delta = sidecar_path(output, DELTA_SUFFIX) if options.delta else None
        return cls(output, sidecar_path(output), picture, delta)

    @property
    def extras(self) -> list[Path]:
        """Picture and delta, if they were requested."""
        return [path for path in (self.picture, self.delta) if path is not None]


def _enhance_new(
    source: Path,
    paths: _OutputPaths,
    model: Model,
    key: OutputKey,
    options: EnhanceOptions,
    transfer: "MaskTransfer | None",
) -> Iterator[SearchStep | FileEnhanced]:
    start_time = time.perf_counter()
    unfinished = not options.overwrite and key.is_unfinished(paths.audio)
    outputs = [path for path in paths if path is not None]
    # The recipe of an unfinished output may be replaced by an equal one.
    check_outputs(source, [paths.audio] if unfinished else outputs, options.overwrite)
    reader = AudioReader(source)
    # Raise before the work if the output cannot be written.
    declared = round((reader.declared_seconds or 0) * reader.rate)
    audio_format = AudioFormat.for_path(paths.audio, reader.format)
    storable_format(paths.audio, audio_format, declared, reader.channels, reader.rate)

    enhancement: StreamedEnhancement | None = None
    for event in _enhancement_events(reader, paths.audio, model, key.settings, transfer):
        if isinstance(event, SearchStep):
            yield event
        else:
            enhancement = event
    assert enhancement is not None
    recipe = _build_file_recipe(source, reader, model, enhancement, key)
    _write_outputs(source, paths, reader, model, enhancement, recipe, options, unfinished)
    yield replace(
        result_from_recipe(recipe, source, *paths),
        seconds=round(time.perf_counter() - start_time, 2),
        warnings=tuple(_enhancement_warnings(reader, enhancement, key.carried)),
        from_earlier_run=False,
    )


def _enhancement_events(
    reader: AudioReader,
    output: Path,
    model: Model,
    settings: EnhanceSettings,
    transfer: "MaskTransfer | None",
) -> Iterator[SearchStep | StreamedEnhancement]:
    """Search a mask and apply it, or apply a transferred one."""
    # The output's disk has room for the output; the system's temporary folder may be small.
    scratch_dir = existing_parent(output)
    if transfer is None:
        yield from enhance_stream(reader, model, settings, scratch_dir=scratch_dir)
    else:
        from tonewood.enhancement.reapply import apply_transfer  # for `apply` only

        yield apply_transfer(reader, model, transfer, settings, scratch_dir)


def _build_file_recipe(
    source: Path, reader: AudioReader, model: Model, enhancement: StreamedEnhancement, key: OutputKey
) -> Recipe:
    """Return the recipe without its mask; AudioError if the recording changed during the work."""
    recording = InputRecord(
        name=printable(source.name),
        sha256=file_sha256(source),
        rate=reader.rate,
        channels=reader.channels,
        samples=enhancement.input_analysis.n_samples,
    )
    match = enhancement.output.loudness_match
    mask_record = MaskRecord.without_parts(enhancement.mask)
    recipe = build_recipe(recording, model, enhancement, match, mask_record, key.carried)
    # The key was computed before the work: an output must not be attributed to other audio.
    if recipe.input.sha256 != key.input_sha256:
        raise AudioError(
            f"{printable(source)} changed while it was processed: wait until it is complete, then run "
            "the same command again"
        ).as_temporary()
    return recipe


def _write_outputs(
    source: Path,
    paths: _OutputPaths,
    reader: AudioReader,
    model: Model,
    enhancement: StreamedEnhancement,
    recipe: Recipe,
    options: EnhanceOptions,
    unfinished: bool,
) -> None:
    """Write audio, recipe, picture and delta.

    If `unfinished`, an equal recipe exists without its audio, and may be replaced.
    """
    replace_existing = options.overwrite or unfinished
    with (
        cleanup_on_error([path for path in paths if path is not None]) as written,
        # Two runs with other settings would otherwise leave the recipe of one beside the sound of the other.
        exclusive_lock(paths.audio, wait=True),
    ):
        # The recipe has the audio's hash, so it is written between the audio and its publication.
        def write_sidecars(audio: Path) -> None:
            recipe.model_copy(update={"output_sha256": file_sha256(audio)}).save(
                paths.recipe, overwrite=replace_existing, mask=enhancement.mask
            )
            written.append(paths.recipe)
            if paths.picture:
                _plot(paths.picture, recipe.input.name, model, enhancement, replace_existing)
                written.append(paths.picture)
            if paths.delta:
                _write_delta(paths.delta, reader, enhancement, replace_existing)
                written.append(paths.delta)

        write_output_audio(
            source,
            paths.audio,
            reader,
            enhancement.blocks(),
            recipe.input.samples,
            recipe.settings.render,
            overwrite=options.overwrite,
            before_publish=write_sidecars,
        )


def _write_delta(path: Path, reader: AudioReader, enhancement: StreamedEnhancement, overwrite: bool) -> None:
    """Write output minus input: what was added and taken away."""
    shape = (reader.channels, enhancement.input_analysis.n_samples)
    # Floats, because a change of -60 dB has few steps in 16 bits.
    audio_format = AudioFormat("WAV", "FLOAT")
    write_recording_blocks(
        path, enhancement.delta_blocks(), shape, reader.rate, audio_format, overwrite=overwrite
    )


def _plot(
    path: Path, recording: str, model: Model, enhancement: StreamedEnhancement, overwrite: bool
) -> None:
    from tonewood.enhancement.plotting import enhancement_title, plot_enhancement

    plot_enhancement(
        path,
        enhancement.input_analysis.wave,
        enhancement.output.analysis.wave,
        enhancement.applied_masks,
        enhancement.spectrum,
        title=enhancement_title(recording, model, enhancement.certificate.scorer),
        labels=component_labels(enhancement.source.channels, enhancement.settings.render.link),
        after_gain_db=enhancement.output.loudness_match.gain_db,
        overwrite=overwrite,
    )


def result_from_recipe(
    recipe: Recipe,
    source: Location,
    output: Location,
    recipe_path: Location,
    picture_path: Location | None = None,
    delta_path: Location | None = None,
) -> FileEnhanced:
    """Return the result of an earlier run, from its recipe."""
    return FileEnhanced(
        input=source,
        output=output,
        recipe=recipe_path,
        picture=picture_path,
        certificate=recipe.certificate,
        prior=recipe.prior,
        steps=recipe.steps,
        gain_db=round(recipe.gain_db, 2),
        settings=recipe.settings,
        seconds=0.0,
        warnings=(),
        sha256=recipe.input.sha256,
        model=recipe.model,
        duration=recipe.input.samples / recipe.input.rate,
        carried=recipe.carried,
        from_earlier_run=True,
        delta=delta_path,
    )


def _enhancement_warnings(
    reader: AudioReader, enhancement: StreamedEnhancement, carried: TransferRecord | None
) -> Iterator[str]:
    yield from reader.warnings
    if reader.clipped:
        yield "the input is clipped; the clipped peaks are not restored"
    if enhancement.certificate.verdict == "refused" and reader.rate < enhancement.spectrum.rate:
        yield (
            f"the recording has no frequencies above {reader.rate / 2:g} Hz, and the model listens up to "
            f"{enhancement.spectrum.rate / 2:g} Hz: this alone may be why it is refused"
        )
    match = enhancement.output.loudness_match
    deficit = match.loudness_before - match.loudness_after
    # Silence has a loudness of -inf, and no deficit.
    if match.peak_limited and math.isfinite(deficit):
        yield f"{deficit:.1f} LU quieter than the input, to keep the true peak under its ceiling"
    settings = enhancement.settings.render
    if reader.channels == 1 and settings.link != "all":
        option = "--mid-side" if settings.link == "mid-side" else "--link off"
        yield f"the recording has one channel, so {option} changes nothing"
    # A matched output keeps its ceiling; any other may clip.
    if not settings.matches_loudness and enhancement.output.peak > 1:
        remedy = "leave out --no-match to prevent this"
        if carried is not None and carried.varying != "together":  # `apply`, which has the recipe's settings
            remedy = "the gain is the recipe's: lower the input first, and other stems as much"
        if settings.match:  # a part of the recording is changed, and its level is not matched
            remedy = "the level of a part is not matched: lower the input first"
        yield f"the output exceeds full scale; {remedy}"
