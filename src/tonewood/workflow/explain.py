"""A recording and a model → what the scorer heard: where, in which parts of notes, how surely."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import CallError
from tonewood.evaluation.weights import Floats, Tally, tally
from tonewood.files.audio import resample
from tonewood.files.modelfile import Model
from tonewood.masking.mask import Mask, smoothed
from tonewood.masking.render import Rendered, matched, rendered
from tonewood.scoring.faithful import DRAWS, Faithfulness, faithfulness
from tonewood.scoring.saliency import Method, by_row, explained
from tonewood.scoring.training import audible, windows
from tonewood.settings import RenderSettings, Settings
from tonewood.signal import parts as segmentation
from tonewood.signal.bands import centres_hz
from tonewood.signal.parts import Parts
from tonewood.workflow.enhance import mono_at, rows_of

Side = Literal["reference", "source"]
NAMES = (*segmentation.PARTS, "quiet")
OCTAVES = (63, 125, 250, 500, 1_000, 2_000, 4_000, 8_000)  # Hz, the middle of each

_HELD_DB = -60.0  # gain of what speaks for nothing
_NO_FADE_HZ = 1e6  # beyond any recording's half rate
_FULL = 0.9  # quantile of the evidence from which all of a cell is heard
_SMOOTH_FRAMES, _SMOOTH_ROWS = 5, 3


class Sounds(NamedTuple):
    """The recording filtered to what speaks for the class, and what that leaves."""

    used: Rendered
    rest: Rendered


class Figures(Settings):
    """What the table of several recordings takes of each.

    `sums` are seconds, evidence and absolute evidence by part.
    """

    name: str
    side: Side
    method: Method
    score: float
    logit: float
    holds: bool
    octaves: tuple[float, ...]
    sums: tuple[tuple[float, ...], ...] | None

    @property
    def tally(self) -> Tally | None:
        """Evidence by part."""
        return None if self.sums is None else Tally(*map(np.array, self.sums))


@dataclass(frozen=True, eq=False)
class Explanation:
    """What made a recording's score.

    Parameters
    ----------
    side : {"reference", "source"}
        The class that is explained; what speaks for it is positive throughout.
    evidence : Tensor [row, frame]
        Saliency, the base spread evenly over it, in logits; averaged where windows overlap, NaN in
        windows that are not scored. Zero is undecided.
    logit, map_mean, base : float
        Means over the windows that are scored: logit = map_mean + base, but for the residual.
    residual : float
        Largest difference from a window's logit that its map leaves unexplained.
    score : float
        As `tonewood score` gives it: 0 sounds like the reference.
    octaves : float array (octave,)
        What the average level in each octave added to the logit.
    parts : Parts or None
        None if they were not asked for.
    faithful : Faithfulness
    """

    side: Side
    method: Method
    evidence: Tensor
    logit: float
    map_mean: float
    base: float
    residual: float
    score: float
    windows: int
    octaves: Floats
    parts: Parts | None
    faithful: Faithfulness

    @property
    def along(self) -> Floats:
        """Evidence of every frame [frame], in logits: the mean of its rows."""
        means: Floats = self.evidence.mean(dim=0).double().numpy()
        return means

    def tally(self, frame_seconds: float) -> Tally | None:
        """Evidence by part."""
        if self.parts is None:
            return None
        return tally(self.along, self.parts.labels, len(NAMES), frame_seconds)

    def figures(self, name: str, frame_seconds: float) -> Figures:
        """What a table of several recordings takes of this one."""
        found = self.tally(frame_seconds)
        sums = None
        if found is not None:
            sums = tuple(
                tuple(it.tolist()) for it in (found.seconds, found.evidence, found.absolute)
            )
        return Figures(
            name=name,
            side=self.side,
            method=self.method,
            score=self.score,
            logit=self.logit,
            holds=self.faithful.holds,
            octaves=tuple(self.octaves.tolist()),
            sums=sums,
        )

    @property
    def summary(self) -> dict[str, Any]:
        """Figures, as JSON."""
        names = ("side", "method", "score", "logit", "map_mean", "base", "residual", "windows")
        told = {{"side": "for"}.get(name, name): getattr(self, name) for name in names}
        faithful = self.faithful
        random = faithful.random_areas
        return {
            **told,
            "octaves": dict(zip(map(str, OCTAVES), self.octaves.tolist(), strict=True)),
            "faithful": {
                "holds": faithful.holds,
                "verdict": faithful.line,
                "share": faithful.share.tolist(),
                "deletion": faithful.deletion.tolist(),
                "insertion": faithful.insertion.tolist(),
                "deletion_area": faithful.deletion_area,
                "insertion_area": faithful.insertion_area,
                "random_deletion_area": random[0],
                "random_insertion_area": random[1],
                "beaten": list(faithful.beaten),
            },
        }


def explain(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    *,
    side: Side = "reference",
    method: Method = "cam",
    parts: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Explanation:
    """Explain the score of samples (channels, samples) at any rate.

    Worked in double precision, window by window as `score` cuts them.

    Parameters
    ----------
    parts : bool
        Whether to name the parts of notes, which takes a sixth of the recording's duration.
    draws : int
        Random orders of regions that the map is compared with, one at least.
    seed : int
        Draws them.

    Raises
    ------
    CallError, MissingExtraError
        There is no such class or method, or what it needs is not installed.
    """
    check_side(side)
    wave = mono_at(samples, rate, model)
    rows = rows_of(wave, model).double()
    scorer = deepcopy(model.scorer).double()
    cut = windows(rows, scorer.crop_frames)
    heard = audible(cut)
    clips = cut[heard]
    sign = -1.0 if side == "reference" else 1.0
    saliency = explained(scorer, clips, method)
    normalised = scorer.normalised(clips)

    def value(clips: Tensor) -> Tensor:
        with torch.no_grad():
            return sign * model.scorer.logit_of(clips.float())

    frames = rows.shape[1]
    spectrum = model.settings.spectrum
    found = None
    if parts:
        at_rate = resample(wave.numpy(), spectrum.rate, segmentation.RATE)
        found = segmentation.parts(at_rate, frames, spectrum.frames_per_second)
    return Explanation(
        side=side,
        method=method,
        evidence=_joined(sign * (saliency.cells + saliency.base), heard, frames),
        logit=sign * float(saliency.logits.mean()),
        map_mean=sign * float(saliency.cells.mean()),
        base=sign * saliency.base,
        residual=saliency.residual,
        score=float(torch.sigmoid(saliency.logits).mean()),
        windows=len(clips),
        octaves=_by_octave(sign * by_row(scorer, clips).mean(dim=0), model),
        parts=found,
        faithful=faithfulness(
            value,
            normalised,
            torch.zeros_like(normalised),  # the mean row throughout
            sign * saliency.cells,
            torch.Generator().manual_seed(seed),
            draws=draws,
        ),
    )


def check_side(side: str) -> None:
    """Raise CallError unless it is one of the two classes."""
    if side not in get_args(Side):
        raise CallError(f"the class is {side!r}; choose {' or '.join(get_args(Side))}")


def listen(
    samples: NDArray[np.float32], rate: int, explanation: Explanation, model: Model
) -> Sounds | None:
    """Filter samples (channels, samples) to what speaks for the class, and to what that leaves.

    A soft mask: cells are heard in full from the top tenth of the evidence, in proportion
    below, not at all where they speak against the class; above what the scorer hears, nothing is.
    The two sum to the recording before each is made as loud as that. None if nothing in it speaks
    for the class.
    """
    mask = soft_mask(explanation.evidence, model)
    if mask is None:
        return None
    settings = RenderSettings()
    raw = rendered(
        samples, rate, mask, settings.model_copy(update={"match": False}), model.settings.spectrum
    )
    like = partial(matched, rate=rate, loudness=raw.loudness_before, settings=settings)
    return Sounds(like(raw.samples), like(samples - raw.samples))


def soft_mask(evidence: Tensor, model: Model) -> Mask | None:
    """Mask whose gains follow evidence [row, frame] for a class; None where there is none."""
    positive = smoothed(evidence.nan_to_num(0.0).clamp_min(0), _SMOOTH_FRAMES, _SMOOTH_ROWS)
    some = positive[positive > 0]
    if some.numel() == 0:
        return None
    share = (positive / torch.quantile(some[:: 1 + len(some) // 1_000_000], _FULL)).clamp_max(1)
    gain = 20 * torch.log10(share.clamp_min(10 ** (_HELD_DB / 20)))
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    hz = centres_hz(bands, spectrum)
    # One row more, held down, just past what the scorer hears; no fade to 0 dB above it.
    rows = np.concatenate([gain.numpy(), np.full((1, gain.shape[1]), _HELD_DB)])
    return Mask(
        rows.astype(np.float32),
        np.append(hz, max(spectrum.rate / 2, hz[-1] + 1.0)),
        spectrum.hop / spectrum.rate,
        top_hz=_NO_FADE_HZ,
    )


def _joined(cut: Tensor, heard: Tensor, frames: int) -> Tensor:
    """Windows [n, row, frame] of those heard, laid where `windows` cut them: [row, frame]."""
    length = cut.shape[2]
    starts = torch.tensor([*range(0, frames - length, length), frames - length])[heard]
    total, count = torch.zeros(cut.shape[1], frames, dtype=cut.dtype), torch.zeros(frames)
    for start, window in zip(starts.tolist(), cut, strict=True):
        total[:, start : start + length] += window
        count[start : start + length] += 1
    return total / torch.where(count > 0, count, torch.nan)


def _by_octave(rows: Tensor, model: Model) -> Floats:
    hz = centres_hz(model.settings.scorer.bands, model.settings.spectrum)
    edges = np.sqrt(np.array(OCTAVES[:-1]) * np.array(OCTAVES[1:]))
    place = np.searchsorted(edges, hz)
    return np.bincount(place, rows.numpy(), minlength=len(OCTAVES)).astype(np.float64)
