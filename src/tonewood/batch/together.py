"""Enhance several recordings as one record: one static part of the mask, one gain for the loudness.

The masks of all recordings are found first. Each keeps its movement; the static part becomes the mean
over all recordings. Then one gain keeps the loudness of the whole and the true-peak ceiling. Recordings
are not matched one by one, so their relative loudness changes only by what their masks add.
"""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.batch.enhance_file import EnhanceOptions
from tonewood.batch.results_table import ResultRow
from tonewood.batch.tasks import EnhanceTask, ItemResult, error_for_users
from tonewood.dsp.loudness import level_db
from tonewood.enhancement.analysis import analyse_source
from tonewood.enhancement.mask_search import find_masks, settings_for_model
from tonewood.enhancement.output_files import FileFailure, FileJob, FileStarted, OutputKey, sidecar_path
from tonewood.enhancement.pipeline import render_and_analyse
from tonewood.enhancement.reapply import MaskTransfer, with_static_part
from tonewood.enhancement.recipe import InputRecord, MaskRecord, Recipe, TransferRecord, load_recipe
from tonewood.errors import CallError, TonewoodError, printable
from tonewood.mask.components import mean_gain_db
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, RenderSettings
from tonewood.utils.arrays import FloatArray
from tonewood.utils.files import existing_parent


@dataclass(frozen=True)
class TogetherTask:
    """Enhance recordings with the masks and the gain that `prepare_together` found for all of them."""

    settings: EnhanceSettings
    options: EnhanceOptions
    transfers: dict[Path, MaskTransfer] = field(repr=False)
    name: Literal["enhance"] = "enhance"

    def settings_key(self, model: Model) -> dict[str, Any]:
        """Return the settings, with the gain of the record."""
        return self.settings.model_dump(mode="json")

    def find_finished(self, item: FileJob, model: Model, previous: ResultRow | None) -> ItemResult | None:
        """Return the result of an earlier output with the same part of the record."""
        return self._task_of(item).find_finished(item, model, previous)

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Enhance a recording with its part of the record."""
        return self._task_of(item).run(item, model, previous)

    def _task_of(self, item: FileJob) -> EnhanceTask:
        assert isinstance(item.input, Path)
        return EnhanceTask(self.settings, self.options, self.transfers[item.input])


class _FoundPart(NamedTuple):
    """Mask of one recording, and its mean over time [row] in dB."""

    input: InputRecord
    mask: MaskRecord
    mean_db: FloatArray


class _Loudness(NamedTuple):
    """Loudness of a recording before and after its mask in LUFS, and the output's true peak in dBTP."""

    samples: int
    before: float
    after: float
    peak_db: float


class PreparedRecord(NamedTuple):
    """Task for the outputs, and the jobs that it can do; failed recordings are in their places."""

    task: TogetherTask
    jobs: list[FileJob | FileFailure]


def prepare_together(
    jobs: Sequence[FileJob | FileFailure], task: EnhanceTask, model: Model
) -> Iterator[FileStarted | SearchStep | PreparedRecord]:
    """Find the masks of all recordings, their common static part and their gain.

    A record that an earlier run finished is not searched again. Yields the progress and, last, the
    `PreparedRecord`.

    CallError if a recording is a URL, or channels are not linked.
    """
    if task.settings.render.link != "all":
        raise CallError("--together needs one mask for all channels: leave out --mid-side and --link off")
    outputs = _check_jobs(jobs)
    task = replace(task, settings=settings_for_model(task.settings, model))
    numbers = {path: number for number, path in enumerate(outputs, start=1)}
    earlier = TogetherTask(task.settings, task.options, {})
    if not task.options.overwrite:
        earlier = _find_earlier(outputs, task, model)
    parts: dict[Path, _FoundPart] = {}
    failures: dict[Path, FileFailure] = {}
    # What an earlier run could not use comes first: if it can be used now, the record is another one.
    for path in sorted(outputs, key=lambda path: path in earlier.transfers):
        if path in earlier.transfers and not parts:
            break
        yield FileStarted(numbers[path], len(outputs), path)
        try:
            parts[path] = yield from _find_part(path, existing_parent(outputs[path]), model, task.settings)
        except Exception as error:  # as of other batches: the other recordings are done
            failures[path] = FileFailure(path, error_for_users(path, error))
    together = earlier if not parts else _join_parts(parts, failures, task, model)
    yield PreparedRecord(
        together,
        [job if isinstance(job, FileFailure) else failures.get(Path(job.input), job) for job in jobs],
    )


def _check_jobs(jobs: Sequence[FileJob | FileFailure]) -> dict[Path, Path]:
    """Return the output of each recording; CallError if one is a URL."""
    outputs = {}
    for job in jobs:
        if isinstance(job, FileFailure):
            continue
        if not isinstance(job.input, Path) or not isinstance(job.output, Path):
            raise CallError(f"--together needs files, and {printable(job.input)} is a URL: copy it first")
        outputs[job.input] = job.output
    return outputs


