"""Write an evaluation as JSON, as CSV and as an HTML page with players and spectrograms."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from tonewood.dsp.loudness import integrated_loudness
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.plotting import check_matplotlib, plot_levels
from tonewood.errors import printable
from tonewood.evaluation.metrics import MEASURE_RATE, FolderComparison
from tonewood.evaluation.pipeline import (
    METHOD_TONEWOOD,
    METHOD_UNTOUCHED,
    Evaluation,
    MethodResult,
    PairResult,
)
from tonewood.html_report import (
    ReportAudio,
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    figure_png,
    new_figure,
    render_report,
)
from tonewood.model.model import Model
from tonewood.settings import SpectrumSettings
from tonewood.stats.classification import BootstrapInterval
from tonewood.utils.arrays import Samples
from tonewood.utils.files import check_report_folder, write_text

EVALUATION_HTML, EVALUATION_JSON, EVALUATION_CSV = "index.html", "evaluation.json", "evaluation.csv"
AUDIBLE_PAIRS = 3  # pairs with players on the page
_EXCERPT_SECONDS = 5.0
_EXCERPT_PEAK = 0.9
_REPORT_SPECTRUM = SpectrumSettings()
# Title, scale and digits of each measure.
_MEASURE_COLUMNS = {
    "closed": ("closed, %", 100.0, 1),
    "mel": ("mel, dB", 1.0, 2),
    "multi_resolution": ("several windows, dB", 1.0, 2),
    "long_term": ("long-term, dB", 1.0, 2),
    "scorer": ("scorer", 1.0, 2),
    "judge": ("judge", 1.0, 2),
    "zimtohrli": ("Zimtohrli", 1.0, 4),
}
_SUMMARY_MEASURES = ("closed", "mel", "judge", "zimtohrli")
_OPTIONAL_MEASURES = ("zimtohrli",)  # columns that are left out if no figure is there

TextRows = list[list[str]]


class EvaluationReport(NamedTuple):
    """Evaluation of pairs, of folders, or of both."""

    pairs: Evaluation | None
    folders: FolderComparison | None

    @property
    def summary(self) -> dict[str, Any]:
        """Report without waveforms, for JSON."""
        return {
            "pairs": self.pairs.summary if self.pairs else None,
            "folders": self.folders.summary if self.folders else None,
        }


def check_evaluation_report(out: Path, overwrite: bool) -> None:
    """Raise before the measurements the errors of a report that cannot be written."""
    check_matplotlib("a report")
    check_report_folder(out, (EVALUATION_HTML, EVALUATION_JSON, EVALUATION_CSV), overwrite)


def write_evaluation_report(
    out: Path, report: EvaluationReport, model: Model, *, overwrite: bool = False
) -> Path:
    """Write the files of the report into the folder `out`; return the path of the page."""
    # JSON has no NaN: a measure that is missing must be None by now.
    files = {EVALUATION_JSON: json.dumps(report.summary, indent=1, allow_nan=False) + "\n"}
    if report.pairs:
        files[EVALUATION_CSV] = _evaluation_csv(report.pairs.pairs)
    files[EVALUATION_HTML] = _evaluation_page(report, model)
    for name, text in files.items():
        write_text(out / name, text, overwrite=overwrite)
    return out / EVALUATION_HTML


def means_table(evaluation: Evaluation, measures: Sequence[str] = _SUMMARY_MEASURES) -> TextRows:
    """Return the means by method, with intervals, as text; the header is the first row."""
    known = {measure for by_measure in evaluation.means.values() for measure in by_measure}
    measures = [measure for measure in measures if measure in known or measure not in _OPTIONAL_MEASURES]
    rows = [["method", *(_MEASURE_COLUMNS[measure][0] for measure in measures)]]
    for method, by_measure in evaluation.means.items():
        rows.append([method, *_format_measures(by_measure, measures)])
    for method, by_measure in evaluation.gains.items():
        rows.append([f"{METHOD_TONEWOOD} − {method}", *_format_measures(by_measure, measures)])
    return rows


def folders_table(comparison: FolderComparison) -> TextRows:
    """Return the Fréchet distances as text; the header is the first row."""
    rows = [["Fréchet distance of", "distance", "error", "remaining bias"]]
    for name, estimate in (("scorer features", comparison.scorer), ("mel levels, dB²", comparison.mel)):
        rows.append([name, *(f"{number:.4g}" for number in estimate)])
    return rows


def _format_measures(by_measure: dict[str, BootstrapInterval], measures: Sequence[str]) -> list[str]:
    return [_format_interval(by_measure.get(measure), *_MEASURE_COLUMNS[measure][1:]) for measure in measures]


def _format_interval(interval: BootstrapInterval | None, scale: float, digits: int) -> str:
    if interval is None:
        return "-"  # the model has no judge
    # A single pair has a mean, but no interval.
    mean, *ends = (None if number is None else f"{scale * number:.{digits}f}" for number in interval)
    return f"{mean}" if None in ends else f"{mean} ({ends[0]} to {ends[1]})"


def _evaluation_csv(pairs: Sequence[PairResult]) -> str:
    """Return a table as CSV with a line for each method on each pair."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")  # csv's default is CR LF
    quality = pairs[0].alignment.quality._fields
    writer.writerow(["piece", "method", *MethodResult._fields, "exact", *quality])
    for pair in pairs:
        aligned = [pair.alignment.exact, *pair.alignment.quality]
        for method, result in pair.methods.items():
            values = ["" if value is None else value for value in (*result, *aligned)]
            writer.writerow([printable(pair.files.name), method, *values])
    return stream.getvalue()


