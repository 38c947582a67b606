"""Enhance live audio: read blocks from a device, process them, and write them back.

The sound card is accessed through PortAudio. That part is kept thin, because tests cannot hear it.
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
from tonewood.settings import MAX_AMOUNT, MIN_AMOUNT
from tonewood.utils.arrays import Samples

_AMOUNT_STEP = 0.1


class AudioInterface(Protocol):
    """Audio input and output in blocks (channels, samples)."""

    def read(self) -> Samples | None:
        """Wait for the next block; returns None after the last one."""
        ...

    def write(self, block: Samples) -> None:
        """Play a block."""
        ...

    @property
    def dropouts(self) -> int:
        """Number of blocks so far whose input or output was lost in part."""
        ...


@dataclass
class LiveControls:
    """Controls that may change while audio is processed."""

    amount: float = 1.0  # factor of the mask, -1 to 2
    bypassed: bool = False  # play the input unchanged, with the same delay
    ended: bool = False  # stop after the current block
    frozen: bool = False  # hold the mask of the moment when it was frozen
    delta: bool = False  # play what the mask adds and takes away

    def handle_key(self, key: str) -> None:
        """Handle a key: b, f and d toggle bypass, freeze and delta; + and - change the amount; q ends."""
        if key == "b":
            self.bypassed = not self.bypassed
        elif key == "f":
            self.frozen = not self.frozen
        elif key == "d":
            self.delta = not self.delta
        elif key in ("+", "-"):
            step = _AMOUNT_STEP if key == "+" else -_AMOUNT_STEP
            # Rounded, because ten steps of 0.1 do not add up to 1 in binary.
            self.amount = min(MAX_AMOUNT, max(MIN_AMOUNT, round(self.amount + step, 2)))
        elif key == "q":
            self.ended = True

    def apply(self, stream: StreamingEnhancer) -> None:
        """Set a stream to the controls."""
        # Bypass is amount 0, so that its delay is that of the processed audio.
        amount = 0.0 if self.bypassed else self.amount
        if amount != stream.amount:
            stream.amount = amount
        stream.frozen = self.frozen
        stream.plays_delta = self.delta and not self.bypassed

    @property
    def line(self) -> str:
        """State in words."""
        state = "bypassed" if self.bypassed else f"amount {100 * self.amount:.0f} %"
        switches = (("frozen", self.frozen), ("delta", self.delta))
        return ", ".join([state, *(name for name, on in switches if on)])


class BlockLevels(NamedTuple):
    """Levels of one block."""

    seconds: float  # audio processed so far
    # Peaks, dBFS; -inf for silence
    input_db: float
    output_db: float
    load: float  # processing time divided by the block's duration
    dropouts: int  # blocks so far that the device lost in part or that could not be processed


@dataclass
class LiveSummary:
    """Summary of a live session.

    `load` and `worst` are processing time divided by duration: the mean, and that of the slowest block.
    """

    seconds: float = 0.0
    load: float = 0.0
    worst: float = 0.0
    dropouts: int = 0

    def add(self, levels: BlockLevels) -> None:
        """Add a block."""
        duration = levels.seconds - self.seconds
        # Running mean, weighted by duration.
        self.load += (levels.load - self.load) * duration / max(levels.seconds, 1e-9)
        self.worst = max(self.worst, levels.load)
        self.seconds, self.dropouts = levels.seconds, levels.dropouts


def run_live(
    device: AudioInterface, stream: StreamingEnhancer, controls: LiveControls
) -> Iterator[BlockLevels]:
    """Process a device's audio until it ends or the controls say so; yields the levels of each block.

    A block that the stream cannot process becomes silence and counts as a dropout.
    """
    n_samples = n_invalid = 0
    while not controls.ended and (block := device.read()) is not None:
        start_time = time.perf_counter()
        controls.apply(stream)
        try:
            output = stream.process(block)
        except AudioError:
            # The stream needs as many samples as the device plays, or the delay would grow.
            block, n_invalid = np.zeros_like(block), n_invalid + 1
            output = stream.process(block)
        # Before the write, which waits for the device.
        elapsed = time.perf_counter() - start_time
        device.write(output)
        n_samples += block.shape[1]
        yield BlockLevels(
            n_samples / stream.rate,
            _block_peak_db(block),
            _block_peak_db(output),
            elapsed * stream.rate / max(1, block.shape[1]),
            device.dropouts + n_invalid,
        )
    # The stream lags by its latency: without the rest the last note would be cut off.
    device.write(stream.flush())


class FileDevice:
    """Audio interface that plays a recording instead of a sound card.

    A block has `block` samples.
    """

    dropouts = 0

    def __init__(self, recording: Recording, block: int) -> None:
        self.recording, self.block = recording, block
        self.position = 0
        self.output: list[Samples] = []

    def read(self) -> Samples | None:
        """Return the next block of the recording, or None at its end."""
        block = self.recording.samples[:, self.position : self.position + self.block]
        self.position += self.block
        return block if block.shape[1] else None

    def write(self, block: Samples) -> None:
        """Store a block."""
        self.output.append(block)

    def save(self, path: Path, latency: int, *, overwrite: bool = False) -> None:
        """Write the output without its delay, in the recording's format or the one of the suffix."""
        samples = np.concatenate(self.output, axis=1)[:, latency:]
        audio_format = AudioFormat.for_path(path, self.recording.format)
        rate, source = self.recording.rate, self.recording.path
        write_recording(path, samples, rate, audio_format, overwrite=overwrite, tags_from=source)


