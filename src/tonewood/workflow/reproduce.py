"""A corpus → the paper's figures, its accuracy and a table of methods, on one page."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import FolderError, printable
from tonewood.evaluation.metrics import gap_closed, mel_distance
from tonewood.files.modelfile import Model
from tonewood.files.output import prepare_report_folder, write_bytes, write_text
from tonewood.settings import EnhanceSettings, ModelSettings, Settings, apply_assignments, default_enhance_settings
from tonewood.workflow import figures, pairs
from tonewood.workflow.audit import AuditProgress
from tonewood.workflow.courses import CheckEvent
from tonewood.workflow.enhance import to_analysis_rate
from tonewood.workflow.layout import FileFailure
from tonewood.workflow.opinions import ListenerAudioProgress
from tonewood.workflow.page import ReportFigure, ReportTable, render_report
from tonewood.workflow.pairs import MeasureProgress, RecordingPair, pairs_by_name, apply_method, to_mono_16k
from tonewood.workflow.score import score_array
from tonewood.workflow.sides import SideLoadProgress
from tonewood.workflow.teach import LabelProgress
from tonewood.workflow.train import check_device, train_from_folders

REPRODUCTION_PAGE, REPRODUCTION_TABLE = "index.html", "table.json"
FIGURE_FILES = ("figure-1.png", "figure-2.png", "figure-3.png")
_MAX_LENGTH_MISMATCH = 0.02  # of a pair's length; more is no alignment

_FREE_MASK_METHOD = "paper: random pixels, α = β = 0"
_BLOCK_MASK_METHOD = "paper: rectangular blocks"
_SEARCH_SETTINGS, _PAPER_SETTINGS = default_enhance_settings("search"), default_enhance_settings("paper")
REPRODUCED_METHODS: dict[str, EnhanceSettings | None] = {
    pairs.METHOD_UNTOUCHED: None,
    pairs.METHOD_STATIC: pairs.EVALUATED_METHODS[pairs.METHOD_STATIC],
    "neighbours": apply_assignments(_SEARCH_SETTINGS, ["prior.kind=neighbours", "search.steps=0"]),
    _FREE_MASK_METHOD: apply_assignments(_PAPER_SETTINGS, ["prior.kind=random", "search.alpha=0", "search.beta=0"]),
    _BLOCK_MASK_METHOD: _PAPER_SETTINGS,
    pairs.METHOD_TONEWOOD: _SEARCH_SETTINGS,
}


class MethodMeans(Settings):
    """A method's means over the test pairs.

    Parameters
    ----------
    closed : float
        Share of the mel log-spectral distance to the paired take that was closed.
    scorer, judge : float
        Scores of the outputs, 0 sounds like the reference; the judge is missing from models
        without one.
    """

    method: str
    closed: float
    scorer: float
    judge: float | None


@dataclass(frozen=True)
class Reproduction:
    """What was found and where it was written."""

    page: Path
    accuracy: float
    windows: int
    crop_seconds: float
    pairs: int
    rows: tuple[MethodMeans, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "accuracy": self.accuracy,
            "windows": self.windows,
            "crop_seconds": self.crop_seconds,
            "pairs": self.pairs,
            "methods": [row.model_dump(mode="json") for row in self.rows],
        }

    @property
    def table(self) -> list[list[str]]:
        """The methods as text, the head first."""
        table = [["method", "closed, %", "scorer", "judge"]]
        for row in self.rows:
            judge = "-" if row.judge is None else f"{row.judge:.2f}"
            table.append([row.method, f"{100 * row.closed:.1f}", f"{row.scorer:.2f}", judge])
        return table


ReproductionEvent = AuditProgress | SideLoadProgress | ListenerAudioProgress | CheckEvent | LabelProgress | MeasureProgress | Reproduction


def reproduce_paper(
    corpus: Path,
    out: Path,
    settings: ModelSettings,
    *,
    model: Model | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Iterator[ReproductionEvent]:
    """Write the report into the folder `out`; yields its progress and, last, what was found.

    Parameters
    ----------
    corpus : Path
        Laid out as train|test/{good,cheap}; test pieces are pairs by name.
    model : Model, optional
        Instead of one that is trained on the corpus, by `search_settings`.

    Raises
    ------
    FolderError, AudioError
        The corpus is laid out otherwise, or a recording in it cannot be used.
    OutputError
        The report cannot be written there.
    """
    check_device(device)
    prepare_report_folder(out, (*FIGURE_FILES, REPRODUCTION_TABLE, REPRODUCTION_PAGE), overwrite)
    test = read_test_pairs(corpus / "test")
    if model is None:
        folders = corpus / "train" / "good", corpus / "train" / "cheap"
        for event in train_from_folders(*folders, settings, name=corpus.resolve().name, device=device):
            if isinstance(event, Model):
                model = event
            else:
                yield event
        assert model is not None
    seed = settings.training.seed
    rows, kept = [], {}
    for number, (name, how) in enumerate(REPRODUCED_METHODS.items()):
        measured = []
        for index, pair in enumerate(test):
            yield MeasureProgress(number * len(test) + index + 1, len(REPRODUCED_METHODS) * len(test), name)
            made = apply_method(pair.source, model, how, seed, device) if how else None
            if index == 0 and made is not None:
                kept[name] = made
            samples = pair.source.samples if made is None else made.samples
            measured.append(_measure_method(name, pair, samples, model))
        rows.append(_mean_of_pairs(measured))
    sources, references = (
        [to_analysis_rate(it.samples, it.rate, model) for it in side[:2]] for side in zip(*test, strict=True)
    )
    drawn = (
        figures.plot_transformation(test[0].source.samples, kept[_BLOCK_MASK_METHOD], kept[_FREE_MASK_METHOD], model),
        figures.plot_block_masks(sources, model, seed),
        figures.plot_saliency(references, model),
    )
    card = model.card.scorer
    done = Reproduction(
        page=out / REPRODUCTION_PAGE,
        accuracy=card.accuracy,
        windows=card.windows,
        crop_seconds=model.settings.scorer.crop_seconds,
        pairs=len(test),
        rows=tuple(rows),
    )
    for name, png in zip(FIGURE_FILES, drawn, strict=True):
        write_bytes(out / name, png, overwrite=overwrite)
    write_text(out / REPRODUCTION_TABLE, json.dumps(done.summary, indent=1) + "\n", overwrite=overwrite)
    write_text(out / REPRODUCTION_PAGE, _reproduction_page(done, corpus, model, drawn), overwrite=overwrite)
    yield done


def read_test_pairs(folder: Path) -> list[RecordingPair]:
    """Pairs of one name below cheap/ and good/.

    Raises
    ------
    FolderError
        A piece has no partner, or one of another length.
    """
    read = []
    for files in pairs_by_name(folder / "cheap", folder / "good"):
        if isinstance(files, FileFailure):
            raise files.error
        pair = files.read()
        short, long = sorted(recording.duration for recording in pair)
        if short < (1 - _MAX_LENGTH_MISMATCH) * long:
            raise FolderError(
                f"{printable(files.source)} lasts {pair.source.duration:.2f} s and its partner "
                f"{pair.reference.duration:.2f} s: align them first"
            )
        read.append(pair)
    return read


def _measure_method(name: str, pair: RecordingPair, samples: NDArray[np.float32], model: Model) -> MethodMeans:
    rate = pair.source.rate
    waves = [
        to_mono_16k(pair.reference.samples, pair.reference.rate),
        to_mono_16k(pair.source.samples, rate),
        to_mono_16k(samples, rate),
    ]
    length = min(len(wave) for wave in waves)
    wanted, before, after = (wave[:length] for wave in waves)
    share = gap_closed(mel_distance(before, wanted), mel_distance(after, wanted))
    found = score_array(samples, rate, model)
    return MethodMeans(method=name, closed=share, scorer=found.scorer, judge=found.judge)


def _mean_of_pairs(rows: Sequence[MethodMeans]) -> MethodMeans:
    judges = [row.judge for row in rows if row.judge is not None]
    return MethodMeans(
        method=rows[0].method,
        closed=statistics.fmean(row.closed for row in rows),
        scorer=statistics.fmean(row.scorer for row in rows),
        judge=statistics.fmean(judges) if judges else None,
    )


def _reproduction_page(result: Reproduction, corpus: Path, model: Model, figure_pngs: Sequence[bytes]) -> str:
    captions = (
        "Figure 1. A source recording, transformed by the paper's method from rectangular blocks; "
        "that mask; and the mask that random pixels become without penalties (α = β = 0), noisy "
        "however well it scores.",
        "Figure 2. Rectangular and square blocks with the gains that the paper's objective found, "
        "before and after smoothing.",
        "Figure 3. Reference recordings and their class activation maps, turned over: red speaks "
        "for the reference, blue against it. Each map's mean, less the bias, is minus the logit.",
    )
    names = ("Figure 1", "Figure 2", "Figure 3")
    versions = ", ".join(f"{name} {value}" for name, value in model.card.versions.items())
    return render_report(
        f"The paper reproduced on {printable(corpus.resolve().name)}",
        (
            "After Verma & Berger, Learning to Model Aspects of Auditory Perception Using Neural "
            "Loss Functions.",
            f"The scorer of model {printable(model.name)} is right on {100 * result.accuracy:.1f} % of "
            f"{result.windows} held-out windows of {result.crop_seconds:g} s; the paper reports about "
            "93 %, on other recordings.",
            f"Trained with {versions}; seed {model.card.seed}.",
            ReportTable(
                f"Means over {result.pairs} test pairs. Closed: share of the mel log-spectral "
                "distance to the paired reference take; negative is worse than doing nothing. "
                "Scorer and judge: 1 sounds like the source, 0 like the reference; the judge is a "
                "scorer that no search saw.",
                result.table,
            ),
            *(ReportFigure(*it) for it in zip(names, figure_pngs, captions, strict=True)),
        ),
    )
