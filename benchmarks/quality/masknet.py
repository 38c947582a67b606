"""A small network from mel rows to a mask, shared by the CycleGAN-style and supervised rows."""

import numpy as np
import torch
from torch import Tensor, nn

from tonewood.utils.arrays import Levels

_SCALE_DB = 15.0  # brings levels to about unit spread


class MaskNet(nn.Module):
    """Three 1-D convolutions over time, with rows as channels; starts with a zero mask.

    Parameters
    ----------
    row_mean : float32 array [row]
        Mean level of each row, dB.
    """

    def __init__(self, row_mean: Levels, width: int = 96, kernel: int = 9) -> None:
        super().__init__()
        rows = len(row_mean)
        self.register_buffer("row_mean", torch.from_numpy(row_mean)[:, None])
        same = {"kernel_size": kernel, "padding": kernel // 2, "padding_mode": "replicate"}
        self.layers = nn.Sequential(
            nn.Conv1d(rows, width, **same),
            nn.LeakyReLU(0.1),
            nn.Conv1d(width, width, **same),
            nn.LeakyReLU(0.1),
            nn.Conv1d(width, rows, **same),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, rows_db: Tensor) -> Tensor:
        """Mask [batch, row, frame] in dB for levels [batch, row, frame] in dB."""
        return _SCALE_DB * self.layers((rows_db - self.row_mean) / _SCALE_DB)

    def mask(self, rows_db: Levels) -> Levels:
        """Mask [row, frame] of one recording [row, frame], without gradient."""
        with torch.no_grad():
            return self(torch.from_numpy(rows_db)[None])[0].numpy()


def row_mean(takes: list[Levels]) -> Levels:
    """Mean [row] over all frames of all takes [row, frame]."""
    return np.concatenate(takes, axis=1).mean(axis=1)
