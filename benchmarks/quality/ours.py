"""Rows of Tonewood itself: match EQ, neighbours, the paper's method, ablations.

An ablation is one line of `ABLATIONS`: what is changed, in words, then `--set` assignments for
training and for enhancing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tonewood
from quality.bench import Bench, Fitted, Output, Row
from quality.corpus import Piece
from tonewood.setting_types import apply_assignments
from tonewood.settings import ModelSettings, default_enhance_settings


class Change(NamedTuple):
    title: str
    training: Sequence[str] = ()
    enhancing: Sequence[str] = ()
    method: str = "search"


_QUICK_PAPER = ["search.steps=30"]
_FREE = ["search.alpha=0", "search.beta=0"]
_SQUARE = ["prior.notes.shape=square"]

PRIORS = {
    "static": Change("static match EQ", [], ["prior.kind=static", "search.steps=0"]),
    "neighbours": Change("nearest neighbours alone", [], ["prior.kind=neighbours", "search.steps=0"]),
}

PAPER = {
    "random": Change("paper: random", [], ["prior.kind=random"]),
    "random-free": Change("paper: random, α = β = 0", [], ["prior.kind=random", *_FREE]),
    "blocks": Change("paper: rectangular blocks"),
    "scorer": Change("paper: rectangular blocks, down the graded scorer", [], ["search.guide=0"]),
    "labels": Change("paper: rectangular blocks, down a scorer of labels", ["training.targets=labels"]),
    "blocks-free": Change("paper: rectangular blocks, α = β = 0", [], _FREE),
    "square": Change("paper: square blocks", [], _SQUARE),
    "square-free": Change("paper: square blocks, α = β = 0", [], [*_SQUARE, *_FREE]),
}

_SCORER = [
    "search.score=1",
    "search.guide=0",
    "search.optimiser=Adam",
    "search.steps=30",
    "search.learning_rate=0.1",
]

ABLATIONS = {
    "no-search": Change("– prior alone, no search", [], ["search.steps=0"]),
    "scorer": Change("– scorer instead of guide", [], _SCORER),
    "no-guide": Change("– search without a neural loss", [], ["search.guide=0"]),
    "no-listening": Change(
        "– search without rendering feedback", [], ["search.listen=false", "search.steps=1"]
    ),
    "no-doubt": Change("– without shrinkage", ["priors.doubt=0"]),
    "networks": Change("– networks alone, no search", [], ["prior.kind=network", "search.steps=0"]),
    "from-static": Change("– search from static", [], ["prior.kind=static"]),
    "from-nothing": Change("– search from nothing", [], ["prior.kind=none"]),
}


def row(name: str, change: Change) -> Row:
    """Return a row with changed settings; a wrong setting is an error before the training."""
    apply_assignments(ModelSettings(), change.training)
    enhancing = apply_assignments(default_enhance_settings(change.method), change.enhancing)

    def fit(bench: Bench) -> Fitted:
        model, seconds = bench.trained(change.training)
        short = _QUICK_PAPER if bench.quick and change.method == "paper" else []
        settings = apply_assignments(enhancing, [f"seed={bench.seed}", *short])

        def enhance(piece: Piece) -> Output:
            result = tonewood.enhance(piece.samples, piece.rate, model, settings=settings)
            return Output(result.samples, result.rate, result.mask)

        return Fitted(enhance, seconds, " ".join([*change.training, *change.enhancing]))

    return Row(name, change.title, fit)


PREDICTED = {
    "predicted": Change("Tonewood, predicted in one pass", ["predictor.taught=true"], [], "predicted"),
    "from-predicted": Change(
        "– search of one step from what is predicted",
        ["predictor.taught=true"],
        ["prior.kind=predicted", "search.steps=1"],
    ),
}

PRIOR_ROWS = [row(name, change) for name, change in PRIORS.items()]
PAPER_ROWS = [row(f"paper-{n}", c._replace(method="paper")) for n, c in PAPER.items()]
TONEWOOD = row("tonewood", Change("Tonewood"))
PREDICTED_ROWS = [row(f"tonewood-{name}", change) for name, change in PREDICTED.items()]
ABLATION_ROWS = [row(f"tonewood-{name}", change) for name, change in ABLATIONS.items()]
