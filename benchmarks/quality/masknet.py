"""A small network from mel rows to a mask, shared by the CycleGAN-style and supervised rows."""

import torch
from torch import Tensor, nn

_SCALE_DB = 15.0  # brings levels to about unit spread


class MaskNet(nn.Module):
    """Three 1-D convolutions over time, with rows as channels; starts with a zero mask.

    Parameters
    ----------
    row_mean : Tensor [row]
        Mean level of each row, dB.
    """

    def __init__(self, row_mean: Tensor, width: int = 96, kernel: int = 9) -> None:
        super().__init__()
        rows = len(row_mean)
        self.register_buffer("row_mean", row_mean[:, None])
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

    def mask(self, rows_db: Tensor) -> Tensor:
        """Mask [row, frame] of one recording [row, frame], without gradient."""
        with torch.no_grad():
            return self(rows_db[None])[0]


def row_mean(takes: list[Tensor]) -> Tensor:
    """Mean [row] over all frames of all takes [row, frame]."""
    return torch.cat(takes, dim=1).mean(dim=1)