def _evaluation_page(report: EvaluationReport, model: Model) -> str:
    blocks: list[ReportBlock] = [
        f"Model {printable(model.name)}: reference {printable(model.card.reference.name)}, source "
        f"{printable(model.card.source.name)}."
    ]
    if report.pairs:
        blocks += _pair_blocks(report.pairs)
    if report.folders:
        blocks += _folder_blocks(report.folders)
    # Players come last: their audio is most of the page.
    for pair in report.pairs.pairs if report.pairs else ():
        if pair.waveforms is not None:
            blocks += _excerpt_blocks(pair, pair.waveforms)
    return render_report("Evaluation", blocks)


def _pair_blocks(evaluation: Evaluation) -> list[ReportBlock]:
    blocks: list[ReportBlock] = [
        ReportHeading("Pairs"),
        ReportTable(
            f"Means over {len(evaluation.pairs)} pairs, with 95 % bootstrap intervals over pairs. "
            "Closed: share of the mel log-spectral distance to the paired reference recording that the "
            "method closes; negative is worse than doing nothing. Distances are in dB. Scorer and judge: "
            "0 sounds like the reference, 1 like the source. Zimtohrli: a perceptual distance, 0 for equal "
            "sounds.",
            means_table(evaluation, tuple(_MEASURE_COLUMNS)),
        ),
        ReportTable(
            "Alignment: agreement of the pitches along it, and by chance; range of the tempo ratio; share "
            "of the source without a counterpart. Exact pairs need no alignment.",
            _pair_rows(evaluation.pairs),
        ),
    ]
    if evaluation.failed:
        rows = [["left out"], *([str(failure.error)] for failure in evaluation.failed)]
        blocks.append(ReportTable("Pairs that could not be measured; no figure includes them.", rows))
    return blocks


def _folder_blocks(comparison: FolderComparison) -> list[ReportBlock]:
    return [
        ReportHeading("Folders"),
        ReportTable(
            f"{printable(comparison.output)} ({comparison.stretches[0]} stretches of up to ten seconds) "
            f"against {printable(comparison.reference)} ({comparison.stretches[1]}). Distances are "
            "extrapolated to an infinite amount of audio, so they can be below 0 if there is no difference.",
            folders_table(comparison),
        ),
    ]


