"""Train a plain synthesiser with a neural loss, until it sounds more like the reference.

    python examples/train_a_synthesiser.py [-m MODEL] [--reference FOLDER] [-o OUT.wav] [--plot OUT.png]

The synthesiser adds harmonics and filtered noise. It has 20 parameters: levels of the harmonics and of
the noise at 9 frequencies, a decay, and a spread of forces. It plays random notes, so there is no
recording to copy. Its only target is `tonewood.NeuralLoss`. The long-term spectrum of the reference folder
is not used in training; it shows whether the sound gets nearer.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

import tonewood

RATE, HOP, FRAMES = 16_000, 160, 300  # clips of 3 s, as long as those that a scorer learns from
HARMONICS, POINTS, BANDS = 24, 9, 21
CELLO_HZ = tuple(65.4 * 2 ** (note / 12) for note in range(32))  # two and a half octaves from C2
NOTE_SECONDS = (0.2, 0.9)
LOWEST_HZ, HIGHEST_HZ = 50.0, 8_000.0


class Melodies(NamedTuple):
    """Random notes: sines and their frequencies, seconds since the onset, random force, white noise."""

    sines: Tensor  # [clip, frame, harmonic, sample]
    hz: Tensor  # [clip, frame, harmonic]
    age: Tensor  # [clip, frame]
    force: Tensor  # [clip, frame], normally distributed over notes
    noise: Tensor  # [clip, sample]

    def select(self, clips: Sequence[int]) -> "Melodies":
        """Return some clips."""
        return Melodies(*(values[list(clips)] for values in self))


def draw_melodies(count: int, pitch_hz: Sequence[float], seed: int) -> Melodies:
    """Draw clips of notes with random pitches out of `pitch_hz`."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    hz, age, force = torch.empty(3, count, FRAMES)
    for clip in range(count):
        start = 0
        while start < FRAMES:
            stop = min(FRAMES, start + round(uniform(*NOTE_SECONDS) * RATE / HOP))
            hz[clip, start:stop] = pitch_hz[int(uniform(0, len(pitch_hz)))]
            age[clip, start:stop] = torch.arange(stop - start) * (HOP / RATE)
            force[clip, start:stop] = torch.randn(1, generator=generator)
            start = stop
    numbers = torch.arange(1, HARMONICS + 1)
    phase = 2 * math.pi * (hz.repeat_interleave(HOP, dim=1).double() / RATE).cumsum(dim=1)
    sines = torch.sin(phase.view(count, FRAMES, 1, HOP) * numbers[:, None]).float()
    harmonics = hz[:, :, None] * numbers
    audible = (harmonics < HIGHEST_HZ)[..., None]
    noise = torch.randn(count, FRAMES * HOP, generator=generator)
    return Melodies(sines * audible, harmonics, age, force, noise)


class Synthesiser(nn.Module):
    """Harmonics and noise with one spectrum each, the same for all notes."""

    def __init__(self) -> None:
        super().__init__()
        self.harmonic_db = nn.Parameter(-6.0 * torch.arange(POINTS))
        self.noise_db = nn.Parameter(torch.full((POINTS,), -50.0))
        self.envelope_db = nn.Parameter(torch.tensor([-9.0, 3.0]))  # a second, and from note to note

    def forward(self, melodies: Melodies) -> Tensor:
        """Return waveforms [clip, 1, sample]."""
        fall_db, force_db = self.envelope_db
        envelope_db = fall_db * melodies.age + force_db * melodies.force
        gain = 10 ** ((interpolate(self.harmonic_db, melodies.hz) + envelope_db[..., None]) / 20)
        # From frame to frame, gains change linearly.
        ramp = torch.arange(HOP) / HOP
        both = torch.stack([gain, following(gain)], dim=2) @ melodies.sines
        tones = ((1 - ramp) * both[:, :, 0] + ramp * both[:, :, 1]).flatten(1)
        window = torch.hann_window(512)
        spectrum = torch.stft(melodies.noise, 512, HOP, window=window, return_complex=True)
        noise_db = interpolate(self.noise_db, torch.linspace(0, RATE / 2, 257))[:, None]
        last_db = envelope_db[:, None, -1:]
        noise_db = noise_db + torch.cat([envelope_db[:, None], last_db], dim=2)
        hiss = torch.istft(spectrum * 10 ** (noise_db / 20), 512, HOP, window=window, length=tones.shape[1])
        return (0.1 * (tones + hiss) + 1e-5 * melodies.noise.flip(1))[:, None]


def following(values: Tensor) -> Tensor:
    """Return the values [clip, frame, ...] of the next frame; the last one is repeated."""
    return torch.cat([values[:, 1:], values[:, -1:]], dim=1)


