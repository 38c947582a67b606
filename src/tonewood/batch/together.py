"""Enhance several recordings as one record: one static part of the mask, one gain for the loudness.

The masks of all recordings are found first. Each keeps its movement; the static part becomes the mean
over all recordings. Then one gain keeps the loudness of the whole and the true-peak ceiling. Recordings
are not matched one by one, so their relative loudness changes only by what their masks add.
"""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.batch.enhance_file import EnhanceOptions
from tonewood.batch.results_table import ResultRow
from tonewood.batch.tasks import EnhanceTask, ItemResult
from tonewood.dsp.loudness import level_db
from tonewood.enhancement.analysis import analyse_source
from tonewood.enhancement.mask_search import find_masks
from tonewood.enhancement.output_files import FileFailure, FileJob, FileStarted
from tonewood.enhancement.pipeline import render_and_analyse
from tonewood.enhancement.reapply import MaskTransfer, with_static_part
from tonewood.enhancement.recipe import InputRecord, MaskRecord, TransferRecord
from tonewood.errors import CallError, TonewoodError, printable
from tonewood.mask.components import mean_gain_db
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, RenderSettings
from tonewood.utils.arrays import FloatArray
from tonewood.utils.atomic_write import existing_parent


@dataclass(frozen=True)
class TogetherTask:
    """Enhance recordings with the masks and the gain that `prepare_together` found for all of them."""

    settings: EnhanceSettings
    options: EnhanceOptions
    transfers: dict[Path, MaskTransfer] = field(repr=False)
    name: Literal["enhance"] = "enhance"

    @property
    def settings_key(self) -> dict[str, Any]:
        """Settings, with the gain of the record."""
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

    Yields the progress and, last, the `PreparedRecord`.

    Raises
    ------
    CallError
        A recording is a URL, or channels are not linked.
    """
    settings = task.settings
    if settings.render.link != "all":
        raise CallError("--together needs one mask for all channels: leave out --mid-side and --link off")
    planned: list[FileJob | FileFailure] = []
    parts: dict[Path, _FoundPart] = {}
    for number, job in enumerate(jobs, start=1):
        if isinstance(job, FileFailure):
            planned.append(job)
            continue
        if not isinstance(job.input, Path) or not isinstance(job.output, Path):
            raise CallError(f"--together needs files, and {printable(job.input)} is a URL: copy it first")
        yield FileStarted(number, len(jobs), job.input)
        try:
            parts[job.input] = yield from _find_part(job.input, existing_parent(job.output), model, settings)
            planned.append(job)
        except TonewoodError as error:
            planned.append(FileFailure(job.input, error))
    yield PreparedRecord(_join_parts(parts, task, model), planned)


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


def _join_parts(parts: dict[Path, _FoundPart], task: EnhanceTask, model: Model) -> TogetherTask:
    """Give all masks one static part, and measure the gain that keeps the loudness of the whole."""
    settings, limit = task.settings, task.settings.render.max_gain_db
    if not parts:
        return TogetherTask(settings, task.options, {})
    # Every second counts equally, whichever recording it is in.
    frames = [part.mask.frames for part in parts.values()]
    static_db = np.average([part.mean_db for part in parts.values()], axis=0, weights=frames)
    digest = hashlib.sha256("".join(sorted(part.input.sha256 for part in parts.values())).encode())
    name = f"{len(parts)} recordings" if len(parts) > 1 else "1 recording"
    record = TransferRecord(recipe=name, sha256=digest.hexdigest(), varying="together")
    transfers = {
        path: MaskTransfer(
            part.input,
            with_static_part(part.mask.to_mask(), static_db.astype(np.float32), limit),
            record,
            model.digest,
        )
        for path, part in parts.items()
    }
    gain_db = 0.0
    if settings.render.matches_loudness and settings.render.amount != 0:
        measured = [_measure_loudness(path, each, model, settings) for path, each in transfers.items()]
        gain_db = _common_gain_db(measured, settings.render)
    elif not settings.render.match:
        gain_db = settings.render.gain_db
    fixed = settings.replace(render=dict(match=False, gain_db=gain_db))
    return TogetherTask(fixed, task.options, transfers)


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
