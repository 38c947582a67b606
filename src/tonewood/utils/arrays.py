"""Array types that signatures share, and what arrays of NumPy and torch have in common.

A model is used on NumPy arrays and trained on torch tensors. A formula that both need is written once, with
the functions of `namespace(x)`; those that it uses have the same names and arguments in both libraries.
`RandomDraws` draws the numbers that a generator of torch draws. `DiskArray` holds series of any length.
"""

import math
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import OutputError, failure_reason, printable
from tonewood.utils.files import DISK_FULL_ERRNOS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Array = TypeVar("Array", NDArray[Any], Tensor)
else:
    Array = TypeVar("Array")

_FILL = 16  # normal values that torch draws at once; fewer are drawn one by one

FloatArray = NDArray[np.floating[Any]]
"""Real numbers, in single or double precision."""

Samples = NDArray[np.float32]
"""Audio (channels, samples) or (samples,); full scale is ±1."""

Levels = NDArray[np.float32]
"""Levels or gains in dB, [row, frame] unless said otherwise."""

TakeWeights = Sequence[float] | None
"""Weight of each frame of each take; None gives all the same weight."""


def namespace(x: Array) -> Any:  # noqa: ANN401 - a module
    """Return the module of an array's functions: numpy or torch."""
    if isinstance(x, np.ndarray):
        return np
    import torch  # only in training: it takes seconds to load

    return torch


@contextmanager
def usual_torch_state() -> Iterator[None]:
    """Compute with gradients, in single precision and on the CPU, whatever the caller has set in torch.

    Covers `no_grad`, `inference_mode`, autocast, and the default precision and device.
    """
    import torch

    precision = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.device("cpu"),
        ):
            yield
    finally:
        torch.set_default_dtype(precision)


def to_mono(samples: Samples) -> Samples:
    """Return the mean of the channels, (samples,), of (channels, samples)."""
    # Summed in double precision, so that the mean of equal channels is exactly one of them.
    mean: Samples = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def logsumexp(x: Array, axis: int) -> Array:
    """Return log Σ exp(x) over an axis, without overflow; its gradient is finite."""
    xp = namespace(x)
    largest = xp.amax(x, axis, keepdims=True)
    total: Array = xp.squeeze(largest, axis) + xp.log(xp.exp(x - largest).sum(axis))
    return total


def weighted_mean(takes: Iterable[NDArray[np.float32]], weights: TakeWeights = None) -> NDArray[np.float32]:
    """Return the weighted mean [row] of all frames of takes [row, frame], one in memory at a time."""
    take_weights = iter(weights) if weights is not None else repeat(1.0)
    # Double precision: the sum of hours of frames would lose digits in single.
    total, weight_sum = np.zeros(1), 0.0
    for take in takes:
        weight = next(take_weights)
        total = total + take.sum(axis=1, dtype=np.float64) * weight
        weight_sum += take.shape[1] * weight
    return (total / weight_sum).astype(np.float32)


# --- Random draws


