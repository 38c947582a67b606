"""Reproduce the paper on a corpus: its accuracy, its three figures and a table of methods.

Two models take part. That of the paper reads the bins of the spectrogram and learns labels without
augmentation: the figures and the rows called “paper” are its own. The other is Tonewood's.
"""

import json
import statistics
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.reader import probe_audio
from tonewood.audio_io.recording import find_audio_files
from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.output_files import FileFailure
from tonewood.enhancement.pipeline import Enhancement, to_analysis_rate
from tonewood.errors import FolderError, printable
from tonewood.evaluation.metrics import gap_closed, mel_distance, to_mono_16k
from tonewood.evaluation.pipeline import (
    EVALUATED_METHODS,
    METHOD_STATIC,
    METHOD_TONEWOOD,
    METHOD_UNTOUCHED,
    MeasureProgress,
    RecordingPair,
    apply_method,
    pairs_by_name,
)
from tonewood.html_report import ReportFigure, ReportTable, render_report
from tonewood.model.model import Model
from tonewood.research.paper_figures import plot_block_masks, plot_saliency, plot_transformation
from tonewood.setting_types import Settings
from tonewood.settings import EnhanceSettings, ModelSettings, default_enhance_settings
from tonewood.training.networks import MAX_LEARNING_SECONDS
from tonewood.training.pipeline import TrainingProgress, train_model
from tonewood.utils.files import check_report_folder, real_path, write_bytes, write_text
from tonewood.utils.parallel import check_device

REPRODUCTION_PAGE, REPRODUCTION_TABLE = "index.html", "table.json"
FIGURE_FILES = ("figure-1.png", "figure-2.png", "figure-3.png")
_MAX_LENGTH_MISMATCH = 0.02  # of the longer recording; a larger difference cannot be an aligned pair

# Core seconds that a training takes at least, and for each minute of audio (measured on two corpora).
_BASE_SECONDS, _SECONDS_PER_MINUTE = 60.0, 8.0
_PIECE_SECONDS = 0.1  # for each second of a piece and each method

_FREE_MASK_METHOD = "paper: random pixels, α = β = 0"
_BLOCK_MASK_METHOD = "paper: rectangular blocks"
_SEARCH_SETTINGS, _PAPER_SETTINGS = (default_enhance_settings("search"), default_enhance_settings("paper"))


class ReproducedMethod(NamedTuple):
    """Settings of a method, None for no change; `by_paper` if the paper's model is used."""

    settings: EnhanceSettings | None
    by_paper: bool = False


REPRODUCED_METHODS = {
    METHOD_UNTOUCHED: ReproducedMethod(None),
    METHOD_STATIC: ReproducedMethod(EVALUATED_METHODS[METHOD_STATIC]),
    "neighbours": ReproducedMethod(
        _SEARCH_SETTINGS.replace(prior=dict(kind="neighbours"), search=dict(steps=0))
    ),
    _FREE_MASK_METHOD: ReproducedMethod(
        _PAPER_SETTINGS.replace(prior=dict(kind="random"), search=dict(alpha=0, beta=0)), by_paper=True
    ),
    _BLOCK_MASK_METHOD: ReproducedMethod(_PAPER_SETTINGS, by_paper=True),
    "paper's search, Tonewood's loss": ReproducedMethod(_PAPER_SETTINGS),
    METHOD_TONEWOOD: ReproducedMethod(_SEARCH_SETTINGS),
}


class ReproductionModels(NamedTuple):
    """Tonewood's model and that of the paper."""

    own: Model
    paper: Model


class ReproductionPlan(NamedTuple):
    """Work of a reproduction, and about how many core seconds it takes."""

    trainings: int
    pieces: int
    methods: int
    seconds: float

    @property
    def line(self) -> str:
        """The plan in one line."""
        trainings = {0: "no training", 1: "one training", 2: "two trainings"}[self.trainings]
        return (
            f"about {max(1, round(self.seconds / 60))} min of one core: {trainings}, "
            f"then {self.pieces} pieces by {self.methods} methods"
        )


