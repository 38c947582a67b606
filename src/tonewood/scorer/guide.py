"""The guide L_g: an energy whose gradient is trained (gradient-trained regularizer, Lunz et al. 2018).

A classifier's gradient is only constrained by the accuracy, and a search that follows it leaves the
reference. The guide's negative gradient is trained to be the correction that a sound near the
reference still needs: a gradient-step denoiser (Hurault, Leclaire & Papadakis 2022). See
`guide_training`.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import apply_filterbank, filterbank_gradient, mean_level
from tonewood.settings import BandSettings, GuideSettings, SpectrumSettings
from tonewood.utils.arrays import Array, FloatArray, Levels
from tonewood.utils.layers import (
    Network,
    check_shapes,
    convolve,
    convolve_gradient,
    pad_frames,
    pool_frames,
    pool_frames_gradient,
    silu,
    silu_slope,
)

RANGE_DB = 75.0
"""Levels further below the recording's are raised to this distance."""


class Guide(Network):
    """Energy of levels on the scorer's rows; small for reference-like sound.

    The weights are named and shaped as in `guide_shapes`; KeyError or ValueError if not.
    """

    constants = frozenset({"row_mean", "spread"})

    def __init__(self, settings: GuideSettings, weights: Mapping[str, Any]) -> None:
        super().__init__(weights)
        self.settings = settings
        check_shapes(self.weights, guide_shapes(len(self.weights["row_mean"]), settings))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all values by name, to be stored: in half precision where that changes nothing."""
        # Models of earlier versions have guides in single precision.
        return {
            name: half if (half == self.weights[name]).all() else self.weights[name]
            for name, half in self._halves().items()
        }

    @classmethod
    def from_tensors(cls, named: Mapping[str, NDArray[Any]], settings: GuideSettings) -> Self:
        """Undo `tensors`; KeyError or ValueError if they do not match the settings."""
        return cls(settings, {name: values.astype(np.float32) for name, values in named.items()})

    def rounded(self) -> Self:
        """Return the guide with values of half precision, as models store it."""
        return self.from_tensors(self._halves(), self.settings)

    def _halves(self) -> dict[str, NDArray[np.float16]]:
        return {name: values.astype(np.float16) for name, values in self.weights.items()}

    @property
    def reach_frames(self) -> int:
        """Frames on either side that affect the energy's gradient at a frame."""
        reach = sum(kernel // 2 for _, _, kernel in _convolution_sizes(1, 1))
        # Forward and backward pass each reach as far as the kernels.
        return (2 * reach + 1) * self.settings.pooled_frames

    def energy(self, rows_db: Array, level_db: float | None = None) -> Array:
        """Return the energy [batch] in dB², a sum over cells, of levels [batch, row, frame] in dB.

        `level_db` is the mean level of the recording, if the levels are a segment of it.
        """
        level = mean_level(rows_db)[:, None, None] if level_db is None else level_db
        residual, _ = self._residual(self._normalize(rows_db, level))
        energy: Array = (residual**2).sum(2) @ self.weights["row_weight"] * self._cell_weight
        return energy

    def energy_and_gradient(self, rows_db: Levels, level_db: float) -> tuple[float, Levels]:
        """Return the energy in dB² of levels [row, frame] at a fixed mean level, and its gradient in dB."""
        x: FloatArray = self._normalize(rows_db[None], level_db)
        residual, inputs = self._residual(x)
        energy = float(np.square(residual).sum(axis=(0, 2)) @ self.weights["row_weight"]) * self._cell_weight
        gradient: FloatArray = residual * (2 * self._cell_weight * self.weights["row_weight"][:, None])
        back = gradient
        for number in reversed(range(len(inputs))):
            kernel = self.weights[f"convolutions.{number}.weight"]
            half, frames = kernel.shape[2] // 2, inputs[number].shape[2]
            back = convolve_gradient(back, kernel, frames + 2 * half)[:, :, half : half + frames]
            if number > 0:
                back = back * silu_slope(inputs[number])
        pooled = (self.weights["own"] * gradient + back) / self.weights["spread"]
        slope: Levels = pool_frames_gradient(pooled[0], rows_db.shape[1], self.settings.pooled_frames)
        return energy, slope * (rows_db - np.float32(level_db) >= -RANGE_DB)

    def energy_of_bins(
        self, magnitude_db: Levels, bands: BandSettings, spectrum: SpectrumSettings
    ) -> tuple[float, Levels]:
        """Return the energy in dB² of a whole recording [bin, frame] in dBFS, and its gradient in dB."""
        rows_db = apply_filterbank(magnitude_db, bands, spectrum)
        # The level follows a mask, which changes it by many dB on the way from the source.
        energy, slope = self.energy_and_gradient(rows_db, float(mean_level(rows_db)))
        return energy, filterbank_gradient(slope, magnitude_db, bands, spectrum)

    @property
    def _cell_weight(self) -> float:
        # A pooled cell stands for `pooled_frames` cells; `unit_db2` sets the size of the gradient in dB.
        return self.settings.pooled_frames * self.settings.unit_db2

    def _residual(self, x: Array) -> tuple[Array, list[Array]]:
        """Return own · x + f(x), a quadratic bent by convolutions f, and the input of each convolution."""
        y, inputs = x, []
        for number in range(len(_convolution_sizes(1, 1))):
            weight, bias = (self.weights[f"convolutions.{number}.{part}"] for part in ("weight", "bias"))
            inputs.append(y)
            half = weight.shape[-1] // 2
            y = convolve(pad_frames(y if number == 0 else silu(y), half, half), weight, bias)
        return self.weights["own"] * x + y, inputs

    def _normalize(self, rows_db: Array, level_db: Array | float) -> Array:
        """Remove the level, scale to about unit variance, and average over a few frames."""
        relative = (rows_db - level_db).clip(-RANGE_DB)
        x: Array = (relative - self.weights["row_mean"][:, None]) / self.weights["spread"]
        return pool_frames(x, self.settings.pooled_frames)


def guide_shapes(rows: int, settings: GuideSettings) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a guide."""
    shapes: dict[str, tuple[int, ...]] = {
        "row_mean": (rows,), "spread": (), "own": (rows, 1), "row_weight": (rows,)
    }  # fmt: skip
    for number, (inputs, outputs, kernel) in enumerate(_convolution_sizes(rows, settings.width)):
        shapes[f"convolutions.{number}.weight"] = (outputs, inputs, kernel)
        shapes[f"convolutions.{number}.bias"] = (outputs,)
    return shapes


def _convolution_sizes(rows: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Return input channels, output channels and kernel size of each convolution."""
    return (rows, width, 7), (width, width, 5), (width, rows, 5)
