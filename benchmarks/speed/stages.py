"""Measure the core time of the stages of `tonewood enhance` alone, on a minute of stereo.

Work is counted from the formulas, not from counters: a real FFT of N points takes 2.5 N log2 N, a
product of matrices 2 n m k, and a stage that mostly moves numbers is counted in bytes, each array
that it must read and write once.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path

import numpy as np

import tonewood
from speed.limits import Limits, best, machine, measure_limits
from tonewood.audio_io.reader import AudioReader, write_recording_blocks
from tonewood.dsp.features import band_levels, pitch_power
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.dsp.stft import scale_to_rate
from tonewood.enhancement.analysis import analyse_source, mean_score
from tonewood.enhancement.mask_search import find_mask, mask_grid
from tonewood.enhancement.pipeline import enhance_stream
from tonewood.enhancement.prior_mask import find_prior_mask
from tonewood.mask.mask import Mask
from tonewood.mask.render import render_blocks
from tonewood.settings import EnhanceSettings, RenderSettings


@dataclass(frozen=True)
class Stage:
    """One stage.

    Parameters
    ----------
    milliseconds : float
        Of one core, for each second of audio.
    share : float or None
        Of what the machine could do at best.
    bound : str
        Which limit that is.
    """

    name: str
    milliseconds: float
    share: float | None
    bound: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure_stages(take: Path, model_name: str, limits: Limits) -> list[Stage]:
    """Measure all stages on a recording of a minute."""
    model = tonewood.load(model_name)
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    stream = AudioReader(take)
    blocks = list(stream.blocks())
    samples = np.concatenate(blocks, axis=1)
    channels, rate = samples.shape[0], stream.rate
    seconds = samples.shape[1] / rate
    analysis = analyse_source(stream, model)
    wave = analysis.wave.read(0, analysis.wave.frames)
    grid = mask_grid(analysis, model, "search")
    stages: list[Stage] = []

    def stage(name: str, work: Callable[[], object], flops: float = 0, moved: float = 0) -> None:
        """`flops` and bytes `moved` are for each second of audio."""
        seconds_per_second = best(work, 3) / seconds
        flop_share, byte_share = (
            flops / seconds_per_second / 1e9 / limits.fp32,
            moved / seconds_per_second / 1e9 / limits.bandwidth,
        )
        share = max(flop_share, byte_share)
        bound = "fp32 product" if flop_share >= byte_share else "memory"
        stages.append(Stage(name, 1e3 * seconds_per_second, share or None, bound if share else ""))

    def one_step(steps: int) -> Callable[[], object]:
        settings = EnhanceSettings(force=True).replace(search=dict(steps=steps))
        return lambda: [None for _ in find_mask(analysis, model, settings)]

    float_bytes = 4.0 * channels * rate
    fps = spectrum.frames_per_second
    stage("decode", lambda: list(stream.blocks()), moved=1.5 * float_bytes)
    stage("loudness", lambda: integrated_loudness(samples, rate), moved=3 * float_bytes)
    stage("resample and analyse", lambda: analyse_source(stream, model))
    stage(
        "of it: levels on rows",
        lambda: band_levels(wave, spectrum.rate, bands, spectrum),
        flops=fps * (fft(spectrum.fft) + 2 * spectrum.bins * bands.count),
    )
    stage("of it: pitches", lambda: pitch_power(wave, spectrum), flops=fps / 2 * fft(4096))
    near = model.priors.settings.neighbours
    code = model.priors.source.codebook.key.shape
    network = model.priors.settings.network
    prior_flops = 2 * 2 * code[0] * code[1] + 2 * 2 * 2 * network.width**2 * network.kernel
    stage(
        f"prior: {near.nearest} of {code[0]} neighbours twice, two networks",
        lambda: find_prior_mask("auto", analysis, grid.hz, model),
        flops=fps * prior_flops,
    )
    no_steps, three_steps = best(one_step(0), 3), best(one_step(3), 3)
    stages.append(Stage("search, each step", 1e3 * (three_steps - no_steps) / 3 / seconds, None, ""))
    window, _, _ = scale_to_rate(spectrum, rate)
    mask = Mask(np.zeros((48, 6_001), np.float32), grid.hz, 0.01, spectrum.rate / 2)
    stage(
        "synthesis",
        lambda: list(render_blocks(blocks, rate, channels, [mask], RenderSettings(), spectrum)),
        flops=fps * channels * (2 * fft(2 * window) + 3 * window),
        moved=2 * float_bytes,
    )
    stage("true peak", lambda: true_peak_db(samples, rate), moved=float_bytes)
    stage("score of scorer or judge", lambda: mean_score(model.scorer, analysis.rows_db))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.wav"
        stage(
            "encode",
            lambda: write_recording_blocks(out, blocks, samples.shape, rate, stream.format, overwrite=True),
            moved=1.5 * float_bytes,
        )
    stage("all of it", lambda: list(enhance_stream(stream, model, EnhanceSettings(force=True))))
    return stages


def fft(points: int) -> float:
    """Return the operations of a real transform."""
    return 2.5 * points * log2(points)


if __name__ == "__main__":
    load_before = machine()  # with the load average before the measurements
    limits = measure_limits()
    stages = [stage.as_dict() for stage in measure_stages(Path(sys.argv[1]), sys.argv[2], limits)]
    print(json.dumps({"machine": load_before, "limits": limits.as_dict(), "stages": stages}))
