"""Rendered corpora, at small size."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def beds() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("beds")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_missing_programs_are_named(beds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beds.shutil, "which", lambda _: "/usr/bin/fluidsynth")
    monkeypatch.setattr(beds, "SOUNDFONTS", Path("/nowhere"))
    assert beds.lacking("cello_mit") == ("/nowhere/FluidR3_GM.sf2 is missing: apt install fluid-soundfont-gm")
    monkeypatch.setattr(beds.shutil, "which", lambda _: None)
    assert "apt install fluidsynth" in beds.lacking("cello_mit")
    assert "apt install espeak-ng" in beds.lacking("speech_room")


def test_two_cellos_play_the_same_notes(beds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := beds.lacking("cello_mit"):
        pytest.skip(reason)
    monkeypatch.setattr(beds, "PAIRS", {"test": 1})
    monkeypatch.setattr(beds, "PAIR_SECONDS", 3.0)
    small = beds.Bed(beds.BEDS["cello_mit"].perform, 1, 2.0)
    beds.render("cello_mit", small, tmp_path, 0)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.flac"))
    assert [str(p) for p in files] == [
        "test/cheap/00.flac", "test/good/00.flac", "train/cheap/000.flac", "train/good/000.flac",
    ]  # fmt: skip
    player = beds.Player(beds.FLUID, beds.CELLO)
    first, again, other = (beds.played(player, 1.0, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    good, cheap = (soundfile.read(tmp_path / "test" / side / "00.flac")[0] for side in ("good", "cheap"))
    # Same notes at the same times: levels correlate, but the sound differs.
    levels = [np.sqrt((wave[: 24_000 * 2].reshape(-1, 1_200) ** 2).mean(axis=1)) for wave in (good, cheap)]
    assert np.corrcoef(*levels)[0, 1] > 0.5
    assert np.abs(good - cheap).max() > 0.02


@pytest.mark.parametrize("name", ["music_old_disc", "speech_room"])
def test_chains_limit_the_band_and_keep_time(beds: Any, name: str) -> None:
    if reason := beds.lacking(name):
        pytest.skip(reason)

    def performance() -> Any:
        return beds.BEDS[name].perform(np.random.default_rng(5), 4.0)

    size = 4 * beds.RATE
    good, cheap = performance().good(5)[:size], performance().cheap(5)[:size]
    assert np.array_equal(cheap, performance().cheap(5)[:size])
    treble = np.fft.rfftfreq(size, 1 / beds.RATE) > 8_500
    shares = [
        power[treble].sum() / power.sum() for power in (np.abs(np.fft.rfft(w)) ** 2 for w in (good, cheap))
    ]
    assert shares[1] < shares[0] / 4
    levels = [np.sqrt((w.reshape(-1, 1_200) ** 2).mean(axis=1)) for w in (good, cheap)]
    assert np.corrcoef(*levels)[0, 1] > 0.5
    assert np.corrcoef(levels[0][10:], levels[1][:-10])[0, 1] < np.corrcoef(*levels)[0, 1]
