"""A performance: blocks come from a device, are reshaped, and go back to it.

The sound card, by PortAudio: as thin as can be, since no test can hear it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import write_recording
from tonewood.audio_io.recording import Recording
from tonewood.enhancement.streaming import StreamingEnhancer
from tonewood.errors import AudioError, DeviceError, MissingExtraError
from tonewood.utils.arrays import Samples

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


def run_live(
    device: AudioInterface, stream: StreamingEnhancer, controls: LiveControls
) -> Iterator[BlockLevels]:
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


NO_SOUND_CARD = "no sound card is at hand"
_MAX_CARD_CHANNELS = 2  # at most: more belong to as many instruments


class DeviceInfo(NamedTuple):
    """A device that is there."""

    number: int
    name: str
    inputs: int
    outputs: int
    rate: int


class SoundCard:
    """An open input and output; see `live.AudioInterface`.

    Parameters
    ----------
    stream : sounddevice.Stream
    block : int
        Samples.
    """

    def __init__(self, stream: Any, block: int) -> None:  # noqa: ANN401 - sounddevice is untyped
        self.stream, self.block = stream, block
        self.dropouts = 0

    @property
    def rate(self) -> int:
        """Hz."""
        rate: float = self.stream.samplerate
        return round(rate)

    @property
    def channels(self) -> int:
        """Of the input and of the output."""
        return int(self.stream.channels[0])

    @property
    def latency(self) -> float:
        """Seconds that input and output hold together, as the driver says."""
        return float(sum(self.stream.latency))

    def read(self) -> Samples | None:
        """Wait for the next block."""
        block, lost = self.stream.read(self.block)
        self.dropouts += bool(lost)
        return np.ascontiguousarray(block.T)

    def write(self, block: Samples) -> None:
        """Play a block."""
        if block.shape[1]:
            self.dropouts += bool(self.stream.write(np.ascontiguousarray(block.T)))


def list_devices() -> list[DeviceInfo]:
    """Devices that are there."""
    return [
        DeviceInfo(
            number,
            str(found["name"]),
            int(found["max_input_channels"]),
            int(found["max_output_channels"]),
            round(found["default_samplerate"]),
        )
        for number, found in enumerate(_import_sounddevice().query_devices())
    ]


@contextmanager
def open_sound_card(
    input_name: str | None, output_name: str | None, block: int, rate: int | None
) -> Iterator[SoundCard]:
    """Open an input and an output, by number or part of a name; the system's own if not named.

    Raises
    ------
    MissingExtraError
        sounddevice or PortAudio is not installed.
    DeviceError
        A device is not there, or refuses.
    """
    sound = _import_sounddevice()
    if not len(sound.query_devices()):
        raise DeviceError(f"{NO_SOUND_CARD}: connect one, or play a recording with --from")
    try:
        sides = [
            sound.query_devices(_device_id(name), kind)
            for name, kind in ((input_name, "input"), (output_name, "output"))
        ]
        stream = sound.Stream(
            samplerate=rate or round(sides[0]["default_samplerate"]),
            blocksize=block,
            device=tuple(side["index"] for side in sides),
            channels=min(_MAX_CARD_CHANNELS, sides[0]["max_input_channels"], sides[1]["max_output_channels"]),
            dtype="float32",
            latency="low",
        )
    except (sound.PortAudioError, ValueError) as error:
        raise _sound_card_error(error) from None
    try:
        with stream:
            yield SoundCard(stream, block)
    except sound.PortAudioError as error:
        raise _sound_card_error(error) from None


def _sound_card_error(error: Exception) -> DeviceError:
    why = " ".join(str(error).split())
    return DeviceError(f"the sound card refuses ({why}): see --list-devices and name others")


def _device_id(device: str | None) -> int | str | None:
    return int(device) if device is not None and device.isdecimal() else device


def _import_sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError(
            "live needs sounddevice, which is not installed: pip install '.[live]'"
        ) from None
    except OSError:  # its wheels bring PortAudio along for Windows and macOS only
        raise MissingExtraError(
            "live needs PortAudio, which is not installed: apt install libportaudio2, "
            "dnf install portaudio or brew install portaudio"
        ) from None
    module: ModuleType = sounddevice
    return module