class RandomDraws:
    """Uniform, normal and integer numbers from the Mersenne Twister MT19937 (Matsumoto & Nishimura 1998)."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(seed)
        self._next_normal: float | None = None

    def uniform(self, *shape: int) -> NDArray[np.float32]:
        """Return numbers from 0 to below 1, as `torch.rand`."""
        words = self._draw(math.prod(shape))
        return ((words & 0xFFFFFF) * 2.0**-24).astype(np.float32).reshape(shape)

    def integer(self, limit: int) -> int:
        """Return a number from 0 to below `limit`, as `torch.randint`."""
        return int(self._draw(1)[0]) % limit

    def permutation(self, count: int) -> NDArray[np.int64]:
        """Return the numbers below `count` in random order, as `torch.randperm`."""
        order = np.arange(count)
        for place, word in enumerate(self._draw(max(count - 1, 0)).tolist()):
            other = place + word % (count - place)
            order[place], order[other] = order[other], order[place]
        return order

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Return normal numbers, as `torch.randn`: by the transform of Box & Muller (1958)."""
        count = math.prod(shape)
        if count < _FILL:
            few = [self._single_normal() for _ in range(count)]
            return np.array(few, dtype=np.float32).reshape(shape)
        values = self.uniform(count)
        whole = count - count % _FILL
        values[:whole] = _box_muller(values[:whole])
        if whole < count:
            values[-_FILL:] = _box_muller(self.uniform(_FILL))
        return values.reshape(shape)

    def _single_normal(self) -> float:
        if self._next_normal is not None:
            value, self._next_normal = self._next_normal, None
            return value
        angle, size = (self._double() for _ in range(2))
        radius = math.sqrt(-2 * math.log1p(-size))
        self._next_normal = radius * math.sin(2 * math.pi * angle)
        return radius * math.cos(2 * math.pi * angle)

    def _double(self) -> float:
        high, low = (int(word) for word in self._draw(2))
        return ((high << 32 | low) & (2**53 - 1)) * 2.0**-53

    def _draw(self, count: int) -> NDArray[np.uint32]:
        return self._words.randint(0, 2**32, count, dtype=np.uint32)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return normal numbers of uniform ones, in groups of 16: eight radii and eight angles."""
    pairs = uniform.reshape(-1, 2, _FILL // 2)
    radius = np.sqrt(-2 * np.log(1 - pairs[:, 0]))
    angle = np.float32(2 * math.pi) * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


_COPY_BYTES = 1 << 20


def sample_takes(
    lengths: Sequence[int], count: int, generator: "torch.Generator", weights: TakeWeights = None
) -> list[int]:
    """Draw indices of takes with replacement: uniformly, or by length times weight."""
    import torch  # only in training

    if weights is None:
        return torch.randint(len(lengths), (count,), generator=generator).tolist()
    # Weights are per frame, so the probability of a take is its frames times its weight.
    mass = torch.tensor(lengths, dtype=torch.float64) * torch.tensor(weights, dtype=torch.float64)
    return torch.multinomial(mass, count, replacement=True, generator=generator).tolist()


def split_generator(generator: "torch.Generator", count: int) -> "list[torch.Generator]":
    """Return generators of independent numbers, for work in parallel."""
    import torch  # only in training

    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def interpolate_noise(
    count: int, points: tuple[int, int], size: tuple[int, int], generator: "torch.Generator"
) -> "torch.Tensor":
    """Return smooth random fields [count, row, frame]: normal values at points, bilinear between them.

    `points` and `size` are rows and frames of the coarse grid, and of the fields.
    """
    import torch  # only in training

    coarse = torch.randn(count, 1, *points, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)[:, 0]


# --- Arrays on disk


class DiskArray:
    """Time series [row, frame], or [frame] if `rows` is None, in an unnamed temporary file.

    It is appended to and read while a recording is processed. The file is in `folder`, or in the system's
    temporary folder.
    """

    def __init__(self, rows: int | None, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        try:
            # The file has no name, so nothing remains even if the process is killed.
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the array
        except OSError as error:
            raise OutputError(
                f"{printable(self._folder)} cannot be written to ({failure_reason(error)}): name another "
                "output folder"
            ) from error
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # seek and read or write must not be separated
        self.rows, self._frame_bytes = rows, np.dtype(np.float32).itemsize * (rows or 1)
        self.frames = 0

    def append(self, values: NDArray[np.generic]) -> None:
        """Append frames [row, frame] or [frame]."""
        array = values.astype(np.float32, copy=False)
        assert array.shape[:-1] == (() if self.rows is None else (self.rows,))
        try:
            with self._lock:
                self._file.seek(self.frames * self._frame_bytes)
                # Frame by frame, so that new frames follow the old ones in the file.
                self._file.write(np.ascontiguousarray(array.T).data)
                self._file.flush()
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise OutputError(
                    f"the disk of {printable(self._folder)} is full: free some space or name another "
                    "output folder"
                ) from error
            raise
        self.frames += array.shape[-1]

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the values from `start` to before `stop`."""
        values = self.read_frames(start, stop)
        return values if self.rows is None else np.ascontiguousarray(values.T)

    def read_frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the same as they are on disk: [frame, row], or [frame]."""
        content = bytearray((min(stop, self.frames) - start) * self._frame_bytes)
        with self._lock:
            self._file.seek(start * self._frame_bytes)
            self._file.readinto(content)
        flat = np.frombuffer(content, np.float32)
        return flat if self.rows is None else flat.reshape(-1, self.rows)

    def copy_to(self, file: BinaryIO) -> None:
        """Copy the values to a file, frame by frame."""
        with self._lock:
            self._file.seek(0)
            shutil.copyfileobj(self._file, file, _COPY_BYTES)
