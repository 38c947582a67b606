"""The loop of a performance, with a device of our own at the seam."""

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


class Desk:
    """A device that plays a recording and keeps what it is given; may do something in between."""

    dropouts = 3

    def __init__(self, samples: Samples, then: Callable[[int], None] = lambda number: None) -> None:
        self.blocks = np.split(samples, range(BLOCK, samples.shape[1], BLOCK), axis=1)
        self.then, self.number = then, 0
        self.made: list[Samples] = []

    def read(self) -> Samples | None:
        self.then(self.number)
        self.number += 1
        return self.blocks.pop(0) if self.blocks else None

    def write(self, block: Samples) -> None:
        self.made.append(block)

    @property
    def played(self) -> Samples:
        return np.concatenate(self.made, axis=1)


@pytest.fixture
def samples(play: Callable[..., Any]) -> Samples:
    made: Samples = play(1, formant_hz=2_500.0, seed=4)
    return made


def test_what_is_played_is_what_the_stream_makes(samples: Samples, predicting: Model) -> None:
    desk = Desk(samples)
    stream = StreamingEnhancer(predicting, 16_000)
    levels = list(run_live(desk, stream, LiveControls()))
    other = StreamingEnhancer(predicting, 16_000)
    assert np.array_equal(desk.played, np.concatenate([other.process(samples), other.flush()], 1))
    assert len(levels) == 100
    assert levels[-1].seconds == pytest.approx(1.0)
    loudest = max(level.input_db for level in levels)
    assert loudest == pytest.approx(20 * np.log10(np.abs(samples).max()), abs=1e-3)
    assert levels[0].output_db == float("-inf")  # 40 ms have not passed
    assert all(level.load > 0 and level.dropouts == 3 for level in levels)


def test_every_block_comes_back_before_the_next_is_asked_for(samples: Samples, predicting: Model) -> None:
    desk = Desk(samples, lambda number: counts.append((number, len(desk.made))))
    counts: list[tuple[int, int]] = []
    for _ in run_live(desk, StreamingEnhancer(predicting, 16_000), LiveControls()):
        assert desk.made[-1].shape == (1, BLOCK)
    assert all(asked == made for asked, made in counts)


def test_bypass_lets_the_input_through_as_late_as_ever(samples: Samples, predicting: Model) -> None:
    controls = LiveControls(bypassed=True)
    desk, stream = Desk(samples), StreamingEnhancer(predicting, 16_000)
    list(run_live(desk, stream, controls))
    assert np.array_equal(desk.played[:, stream.latency :], samples)


def test_bypass_may_be_turned_while_it_goes_on(samples: Samples, predicting: Model) -> None:
    controls = LiveControls()
    desk = Desk(samples, lambda number: controls.handle_key("b" if number in (30, 60) else ""))
    list(run_live(desk, stream := StreamingEnhancer(predicting, 16_000), controls))
    made = desk.played[:, stream.latency :]
    apart = np.abs(made - samples)[0]
    through = slice(30 * BLOCK + 400, 60 * BLOCK - 800)
    assert not apart[through].any()
    assert apart[: 30 * BLOCK - 800].max() > 1e-3
    assert apart[60 * BLOCK + 400 :].max() > 1e-3


@pytest.mark.parametrize("value", [np.nan, 1e25])
def test_a_block_that_is_no_sound_is_a_dropout_and_the_show_goes_on(
    value: float, samples: Samples, predicting: Model
) -> None:
    desk, silent = Desk(samples), samples.copy()
    desk.blocks[40] = np.full((1, BLOCK), value, dtype=np.float32)
    silent[:, 40 * BLOCK : 41 * BLOCK] = 0
    levels = list(run_live(desk, StreamingEnhancer(predicting, 16_000), LiveControls()))
    other = StreamingEnhancer(predicting, 16_000)
    assert np.array_equal(desk.played, np.concatenate([other.process(silent), other.flush()], 1))
    assert [level.dropouts for level in levels] == 40 * [3] + 60 * [4]


def test_the_end_is_after_this_block(samples: Samples, predicting: Model) -> None:
    controls = LiveControls()
    desk = Desk(samples, lambda number: controls.handle_key("q" if number == 9 else ""))
    assert len(list(run_live(desk, StreamingEnhancer(predicting, 16_000), controls))) == 10


def test_keys_turn_the_amount_within_its_bounds() -> None:
    controls = LiveControls(amount=0.95)
    seen = []
    for key in "+-" + 11 * "-" + "+x":
        controls.handle_key(key)
        seen.append(controls.amount)
    assert seen[:3] == [1.0, 0.9, 0.8]
    assert seen[-3:] == [0.0, 0.1, 0.1]


def test_the_tally_weighs_blocks_by_their_length() -> None:
    tally = LiveSummary()
    for seconds, load in ((1.0, 0.1), (4.0, 0.5)):
        tally.add(BlockLevels(seconds, -6.0, -6.0, load, 2))
    assert (tally.seconds, tally.worst, tally.dropouts) == (4.0, 0.5, 2)
    assert tally.load == pytest.approx(0.4)
