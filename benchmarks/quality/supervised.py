"""Row: a mask network trained with pairs, which users do not have.

The few paired val pieces teach it. Each of up to four groups of pieces is held out once, to stop
in time, and the nets' masks are averaged, so that every pair teaches.
"""

import copy
import time

import numpy as np
import torch
from torch import Tensor

from quality.bench import Bench, Fitted, Row, SkippedError, render_mask
from quality.corpus import mel_rows
from quality.masknet import MaskNet, row_mean
from tonewood.scorer.training import draw_crops
from tonewood.utils.arrays import Levels

_FOLDS = 4
_STEPS, _CHECK_EVERY, _PATIENCE = 600, 20, 4
_BATCH, _FRAMES = 8, 150
_LEVEL_DB = 3.0  # spread of the random levels
_LEARNING_RATE = 1e-3


def supervised(bench: Bench) -> Fitted:
    pieces = bench.corpus.val
    if len(pieces) < 2:
        raise SkippedError("needs two paired pieces in val/")
    start_time = time.process_time()
    # Source above target, so that one crop cuts both alike.
    pairs = [np.stack([mel_rows(p.before), mel_rows(p.target)]) for p in pieces]
    folds = min(_FOLDS, len(pairs))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        nets = [
            fit([p for i, p in enumerate(pairs) if i % folds != fold], pairs[fold::folds])
            for fold in range(folds)
        ]
    seconds = time.process_time() - start_time

    def enhance(piece):
        rows = mel_rows(piece.before)
        return render_mask(piece, np.mean([net.mask(rows) for net in nets], axis=0))

    paired = sum(len(piece.before) for piece in pieces) / 16_000
    return Fitted(enhance, seconds, f"{folds} nets, taught by {paired:.0f} s of pairs")


def fit(train: list[Levels], held_out: list[Levels]) -> MaskNet:
    """Return the network with the best result on held-out pairs, each [source or target, row, frame]."""
    net = MaskNet(row_mean([pair[0] for pair in train]))
    optimiser = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    stacked = [pair.reshape(-1, pair.shape[-1]) for pair in train]  # [source rows, then target rows; frame]
    best, best_loss, checks_without_gain = net, float("inf"), 0
    for step in range(1, _STEPS + 1):
        crops = draw_crops(stacked, _BATCH, _FRAMES, generator)
        source, target = crops.chunk(2, dim=1)
        level = torch.randn(_BATCH, 1, 1, generator=generator) * _LEVEL_DB
        loss = distance(net, source + level, target + level)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % _CHECK_EVERY:
            continue
        with torch.no_grad():
            pairs = [torch.from_numpy(pair) for pair in held_out]
            held_out_loss = sum(float(distance(net, pair[:1], pair[1:])) for pair in pairs)
        if held_out_loss < best_loss:
            best, best_loss, checks_without_gain = copy.deepcopy(net), held_out_loss, 0
        elif (checks_without_gain := checks_without_gain + 1) >= _PATIENCE:
            break
    return best


def distance(net: MaskNet, source: Tensor, target: Tensor) -> Tensor:
    """Mean over frames of the root mean square over rows: the distance that is reported."""
    error = source + net(source) - target
    return (error.square().mean(dim=1) + 1e-3).sqrt().mean()


SUPERVISED = Row("supervised", "supervised network (val pairs)", supervised)
