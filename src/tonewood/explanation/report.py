"""Plot explanations as in the paper's figure 3, and write them as HTML pages."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tonewood.dsp.features import center_frequencies
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.plotting import plot_gains, plot_levels
from tonewood.explanation.note_statistics import ConfidenceInterval, PartWeight
from tonewood.explanation.pipeline import OCTAVE_CENTERS_HZ, PART_NAMES, Explanation, ExplanationFigures
from tonewood.html_report import (
    ReportAudio,
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    figure_png,
    render_report,
)
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.scorer.saliency import Faithfulness
from tonewood.utils.arrays import Levels, Samples

_PART_COLORS = ("#d62728", "#7f7f7f", "#1f77b4", "#ff7f0e", "#9467bd", "#ffffff")  # of PART_NAMES
_MAX_PLOT_POINTS = 1600
_COLOR_QUANTILE = 0.995  # of the map; larger values have the full color
_METHOD_NAMES = {
    "cam": "class activation maps",
    "integrated": "integrated gradients",
    "gradcam": "gradient-weighted class activation maps",
}
_PARTS_CAPTION = (
    "Weight: share of the evidence divided by share of the time; 1 is the average, negative speaks against "
    "the class. Absolute: the same for the absolute value of the evidence. More than steady: difference to "
    "steady parts of the same recordings, in logits. In brackets: 95 % intervals over recordings, if there "
    "are several."
)


def plot_explanation(explanation: Explanation, wave: Samples, model: Model, title: str) -> bytes:
    """Plot the spectrogram of a waveform [sample], the map and the parts; return a PNG."""
    from matplotlib.figure import Figure

    spectrum = model.settings.spectrum
    levels: Levels = log_magnitude(stft(wave, spectrum), spectrum)
    evidence = np.nan_to_num(explanation.evidence, nan=0.0)
    flat = np.abs(evidence).ravel()
    # A quantile instead of the maximum, so that one cell does not fade all others.
    reach = float(np.quantile(flat[:: 1 + len(flat) // 1_000_000], _COLOR_QUANTILE))
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    hop = spectrum.hop / spectrum.rate
    # A mask interpolates rows to the frequencies of the spectrogram, so that both panels line up.
    evidence_mask = Mask(evidence.astype(np.float32), hz, hop, spectrum.rate / 2).clip(reach)
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    plot_levels(top, levels, spectrum, title)
    plot_gains(
        middle,
        evidence_mask,
        levels.shape[1],
        spectrum,
        f"evidence for the {explanation.side} ({explanation.method})",
        label="logit",
        min_range_db=1e-6,
    )
    _plot_parts(bottom, explanation, hop)
    bottom.set_xlabel("s")
    return figure_png(figure)


def _plot_parts(axes: Any, explanation: Explanation, hop: float) -> None:  # noqa: ANN401
    """Plot the parts of notes as colored stripes, and the evidence per frame over them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    evidence = explanation.frame_evidence
    seconds = len(evidence) * hop
    low, high = min(float(np.nanmin(evidence)), 0.0), max(float(np.nanmax(evidence)), 0.0) + 1e-6
    colors = ListedColormap(_PART_COLORS)
    norm = BoundaryNorm(np.arange(len(PART_NAMES) + 1), len(PART_NAMES))
    stripes = ScalarMappable(norm, colors)
    if explanation.parts is not None:
        stripes = axes.imshow(
            explanation.parts.labels[None].astype(np.int64) % len(PART_NAMES),
            origin="lower",
            aspect="auto",
            extent=(0.0, seconds, low, high),
            cmap=colors,
            norm=norm,
            alpha=0.45,
            interpolation="nearest",
        )
    bar = axes.figure.colorbar(stripes, ax=axes, pad=0.01, ticks=np.arange(len(PART_NAMES)) + 0.5)
    bar.ax.set_yticklabels(PART_NAMES)
    # More points than pixels only make the figure slow.
    step = max(1, len(evidence) // _MAX_PLOT_POINTS)
    axes.plot(np.arange(len(evidence))[::step] * hop, evidence[::step], color="black", linewidth=1)
    axes.axhline(0, color="black", linewidth=0.5)
    name = "parts of notes, and evidence" if explanation.parts else "evidence"
    axes.set(title=name, ylabel="logit", xlim=(0, seconds), ylim=(low, high))


def plot_faithfulness(faithfulness: Faithfulness) -> bytes:
    """Plot deletion and insertion for the map and for random orders; return a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), strict=True):
        for draw in getattr(faithfulness, f"random_{name}"):
            axes.plot(faithfulness.share, draw, color="0.75", linewidth=0.8)
        axes.plot(faithfulness.share, getattr(faithfulness, name), color="tab:red", label="the map")
        axes.plot([], [], color="0.75", label="random regions")
        axes.set(title=name, xlabel="share of the blocks")
        axes.legend()
    figure.axes[0].set_ylabel("logit")
    return figure_png(figure)


def explanation_page(
    explanation: Explanation,
    parts: Sequence[PartWeight],
    picture_png: bytes,
    sounds: Sequence[ReportAudio | str],
    title: str,
    model: str,
) -> str:
    """Return the HTML page of one recording."""
    faithful = explanation.faithfulness
    random_deletion, random_insertion = faithful.random_areas
    side, method = explanation.side, explanation.method
    residual = f", except for up to {explanation.residual:.4f}" if method == "gradcam" else ""
    blocks: list[ReportBlock] = [
        f"Model {model} gives a score of {explanation.score:.3f}: 0 sounds like the reference, 1 like the "
        f"source. Explained class: {side}. Method: {_METHOD_NAMES[method]}.",
        ReportFigure(
            "Spectrogram, saliency and parts",
            picture_png,
            f"Top: the recording. Middle: evidence for the {side} (red) and against it (blue). Bottom: parts "
            "of notes, and the logit of a recording whose frames were all like this one. The mean of the "
            f"map, {explanation.map_mean:.4f}, and the bias, {explanation.base:.4f}, add up to the logit, "
            f"{explanation.logit:.4f}{residual}. These are means over {explanation.windows} windows.",
        ),
        ReportHeading("Is the map faithful to the scorer?"),
        f"{faithful.line[0].upper()}{faithful.line[1:]}.",
        ReportFigure(
            "Deletion and insertion",
            plot_faithfulness(faithful),
            "The logit while blocks of the spectrogram are replaced by the mean of the folders (deletion) or "
            "restored (insertion), the most salient first, and in random orders. Area under deletion: "
            f"{faithful.deletion_area:.2f}, random {random_deletion:.2f}; less is better. Under insertion: "
            f"{faithful.insertion_area:.2f}, random {random_insertion:.2f}; more is better.",
        ),
    ]
    if sounds:
        blocks += [ReportHeading("Evidence as audio"), *sounds]
    octaves = [ConfidenceInterval(mean=float(value)) for value in explanation.octaves]
    blocks += explanation_tables(parts, octaves, side)
    return render_report(f"Explanation of {title}", blocks)


def explanation_index_page(
    parts: Sequence[PartWeight],
    octaves: Sequence[ConfidenceInterval],
    figures: Sequence[ExplanationFigures],
    model: str,
) -> str:
    """Return the HTML page of several recordings."""
    side = figures[0].side
    rows = [("recording", "score", "logit", "map is faithful")]
    rows += [
        (row.name, f"{row.score:.3f}", f"{row.logit:.2f}", "yes" if row.holds else "no") for row in figures
    ]
    return render_report(
        f"Explanation of {len(figures)} recordings",
        [
            f"Model {model}. Explained class: {side}. Method: {_METHOD_NAMES[figures[0].method]}.",
            *explanation_tables(parts, octaves, side),
            ReportHeading("Recordings"),
            ReportTable("Each recording has its own page in this folder.", rows),
        ],
    )


def explanation_tables(
    parts: Sequence[PartWeight], octaves: Sequence[ConfidenceInterval], side: str
) -> list[ReportBlock]:
    """Return the tables by part and by octave."""
    blocks: list[ReportBlock] = []
    if parts:
        blocks = [ReportHeading("By part of the note"), ReportTable(_PARTS_CAPTION, parts_table(parts))]
    return [
        *blocks,
        ReportHeading("By octave"),
        ReportTable(
            f"Contribution of the average level in each octave to the logit for the {side}: integrated "
            "gradients from a copy with the mean spectrum of the folders to the recording.",
            octaves_table(octaves),
        ),
    ]


def parts_table(parts: Sequence[PartWeight]) -> Sequence[Sequence[str]]:
    """Return the weights of parts as text; the header is the first row."""
    head = ("part", "seconds", "weight", "absolute", "evidence, logit", "more than steady")
    return [head] + [
        (
            part.name,
            f"{part.seconds:.1f}",
            str(part.weight or "-"),
            str(part.absolute),
            str(part.evidence),
            str(part.beyond or "-"),
        )
        for part in parts
    ]


def octaves_table(octaves: Sequence[ConfidenceInterval]) -> Sequence[Sequence[str]]:
    """Return the evidence by octave as text; the header is the first row."""
    rows = [(f"{hz} Hz", str(interval)) for hz, interval in zip(OCTAVE_CENTERS_HZ, octaves, strict=True)]
    return [("octave", "evidence, logit"), *rows]