def _find_earlier(outputs: dict[Path, Path], task: EnhanceTask, model: Model) -> TogetherTask:
    """Return the task of an earlier run by the recipes of its outputs; without transfers if there is none."""
    recipes: dict[Path, Recipe] = {}
    for path, output in outputs.items():
        with suppress(TonewoodError):
            recipe = load_recipe(sidecar_path(output)) if output.exists() else None
            if recipe is not None and recipe.input.sha256 == file_sha256(path):
                recipes[path] = recipe
    record = _record_of([recipe.input for recipe in recipes.values()])
    first = next(iter(recipes.values()), None)
    if first is None or not _may_be_of(first.settings.render, task.settings.render):
        return TogetherTask(task.settings, task.options, {})
    settings = task.settings.replace(render=dict(match=False, gain_db=first.settings.render.gain_db))
    for recipe in recipes.values():
        key = OutputKey(recipe.input.sha256, model.digest, settings, record)
        if not key.matches(recipe):
            return TogetherTask(task.settings, task.options, {})
    transfers = {
        path: MaskTransfer(recipe.input, recipe.mask.to_mask(), record, model.digest)
        for path, recipe in recipes.items()
    }
    return TogetherTask(settings, task.options, transfers)


def _may_be_of(earlier: RenderSettings, render: RenderSettings) -> bool:
    """Return True if the gain of an earlier record may be what settings lead to."""
    if render.matches_loudness and render.amount != 0:
        return earlier.gain_db != 0  # a measured gain is never exactly 0, as it is with --no-match
    return earlier.gain_db == (0.0 if render.match else render.gain_db)


def _record_of(inputs: Sequence[InputRecord]) -> TransferRecord:
    """Return the description of a record by its recordings."""
    digest = hashlib.sha256("".join(sorted(each.sha256 for each in inputs)).encode())
    name = f"{len(inputs)} recordings" if len(inputs) > 1 else "1 recording"
    return TransferRecord(recipe=name, sha256=digest.hexdigest(), varying="together")


def _find_part(
    path: Path, scratch_dir: Path, model: Model, settings: EnhanceSettings
) -> Generator[SearchStep, None, _FoundPart]:
    reader = AudioReader(path)
    result = yield from find_masks(reader, model, settings, scratch_dir)
    mask = result.mask.mask
    recording = InputRecord(
        name=printable(path.name),
        sha256=file_sha256(path),
        rate=reader.rate,
        channels=reader.channels,
        samples=result.analysis.n_samples,
    )
    return _FoundPart(recording, MaskRecord.from_mask(mask), mean_gain_db(mask))


def _join_parts(
    parts: dict[Path, _FoundPart], failures: dict[Path, FileFailure], task: EnhanceTask, model: Model
) -> TogetherTask:
    """Give all masks one static part, and measure the gain that keeps the loudness of the whole.

    A recording that fails now is added to `failures`; the static part is then that of the others.
    """
    settings = task.settings
    while remaining := {path: part for path, part in parts.items() if path not in failures}:
        transfers = _transfers_of(remaining, model, settings.render.max_gain_db)
        measured: dict[Path, _Loudness] = {}
        gain_db = 0.0 if settings.render.match else settings.render.gain_db
        if settings.render.matches_loudness and settings.render.amount != 0:
            for path, transfer in transfers.items():
                try:
                    measured[path] = _measure_loudness(path, transfer, model, settings)
                except Exception as error:  # as of other batches: the other recordings are done
                    failures[path] = FileFailure(path, error_for_users(path, error))
            if len(measured) < len(transfers):
                continue
            gain_db = _common_gain_db(list(measured.values()), settings.render)
        fixed = settings.replace(render=dict(match=False, gain_db=gain_db))
        return TogetherTask(fixed, task.options, transfers)
    return TogetherTask(settings, task.options, {})


def _transfers_of(
    parts: dict[Path, _FoundPart], model: Model, max_gain_db: float
) -> dict[Path, MaskTransfer]:
    """Return the masks with the mean of their static parts."""
    # Every second counts equally, whichever recording it is in.
    frames = [part.mask.frames for part in parts.values()]
    static_db = np.average([part.mean_db for part in parts.values()], axis=0, weights=frames)
    record = _record_of([part.input for part in parts.values()])
    return {
        path: MaskTransfer(
            part.input,
            with_static_part(part.mask.to_mask(), static_db.astype(np.float32), max_gain_db),
            record,
            model.digest,
        )
        for path, part in parts.items()
    }


def _measure_loudness(
    path: Path, transfer: MaskTransfer, model: Model, settings: EnhanceSettings
) -> _Loudness:
    reader = AudioReader(path)
    analysis = analyse_source(reader, model, with_pitch=False)
    output = render_and_analyse(reader, analysis, [transfer.mask], model, settings.render, None)
    return _Loudness(
        analysis.n_samples, analysis.loudness, output.analysis.loudness, level_db(output.true_peak)
    )


def _common_gain_db(measured: Sequence[_Loudness], settings: RenderSettings) -> float:
    """Return the gain that keeps the mean loudness of the whole, or less to keep the ceiling."""

    def whole_power(values: Sequence[float]) -> float:
        # The power of loudness, weighted by duration; silence (-inf) adds none.
        return sum(each.samples * 10 ** (value / 10) for each, value in zip(measured, values, strict=True))

    before = whole_power([each.before for each in measured])
    after = whole_power([each.after for each in measured])
    difference = 10 * np.log10(before / after) if before > 0 and after > 0 else 0.0
    headroom = settings.ceiling_dbtp - max(each.peak_db for each in measured)
    return float(np.clip(min(difference, headroom), -60, 60))
