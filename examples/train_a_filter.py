"""Train a small filter with a neural loss, until its output sounds like the reference.

    python examples/train_a_filter.py [RECORDING] [-m MODEL] [-o OUT.wav] [--steps N]

The filter is a vocoder: it splits a recording into bands, and a small convolution computes a gain
for each band and moment. Its only target is the score in `tonewood.NeuralLoss.terms`, 0 for the
reference and 1 for the source. Training stops in the range of held-out reference recordings. A
second term keeps the change small, because a network that only follows a score can fool it (see
docs/how-it-works.md).
"""

import argparse
from importlib.resources import files
from pathlib import Path

import soundfile
import torch
from torch import Tensor, nn

import tonewood

BANDS, FFT, HOP = 24, 1_024, 256
MOST_DB = 12.0


class Vocoder(nn.Module):
    """Compute gains of 24 bands per frame, by a convolution over their levels."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        hz = torch.linspace(0, rate / 2, FFT // 2 + 1)
        mel = torch.log1p(hz / 700)
        edges = torch.linspace(0, float(mel[-1]), BANDS + 2)
        width = edges[1]
        self.register_buffer("window", torch.hann_window(FFT))
        # Triangles that sum to 1 between centres, both to analyse bands and to return to bins.
        self.register_buffer("bands", (1 - (mel - edges[1:-1, None]).abs() / width).clamp_min(0))
        self.window: Tensor
        self.bands: Tensor
        self.gains = nn.Sequential(
            nn.Conv1d(BANDS, 32, 5, padding=2), nn.SiLU(), nn.Conv1d(32, BANDS, 9, padding=4)
        )
        last = self.gains[-1]
        assert isinstance(last, nn.Conv1d)
        nn.init.zeros_(last.weight)  # training begins with no change at all
        assert last.bias is not None
        nn.init.zeros_(last.bias)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Return filtered waveforms [batch, sample] and gains [batch, band, frame] in dB."""
        spectrum = torch.stft(wave, FFT, HOP, window=self.window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        level = 10 * torch.log10(self.bands @ power + 1e-8)
        gain = MOST_DB * torch.tanh(self.gains((level - level.mean()) / 20))
        factor = 10 ** (self.bands.T @ gain / 20)
        filtered = torch.istft(spectrum * factor, FFT, HOP, window=self.window, length=wave.shape[-1])
        return filtered, gain


def train(
    wave: Tensor, rate: int, model: tonewood.Model, steps: int, weight: float = 2e-3
) -> tuple[Tensor, Tensor, list[float]]:
    """Train on a waveform [sample]; return it filtered, the gains, and the score of each step."""
    torch.manual_seed(0)
    vocoder, loss = Vocoder(rate), tonewood.NeuralLoss(model, rate)
    target = model.card.scorer.reference_scores.high
    optimiser = torch.optim.Adam(vocoder.parameters(), lr=1e-3)
    scores = []
    for _ in range(steps):
        filtered, gain = vocoder(wave[None])
        score = loss.terms(filtered[:, None]).score.mean()
        scores.append(score.item())
        if scores[-1] <= target:
            break
        optimiser.zero_grad()
        (score + weight * gain.square().mean()).backward()
        optimiser.step()
    return filtered.detach()[0], gain.detach()[0], scores


def main() -> None:
    """Train on a recording and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    bundled = files("tonewood.bundled") / "example.flac"
    parser.add_argument("recording", nargs="?", default=str(bundled))
    parser.add_argument("-m", "--model", default="soundfont-cello")
    parser.add_argument("-o", "--output", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    samples, rate = soundfile.read(options.recording, dtype="float32", always_2d=True)
    model = tonewood.load(options.model)
    filtered, gain, scores = train(torch.from_numpy(samples.mean(axis=1)), rate, model, options.steps)
    reference_range = model.card.scorer.reference_scores
    print(f"score {scores[0]:.2f} → {scores[-1]:.2f} in {len(scores) - 1} steps")
    print(f"held-out reference recordings get {reference_range.low:.2f} to {reference_range.high:.2f}")
    print(f"gains: {gain.square().mean().sqrt():.1f} dB rms, {gain.abs().max():.1f} dB at most")
    judges = [tonewood.score(recording, rate, model).judge for recording in (samples.T, filtered.numpy())]
    if None not in judges:
        print(f"judge (not used in training): {judges[0]:.2f} → {judges[1]:.2f}")
    if options.output:
        soundfile.write(options.output, filtered.clamp(-1, 1).numpy(), rate)


if __name__ == "__main__":
    main()