def _block_peak_db(block: Samples) -> float:
    peak = float(np.abs(block).max(initial=0.0))
    return 20 * float(np.log10(peak)) if peak else float("-inf")


NO_SOUND_CARD = "there is no sound card"
_MAX_CARD_CHANNELS = 2  # further inputs of a card usually belong to other instruments


class DeviceInfo(NamedTuple):
    """Audio device of this machine."""

    number: int
    name: str
    inputs: int
    outputs: int
    rate: int


class SoundCard:
    """Open input and output of a sound card.

    A block has `block` samples.
    """

    def __init__(self, stream: Any, block: int) -> None:  # noqa: ANN401 - sounddevice is untyped
        self.stream, self.block = stream, block
        self.dropouts = 0

    @property
    def rate(self) -> int:
        """Sample rate, Hz."""
        rate: float = self.stream.samplerate
        return round(rate)

    @property
    def channels(self) -> int:
        """Channels of the input and of the output."""
        return int(self.stream.channels[0])

    @property
    def latency(self) -> float:
        """Delay of input and output together, s, as reported by the driver."""
        return float(sum(self.stream.latency))

    def read(self) -> Samples | None:
        """Wait for the next block."""
        # PortAudio has (samples, channels); Tonewood has (channels, samples).
        block, lost = self.stream.read(self.block)
        self.dropouts += bool(lost)
        return np.ascontiguousarray(block.T)

    def write(self, block: Samples) -> None:
        """Play a block."""
        if block.shape[1]:
            self.dropouts += bool(self.stream.write(np.ascontiguousarray(block.T)))


def list_devices() -> list[DeviceInfo]:
    """Return the audio devices of this machine."""
    return [
        DeviceInfo(
            number,
            str(device["name"]),
            int(device["max_input_channels"]),
            int(device["max_output_channels"]),
            round(device["default_samplerate"]),
        )
        for number, device in enumerate(_import_sounddevice().query_devices())
    ]


@contextmanager
def open_sound_card(
    input_name: str | None, output_name: str | None, block: int, rate: int | None
) -> Iterator[SoundCard]:
    """Open an input and an output, by number or part of a name; None is the system's default.

    Raises
    ------
    MissingExtraError
        sounddevice or PortAudio is not installed.
    DeviceError
        A device does not exist or cannot be opened.
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
            # The stream has as many outputs as inputs.
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
    # PortAudio's messages may have several lines; ours have one.
    reason = " ".join(str(error).split())
    return DeviceError(f"the sound card cannot be used ({reason}): name a device of --list-devices")


def _device_id(device: str | None) -> int | str | None:
    # sounddevice takes numbers as int and searches names for a str.
    return int(device) if device is not None and device.isdecimal() else device


def _import_sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError(
            "live needs sounddevice, which is not installed: pip install '.[live]'"
        ) from None
    except OSError:  # its wheels contain PortAudio for Windows and macOS only
        raise MissingExtraError(
            "live needs PortAudio, which is not installed: apt install libportaudio2, "
            "dnf install portaudio or brew install portaudio"
        ) from None
    module: ModuleType = sounddevice
    return module
