"""Long recordings: bounded memory, no visible borders of segments, no work done twice."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tonewood.dsp import features as features_module
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
    """Return a model with a guide, so that the search has all of its terms."""
    return replace(model, guide_weight=0.6)


def enhance_in_segments(
    frames: int, wave: Any, rate: int, model: Model, patch: pytest.MonkeyPatch
) -> Enhancement:
    patch.setattr(mask_search, "_SEARCH_SEGMENT_FRAMES", frames)
    patch.setattr(prior_mask, "_PRIOR_SEGMENT_FRAMES", frames)
    patch.setattr(features_module, "_CHUNK_FRAMES", max(64, frames // 2 * 2))
    *_, last = enhance_array(wave, rate, model, FORCED)
    assert isinstance(last, Enhancement)
    return last


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
def test_segments_leave_no_audible_border(
    rate: int,
    channels: int,
    play: Callable[..., Any],
    guided: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outputs agree to -90 dBFS; the rest is the rounding of the mask."""
    wave = play(21.3, rate, channels, seed=5)
    whole = enhance_in_segments(10**6, wave, rate, guided, monkeypatch)
    for frames in (300, 702):
        in_segments = enhance_in_segments(frames, wave, rate, guided, monkeypatch)
        assert in_segments.steps == whole.steps == 3
        # Gains have steps of 0.002 dB. A few are rounded to the other side, and in near silence the
        # rounding of the resampled waveform may add a step.
        difference = np.abs(in_segments.mask.gain_db - whole.mask.gain_db)
        assert difference.max() <= 0.0041
        assert (difference > 0.0021).mean() < 1e-4
        assert np.abs(in_segments.samples - whole.samples).max() < 10 ** (-90 / 20)


def test_analysis_by_chunks_equals_analysis_of_the_whole(
    play: Callable[..., Any], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = play(7.013, 22_050, 2, seed=3)
    monkeypatch.setattr(features_module, "_CHUNK_FRAMES", 64)
    analysis = analyse_source(ArraySource(wave, 22_050), model)
    mono = to_analysis_rate(wave, 22_050, model)
    settings, bands = model.settings.spectrum, model.settings.scorer.bands
    assert analysis.n_samples == wave.shape[1]
    np.testing.assert_allclose(analysis.wave.read(0, analysis.wave.frames), mono, atol=1e-6)
    features, power = compute_features(mono, bands, settings), pitch_power(mono, settings)
    rows = analysis.rows_db.read(0, analysis.rows_db.frames)
    # The resampler's rounding errors, at -140 dB, depend on where a chunk begins; levels near them
    # agree less exactly.
    difference = np.abs(rows - features.rows_db)
    audible = features.rows_db > features.rows_db.max() - 90
    assert difference[audible].max() < 4e-3
    assert difference.max() < 1e-2
    assert analysis.pitches.frames == power.shape[1]
    np.testing.assert_allclose(analysis.pitches.read(0, power.shape[1]), power, rtol=2e-3, atol=1e-9)
    assert analysis.levels == pytest.approx(ReferenceLevels.from_features(features.rows_db, power), rel=1e-4)


def test_truncated_source_yields_the_first_seconds(play: Callable[..., Any]) -> None:
    whole = ArraySource(play(9.0, 22_050, channels=2), 22_050)
    first = TruncatedSource(whole, 4.25)
    assert (first.rate, first.channels) == (whole.rate, 2)
    for _ in range(2):
        blocks = np.concatenate(list(first.blocks()), axis=1)
        assert np.array_equal(blocks, whole.samples[:, : round(4.25 * 22_050)])
    rest = np.concatenate(list(TruncatedSource(whole, 20.0).blocks()), axis=1)
    assert np.array_equal(rest, whole.samples)


def test_search_steps_have_offset_and_total_frames(
    play: Callable[..., Any], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_search, "_SEARCH_SEGMENT_FRAMES", 300)
    steps = [s for s in enhance_array(play(8, seed=2), 16_000, model, FORCED) if isinstance(s, SearchStep)]
    assert [(s.offset, s.number) for s in steps] == [
        (first, number) for first in (0, 300, 600) for number in range(4)
    ]
    assert {s.total_frames for s in steps} == {801}
    assert sum(s.mask_db.shape[1] for s in steps if s.number == 3) == 801


def test_search_renders_once_per_step_and_reads_input_twice(
    play: Callable[..., Any], guided: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is counted, because time depends on the machine: one rendering for each step."""
    wave = play(4, seed=2)
    rendered: list[int] = []
    passes: list[int] = []
    prepare_filter = stft.prepare_filter

    def prepare_counting(*arguments: Any) -> Any:
        through = prepare_filter(*arguments)

        def apply_counted(gain: Any) -> Any:
            rendered.append(1)
            return through(gain)

        return apply_counted

    class Counted(ArraySource):
        def blocks(self) -> Iterator[Any]:
            passes.append(1)
            return super().blocks()

    monkeypatch.setattr(mask_search, "prepare_filter", prepare_counting)
    list(enhance_stream(Counted(wave, 16_000), guided, FORCED))
    assert (len(rendered), len(passes)) == (3, 2)
    rendered.clear()
    list(enhance_stream(Counted(wave, 16_000), guided, FORCED.replace(search=dict(steps=0))))
    assert rendered == []


def test_memory_does_not_grow_with_length(tmp_path: Path, play: Callable[..., Any], model_file: Path) -> None:
    """Ten minutes need at most a tenth more memory than one minute."""
    minute = (play(60, seed=1).T * 32_767).astype(np.int16)
    paths = [tmp_path / f"{minutes}.wav" for minutes in (1, 10)]
    for path, minutes in zip(paths, (1, 10), strict=True):
        soundfile.write(path, np.tile(minute, (minutes, 1)), 16_000)
    script = (
        "import resource, sys\n"
        "from tonewood import cli\n"
        "options, paths = sys.argv[1:-2], sys.argv[-2:]\n"
        "for path in paths:\n"
        "    sys.argv = ['tonewood', 'enhance', path, *options]\n"
        "    try: cli.main()\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    options = ["-o", tmp_path / "out", "-m", model_file, "--force", "--steps", "1"]
    command = [sys.executable, "-c", script, *map(str, (*options, *paths))]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = [int(line) for line in ran.stdout.splitlines() if line.isdigit()]
    assert peaks[1] <= 1.1 * peaks[0]
