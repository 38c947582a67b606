"""The sound card, by PortAudio: as thin as can be, since no test can hear it."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import DeviceError, MissingExtraError

Samples = NDArray[np.float32]
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
            channels=min(
                _MAX_CARD_CHANNELS, sides[0]["max_input_channels"], sides[1]["max_output_channels"]
            ),
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
            "live needs sounddevice, which is not installed: pip install 'tonewood[live]'"
        ) from None
    except OSError:  # its wheels bring PortAudio along for Windows and macOS only
        raise MissingExtraError(
            "live needs PortAudio, which is not installed: apt install libportaudio2, "
            "dnf install portaudio or brew install portaudio"
        ) from None
    module: ModuleType = sounddevice
    return module