class MethodMeans(Settings):
    """Means of a method over the test pairs."""

    method: str
    closed: float  # share of the mel log-spectral distance to the paired recording that the method closes
    # Scores of the outputs by both networks of Tonewood's model, and by the paper's scorer; 0 sounds like the
    # reference. The judge is None if the model has none.
    scorer: float
    judge: float | None
    paper_scorer: float


@dataclass(frozen=True)
class Reproduction:
    """Results of the reproduction, and the page that shows them.

    The accuracies are shares of held-out windows that Tonewood's scorer, and the paper's, classify correctly.
    """

    page: Path
    accuracy: float
    paper_accuracy: float
    windows: int
    crop_seconds: float
    pairs: int
    rows: tuple[MethodMeans, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Results for JSON."""
        return {
            "accuracy": self.accuracy,
            "paper_accuracy": self.paper_accuracy,
            "windows": self.windows,
            "crop_seconds": self.crop_seconds,
            "pairs": self.pairs,
            "methods": [row.model_dump(mode="json") for row in self.rows],
        }

    @property
    def table(self) -> list[list[str]]:
        """Means by method as text; the header is the first row."""
        table = [["method", "closed, %", "scorer", "judge", "paper's"]]
        for row in self.rows:
            judge = "-" if row.judge is None else f"{row.judge:.2f}"
            scores = [f"{row.scorer:.2f}", judge, f"{row.paper_scorer:.2f}"]
            table.append([row.method, f"{100 * row.closed:.1f}", *scores])
        return table

    @property
    def accuracy_line(self) -> str:
        """Accuracy of both scorers in one line."""
        return (
            f"the paper's scorer is right on {100 * self.paper_accuracy:.1f} %, Tonewood's on "
            f"{100 * self.accuracy:.1f} % of their held-out windows of {self.crop_seconds:g} s"
        )


ReproductionEvent = ReproductionPlan | TrainingProgress | MeasureProgress | Reproduction


def paper_training_settings(settings: ModelSettings) -> ModelSettings:
    """Return the training of the paper: bins of the spectrogram, labels, and no augmentation."""
    return settings.replace(
        scorer=dict(bands=dict(scale="linear")), training=dict(targets="labels", tilt_db=0, mask_db=0)
    )


def reproduce_paper(
    corpus: Path,
    out: Path,
    settings: ModelSettings,
    *,
    model: Model | None = None,
    paper_model: Model | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Iterator[ReproductionEvent]:
    """Write the report into the folder `out`; yield the plan, the progress and, last, the `Reproduction`.

    Parameters
    ----------
    corpus : Path
        Folder with train/good, train/cheap, test/good and test/cheap; test files are paired by name.
    model, paper_model : Model, optional
        Used instead of training Tonewood's model, or the paper's, on the corpus.
    device : str
        Of the trainings.

    Raises
    ------
    FolderError, AudioError
        The corpus has another layout, or a recording in it cannot be used.
    OutputError
        The report cannot be written.
    """
    check_device(device)
    check_report_folder(out, (*FIGURE_FILES, REPRODUCTION_TABLE, REPRODUCTION_PAGE), overwrite)
    trainings = [model, paper_model].count(None)
    _check_layout(corpus, ("test", "train") if trainings else ("test",))
    pairs = read_test_pairs(corpus / "test")
    yield _plan_reproduction(corpus, pairs, trainings)
    if model is None:
        model = yield from _train_on_corpus(corpus, settings, device)
    if paper_model is None:
        paper_model = yield from _train_on_corpus(corpus, paper_training_settings(settings), device)
    models, seed = ReproductionModels(model, paper_model), settings.training.seed
    measured = yield from _measure_methods(pairs, models, seed)
    figure_pngs = _plot_figures(pairs, measured.first_outputs, paper_model, seed)
    card = model.card.scorer
    result = Reproduction(
        page=out / REPRODUCTION_PAGE,
        accuracy=card.accuracy,
        paper_accuracy=paper_model.card.scorer.accuracy,
        windows=card.windows,
        crop_seconds=model.settings.scorer.crop_seconds,
        pairs=len(pairs),
        rows=measured.rows,
    )
    for name, png in zip(FIGURE_FILES, figure_pngs, strict=True):
        write_bytes(out / name, png, overwrite=overwrite)
    write_text(out / REPRODUCTION_TABLE, json.dumps(result.summary, indent=1) + "\n", overwrite=overwrite)
    page = _reproduction_page(result, corpus, models, figure_pngs)
    write_text(out / REPRODUCTION_PAGE, page, overwrite=overwrite)
    yield result


def _check_layout(corpus: Path, parts: Sequence[str]) -> None:
    """Raise FolderError if a folder of a corpus is missing."""
    for part in parts:
        for side in ("cheap", "good"):
            if not (corpus / part / side).is_dir():
                raise FolderError(
                    f"--corpus {printable(corpus)} has no folder {part}/{side}; a corpus has train/ and "
                    "test/, each with good/ and cheap/: name such a folder"
                )


def _plan_reproduction(corpus: Path, pairs: Sequence[RecordingPair], trainings: int) -> ReproductionPlan:
    seconds = sum(
        probe_audio(path).duration or 0.0
        for side in ("good", "cheap")
        for path in (find_audio_files(corpus / "train" / side) if trainings else ())
    )
    minutes = min(seconds, 2 * MAX_LEARNING_SECONDS) / 60
    methods = len(REPRODUCED_METHODS)
    measuring = _PIECE_SECONDS * methods * sum(pair.source.duration for pair in pairs)
    training = _BASE_SECONDS + _SECONDS_PER_MINUTE * minutes
    return ReproductionPlan(trainings, len(pairs), methods, trainings * training + measuring)


def _train_on_corpus(
    corpus: Path, settings: ModelSettings, device: str
) -> Generator[TrainingProgress, None, Model]:
    folders = corpus / "train" / "good", corpus / "train" / "cheap"
    for event in train_model(*folders, settings, name=real_path(corpus).name, device=device):
        if isinstance(event, Model):
            return event
        yield event
    raise AssertionError("a training ends with its model")


class MeasuredMethods(NamedTuple):
    """Means of every method, and the outputs for the first pair by method."""

    rows: tuple[MethodMeans, ...]
    first_outputs: dict[str, Enhancement]


def _measure_methods(
    pairs: Sequence[RecordingPair], models: ReproductionModels, seed: int
) -> Generator[MeasureProgress, None, MeasuredMethods]:
    """Measure every method on every pair; yields the progress."""
    rows: list[MethodMeans] = []
    first_outputs: dict[str, Enhancement] = {}
    turn, turns = 0, len(REPRODUCED_METHODS) * len(pairs)
    for name, method in REPRODUCED_METHODS.items():
        measures = []
        for pair in pairs:
            turn += 1
            yield MeasureProgress(turn, turns, name)
            samples = pair.source.samples
            if method.settings is not None:
                model = models.paper if method.by_paper else models.own
                enhancement = apply_method(pair.source, model, method.settings, seed)
                first_outputs.setdefault(name, enhancement)
                samples = enhancement.samples
            measures.append(_measure_method(name, pair, samples, models))
        rows.append(_mean_of_pairs(measures))
    return MeasuredMethods(tuple(rows), first_outputs)


def _plot_figures(
    pairs: Sequence[RecordingPair], first_outputs: Mapping[str, Enhancement], model: Model, seed: int
) -> tuple[bytes, ...]:
    """Plot the three figures of the paper; the first one shows the first pair."""
    sources, references = (
        [to_analysis_rate(recording.samples, recording.rate, model) for recording in side[:2]]
        for side in zip(*pairs, strict=True)
    )
    blocks, free = first_outputs[_BLOCK_MASK_METHOD], first_outputs[_FREE_MASK_METHOD]
    return (
        plot_transformation(pairs[0].source.samples, blocks, free, model),
        plot_block_masks(sources, model, seed),
        plot_saliency(references, model),
    )


def read_test_pairs(folder: Path) -> list[RecordingPair]:
    """Read the pairs of the same name in cheap/ and good/.

    FolderError if a recording has no partner, or one of another length.
    """
    pairs = []
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
        pairs.append(pair)
    return pairs


def _measure_method(
    name: str, pair: RecordingPair, samples: NDArray[np.float32], models: ReproductionModels
) -> MethodMeans:
    rate = pair.source.rate
    waves = [
        to_mono_16k(pair.reference.samples, pair.reference.rate),
        to_mono_16k(pair.source.samples, rate),
        to_mono_16k(samples, rate),
    ]
    # Test pairs are simultaneous: they are cut to equal length, not aligned.
    length = min(len(wave) for wave in waves)
    reference, before, after = (wave[:length] for wave in waves)
    closed = gap_closed(mel_distance(before, reference), mel_distance(after, reference))
    score, paper_score = (score_array(samples, rate, model) for model in models)
    return MethodMeans(
        method=name, closed=closed, scorer=score.scorer, judge=score.judge, paper_scorer=paper_score.scorer
    )


def _mean_of_pairs(rows: Sequence[MethodMeans]) -> MethodMeans:
    judges = [row.judge for row in rows if row.judge is not None]
    return MethodMeans(
        method=rows[0].method,
        closed=statistics.fmean(row.closed for row in rows),
        scorer=statistics.fmean(row.scorer for row in rows),
        judge=statistics.fmean(judges) if judges else None,
        paper_scorer=statistics.fmean(row.paper_scorer for row in rows),
    )


def _describe_paper_model(model: Model) -> str:
    if model.settings == paper_training_settings(model.settings):
        return (
            "The paper's scorer reads the 257 bins of the spectrogram and learns labels without augmentation."
        )
    return f"The model {printable(model.name)} stands for the paper's, but was not trained as in the paper."


def _reproduction_page(
    result: Reproduction, corpus: Path, models: ReproductionModels, figure_pngs: Sequence[bytes]
) -> str:
    captions = (
        "Figure 1. A source recording, and its output by the paper's method from rectangular blocks. Below: "
        "the mask from blocks, and the mask from random pixels without penalties (α = β = 0). The latter is "
        "noisy although it scores well.",
        "Figure 2. Rectangular and square blocks with gains optimized by the paper's objective, before and "
        "after smoothing.",
        "Figure 3. Reference recordings and their class activation maps with inverted sign: red speaks for "
        "the reference, blue against it. The mean of each map minus the bias is minus the logit.",
    )
    names = ("Figure 1", "Figure 2", "Figure 3")
    versions = ", ".join(f"{name} {value}" for name, value in models.paper.card.versions.items())
    return render_report(
        f"Reproduction of the paper on {printable(real_path(corpus).name)}",
        (
            "After Verma & Berger, Learning to Model Aspects of Auditory Perception Using Neural "
            "Loss Functions.",
            f"In training, {result.accuracy_line}; the paper reports about 93 % on other recordings.",
            f"{_describe_paper_model(models.paper)} The figures are its own, and so are the rows called "
            f"“paper”; the others are those of Tonewood's model {printable(models.own.name)}.",
            f"Trained with {versions}; seed {models.paper.card.seed}.",
            ReportTable(
                f"Means over {result.pairs} test pairs. Closed: share of the mel log-spectral "
                "distance to the paired reference recording that the method closes; negative is worse than "
                "doing nothing. Scores: 0 sounds like the reference, 1 like the source. Scorer and judge are "
                "Tonewood's, and no search uses the judge; the last column is the paper's scorer.",
                result.table,
            ),
            *(ReportFigure(*figure) for figure in zip(names, figure_pngs, captions, strict=True)),
        ),
    )
