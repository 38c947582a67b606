"""An explanation to look at: spectrogram, map and parts, as in the paper's figure 3, and a page."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.plotting import plot_gains, plot_levels
from tonewood.explanation.note_statistics import ConfidenceInterval, PartWeight
from tonewood.explanation.pipeline import (
    OCTAVE_CENTERS_HZ,
    PART_NAMES,
    Explanation,
    ExplanationFigures,
)
from tonewood.html_report import (
    ReportAudio,
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    render_report,
)
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.scorer.saliency import Faithfulness

_PART_COLORS = ("#d62728", "#7f7f7f", "#1f77b4", "#ff7f0e", "#9467bd", "#ffffff")  # of NAMES
_MAX_PLOT_POINTS = 1600
_COLOR_QUANTILE = 0.995  # quantile of the map from which its colours are full


def plot_explanation(explanation: Explanation, wave: Tensor, model: Model, title: str) -> bytes:
    """Spectrogram of a waveform [sample], map and parts, one below the other; a PNG."""
    from matplotlib.figure import Figure

    spectrum = model.settings.spectrum
    levels: NDArray[np.float32] = log_magnitude(stft(wave, spectrum), spectrum).numpy()
    evidence = explanation.evidence.nan_to_num(0.0)
    flat = evidence.abs().flatten()
    reach = float(torch.quantile(flat[:: 1 + len(flat) // 1_000_000], _COLOR_QUANTILE))
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    hop = spectrum.hop / spectrum.rate
    # Brought to the spectrogram's own frequencies as a mask is, so that both panels line up.
    drawn = Mask(evidence.float().numpy(), hz, hop, spectrum.rate / 2).clip(reach)
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    plot_levels(top, levels, spectrum, title)
    plot_gains(
        middle,
        drawn,
        levels.shape[1],
        spectrum,
        f"what speaks for the {explanation.side} ({explanation.method})",
        label="logit",
        min_range_db=1e-6,
    )
    _plot_parts(bottom, explanation, hop)
    bottom.set_xlabel("s")
    return _figure_to_png(figure)


def _plot_parts(axes: Any, explanation: Explanation, hop: float) -> None:  # noqa: ANN401
    """Show the parts of notes as coloured stripes, and the evidence of every frame over them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    along = explanation.frame_evidence
    seconds = len(along) * hop
    low, high = min(float(np.nanmin(along)), 0.0), max(float(np.nanmax(along)), 0.0) + 1e-6
    colours, norm = (
        ListedColormap(_PART_COLORS),
        BoundaryNorm(np.arange(len(PART_NAMES) + 1), len(PART_NAMES)),
    )
    shown = ScalarMappable(norm, colours)
    if explanation.parts is not None:
        shown = axes.imshow(
            explanation.parts.labels[None].astype(np.int64) % len(PART_NAMES),
            origin="lower",
            aspect="auto",
            extent=(0.0, seconds, low, high),
            cmap=colours,
            norm=norm,
            alpha=0.45,
            interpolation="nearest",
        )
    bar = axes.figure.colorbar(shown, ax=axes, pad=0.01, ticks=np.arange(len(PART_NAMES)) + 0.5)
    bar.ax.set_yticklabels(PART_NAMES)
    step = max(1, len(along) // _MAX_PLOT_POINTS)
    axes.plot(np.arange(len(along))[::step] * hop, along[::step], color="black", linewidth=1)
    axes.axhline(0, color="black", linewidth=0.5)
    name = "parts of notes, and evidence along them" if explanation.parts else "evidence"
    axes.set(title=name, ylabel="logit", xlim=(0, seconds), ylim=(low, high))


def plot_faithfulness(faithfulness: Faithfulness) -> bytes:
    """Draw deletion and insertion, the map's and the random orders'; a PNG."""
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
    return _figure_to_png(figure)


def explanation_page(
    explanation: Explanation,
    parts: Sequence[PartWeight],
    picture_png: bytes,
    sounds: Sequence[ReportAudio | str],
    title: str,
    model: str,
) -> str:
    """Page of one recording."""
    it, faithful = explanation, explanation.faithfulness
    random = faithful.random_areas
    blocks: list[ReportBlock] = [
        f"Model {model} gives it {it.score:.3f}: 0 sounds like the reference, 1 like the source. "
        f"Explained for the {it.side}, by {_METHOD_NAMES[it.method]}.",
        ReportFigure(
            "Spectrogram, saliency and parts",
            picture_png,
            f"The recording; what in it speaks for the {it.side} (red) and against it (blue); the "
            "parts of its notes, and over them what the scorer would say were all as that moment "
            f"is. The map's mean, {it.map_mean:.4f}, and the bias, {it.base:.4f}, add up to the "
            f"logit, {it.logit:.4f}, over {it.windows} windows"
            + ("." if it.method != "gradcam" else f", but for {it.residual:.4f}."),
        ),
        ReportHeading("Is the map true to the scorer?"),
        f"{faithful.line[0].upper()}{faithful.line[1:]}.",
        ReportFigure(
            "Deletion and insertion",
            plot_faithfulness(faithful),
            "The logit while blocks of the spectrogram are replaced by the folders' mean, or put "
            "back in its place, the most salient first, and in random orders. Area under deletion "
            f"{faithful.deletion_area:.2f}, random {random[0]:.2f}, less is better; under "
            f"insertion {faithful.insertion_area:.2f}, random {random[1]:.2f}, more is better.",
        ),
    ]
    if sounds:
        blocks += [ReportHeading("What the scorer used, to listen to"), *sounds]
    blocks += explanation_tables(
        parts, [ConfidenceInterval(mean=float(value)) for value in it.octaves], it.side
    )
    return render_report(f"What the scorer heard in {title}", blocks)


def explanation_index_page(
    parts: Sequence[PartWeight],
    octaves: Sequence[ConfidenceInterval],
    figures: Sequence[ExplanationFigures],
    model: str,
) -> str:
    """Page of several recordings: what their parts weigh, and the recordings by name."""
    side = figures[0].side
    rows = [("recording", "score", "logit", "map holds")]
    rows += [(it.name, f"{it.score:.3f}", f"{it.logit:.2f}", "yes" if it.holds else "no") for it in figures]
    return render_report(
        f"What the scorer heard in {len(figures)} recordings",
        [
            f"Model {model}; explained for the {side}, by {_METHOD_NAMES[figures[0].method]}.",
            *explanation_tables(parts, octaves, side),
            ReportHeading("Recordings"),
            ReportTable("A page of its own lies beside this one for each.", rows),
        ],
    )


def explanation_tables(
    parts: Sequence[PartWeight], octaves: Sequence[ConfidenceInterval], side: str
) -> list[ReportBlock]:
    """Tables by part and by octave."""
    blocks: list[ReportBlock] = []
    if parts:
        blocks = [
            ReportHeading("What musicians call it"),
            ReportTable(_PARTS_CAPTION, parts_table(parts)),
        ]
    return [
        *blocks,
        ReportHeading("By octave"),
        ReportTable(
            f"What the average level in each octave adds to the logit for the {side}, on the way "
            "from the recording with the folders' mean spectrum to the recording as it is.",
            octaves_table(octaves),
        ),
    ]


def parts_table(parts: Sequence[PartWeight]) -> Sequence[Sequence[str]]:
    """Weights of parts as text, the head first."""
    head = ("part", "seconds", "weight", "absolute", "evidence, logit", "more than steady")
    return [head] + [
        (
            it.name,
            f"{it.seconds:.1f}",
            str(it.weight or "-"),
            str(it.absolute),
            str(it.evidence),
            str(it.beyond or "-"),
        )
        for it in parts
    ]


def octaves_table(octaves: Sequence[ConfidenceInterval]) -> Sequence[Sequence[str]]:
    """Evidence by octave as text, the head first."""
    rows = [(f"{hz} Hz", str(it)) for hz, it in zip(OCTAVE_CENTERS_HZ, octaves, strict=True)]
    return [("octave", "evidence, logit"), *rows]


_METHOD_NAMES = {
    "cam": "class activation maps",
    "integrated": "integrated gradients",
    "gradcam": "gradient-weighted class activation maps",
}
_PARTS_CAPTION = (
    "Weight: share of the evidence per share of the time; 1 is the average, 2 twice as much in as "
    "long a time, negative speaks against the class. Absolute: the same, whichever way the "
    "evidence points. More than steady: in logits, recording by recording. In brackets, where "
    "there are several recordings, 95 % intervals over them."
)


def _figure_to_png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib comes without types
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
