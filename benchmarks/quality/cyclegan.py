"""Row: an unpaired mask network like CycleGAN, the alternative named in the paper.

Zhu et al. 2017 on mel rows. Two generators, each a network from rows to a mask, map source to
reference and back; two critics judge crops of 1.3 s. Least-squares adversarial loss, cycle and
identity losses, a pool of earlier outputs for the critics, and the learning rate falling to zero
over the second half; the generator that is used is a running average. There is no instance norm,
because it would take off the mean spectrum, which is half of what is to be learnt. The weights of
the losses, the learning rate and the crops were chosen on val pieces of two cello corpora; with
the original's weights of 10 and 5 the mask was still at zero after 25 s (below 1 % closed).

It trains as long as Tonewood did, in seconds of one core.
"""

import copy
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from quality.bench import Bench, Fitted, Row, SkippedError, render_mask
from quality.corpus import mel_rows
from quality.masknet import MaskNet, row_mean
from tonewood.scorer.training import draw_crops
from tonewood.utils.arrays import Levels

_BATCH, _FRAMES = 4, 130
_CYCLE, _IDENTITY = 3.0, 0.5
_SCALE_DB = 15.0
_LEARNING_RATE = 1e-3
_AVERAGE = 0.99
_POOL = 50


class Critic(nn.Module):
    """Crops [batch, row, frame] → how real each stretch sounds [batch, stretch]."""

    def __init__(self, mean: Levels, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("row_mean", torch.from_numpy(mean)[:, None])
        self.layers = nn.Sequential(
            nn.Conv1d(len(mean), width, 5, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 5, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 5, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, 1, 5),
        )

    def forward(self, rows_db: Tensor) -> Tensor:
        return self.layers((rows_db - self.row_mean) / _SCALE_DB)[:, 0]


class Pool:
    """Earlier outputs (Shrivastava et al. 2017): half of what a critic sees is old."""

    def __init__(self, generator: torch.Generator) -> None:
        self.crops: list[Tensor] = []
        self.generator = generator

    def exchange(self, fakes: Tensor) -> Tensor:
        out = []
        for crop in fakes.detach():
            if len(self.crops) < _POOL:
                self.crops.append(crop)
            elif torch.rand((), generator=self.generator) < 0.5:
                index = int(torch.randint(_POOL, (), generator=self.generator))
                crop, self.crops[index] = self.crops[index], crop
            out.append(crop)
        return torch.stack(out)


class CycleGAN:
    """Both directions, and one step of training."""

    def __init__(self, source: list[Levels], reference: list[Levels], seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.takes = source, reference
        mean = (row_mean(source) + row_mean(reference)) / 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.forth, self.back = MaskNet(mean), MaskNet(mean)
            self.reference_critic, self.source_critic = Critic(mean), Critic(mean)
        self.average = copy.deepcopy(self.forth)
        self.pools = Pool(self.generator), Pool(self.generator)
        self.optimisers = [
            torch.optim.Adam([*a.parameters(), *b.parameters()], _LEARNING_RATE, betas=(0.5, 0.999))
            for a, b in ((self.forth, self.back), (self.reference_critic, self.source_critic))
        ]

    def step(self, learning_rate: float) -> None:
        x, y = (draw_crops(t, _BATCH, _FRAMES, self.generator) for t in self.takes)
        fake_y, fake_x = x + self.forth(x), y + self.back(y)
        critics = self.reference_critic, self.source_critic
        for critic in critics:
            critic.requires_grad_(False)
        adversarial = squared(self.reference_critic(fake_y), 1) + squared(self.source_critic(fake_x), 1)
        # The two L1 losses are those of the masks: x + forth + back = x is forth = -back.
        cycle = (fake_y - x + self.back(fake_y)).abs().mean()
        cycle = cycle + (fake_x - y + self.forth(fake_x)).abs().mean()
        identity = self.forth(y).abs().mean() + self.back(x).abs().mean()
        loss = adversarial + (_CYCLE * cycle + _IDENTITY * identity) / _SCALE_DB
        self._descend(0, loss, learning_rate)
        for critic in critics:
            critic.requires_grad_(True)
        pairs = zip(critics, (y, x), (fake_y, fake_x), self.pools, strict=True)
        critic_loss = sum(
            squared(critic(real), 1) + squared(critic(pool.exchange(fake)), 0)
            for critic, real, fake, pool in pairs
        )
        self._descend(1, critic_loss / 2, learning_rate)
        with torch.no_grad():
            for averaged, new in zip(self.average.parameters(), self.forth.parameters(), strict=True):
                averaged.lerp_(new, 1 - _AVERAGE)

    def _descend(self, index: int, loss: Tensor, learning_rate: float) -> None:
        optimiser = self.optimisers[index]
        optimiser.param_groups[0]["lr"] = learning_rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def squared(verdict: Tensor, target: float) -> Tensor:
    """Least-squares adversarial loss (Mao et al. 2017)."""
    return (verdict - target).square().mean()


def budget_shares(budget_s: float) -> Iterator[float]:
    """Yield the share of the budget that is spent, in seconds of this process, until it is."""
    start_time = time.process_time()
    while (elapsed := time.process_time() - start_time) < budget_s:
        yield elapsed / budget_s


def cyclegan(bench: Bench) -> Fitted:
    budget_s = bench.trained().seconds
    if budget_s is None:
        raise SkippedError("the model was loaded, so it is not known how long its training takes")
    gan = CycleGAN(bench.source_rows, bench.reference_rows, bench.seed)
    steps = 0
    for share in budget_shares(budget_s):
        gan.step(_LEARNING_RATE * min(1.0, 2 * (1 - share)))
        steps += 1

    def enhance(piece):
        return render_mask(piece, gan.average.mask(mel_rows(piece.before)))

    return Fitted(enhance, budget_s, f"{steps} steps in Tonewood's own {budget_s:.0f} s")


CYCLEGAN = Row("cyclegan", "CycleGAN-style network", cyclegan)