def _pair_rows(pairs: Sequence[PairResult]) -> TextRows:
    methods = [method for method in pairs[0].methods if method != METHOD_UNTOUCHED]
    closed = [f"{method} closed, %" for method in methods]
    rows = [["pair", *closed, "alignment", "agreement", "chance", "tempo ratio", "unmatched, %"]]
    for pair in pairs:
        quality = pair.alignment.quality
        rows.append(
            [
                printable(pair.files.name),
                *(f"{100 * pair.methods[method].closed:.1f}" for method in methods),
                "exact pair" if pair.alignment.exact else "warped",
                f"{quality.similarity:.2f}",
                f"{quality.chance:.2f}",
                f"{quality.slowest:.2f} to {quality.fastest:.2f}",
                f"{100 * quality.stuck:.1f}",
            ]
        )
    return rows


def _excerpt_blocks(pair: PairResult, waveforms: dict[str, Samples]) -> list[ReportBlock]:
    """Return players and spectrograms of every method and the reference, for an excerpt."""
    excerpts = _cut_excerpts(pair, waveforms)
    name = printable(pair.files.name)
    blocks: list[ReportBlock] = [ReportHeading(name)]
    blocks += [ReportAudio("audio/flac", _encode_flac(wave), title) for title, wave in excerpts.items()]
    caption = "The same excerpts: log magnitude over a range of 80 dB."
    return [*blocks, ReportFigure(f"Spectrograms of {name}", _plot_spectrograms(excerpts), caption)]


def _cut_excerpts(pair: PairResult, waveforms: dict[str, Samples]) -> dict[str, Samples]:
    """Return the middle five seconds by method, and the same passage of the reference, equally loud."""
    seconds = min(_EXCERPT_SECONDS, pair.seconds)
    # 51 times across the excerpt find the passage of the reference, even where some have no counterpart.
    grid = (pair.seconds - seconds) / 2 + np.arange(51) * (seconds / 50)
    aligned = pair.alignment.to_reference(grid)
    aligned = aligned[np.isfinite(aligned)]
    source_range = float(grid[0]), float(grid[-1])
    reference_range = (float(aligned[0]), float(aligned[-1])) if aligned.size else (0.0, seconds)
    excerpts = {}
    for name, wave in waveforms.items():
        limits = reference_range if name == "reference" else source_range
        start, stop = (round(s * MEASURE_RATE) for s in limits)
        excerpts[name] = wave[start : max(stop, start + MEASURE_RATE // 4)]

    # Match loudness to the untouched source; then one gain for all keeps the loudest from clipping.
    loudness = {name: integrated_loudness(wave[None], MEASURE_RATE) for name, wave in excerpts.items()}
    target = loudness[METHOD_UNTOUCHED]
    levelled = {
        name: wave * 10 ** ((target - loudness[name]) / 20) if np.isfinite(loudness[name]) else wave
        for name, wave in excerpts.items()
    }
    peak = max(float(np.abs(wave).max(initial=0.0)) for wave in levelled.values())
    # Only attenuate: quiet recordings stay as quiet as they are.
    gain = min(1.0, _EXCERPT_PEAK / peak) if peak > 0 else 1.0
    return {name: (wave * gain).astype(np.float32) for name, wave in levelled.items()}


def _encode_flac(wave: Samples) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, MEASURE_RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def _plot_spectrograms(excerpts: dict[str, Samples]) -> bytes:
    figure, panels = new_figure(len(excerpts), 1, width=11, height=2.4)
    levels = {
        name: log_magnitude(stft(wave, _REPORT_SPECTRUM), _REPORT_SPECTRUM) for name, wave in excerpts.items()
    }
    # One color scale for all panels, so that they can be compared by eye.
    loudest = max(float(level.max()) for level in levels.values())
    for (axes,), (name, level) in zip(panels, levels.items(), strict=True):
        plot_levels(axes, level, _REPORT_SPECTRUM, name, loudest)
    return figure_png(figure, dpi=80)
