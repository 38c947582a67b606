"""Fixtures: a small listening test of each kind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tonewood.listening import builder, stimuli
from tonewood.listening.database import AnswerDatabase, screens_of
from tonewood.listening.definition import ANSWERS_FILE, ListeningTest

BuiltTest = tuple[ListeningTest, Path]


@pytest.fixture(scope="session")
def conditions(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> dict[str, Path]:
    """Write folders of three conditions of two pieces, with different loudness."""
    root = tmp_path_factory.mktemp("conditions")
    for number, (name, formant) in enumerate((("good", 600.0), ("plain", 2_500.0), ("odd", 1_400.0))):
        for piece in range(2):
            (root / name).mkdir(exist_ok=True)
            wave = play(8.0, 22_050, formant_hz=formant, seed=piece) * 0.5**number
            wave[:, : 11_025 * piece] = 0
            soundfile.write(root / name / f"piece{piece}.wav", wave.T, 22_050)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="session")
def built_tests(
    conditions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BuiltTest]:
    """Build a test of each kind."""
    root = tmp_path_factory.mktemp("tests")
    tests: dict[str, BuiltTest] = {}
    for kind in ("pairs", "abx", "mushra"):
        folders = [conditions["plain"], conditions["odd"]]
        result = list(stimuli.pieces_from_conditions(folders))
        if kind == "mushra":
            result = stimuli.add_reference(result, conditions["good"])
        plan = builder.make_plan(
            kind=kind, seconds=5.0, repeats=1, checked=kind == "abx", seed=3, title="Ours",
            reference="good" if kind == "mushra" else None,
        )  # fmt: skip
        *_, test = builder.build_listening_test(result, plan, root / kind)
        assert isinstance(test, ListeningTest)
        tests[kind] = (test, root / kind)
    return tests


@pytest.fixture
def copy_test(built_tests: dict[str, BuiltTest], tmp_path: Path) -> Callable[[str], BuiltTest]:
    """Return a function that copies a test, so that it can be answered."""

    def copy(kind: str) -> BuiltTest:
        test, folder = built_tests[kind]
        return test, Path(shutil.copytree(folder, tmp_path / kind))

    return copy


@pytest.fixture(scope="session")
def answer_test() -> Callable[..., str]:
    """Return a function that answers all screens by the value of each condition, or correctly (ABX)."""

    def answer(
        test: ListeningTest,
        folder: Path,
        taste: dict[str, float],
        seed: int = 0,
        consent: str = "yes",
    ) -> str:
        rng = np.random.default_rng(seed)
        answers = AnswerDatabase(folder / ANSWERS_FILE)
        listener = answers.add_listener(consent)
        for place, screen in screens_of(test, answers, listener).items():
            by_label = {stimulus.label: stimulus.condition for stimulus in screen.stimuli}
            value: Any = "set"
            if screen.stage in ("hearing", "headphones"):
                value = screen.correct_answer
            elif screen.stage != "volume" and test.kind == "mushra":
                value = {
                    label: float(np.clip(taste[name] + rng.normal(0, 2), 0, 100))
                    for label, name in by_label.items()
                    if label != "reference"
                }
            elif screen.stage != "volume":
                gap = taste[by_label["A"]] - taste[by_label["B"]]
                value = "A" if rng.random() < 1 / (1 + np.exp(-gap)) else "B"
                if test.kind == "abx":
                    value = (
                        screen.correct_answer
                        if rng.random() < taste["right"]
                        else "AB".strip(screen.correct_answer)
                    )
            assert answers.save_answer(listener.id, place, value, final=True, seconds=1.0)
        return listener.id

    return answer
