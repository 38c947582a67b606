"""Independent judge: another architecture, trained on other recordings than Tonewood's scorer.

Its input is the bins of the spectrogram, through a learnt linear projection and 1-D convolutions over
time; scorer and judge have mel bands and 2-D convolutions. It learns from the takes that the scorer holds
out and from val/, and is checked on those that the scorer learns from.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quality.bench import Bench
from quality.corpus import mono
from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import find_audio_files
from tonewood.data import dataset
from tonewood.data.dataset import TrainingRecording
from tonewood.dsp.features import cut_windows
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.scorer.training import draw_crops
from tonewood.settings import ModelSettings
from tonewood.utils.arrays import Levels, Samples

_FRAMES, _BATCH = 200, 16
_STEPS, _QUICK_STEPS = 200, 60
_RANGE_DB, _SCALE_DB = 70.0, 15.0
_COLOUR_DB = 3.0  # spread of the random smooth colourings of training crops


class Net(nn.Module):
    def __init__(self, mean: Levels, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean)[:, None])
        self.project = nn.Conv1d(len(mean), width, 1)
        self.listen = nn.Conv1d(width, width, 9, stride=2)
        self.decide = nn.Linear(2 * width, 1)

    def forward(self, bins_db: Tensor) -> Tensor:
        """Logit [batch] of levels [batch, bin, frame] in dB; above 0 is source-like."""
        return self.decide(F.dropout(self.features(bins_db), 0.3, self.training))[:, 0]

    def features(self, bins_db: Tensor) -> Tensor:
        """Mean and standard deviation over time of the channels [batch, feature]."""
        channels = F.elu(self.listen(F.elu(self.project((bins_db - self.mean) / _SCALE_DB))))
        return torch.cat([channels.mean(dim=2), channels.std(dim=2)], dim=1)


@dataclass(frozen=True)
class OutsideJudge:
    net: Net
    accuracy: float  # on windows of 2 s of takes that it did not learn from

    def score(self, wave: Samples) -> float:
        """Mean over 2 s windows of a waveform [sample]: 0 sounds like the reference."""
        return float(_scores(self.net, bins(wave)).mean())


def bins(wave: Samples) -> Levels:
    """Levels [bin, frame] of a waveform at the analysis rate, dB relative to its own level."""
    spectrum = ModelSettings().spectrum
    power = max(float(np.square(wave, dtype=np.float64).mean()), 1e-12)
    level = np.float32(10 * np.log10(power))
    return (log_magnitude(stft(wave, spectrum), spectrum) - level).clip(-_RANGE_DB)


def train(bench: Bench) -> OutsideJudge:
    sides = [
        _takes(folder, bench.seed, [getattr(piece, wave) for piece in bench.corpus.val])
        for folder, wave in ((bench.corpus.reference, "target"), (bench.corpus.source, "before"))
    ]
    generator = bench.generator()
    mean = np.mean([np.concatenate(learn, axis=1).mean(axis=1) for learn, _ in sides], axis=0)
    target = torch.cat([torch.zeros(_BATCH), torch.ones(_BATCH)]) * 0.9 + 0.05
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        net = Net(mean)
        optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
        for _ in range(_QUICK_STEPS if bench.quick else _STEPS):
            crops = [draw_crops(learn, _BATCH, _FRAMES, generator) for learn, _ in sides]
            logit = net(add_random_equalizer(torch.cat(crops), generator))
            loss = F.binary_cross_entropy_with_logits(logit, target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    reference, source = (np.concatenate([_scores(net, rows) for rows in checked]) for _, checked in sides)
    correct_share = (reference < 0.5).mean() + (source >= 0.5).mean()
    return OutsideJudge(net, float(correct_share) / 2)


def add_random_equalizer(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Crops [batch, bin, frame] under random smooth EQs, so that no colour alone decides."""
    points = torch.randn(len(crops), 1, 8, generator=generator) * _COLOUR_DB
    gain = F.interpolate(points, size=crops.shape[1], mode="linear", align_corners=True)
    return crops + gain.transpose(1, 2)


def _takes(folder: Path, seed: int, val: list[Samples]) -> tuple[list[Levels], list[Levels]]:
    """Return bins of takes to learn from and to check on: the split of the scorer, exchanged."""
    settings = ModelSettings().replace(training=dict(seed=seed))
    takes = []
    for path in find_audio_files(folder):
        recording = read_recording(path)
        rows = bins(mono(recording.samples, recording.rate))
        group = str(path.relative_to(folder))  # the name by which `dataset` draws the split
        takes.append((TrainingRecording(path, group, recording.duration, "", None, None, path), rows))
    split = dataset.split_takes([t for t, _ in takes], settings.training.held_out, seed)
    held_out = {t.path for t in split.held_out}
    learn = [rows for t, rows in takes if t.path in held_out]
    check = [rows for t, rows in takes if t.path not in held_out]
    return [*learn, *(bins(wave) for wave in val)], check


def _scores(net: Net, rows: Levels) -> Levels:
    with torch.no_grad():
        return torch.sigmoid(net(torch.from_numpy(cut_windows(rows, _FRAMES)))).numpy()
