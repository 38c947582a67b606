"""Training of a filter by the loss of a scorer, in one process or as one of two.

As a script: rank, and the file by which both processes meet. It imports little, because both start
for one test.
"""

import os
import sys
from collections.abc import Callable

import torch
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from tonewood.model.losses import ScorerLoss
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import ScorerSettings, SpectrumSettings


def filter_trained_by_loss(
    wrap: Callable[[torch.nn.Module], torch.nn.Module], rank: int = 0, world: int = 1
) -> list[float]:
    """Return the taps of a filter after three steps down the loss of this process's share of a batch."""
    scorer = initial_scorer(
        ScorerSettings(width=4), SpectrumSettings(), torch.Generator().manual_seed(0)
    ).as_tensors()
    scorer.weights["linear.weight"] *= 50
    loss = ScorerLoss(scorer, 22_050)
    generator = torch.Generator().manual_seed(1)
    taps = torch.nn.Conv1d(1, 1, 9, padding=4, bias=False)
    torch.nn.init.normal_(taps.weight, std=0.2, generator=generator)
    waves = torch.randn(4, 1, 6_000, generator=generator)[rank::world]
    model = wrap(taps)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        loss(model(waves)).backward()
        optimiser.step()
    return taps.weight.flatten().tolist()


def main(rank: int, meeting: str) -> None:
    """Print the taps."""
    init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    taps = filter_trained_by_loss(DistributedDataParallel, rank=rank, world=2)
    print(" ".join(f"{value:.6f}" for value in taps))
    destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may outlive the interpreter, and end it loudly


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
