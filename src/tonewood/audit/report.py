"""An audit as one page: verdicts, spectra of both folders, and every suspicious feature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonewood.audit.classifiers import ALPHA, BEWARE_ACCURACY, CONFOUNDED_ACCURACY
from tonewood.audit.pipeline import (
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
from tonewood.utils.atomic_write import write_text

_SIDE_COLORS = {"reference": "tab:blue", "source": "tab:orange"}
_VERDICT_TEXT: dict[AuditVerdict, str] = {
    "fine": "No trace of room, microphone or codec tells the folders apart, as far as was asked.",
    "untested": "There are too few recordings to tell a habit from chance.",
    "beware": "Something besides the instrument tells the folders apart, though not always or not "
    "to the scorer: see what to do below.",
    "confounded": "Something besides the instrument tells the folders apart: a network that learns "
    "from them need not have learnt the instrument. Do what stands below, then train.",
}


def write_audit_report(
    path: Path, result: AuditResult, model: Model | None, *, overwrite: bool = False
) -> None:
    """Write the report of an audit, whole or not at all.

    Parameters
    ----------
    model : Model, optional
        One that was trained on these folders, to set its accuracy beside.
    """
    found = result.audit
    blocks: list[ReportBlock] = [f"Verdict: {found.verdict}. {_VERDICT_TEXT[found.verdict]}"]
    if found.verdict != "fine":
        blocks.append(f"{summarize_audit(found)[0].capitalize()}.")
    blocks += [_findings_table(found), *_baseline_blocks(found, model), ReportHeading("Spectra")]
    blocks.append(
        ReportFigure(
            "Long-term spectra and floors",
            plot_folder_spectra(result),
            "Level in third octaves, each recording brought to -23 LUFS: of the whole, and of the "
            "rests, broken. Line: median of the folder; shade: quartiles. That the upper lines "
            "differ is what an instrument may do; the lower ones are room and equipment.",
        )
    )
    blocks += _distribution_blocks(result)
    blocks += [
        ReportHeading("What was not asked"),
        "Only traces of room, microphone, codec and export were looked for. What is musical was "
        "not: which notes, how long, how loud one against the other, which player. If one folder "
        "holds scales and the other a suite, that is learnt too. Nor can a tail be told from how "
        "an instrument rings on by itself.",
    ]
    names = [printable(folder.resolve().name) for folder in result.folders]
    title = f"Audit of {names[0]} (reference) and {names[1]} (source)"
    write_text(path, render_report(title, blocks), overwrite=overwrite)


def _findings_table(audit: ConfoundAudit) -> ReportTable:
    rows = [["what", "verdict", "told apart", "p", "reference", "source", "what to do"]]
    for finding, confound in zip(audit.findings, CONFOUNDS, strict=True):
        features = "; ".join(feature.label for feature in confound.features)
        rows.append(
            [
                f"{finding.name}: {features}",
                finding.verdict,
                format_accuracy(finding.accuracy).replace(" ", "\u00a0") if finding.accuracy else "-",
                "-" if finding.p_value is None else f"{finding.p_value:.3f}",
                format_medians(finding, "reference"),
                format_medians(finding, "source"),
                format_remedy(finding, confound) if finding.verdict in ("beware", "confounded") else "",
            ]
        )
    return ReportTable(
        f"Of {audit.recordings[0]} reference and {audit.recordings[1]} source recordings. Told "
        "apart: balanced accuracy of a linear classifier on recordings that it did not learn from, "
        "50 % is chance, with its 95 % interval (Wilson's for each folder, joined). p: how often "
        "recordings that change places between the folders are told apart as well by any of the "
        f"questions; up to {ALPHA:g} counts. Beware from {100 * BEWARE_ACCURACY:.0f} %, confounded from "
        f"{100 * CONFOUNDED_ACCURACY:.0f} % at the interval's lower end; what the scorer does not hear is "
        "no more than a warning. Reference, source: medians of the features, in their order.",
        rows,
    )


def _baseline_blocks(audit: ConfoundAudit, model: Model | None) -> list[ReportBlock]:
    blocks: list[ReportBlock] = []
    if audit.spectrum is not None:
        text = (
            "The long-term spectrum, its level removed, tells "
            f"{format_accuracy(audit.spectrum)} of unheard recordings"
        )
        if model is not None:
            card = model.card.scorer
            text += (
                f"; the scorer of {printable(model.name)} is right on {100 * card.accuracy:.0f} % of "
                f"{card.windows} held-out windows"
            )
        blocks.append(
            f"{text}. This is not a confound by itself, an instrument has a colour; a network that "
            "does no better may have learnt no more than an equaliser's curve."
        )
    if audit.sessions:
        rows = [["session", "side", "windows", "told right, %"]]
        for it in audit.sessions:
            rows.append([printable(it.name), it.side, str(it.windows), f"{100 * it.accuracy:.0f}"])
        caption = (
            "The same on each session (sub-folder) when it was left out whole. A session that is "
            "told wrong shows that what was learnt belongs to the other sessions' days or rooms."
        )
        blocks += [ReportHeading("Unheard sessions"), ReportTable(caption, rows)]
    return blocks


def plot_folder_spectra(result: AuditResult) -> bytes:
    """Long-term spectra of both folders, and their floors; a PNG."""
    figure, panels = new_figure(1, 1, width=9.0, height=4.5)
    axes = panels[0][0]
    for side, colour in _SIDE_COLORS.items():
        evidence: list[AuditFeatures] = getattr(result, side)
        for name, style in (("long_term_db", "-"), ("floor_bands_db", "--")):
            levels = np.stack([_normalized_levels(it, name) for it in evidence])
            known = np.isfinite(levels).sum(axis=0) > 0
            if not known.any():
                continue
            low, middle, high = np.nanpercentile(levels[:, known], [25, 50, 75], axis=0)
            hz = THIRD_OCTAVES_HZ[known]
            what = "whole" if style == "-" else "rests"
            axes.plot(hz, middle, style, color=colour, label=f"{side}, {what}")
            axes.fill_between(hz, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xscale="log", xlabel="Hz", ylabel="dBFS at -23 LUFS")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure_png(figure)


def _normalized_levels(features: AuditFeatures, name: str) -> FloatArray:
    levels: FloatArray = getattr(features.traces, name) - features.traces.loudness - 23.0
    return levels


def _distribution_blocks(result: AuditResult) -> list[ReportBlock]:
    suspicious = [
        (confound, finding)
        for finding, confound in zip(result.audit.findings, CONFOUNDS, strict=True)
        if finding.verdict in ("beware", "confounded")
    ]
    if not suspicious:
        return []
    blocks: list[ReportBlock] = [ReportHeading("What tells the folders apart")]
    for confound, finding in suspicious:
        drawn = plot_feature_distributions(confound.features, result)
        caption = f"{confound.name}, {finding.verdict}: {format_remedy(finding, confound)}."
        blocks.append(ReportFigure(confound.name, drawn, caption))
    return blocks


def plot_feature_distributions(features: Sequence[ConfoundFeature], result: AuditResult) -> bytes:
    """Every recording's features by folder; a PNG."""
    figure, panels = new_figure(len(features), 1, width=9.0, height=1.6)
    for (axes,), feature in zip(panels, features, strict=True):
        for row, (side, colour) in enumerate(_SIDE_COLORS.items()):
            found = feature_values(feature, getattr(result, side))
            found = found[np.isfinite(found)]
            _plot_strip(axes, found, row, colour)
        axes.set(yticks=[0, 1], yticklabels=list(_SIDE_COLORS), ylim=(1.6, -0.6))
        axes.set_xlabel(feature.label)
        if feature.log_scale:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3, axis="x")
    return figure_png(figure)


def _plot_strip(axes: Any, values: FloatArray, row: int, colour: str) -> None:  # noqa: ANN401
    # Spread over the strip in rising order, so that equal values show how many they are.
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    at = row + 0.35 * np.sin(2.399963 * order)
    axes.plot(values, at, ".", color=colour, alpha=0.6)