def interpolate(levels_db: Tensor, hz: Tensor) -> Tensor:
    """Return levels at frequencies: `levels_db` are evenly spaced over octaves."""
    octaves = (hz.clamp(LOWEST_HZ, HIGHEST_HZ) / LOWEST_HZ).log2()
    place = octaves * ((POINTS - 1) / math.log2(HIGHEST_HZ / LOWEST_HZ))
    low = place.long().clamp_max(POINTS - 2)
    return torch.lerp(levels_db[low], levels_db[low + 1], place - low)


class Training(NamedTuple):
    """Waveforms [clip, 1, sample] before and after, of melodies not used in training; loss of each step."""

    before: Tensor
    after: Tensor
    losses: list[float]


def train(
    loss: nn.Module, steps: int = 200, pitch_hz: Sequence[float] = CELLO_HZ, clips: int = 16
) -> Training:
    """Train a synthesiser with a loss over [clip, 1, sample] at 16 kHz."""
    synthesiser = Synthesiser()
    melodies, others = (draw_melodies(count, pitch_hz, seed) for seed, count in enumerate((12, clips)))
    with torch.no_grad():
        before = synthesiser(others)
    optimiser = torch.optim.Adam(
        [
            {"params": [synthesiser.harmonic_db, synthesiser.noise_db], "lr": 0.5},  # dB
            {"params": [synthesiser.envelope_db], "lr": 0.2},
        ]
    )
    losses = []
    for step in range(steps):
        value = loss(synthesiser(melodies.select([(3 * step + k) % 12 for k in range(3)]))).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    with torch.no_grad():
        return Training(before, synthesiser(others), losses)


def long_term_spectrum(waves: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean level of each third of an octave [band] from 80 Hz, over waves [sample]; dB."""
    levels = []
    centres = 80 * 2 ** (np.arange(BANDS) / 3)
    for wave in waves:
        frames = np.lib.stride_tricks.sliding_window_view(wave, 2_048)[::1_024] * np.hanning(2_048)
        power = np.square(np.abs(np.fft.rfft(frames))).mean(axis=0)
        hz = np.arange(len(power)) * (RATE / 2_048)
        inside = np.abs(np.log2(np.maximum(hz, 1) / centres[:, None])) <= 1 / 6
        level = 10 * np.log10((inside * power).sum(axis=1) + 1e-12)
        levels.append(level - level.mean())
    return np.asarray(np.mean(levels, axis=0))


def read_folder(folder: Path) -> list[np.ndarray]:
    """Return the recordings of a folder, mono at 16 kHz."""
    import soxr

    waves = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac")):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waves.append(soxr.resample(samples.mean(axis=1), rate, RATE))
    return waves


def plot(result: Training, reference: np.ndarray | None, path: Path) -> None:
    """Draw the loss, and the long-term spectra."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(result.losses)
    left.set(xlabel="step", ylabel="NeuralLoss", title="loss: 1 is like the source, 0 like the reference")
    hz = 80 * 2 ** (np.arange(BANDS) / 3)
    for waves, name in ((result.before, "before"), (result.after, "after")):
        right.semilogx(hz, long_term_spectrum(waves[:, 0].numpy()), label=name)
    if reference is not None:
        right.semilogx(hz, reference, "k--", label="reference folder (not used)")
    right.set(xlabel="Hz", ylabel="dB", title="long-term spectrum")
    right.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="cello")
    parser.add_argument("--reference", type=Path, default=None, help="folder, to measure the result")
    parser.add_argument("-o", "--output", type=Path, default=None, help="sound: before, then after")
    parser.add_argument("--plot", type=Path, default=None, help="picture of loss and spectra")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    result = train(tonewood.NeuralLoss(options.model, RATE), options.steps)
    print(f"loss {result.losses[0]:.2f} → {result.losses[-1]:.2f} in {len(result.losses)} steps")
    reference = None
    if options.reference:
        reference = long_term_spectrum(read_folder(options.reference))
        errors = [
            np.sqrt(np.square(long_term_spectrum(waves[:, 0].numpy()) - reference).mean())
            for waves in (result.before, result.after)
        ]
        print(f"distance from the reference's long-term spectrum: {errors[0]:.1f} → {errors[1]:.1f} dB")
    if options.plot:
        plot(result, reference, options.plot)
    if options.output:
        sound = torch.cat([result.before[:3].flatten(), result.after[:3].flatten()])
        soundfile.write(options.output, (0.3 * sound / sound.abs().max()).numpy(), RATE)


if __name__ == "__main__":
    main()
