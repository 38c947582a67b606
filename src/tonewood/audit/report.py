"""Write an audit as an HTML page: verdicts, spectra of both folders, suspicious features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonewood.audit.pipeline import (
    ALPHA,
    BEWARE_ACCURACY,
    CONFOUNDED_ACCURACY,
    CONFOUNDS,
    AuditResult,
    ConfoundFeature,
    feature_values,
    format_medians,
    format_remedy,
)
from tonewood.data.dataset import AuditFeatures
from tonewood.dsp.artifact_detectors import THIRD_OCTAVES_HZ
from tonewood.errors import printable
from tonewood.html_report import (
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    figure_png,
    new_figure,
    render_report,
)
from tonewood.model.card import AuditVerdict, ConfoundAudit, format_accuracy, summarize_audit
from tonewood.model.model import Model
from tonewood.utils.arrays import FloatArray
from tonewood.utils.files import real_path, write_text

_SIDE_COLORS = {"reference": "tab:blue", "source": "tab:orange"}
_VERDICT_TEXT: dict[AuditVerdict, str] = {
    "fine": "No feature of room, microphone or codec separates the folders.",
    "untested": "There are too few recordings to distinguish a difference from chance.",
    "beware": "Something besides the instrument separates the folders, but not reliably, or not in a way "
    "that the scorer can use. See the remedies below.",
    "confounded": "Something besides the instrument separates the folders. A network that learns from them "
    "may learn that instead of the instrument. Follow the remedies below before you train.",
}


def write_audit_report(
    path: Path, result: AuditResult, model: Model | None, *, overwrite: bool = False
) -> None:
    """Write the report of an audit, with the accuracy of a model trained on these folders if given."""
    audit = result.audit
    # The verdict comes first, the evidence after it.
    blocks: list[ReportBlock] = [f"Verdict: {audit.verdict}. {_VERDICT_TEXT[audit.verdict]}"]
    if audit.verdict != "fine":
        blocks.append(f"{summarize_audit(audit)[0].capitalize()}.")
    blocks += [
        _findings_table(audit),
        *_baseline_blocks(audit, model),
        ReportHeading("Spectra"),
        ReportFigure(
            "Long-term spectra and noise floors",
            plot_folder_spectra(result),
            "Level in third octaves with each recording at -23 LUFS. Solid: whole recording. Dashed: rests. "
            "Lines are medians of the folder, shades its quartiles. The solid lines may differ because of "
            "the instrument; the dashed ones differ because of room and equipment.",
        ),
        *_distribution_blocks(result),
        ReportHeading("What the audit does not test"),
        "The audit tests only room, microphone, codec and export. It does not test the music: the notes, "
        "their duration and balance, or the player. If one folder holds scales and the other a suite, the "
        "scorer learns that too. Nor can the audit tell reverberation from an instrument that rings on.",
    ]
    names = [printable(real_path(folder).name) for folder in result.folders]
    title = f"Audit of {names[0]} (reference) and {names[1]} (source)"
    write_text(path, render_report(title, blocks), overwrite=overwrite)


def _findings_table(audit: ConfoundAudit) -> ReportTable:
    rows = [["property", "verdict", "accuracy", "p", "reference", "source", "remedy"]]
    for finding, confound in zip(audit.findings, CONFOUNDS, strict=True):
        features = "; ".join(feature.label for feature in confound.features)
        rows.append(
            [
                f"{finding.name}: {features}",
                finding.verdict,
                # No-break spaces: a narrow column must not separate a value from its unit.
                format_accuracy(finding.accuracy).replace(" ", "\u00a0") if finding.accuracy else "-",
                "-" if finding.p_value is None else f"{finding.p_value:.3f}",
                format_medians(finding, "reference"),
                format_medians(finding, "source"),
                format_remedy(finding, confound) if finding.verdict in ("beware", "confounded") else "",
            ]
        )
    return ReportTable(
        f"{audit.recordings[0]} reference and {audit.recordings[1]} source recordings. Accuracy: balanced "
        "accuracy of a linear classifier on recordings that it did not learn from, with its 95 % interval "
        "(joined from Wilson's intervals of both folders); 50 % is chance. p: share of random exchanges of "
        "recordings between the folders that any property separates as well; a p of up to "
        f"{ALPHA:g} counts. Beware from {100 * BEWARE_ACCURACY:.0f} %; confounded from "
        f"{100 * CONFOUNDED_ACCURACY:.0f} % at the interval's lower end. A property that the scorer does not "
        "hear is at most a warning. Reference, source: medians of the features in their order.",
        rows,
    )


def _baseline_blocks(audit: ConfoundAudit, model: Model | None) -> list[ReportBlock]:
    blocks: list[ReportBlock] = []
    if audit.spectrum is not None:
        text = (
            "The long-term spectrum without its level identifies the folder of "
            f"{format_accuracy(audit.spectrum)} of the recordings held out"
        )
        if model is not None:
            card = model.card.scorer
            text += (
                f"; the scorer of {printable(model.name)} is right on {100 * card.accuracy:.0f} % of "
                f"{card.windows} held-out windows"
            )
        blocks.append(
            f"{text}. This is not a confound by itself, because instruments differ in tone. A scorer that is "
            "no better may have learned a mere EQ curve."
        )
    if audit.sessions:
        rows = [["session", "side", "windows", "correct, %"]]
        rows += [
            [printable(session.name), session.side, str(session.windows), f"{100 * session.accuracy:.0f}"]
            for session in audit.sessions
        ]
        caption = (
            "The same classifier on each session (sub-folder) while it was held out. A low value means that "
            "the difference belongs to the days or rooms of the other sessions."
        )
        blocks += [ReportHeading("Sessions held out"), ReportTable(caption, rows)]
    return blocks


def plot_folder_spectra(result: AuditResult) -> bytes:
    """Plot long-term spectra and noise floors of both folders; return a PNG."""
    figure, panels = new_figure(1, 1, width=9.0, height=4.5)
    axes = panels[0][0]
    for side, color in _SIDE_COLORS.items():
        recordings: list[AuditFeatures] = getattr(result, side)
        for name, style, part in (("long_term_db", "-", "whole"), ("floor_bands_db", "--", "rests")):
            levels = np.stack([_normalized_levels(features, name) for features in recordings])
            # Bands above the sample rate's limit, and the floor of recordings without rests, are NaN.
            known = np.isfinite(levels).sum(axis=0) > 0
            if not known.any():
                continue
            low, middle, high = np.nanpercentile(levels[:, known], [25, 50, 75], axis=0)
            hz = THIRD_OCTAVES_HZ[known]
            axes.plot(hz, middle, style, color=color, label=f"{side}, {part}")
            axes.fill_between(hz, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(xscale="log", xlabel="Hz", ylabel="dBFS at -23 LUFS")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure_png(figure)


def _normalized_levels(features: AuditFeatures, name: str) -> FloatArray:
    # -23 LUFS is the programme loudness of EBU R 128; any common level would do.
    levels: FloatArray = getattr(features.traces, name) - features.traces.loudness - 23.0
    return levels


def _distribution_blocks(result: AuditResult) -> list[ReportBlock]:
    # Distributions of every property would hide those that matter.
    suspicious = [
        (confound, finding)
        for finding, confound in zip(result.audit.findings, CONFOUNDS, strict=True)
        if finding.verdict in ("beware", "confounded")
    ]
    if not suspicious:
        return []
    blocks: list[ReportBlock] = [ReportHeading("What separates the folders")]
    for confound, finding in suspicious:
        caption = f"{confound.name}, {finding.verdict}: {format_remedy(finding, confound)}."
        blocks.append(
            ReportFigure(confound.name, plot_feature_distributions(confound.features, result), caption)
        )
    return blocks


def plot_feature_distributions(features: Sequence[ConfoundFeature], result: AuditResult) -> bytes:
    """Plot the features of every recording by folder; return a PNG."""
    figure, panels = new_figure(len(features), 1, width=9.0, height=1.6)
    # A strip of points for each folder: with few recordings a box plot would hide them.
    for (axes,), feature in zip(panels, features, strict=True):
        for row, (side, color) in enumerate(_SIDE_COLORS.items()):
            values = feature_values(feature, getattr(result, side))
            _plot_strip(axes, values[np.isfinite(values)], row, color)
        axes.set(yticks=[0, 1], yticklabels=list(_SIDE_COLORS), ylim=(1.6, -0.6))
        axes.set_xlabel(feature.label)
        if feature.log_scale:
            if feature.log_offset > 0:
                axes.set_xscale("symlog", linthresh=feature.log_offset)  # shows zeros
            else:
                axes.set_xscale("log")
            # Plain numbers: powers of ten are hard to read over less than a decade.
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3, axis="x")
    return figure_png(figure)


def _plot_strip(axes: Any, values: FloatArray, row: int, color: str) -> None:  # noqa: ANN401
    # Steps of the golden angle scatter neighbours evenly, so that equal values do not hide each other.
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    height = row + 0.35 * np.sin(2.399963 * order)
    axes.plot(values, height, ".", color=color, alpha=0.6)
