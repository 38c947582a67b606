"""Explain recordings in files: one page per recording, and a table of several."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import read_recording, write_recording
from tonewood.audio_io.recording import Recording
from tonewood.audio_io.remote import Location
from tonewood.dsp.note_segmentation import require_pitch_tracker
from tonewood.enhancement.output_files import OutputKind, check_outputs, cleanup_on_error
from tonewood.enhancement.pipeline import to_analysis_rate
from tonewood.enhancement.plotting import check_matplotlib
from tonewood.errors import printable
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
from tonewood.explanation.report import explanation_index_page, explanation_page, plot_explanation
from tonewood.html_report import ReportAudio
from tonewood.model.model import Model
from tonewood.scorer.saliency import SaliencyMethod, check_saliency_method
from tonewood.utils.files import append_to_name, check_not_existing, write_bytes, write_text

EXPLANATION_INDEX, EXPLANATION_TABLE = "index.html", "table.json"
PAGE_SUFFIXES = (".png", ".html")
_BROWSER_AUDIO_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg"}
_MAX_EMBEDDED_BYTES = 20_000_000  # browsers become slow on larger pages


class ExplainOptions(NamedTuple):
    """Options of `tonewood explain`."""

    side: TargetClass = "reference"
    method: SaliencyMethod = "cam"
    parts: bool = True
    listen: bool = False


@dataclass(frozen=True, eq=False)
class ExplainedFile:
    """Explanation of one file."""

    input: Location
    output: Path  # page or picture
    sounds: tuple[Path, ...]  # audio of the evidence and of the rest; empty unless requested and available
    explanation: Explanation
    parts: tuple[PartWeight, ...]
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ExplanationTable:
    """Table of several recordings."""

    page: Path
    recordings: int
    parts: tuple[PartWeight, ...]
    octaves: tuple[ConfidenceInterval, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Table for JSON."""
        return {
            "recordings": self.recordings,
            "parts": [part.model_dump(mode="json") for part in self.parts],
            "octaves": {
                str(hz): interval.model_dump(mode="json")
                for hz, interval in zip(OCTAVE_CENTERS_HZ, self.octaves, strict=True)
            },
        }


class SkippedExplanation(NamedTuple):
    """Recording that an earlier run explained."""

    input: Location
    output: Path


def _is_explanation_output(path: Path, _: Location) -> bool:
    # Only beside its page: a recording may have such a name of its own.
    match = re.fullmatch(r"(.+)\.(used|rest)\.\w+", path.name)
    return match is not None and append_to_name(path.with_name(match[1]), ".html").exists()


EXPLANATION_OUTPUTS = OutputKind(
    suffixes=PAGE_SUFFIXES,
    suffix_rule="is neither a picture nor a page: use a name in .png or .html, or a folder without a suffix",
    name=lambda path: append_to_name(path, ".html"),
    is_earlier_output=_is_explanation_output,
)


def check_explanation_index(out: Path, overwrite: bool) -> None:
    """Raise OutputError if the table or its page exists and may not be overwritten."""
    check_not_existing((out / EXPLANATION_INDEX, out / EXPLANATION_TABLE), overwrite)


def check_explain_options(options: ExplainOptions) -> None:
    """Raise CallError for wrong options, MissingExtraError for a library that is not installed."""
    check_target_class(options.side)
    check_saliency_method(options.method)
    check_matplotlib("explain")
    if options.parts:
        require_pitch_tracker()


def explain_file(
    source: Path, page: Path, model: Model, options: ExplainOptions, *, overwrite: bool = False, seed: int = 0
) -> ExplainedFile:
    """Explain one recording; if that raises TonewoodError, no output of it remains."""
    started = time.perf_counter()
    sounds = []
    if options.listen:
        sounds = [
            append_to_name(page.with_suffix(""), f".{kind}{source.suffix}") for kind in ("used", "rest")
        ]
    check_outputs(source, [page, *sounds], overwrite)
    recording = read_recording(source)
    explanation = explain_recording(
        recording.samples,
        recording.rate,
        model,
        side=options.side,
        method=options.method,
        parts=options.parts,
        seed=seed,
    )
    spectrum = model.settings.spectrum
    sums = explanation.part_sums(spectrum.hop / spectrum.rate)
    parts = compute_part_weights(PART_NAMES, [sums], np.random.default_rng(seed), "steady") if sums else []
    title = printable(source.name)
    picture_png = plot_explanation(
        explanation, to_analysis_rate(recording.samples, recording.rate, model), model, title
    )
    warnings = []
    with cleanup_on_error([page, *sounds]) as written:
        if sounds and not _write_evidence_audio(sounds, recording, explanation, model, overwrite, written):
            warnings.append(f"there is no evidence for the {options.side}, so --listen wrote no audio")
            sounds = []
        if page.suffix.lower() == ".png":
            write_bytes(page, picture_png, overwrite=overwrite)
        else:
            text = explanation_page(
                explanation, parts, picture_png, list(_player_blocks(sounds)), title, printable(model.name)
            )
            write_text(page, text, overwrite=overwrite)
    if not explanation.faithfulness.is_faithful:
        warnings.append(explanation.faithfulness.line)
    return ExplainedFile(
        input=source,
        output=page,
        sounds=tuple(sounds),
        explanation=explanation,
        parts=tuple(parts),
        seconds=round(time.perf_counter() - started, 2),
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
    audio = filter_by_evidence(recording.samples, recording.rate, explanation, model)
    if audio is None:
        return False
    for path, sound in zip(paths, audio, strict=True):
        audio_format = AudioFormat.for_path(path, recording.format)
        write_recording(path, sound.samples, recording.rate, audio_format, overwrite=overwrite)
        written.append(path)
    return True


def _player_blocks(sounds: Sequence[Path]) -> Iterator[ReportAudio | str]:
    """Yield a player for each sound, or its name if browsers cannot play it."""
    captions = (
        "The evidence for the class.",
        "The rest. Both sum to the recording; then each was matched to its loudness.",
    )
    for path, caption in zip(sounds, captions, strict=False):  # there may be no sounds
        # Embedded, so that the page can be moved without its audio.
        kind = _BROWSER_AUDIO_TYPES.get(path.suffix.lower())
        if kind and path.stat().st_size <= _MAX_EMBEDDED_BYTES:
            yield ReportAudio(kind, path.read_bytes(), caption)
        else:
            yield f"{printable(path.name)}: {caption}"


def write_explanation_table(
    figures: Sequence[ExplanationFigures], out: Path, model: Model, *, overwrite: bool = False, seed: int = 0
) -> ExplanationTable:
    """Write the table of several recordings as JSON and as a page."""
    rng = np.random.default_rng(seed)
    sums = [recording.part_sums for recording in figures]
    known = [part_sums for part_sums in sums if part_sums is not None]
    parts = compute_part_weights(PART_NAMES, known, rng, "steady") if len(known) == len(sums) else []
    octaves = mean_intervals(np.stack([np.array(recording.octaves) for recording in figures]), rng)
    table = ExplanationTable(out / EXPLANATION_INDEX, len(figures), tuple(parts), tuple(octaves))
    write_text(out / EXPLANATION_TABLE, json.dumps(table.summary, indent=1) + "\n", overwrite=overwrite)
    text = explanation_index_page(parts, octaves, figures, printable(model.name))
    write_text(table.page, text, overwrite=overwrite)
    return table
