"""A performance: blocks come from a device, are reshaped, and go back to it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import AudioError
from tonewood.files.audio import AudioFormat, Recording, write_recording
from tonewood.workflow.streaming import StreamingEnhancer

Samples = NDArray[np.float32]
_AMOUNT_STEP = 0.1


class AudioInterface(Protocol):
    """What sound comes from and goes to, in blocks (channels, samples)."""

    def read(self) -> Samples | None:
        """Wait for the next block; None once there are no more."""
        ...

    def write(self, block: Samples) -> None:
        """Give a block back."""
        ...

    @property
    def dropouts(self) -> int:
        """Blocks so far of which something was lost, either way."""
        ...


@dataclass
class LiveControls:
    """What may be turned while a performance goes on.

    Parameters
    ----------
    amount : float
        0 to 1.
    bypassed : bool
        The input comes out as it is, as late as ever.
    ended : bool
        Stop after this block.
    """

    amount: float = 1.0
    bypassed: bool = False
    ended: bool = False

    def handle_key(self, key: str) -> None:
        """b: bypass on or off; + and -: a tenth more or less; q: end. Others do nothing."""
        if key == "b":
            self.bypassed = not self.bypassed
        elif key in ("+", "-"):
            step = _AMOUNT_STEP if key == "+" else -_AMOUNT_STEP
            self.amount = min(1.0, max(0.0, round(self.amount + step, 2)))
        elif key == "q":
            self.ended = True


class BlockLevels(NamedTuple):
    """One block that was reshaped.

    Parameters
    ----------
    seconds : float
        Since the beginning, by the samples.
    input_db, output_db : float
        Peaks re full scale; -inf for silence.
    load : float
        Share of the block's duration that reshaping it took.
    dropouts : int
        So far: blocks of which the device lost something, and ones that were refused.
    """

    seconds: float
    input_db: float
    output_db: float
    load: float
    dropouts: int


@dataclass
class LiveSummary:
    """What a performance came to.

    Parameters
    ----------
    seconds : float
    load, worst : float
        Share of the time that reshaping took, on average and for the slowest block.
    dropouts : int
    """

    seconds: float = 0.0
    load: float = 0.0
    worst: float = 0.0
    dropouts: int = 0

    def add(self, levels: BlockLevels) -> None:
        """Count a block."""
        since = levels.seconds - self.seconds
        self.load += (levels.load - self.load) * since / max(levels.seconds, 1e-9)
        self.worst = max(self.worst, levels.load)
        self.seconds, self.dropouts = levels.seconds, levels.dropouts


def run_live(device: AudioInterface, stream: StreamingEnhancer, controls: LiveControls) -> Iterator[BlockLevels]:
    """Reshape what a device gives until it, or the controls, end; yields every block's levels.

    A block that the stream refuses is a dropout, heard as silence: a performance goes on.
    """
    heard = damaged = 0
    while not controls.ended and (block := device.read()) is not None:
        began = time.perf_counter()
        amount = 0.0 if controls.bypassed else controls.amount
        if amount != stream.amount:
            stream.amount = amount
        try:
            made = stream.process(block)
        except AudioError:
            block, damaged = np.zeros_like(block), damaged + 1
            made = stream.process(block)
        spent = time.perf_counter() - began
        device.write(made)
        heard += block.shape[1]
        yield BlockLevels(
            heard / stream.rate,
            _block_peak_db(block),
            _block_peak_db(made),
            spent * stream.rate / max(1, block.shape[1]),
            device.dropouts + damaged,
        )
    device.write(stream.flush())


class FileDevice:
    """A recording instead of a sound card: the very same loop, heard offline.

    Parameters
    ----------
    recording : Recording
    block : int
        Samples.
    """

    dropouts = 0

    def __init__(self, recording: Recording, block: int) -> None:
        self.recording, self.block = recording, block
        self.position = 0
        self.output: list[Samples] = []

    def read(self) -> Samples | None:
        """Next block of the recording."""
        block = self.recording.samples[:, self.position : self.position + self.block]
        self.position += self.block
        return block if block.shape[1] else None

    def write(self, block: Samples) -> None:
        """Keep a block."""
        self.output.append(block)

    def save(self, path: Path, latency: int, *, overwrite: bool = False) -> None:
        """Write what was made, its delay taken off, in the recording's format or the name's."""
        made = np.concatenate(self.output, axis=1)[:, latency:]
        form = AudioFormat.for_path(path, self.recording.format)
        rate, like = self.recording.rate, self.recording.path
        write_recording(path, made, rate, form, overwrite=overwrite, tags_from=like)


def _block_peak_db(block: Samples) -> float:
    peak = float(np.abs(block).max(initial=0.0))
    return 20 * float(np.log10(peak)) if peak else float("-inf")
