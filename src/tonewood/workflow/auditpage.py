"""An audit as one page: verdicts, spectra of both folders, and every suspicious feature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonewood.errors import shown
from tonewood.files.folders import Evidence
from tonewood.files.modelfile import Model
from tonewood.files.output import write_text
from tonewood.scoring.audit import ALPHA, BEWARE, CONFOUNDED
from tonewood.scoring.findings import Audit, Verdict, percent, summary
from tonewood.signal.marks import CENTRES_HZ, Floats
from tonewood.workflow.audit import Audited, advice, medians
from tonewood.workflow.confounds import CONFOUNDS, Feature, values
from tonewood.workflow.figures import new_figure, png
from tonewood.workflow.page import Block, Heading, Picture, Table, page

_COLOURS = {"reference": "tab:blue", "source": "tab:orange"}
_MEANING: dict[Verdict, str] = {
    "fine": "No trace of room, microphone or codec tells the folders apart, as far as was asked.",
    "untested": "There are too few recordings to tell a habit from chance.",
    "beware": "Something besides the instrument tells the folders apart, though not always or not "
    "to the scorer: see what to do below.",
    "confounded": "Something besides the instrument tells the folders apart: a network that learns "
    "from them need not have learnt the instrument. Do what stands below, then train.",
}


def write(path: Path, done: Audited, model: Model | None, *, overwrite: bool = False) -> None:
    """Write the report of an audit, whole or not at all.

    Parameters
    ----------
    model : Model, optional
        One that was trained on these folders, to set its accuracy beside.
    """
    found = done.audit
    blocks: list[Block] = [f"Verdict: {found.verdict}. {_MEANING[found.verdict]}"]
    if found.verdict != "fine":
        blocks.append(f"{summary(found)[0].capitalize()}.")
    blocks += [_table(found), *_baseline(found, model), Heading("Spectra")]
    blocks.append(
        Picture(
            "Long-term spectra and floors",
            spectra(done),
            "Level in third octaves, each recording brought to -23 LUFS: of the whole, and of the "
            "rests, broken. Line: median of the folder; shade: quartiles. That the upper lines "
            "differ is what an instrument may do; the lower ones are room and equipment.",
        )
    )
    blocks += _distributions(done)
    blocks += [
        Heading("What was not asked"),
        "Only traces of room, microphone, codec and export were looked for. What is musical was "
        "not: which notes, how long, how loud one against the other, which player. If one folder "
        "holds scales and the other a suite, that is learnt too. Nor can a tail be told from how "
        "an instrument rings on by itself.",
    ]
    names = [shown(folder.resolve().name) for folder in done.folders]
    title = f"Audit of {names[0]} (reference) and {names[1]} (source)"
    write_text(path, page(title, blocks), overwrite=overwrite)


def _table(found: Audit) -> Table:
    rows = [["what", "verdict", "told apart", "p", "reference", "source", "what to do"]]
    for finding, confound in zip(found.findings, CONFOUNDS, strict=True):
        features = "; ".join(feature.label for feature in confound.features)
        rows.append(
            [
                f"{finding.name}: {features}",
                finding.verdict,
                percent(finding.accuracy).replace(" ", "\u00a0") if finding.accuracy else "-",
                "-" if finding.p_value is None else f"{finding.p_value:.3f}",
                medians(finding, "reference"),
                medians(finding, "source"),
                advice(finding, confound) if finding.verdict in ("beware", "confounded") else "",
            ]
        )
    return Table(
        f"Of {found.recordings[0]} reference and {found.recordings[1]} source recordings. Told "
        "apart: balanced accuracy of a linear classifier on recordings that it did not learn from, "
        "50 % is chance, with its 95 % interval (Wilson's for each folder, joined). p: how often "
        "recordings that change places between the folders are told apart as well by any of the "
        f"questions; up to {ALPHA:g} counts. Beware from {100 * BEWARE:.0f} %, confounded from "
        f"{100 * CONFOUNDED:.0f} % at the interval's lower end; what the scorer does not hear is "
        "no more than a warning. Reference, source: medians of the features, in their order.",
        rows,
    )


def _baseline(found: Audit, model: Model | None) -> list[Block]:
    blocks: list[Block] = []
    if found.spectrum is not None:
        text = (
            "The long-term spectrum, its level removed, tells "
            f"{percent(found.spectrum)} of unheard recordings"
        )
        if model is not None:
            card = model.card.scorer
            text += (
                f"; the scorer of {shown(model.name)} is right on {100 * card.accuracy:.0f} % of "
                f"{card.windows} held-out windows"
            )
        blocks.append(
            f"{text}. This is not a confound by itself, an instrument has a colour; a network that "
            "does no better may have learnt no more than an equaliser's curve."
        )
    if found.sessions:
        rows = [["session", "side", "windows", "told right, %"]]
        for it in found.sessions:
            rows.append([shown(it.name), it.side, str(it.windows), f"{100 * it.accuracy:.0f}"])
        caption = (
            "The same on each session (sub-folder) when it was left out whole. A session that is "
            "told wrong shows that what was learnt belongs to the other sessions' days or rooms."
        )
        blocks += [Heading("Unheard sessions"), Table(caption, rows)]
    return blocks


def spectra(done: Audited) -> bytes:
    """Long-term spectra of both folders, and their floors; a PNG."""
    figure, panels = new_figure(1, 1, width=9.0, height=4.5)
    axes = panels[0][0]
    for side, colour in _COLOURS.items():
        evidence: list[Evidence] = getattr(done, side)
        for name, style in (("long_term_db", "-"), ("floor_bands_db", "--")):
            levels = np.stack([_at_one_loudness(it, name) for it in evidence])
            known = np.isfinite(levels).sum(axis=0) > 0
            if not known.any():
                continue
            low, middle, high = np.nanpercentile(levels[:, known], [25, 50, 75], axis=0)
            hz = CENTRES_HZ[known]
            what = "whole" if style == "-" else "rests"
            axes.plot(hz, middle, style, color=colour, label=f"{side}, {what}")
            axes.fill_between(hz, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xscale="log", xlabel="Hz", ylabel="dBFS at -23 LUFS")
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def _at_one_loudness(it: Evidence, name: str) -> Floats:
    levels: Floats = getattr(it.traces, name) - it.traces.loudness - 23.0
    return levels


def _distributions(done: Audited) -> list[Block]:
    suspicious = [
        (confound, finding)
        for finding, confound in zip(done.audit.findings, CONFOUNDS, strict=True)
        if finding.verdict in ("beware", "confounded")
    ]
    if not suspicious:
        return []
    blocks: list[Block] = [Heading("What tells the folders apart")]
    for confound, finding in suspicious:
        drawn = distribution(confound.features, done)
        caption = f"{confound.name}, {finding.verdict}: {advice(finding, confound)}."
        blocks.append(Picture(confound.name, drawn, caption))
    return blocks


def distribution(features: Sequence[Feature], done: Audited) -> bytes:
    """Every recording's features by folder; a PNG."""
    figure, panels = new_figure(len(features), 1, width=9.0, height=1.6)
    for (axes,), feature in zip(panels, features, strict=True):
        for row, (side, colour) in enumerate(_COLOURS.items()):
            found = values(feature, getattr(done, side))
            found = found[np.isfinite(found)]
            _strip(axes, found, row, colour)
        axes.set(yticks=[0, 1], yticklabels=list(_COLOURS), ylim=(1.6, -0.6))
        axes.set_xlabel(feature.label)
        if feature.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3, axis="x")
    return png(figure)


def _strip(axes: Any, found: Floats, row: int, colour: str) -> None:  # noqa: ANN401
    # Spread over the strip in rising order, so that equal values show how many they are.
    order = np.argsort(np.argsort(found, kind="stable"), kind="stable")
    at = row + 0.35 * np.sin(2.399963 * order)
    axes.plot(found, at, ".", color=colour, alpha=0.6)
