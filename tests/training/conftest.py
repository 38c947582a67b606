"""Fixtures of the tests of training."""

from typing import Any, NamedTuple

import pytest

from tonewood.scorer.training import LabelledTakes, train_scorer
from tonewood.training import networks


class Split(NamedTuple):
    """Takes that a network learns from, and those that it is checked on."""

    train: LabelledTakes
    held_out: LabelledTakes


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[Split]:
    """Return the splits of all networks that are trained from now on."""
    used = []

    def watch(train: LabelledTakes, held_out: LabelledTakes, *rest: Any, **more: Any) -> Any:
        used.append(Split(train, held_out))
        return train_scorer(train, held_out, *rest, **more)

    monkeypatch.setattr(networks, "train_scorer", watch)
    return used
