"""Explanations on paths: which recording becomes which page, one after the other, and the table."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import Recording, read_recording, write_recording
from tonewood.audio_io.remote import Location
from tonewood.dsp import note_segmentation
from tonewood.enhancement import plotting
from tonewood.enhancement.output_files import (
    OutputKind,
    check_outputs,
    cleanup_on_error,
)
from tonewood.enhancement.pipeline import to_analysis_rate
from tonewood.errors import printable
from tonewood.explanation import report
from tonewood.explanation.note_statistics import (
    ConfidenceInterval,
    PartWeight,
    compute_part_weights,
    mean_intervals,
)
from tonewood.explanation.pipeline import (
    OCTAVE_CENTERS_HZ,
    PART_NAMES,
    Explanation,
    ExplanationFigures,
    TargetClass,
    check_target_class,
    explain_recording,
    filter_by_evidence,
)
from tonewood.html_report import ReportAudio
from tonewood.model.model import Model
from tonewood.scorer import saliency
from tonewood.scorer.saliency import SaliencyMethod
from tonewood.utils.atomic_write import check_not_existing, write_bytes, write_text

EXPLANATION_INDEX, EXPLANATION_TABLE = "index.html", "table.json"
PAGE_SUFFIXES = (".png", ".html")
_BROWSER_AUDIO_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
}
_MAX_EMBEDDED_BYTES = 20_000_000  # bytes; a browser chokes on a page of more


class ExplainOptions(NamedTuple):
    """What is to be explained, and how."""

    side: TargetClass = "reference"
    method: SaliencyMethod = "cam"
    parts: bool = True
    listen: bool = False


@dataclass(frozen=True, eq=False)
class ExplainedFile:
    """A recording that was explained.

    Parameters
    ----------
    output : Path
        Page or picture.
    sounds : tuple of Path
        What speaks for the class, and what that leaves; empty if not asked for, or if nothing does.
    parts : tuple of PartWeight
        Its own table.
    """

    input: Location
    output: Path
    sounds: tuple[Path, ...]
    explanation: Explanation
    parts: tuple[PartWeight, ...]
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ExplanationTable:
    """All recordings together."""

    page: Path
    recordings: int
    parts: tuple[PartWeight, ...]
    octaves: tuple[ConfidenceInterval, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "recordings": self.recordings,
            "parts": [it.model_dump(mode="json") for it in self.parts],
            "octaves": {
                str(hz): it.model_dump(mode="json")
                for hz, it in zip(OCTAVE_CENTERS_HZ, self.octaves, strict=True)
            },
        }


class SkippedExplanation(NamedTuple):
    """A recording that an earlier run explained."""

    input: Location
    output: Path


def _is_explanation_output(path: Path, _: Location) -> bool:
    match = re.fullmatch(r"(.+)\.(used|rest)\.\w+", path.name)
    return match is not None and path.with_name(f"{match[1]}.html").exists()


EXPLANATION_OUTPUTS = OutputKind(
    verb="explain",
    suffixes=PAGE_SUFFIXES,
    suffix_rule="is neither a picture nor a page: end it in .png or .html, or name a folder",
    name=lambda path: path.with_name(f"{path.name}.html"),
    is_earlier_output=_is_explanation_output,
)


def check_explanation_index(out: Path, overwrite: bool) -> None:
    """Raise OutputError if the table of several recordings may not be written."""
    check_not_existing((out / EXPLANATION_INDEX, out / EXPLANATION_TABLE), overwrite)


def check_explain_options(options: ExplainOptions) -> None:
    """Raise before the work what would be raised after it: a wrong call, a missing extra."""
    check_target_class(options.side)
    saliency.check_saliency_method(options.method)
    plotting.check_matplotlib("explain")
    if options.parts:
        note_segmentation.require_pitch_tracker()


def explain_file(
    source: Path,
    page: Path,
    model: Model,
    options: ExplainOptions,
    *,
    overwrite: bool = False,
    seed: int = 0,
) -> ExplainedFile:
    """Explain one recording; raises TonewoodError, and then nothing of it is left."""
    began = time.perf_counter()
    sounds = []
    if options.listen:
        sounds = [page.with_suffix(f".{name}{source.suffix}") for name in ("used", "rest")]
    check_outputs(source, [page, *sounds], overwrite)
    recording = read_recording(source)
    found = explain_recording(
        recording.samples,
        recording.rate,
        model,
        side=options.side,
        method=options.method,
        parts=options.parts,
        seed=seed,
    )
    spectrum = model.settings.spectrum
    sums = found.part_sums(spectrum.hop / spectrum.rate)
    parts = compute_part_weights(PART_NAMES, [sums], np.random.default_rng(seed), "steady") if sums else []
    title = printable(source.name)
    drawn = report.plot_explanation(
        found, to_analysis_rate(recording.samples, recording.rate, model), model, title
    )
    warnings = []
    with cleanup_on_error([page, *sounds]) as made:
        if sounds and not _write_evidence_audio(sounds, recording, found, model, overwrite, made):
            warnings.append(f"nothing in it speaks for the {options.side}: there are no sounds of it")
            sounds = []
        if page.suffix.lower() == ".png":
            write_bytes(page, drawn, overwrite=overwrite)
        else:
            text = report.explanation_page(
                found, parts, drawn, list(_player_blocks(sounds)), title, printable(model.name)
            )
            write_text(page, text, overwrite=overwrite)
    if not found.faithfulness.is_faithful:
        warnings.append(found.faithfulness.line)
    return ExplainedFile(
        input=source,
        output=page,
        sounds=tuple(sounds),
        explanation=found,
        parts=tuple(parts),
        seconds=round(time.perf_counter() - began, 2),
        warnings=tuple(warnings),
    )


def _write_evidence_audio(
    paths: Sequence[Path],
    recording: Recording,
    explanation: Explanation,
    model: Model,
    overwrite: bool,
    written: list[Path],
) -> bool:
    heard = filter_by_evidence(recording.samples, recording.rate, explanation, model)
    if heard is None:
        return False
    for path, sound in zip(paths, heard, strict=True):
        form = AudioFormat.for_path(path, recording.format)
        write_recording(path, sound.samples, recording.rate, form, overwrite=overwrite)
        written.append(path)
    return True


def _player_blocks(sounds: Sequence[Path]) -> Iterator[ReportAudio | str]:
    """Players of the sounds, or their names where a browser would not play them."""
    captions = ("What speaks for it.", "What that leaves; before each was made as loud as the "
                "recording, the two summed to it.")  # fmt: skip
    for path, caption in zip(sounds, captions, strict=False):
        kind = _BROWSER_AUDIO_TYPES.get(path.suffix.lower())
        if kind and path.stat().st_size <= _MAX_EMBEDDED_BYTES:
            yield ReportAudio(kind, path.read_bytes(), caption)
        else:
            yield f"{printable(path.name)}: {caption}"


def write_explanation_table(
    figures: Sequence[ExplanationFigures],
    out: Path,
    model: Model,
    *,
    overwrite: bool = False,
    seed: int = 0,
) -> ExplanationTable:
    """Write the table of several recordings, and its page."""
    rng = np.random.default_rng(seed)
    sums = [it.part_sums for it in figures]
    parts = (
        compute_part_weights(PART_NAMES, [it for it in sums if it is not None], rng, "steady")
        if all(sums)
        else []
    )
    octaves = mean_intervals(np.stack([np.array(it.octaves) for it in figures]), rng)
    made = ExplanationTable(out / EXPLANATION_INDEX, len(figures), tuple(parts), tuple(octaves))
    write_text(out / EXPLANATION_TABLE, json.dumps(made.summary, indent=1) + "\n", overwrite=overwrite)
    text = report.explanation_index_page(parts, octaves, figures, printable(model.name))
    write_text(made.page, text, overwrite=overwrite)
    return made
