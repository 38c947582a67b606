"""A corpus → the paper's figures, its accuracy and a table of methods, on one page."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import FolderError, shown
from tonewood.evaluation.metrics import closed, mel_distance
from tonewood.files.modelfile import Model
from tonewood.files.output import prepare_folder, write_bytes, write_text
from tonewood.settings import EnhanceSettings, ModelSettings, Settings, changed, enhance_settings
from tonewood.workflow import figures, pairs
from tonewood.workflow.audit import Listened
from tonewood.workflow.courses import Checked
from tonewood.workflow.enhance import mono_at
from tonewood.workflow.layout import Failed
from tonewood.workflow.opinions import Listening
from tonewood.workflow.page import Picture, Table, page
from tonewood.workflow.pairs import Measuring, Pair, by_name, enhanced, heard
from tonewood.workflow.score import score
from tonewood.workflow.sides import Loaded
from tonewood.workflow.teach import Taught
from tonewood.workflow.train import check_device, train

PAGE, TABLE = "index.html", "table.json"
FIGURES = ("figure-1.png", "figure-2.png", "figure-3.png")
_MAY_DIFFER = 0.02  # of a pair's length; more is no alignment

_FREE = "paper: random pixels, α = β = 0"
_BLOCKS = "paper: rectangular blocks"
_SEARCH, _PAPER = enhance_settings("search"), enhance_settings("paper")
METHODS: dict[str, EnhanceSettings | None] = {
    pairs.UNTOUCHED: None,
    pairs.STATIC: pairs.METHODS[pairs.STATIC],
    "neighbours": changed(_SEARCH, ["prior.kind=neighbours", "search.steps=0"]),
    _FREE: changed(_PAPER, ["prior.kind=random", "search.alpha=0", "search.beta=0"]),
    _BLOCKS: _PAPER,
    pairs.TONEWOOD: _SEARCH,
}


class Row(Settings):
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
    rows: tuple[Row, ...]

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


Event = Listened | Loaded | Listening | Checked | Taught | Measuring | Reproduction


def reproduce(
    corpus: Path,
    out: Path,
    settings: ModelSettings,
    *,
    model: Model | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Iterator[Event]:
    """Write the report into the folder `out`; yields its progress and, last, what was found.

    Parameters
    ----------
    corpus : Path
        Laid out as train|test/{good,cheap}; test pieces are pairs by name.
    model : Model, optional
        Instead of one that is trained on the corpus, by `settings`.

    Raises
    ------
    FolderError, AudioError
        The corpus is laid out otherwise, or a recording in it cannot be used.
    OutputError
        The report cannot be written there.
    """
    check_device(device)
    prepare_folder(out, (*FIGURES, TABLE, PAGE), overwrite)
    test = paired(corpus / "test")
    if model is None:
        folders = corpus / "train" / "good", corpus / "train" / "cheap"
        for event in train(*folders, settings, name=corpus.resolve().name, device=device):
            if isinstance(event, Model):
                model = event
            else:
                yield event
        assert model is not None
    seed = settings.training.seed
    rows, kept = [], {}
    for number, (name, how) in enumerate(METHODS.items()):
        measured = []
        for index, pair in enumerate(test):
            yield Measuring(number * len(test) + index + 1, len(METHODS) * len(test), name)
            made = enhanced(pair.source, model, how, seed, device) if how else None
            if index == 0 and made is not None:
                kept[name] = made
            samples = pair.source.samples if made is None else made.samples
            measured.append(_measured(name, pair, samples, model))
        rows.append(_mean(measured))
    sources, references = (
        [mono_at(it.samples, it.rate, model) for it in side[:2]] for side in zip(*test, strict=True)
    )
    drawn = (
        figures.transformed(test[0].source.samples, kept[_BLOCKS], kept[_FREE], model),
        figures.sticky_notes(sources, model, seed),
        figures.saliency(references, model),
    )
    card = model.card.scorer
    done = Reproduction(
        page=out / PAGE,
        accuracy=card.accuracy,
        windows=card.windows,
        crop_seconds=model.settings.scorer.crop_seconds,
        pairs=len(test),
        rows=tuple(rows),
    )
    for name, png in zip(FIGURES, drawn, strict=True):
        write_bytes(out / name, png, overwrite=overwrite)
    write_text(out / TABLE, json.dumps(done.summary, indent=1) + "\n", overwrite=overwrite)
    write_text(out / PAGE, _page(done, corpus, model, drawn), overwrite=overwrite)
    yield done


def paired(folder: Path) -> list[Pair]:
    """Pairs of one name below cheap/ and good/.

    Raises
    ------
    FolderError
        A piece has no partner, or one of another length.
    """
    read = []
    for files in by_name(folder / "cheap", folder / "good"):
        if isinstance(files, Failed):
            raise files.error
        pair = files.read()
        short, long = sorted(recording.duration for recording in pair)
        if short < (1 - _MAY_DIFFER) * long:
            raise FolderError(
                f"{shown(files.source)} lasts {pair.source.duration:.2f} s and its partner "
                f"{pair.reference.duration:.2f} s: align them first"
            )
        read.append(pair)
    return read


def _measured(name: str, pair: Pair, samples: NDArray[np.float32], model: Model) -> Row:
    rate = pair.source.rate
    waves = [
        heard(pair.reference.samples, pair.reference.rate),
        heard(pair.source.samples, rate),
        heard(samples, rate),
    ]
    length = min(len(wave) for wave in waves)
    wanted, before, after = (wave[:length] for wave in waves)
    share = closed(mel_distance(before, wanted), mel_distance(after, wanted))
    found = score(samples, rate, model)
    return Row(method=name, closed=share, scorer=found.scorer, judge=found.judge)


def _mean(rows: Sequence[Row]) -> Row:
    judges = [row.judge for row in rows if row.judge is not None]
    return Row(
        method=rows[0].method,
        closed=statistics.fmean(row.closed for row in rows),
        scorer=statistics.fmean(row.scorer for row in rows),
        judge=statistics.fmean(judges) if judges else None,
    )


def _page(done: Reproduction, corpus: Path, model: Model, drawn: Sequence[bytes]) -> str:
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
    return page(
        f"The paper reproduced on {shown(corpus.resolve().name)}",
        (
            "After Verma & Berger, Learning to Model Aspects of Auditory Perception Using Neural "
            "Loss Functions.",
            f"The scorer of model {shown(model.name)} is right on {100 * done.accuracy:.1f} % of "
            f"{done.windows} held-out windows of {done.crop_seconds:g} s; the paper reports about "
            "93 %, on other recordings.",
            f"Trained with {versions}; seed {model.card.seed}.",
            Table(
                f"Means over {done.pairs} test pairs. Closed: share of the mel log-spectral "
                "distance to the paired reference take; negative is worse than doing nothing. "
                "Scorer and judge: 1 sounds like the source, 0 like the reference; the judge is a "
                "scorer that no search saw.",
                done.table,
            ),
            *(Picture(*it) for it in zip(names, drawn, captions, strict=True)),
        ),
    )
