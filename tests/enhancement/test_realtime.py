"""Live enhancement, with a fake audio device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tonewood.enhancement.realtime import BlockLevels, LiveControls, LiveSummary, run_live
from tonewood.enhancement.streaming import StreamingEnhancer
from tonewood.model.model import Model

Samples = NDArray[np.float32]
BLOCK = 160


class FakeDevice:
    """Device that plays a recording and stores its output; calls `on_read` before each block."""

    dropouts = 3

    def __init__(self, samples: Samples, on_read: Callable[[int], None] = lambda number: None) -> None:
        self.blocks = np.split(samples, range(BLOCK, samples.shape[1], BLOCK), axis=1)
        self.on_read, self.number = on_read, 0
        self.written: list[Samples] = []

    def read(self) -> Samples | None:
        self.on_read(self.number)
        self.number += 1
        return self.blocks.pop(0) if self.blocks else None

    def write(self, block: Samples) -> None:
        self.written.append(block)

    @property
    def played(self) -> Samples:
        return np.concatenate(self.written, axis=1)


@pytest.fixture
def samples(play: Callable[..., Any]) -> Samples:
    recording: Samples = play(1, formant_hz=2_500.0, seed=4)
    return recording


def test_device_plays_the_output_of_the_stream(samples: Samples, predicting: Model) -> None:
    device = FakeDevice(samples)
    stream = StreamingEnhancer(predicting, 16_000)
    levels = list(run_live(device, stream, LiveControls()))
    other = StreamingEnhancer(predicting, 16_000)
    assert np.array_equal(device.played, np.concatenate([other.process(samples), other.flush()], 1))
    assert len(levels) == 100
    assert levels[-1].seconds == pytest.approx(1.0)
    loudest = max(level.input_db for level in levels)
    assert loudest == pytest.approx(20 * np.log10(np.abs(samples).max()), abs=1e-3)
    assert levels[0].output_db == float("-inf")  # 40 ms have not passed
    assert all(level.load > 0 and level.dropouts == 3 for level in levels)


def test_each_block_is_written_before_the_next_is_read(samples: Samples, predicting: Model) -> None:
    device = FakeDevice(samples, lambda number: counts.append((number, len(device.written))))
    counts: list[tuple[int, int]] = []
    for _ in run_live(device, StreamingEnhancer(predicting, 16_000), LiveControls()):
        assert device.written[-1].shape == (1, BLOCK)
    assert all(blocks_read == blocks_written for blocks_read, blocks_written in counts)


def test_bypass_plays_the_input_with_the_same_delay(samples: Samples, predicting: Model) -> None:
    controls = LiveControls(bypassed=True)
    device, stream = FakeDevice(samples), StreamingEnhancer(predicting, 16_000)
    list(run_live(device, stream, controls))
    assert np.array_equal(device.played[:, stream.latency :], samples)


def test_bypass_can_be_toggled_while_audio_is_played(samples: Samples, predicting: Model) -> None:
    controls = LiveControls()
    device = FakeDevice(samples, lambda number: controls.handle_key("b" if number in (30, 60) else ""))
    list(run_live(device, stream := StreamingEnhancer(predicting, 16_000), controls))
    output = device.played[:, stream.latency :]
    difference = np.abs(output - samples)[0]
    bypassed = slice(30 * BLOCK + 400, 60 * BLOCK - 800)
    assert not difference[bypassed].any()
    assert difference[: 30 * BLOCK - 800].max() > 1e-3
    assert difference[60 * BLOCK + 400 :].max() > 1e-3


@pytest.mark.parametrize("value", [np.nan, 1e25])
def test_invalid_block_becomes_silence_and_a_dropout(
    value: float, samples: Samples, predicting: Model
) -> None:
    device, silent = FakeDevice(samples), samples.copy()
    device.blocks[40] = np.full((1, BLOCK), value, dtype=np.float32)
    silent[:, 40 * BLOCK : 41 * BLOCK] = 0
    levels = list(run_live(device, StreamingEnhancer(predicting, 16_000), LiveControls()))
    other = StreamingEnhancer(predicting, 16_000)
    assert np.array_equal(device.played, np.concatenate([other.process(silent), other.flush()], 1))
    assert [level.dropouts for level in levels] == 40 * [3] + 60 * [4]


def test_quit_key_ends_after_the_current_block(samples: Samples, predicting: Model) -> None:
    controls = LiveControls()
    device = FakeDevice(samples, lambda number: controls.handle_key("q" if number == 9 else ""))
    assert len(list(run_live(device, StreamingEnhancer(predicting, 16_000), controls))) == 10


def test_keys_change_the_amount_within_its_limits() -> None:
    controls = LiveControls(amount=0.95)
    seen = []
    for key in "+-" + 20 * "-" + "+x" + 40 * "+":
        controls.handle_key(key)
        seen.append(controls.amount)
    assert seen[:3] == [1.05, 0.95, 0.85]
    assert seen[21:24] == [-1.0, -0.9, -0.9]
    assert seen[-1] == 2.0


def test_keys_toggle_freeze_and_delta() -> None:
    controls = LiveControls()
    for key in "fd":
        controls.handle_key(key)
    assert controls.line == "amount 100 %, frozen, delta"
    for key in "bfd":
        controls.handle_key(key)
    assert controls.line == "bypassed"


def test_mean_load_is_weighted_by_duration() -> None:
    summary = LiveSummary()
    for seconds, load in ((1.0, 0.1), (4.0, 0.5)):
        summary.add(BlockLevels(seconds, -6.0, -6.0, load, 2))
    assert (summary.seconds, summary.worst, summary.dropouts) == (4.0, 0.5, 2)
    assert summary.load == pytest.approx(0.4)
