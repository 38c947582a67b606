"""Long recordings: memory that does not grow, borders that do not show, no work done twice."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tonewood.dsp import features as pieces
from tonewood.dsp import stft
from tonewood.dsp.features import ReferenceLevels, compute_features, pitch_power
from tonewood.enhancement import mask_search, prior_mask
from tonewood.enhancement.analysis import ArraySource, TruncatedSource, analyse_source
from tonewood.enhancement.pipeline import Enhancement, enhance_array, enhance_stream, to_analysis_rate
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

FORCED = EnhanceSettings(force=True)


@pytest.fixture
def guided(model: Model) -> Model:
    """A model whose guide has something to say, so that all parts of the search are at work."""
    return replace(model, guide_weight=0.6)


def in_parts(frames: int, wave: Any, rate: int, model: Model, patch: pytest.MonkeyPatch) -> Enhancement:
    patch.setattr(mask_search, "_SEARCH_SEGMENT_FRAMES", frames)
    patch.setattr(prior_mask, "_PRIOR_SEGMENT_FRAMES", frames)
    patch.setattr(pieces, "_CHUNK_FRAMES", max(64, frames // 2 * 2))
    *_, last = enhance_array(wave, rate, model, FORCED)
    assert isinstance(last, Enhancement)
    return last


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
def test_no_border_shows(
    rate: int,
    channels: int,
    play: Callable[..., Any],
    guided: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """-90 dB below full scale is the limit; the difference is the rounding of a recipe's cells."""
    wave = play(21.3, rate, channels, seed=5)
    whole = in_parts(10**6, wave, rate, guided, monkeypatch)
    for frames in (300, 702):
        parted = in_parts(frames, wave, rate, guided, monkeypatch)
        assert parted.steps == whole.steps == 3
        # Cells are in steps of 0.002 dB: a few fall on the other side of a half, and where next to
        # nothing sounds the rounding of the resampled waveform can be a step of its own.
        apart = np.abs(parted.mask.gain_db - whole.mask.gain_db)
        assert apart.max() <= 0.0041
        assert (apart > 0.0021).mean() < 1e-4
        assert np.abs(parted.samples - whole.samples).max() < 10 ** (-90 / 20)


def test_what_is_heard_piece_by_piece_is_the_whole(
    play: Callable[..., Any], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = play(7.013, 22_050, 2, seed=3)
    monkeypatch.setattr(pieces, "_CHUNK_FRAMES", 64)
    heard = analyse_source(ArraySource(wave, 22_050), model)
    mono = to_analysis_rate(wave, 22_050, model)
    settings, bands = model.settings.spectrum, model.settings.scorer.bands
    assert heard.n_samples == wave.shape[1]
    torch.testing.assert_close(heard.wave.read(0, heard.wave.frames), mono)
    features, power = compute_features(mono, bands, settings), pitch_power(mono, settings)
    rows = heard.rows_db.read(0, heard.rows_db.frames)
    # The resampler's own rounding stands at -140 dB, and differs with where its work begins: what
    # is near that is told less exactly.
    apart = (rows - features.rows_db).abs()
    sounding = features.rows_db > features.rows_db.max() - 90
    assert apart[sounding].max() < 4e-3
    assert apart.max() < 1e-2
    assert heard.pitches.frames == power.shape[1]
    torch.testing.assert_close(heard.pitches.read(0, power.shape[1]), power, rtol=2e-3, atol=1e-9)
    assert heard.levels == pytest.approx(ReferenceLevels.from_features(features.rows_db, power), rel=1e-4)


def test_a_beginning_is_what_comes_first(play: Callable[..., Any]) -> None:
    whole = ArraySource(play(9.0, 22_050, channels=2), 22_050)
    first = TruncatedSource(whole, 4.25)
    assert (first.rate, first.channels) == (whole.rate, 2)
    for _ in range(2):
        found = np.concatenate(list(first.blocks()), axis=1)
        assert np.array_equal(found, whole.samples[:, : round(4.25 * 22_050)])
    rest = np.concatenate(list(TruncatedSource(whole, 20.0).blocks()), axis=1)
    assert np.array_equal(rest, whole.samples)


def test_steps_say_where_they_are(
    play: Callable[..., Any], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_search, "_SEARCH_SEGMENT_FRAMES", 300)
    steps = [s for s in enhance_array(play(8, seed=2), 16_000, model, FORCED) if isinstance(s, SearchStep)]
    assert [(s.offset, s.number) for s in steps] == [
        (first, number) for first in (0, 300, 600) for number in range(4)
    ]
    assert {s.total_frames for s in steps} == {801}
    assert sum(s.mask_db.shape[1] for s in steps if s.number == 3) == 801


def test_a_step_costs_one_rendering_and_a_file_two_passes(
    play: Callable[..., Any], guided: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is counted, since time is no test: steps + 1 renderings at the analysis rate."""
    wave = play(4, seed=2)
    rendered: list[int] = []
    passes: list[int] = []
    real = stft.prepare_filter

    def counted(*arguments: Any) -> Any:
        through = real(*arguments)

        def once(gain: Any) -> Any:
            rendered.append(1)
            return through(gain)

        return once

    class Counted(ArraySource):
        def blocks(self) -> Iterator[Any]:
            passes.append(1)
            return super().blocks()

    monkeypatch.setattr(mask_search, "prepare_filter", counted)
    list(enhance_stream(Counted(wave, 16_000), guided, FORCED))
    assert (len(rendered), len(passes)) == (4, 2)
    rendered.clear()
    list(enhance_stream(Counted(wave, 16_000), guided, FORCED.replace(search=dict(steps=0))))
    assert rendered == []


def test_memory_does_not_grow_with_length(tmp_path: Path, play: Callable[..., Any], model_file: Path) -> None:
    """Ten minutes take at most a tenth more than one, and a fraction of what they would in all."""
    minute = (play(60, seed=1).T * 32_767).astype(np.int16)
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        soundfile.write(path, np.tile(minute, (minutes, 1)), 16_000)
        script = (
            "import resource, sys\n"
            "from tonewood import cli\n"
            "try: cli.main()\n"
            "except SystemExit as end: assert end.code == 0, end.code\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        options = ["-o", tmp_path / "out", "-m", model_file, "--force", "--overwrite"]
        command = [sys.executable, "-c", script, "enhance", path, *options]
        ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
        peaks.append(int(ran.stdout.split()[-1]))
    assert peaks[1] <= 1.1 * peaks[0]
