"""Work spread over the cores."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import pytest

from tonewood.utils import parallel
from tonewood.utils.parallel import (
    available_cores,
    parallel_iterate,
    parallel_map,
    use_remote_executor,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(parallel, "available_cores", lambda: count)
    return count


def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (5 - item % 5))  # the last of five are done first
        return item * item

    assert list(parallel_map(work, range(23))) == [item * item for item in range(23)]


def test_few_items_are_ahead(threads: int) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            begun.append(item)
            yield item

    results = parallel_map(lambda item: item, items())
    for done in range(10):
        assert next(results) == done
        assert len(begun) <= done + threads + 1


def test_as_many_threads_work_as_there_are_cores(threads: int) -> None:
    together = threading.Barrier(threads, timeout=300)
    assert len(list(parallel_map(lambda _: together.wait(), range(3 * threads)))) == 3 * threads


def test_an_error_reaches_the_caller_and_ends_the_work(threads: int) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ValueError("two")
        done.append(item)

    with pytest.raises(ValueError, match="two"):
        list(parallel_map(work, range(1_000)))
    assert len(done) < 20


def test_who_stops_asking_stops_the_work(threads: int) -> None:
    done: list[int] = []
    results = parallel_map(done.append, range(1_000))
    next(results)
    del results
    assert len(done) < 20


def test_there_is_a_core() -> None:
    assert available_cores() >= 1


class Helper:
    """Another process, played by this one: does what it is given when it is asked for it."""

    def __init__(self, slots: int) -> None:
        self.free, self.given = slots, list[Any]()

    def free_slots(self) -> int:
        return self.free

    def submit(self, work: Callable[[Item], Result], item: Item) -> "Lent[Result]":
        self.given.append(item)
        self.free -= 1
        return Lent(self, partial(work, item))


class Lent(Generic[Result]):
    def __init__(self, helper: Helper, work: Callable[[], Result]) -> None:
        self.helper, self.work, self.there = helper, work, False

    def done(self) -> bool:
        return self.there

    def result(self) -> Result:
        self.helper.free += not self.there
        self.there = True
        return self.work()


def slow_square(item: int) -> int:
    time.sleep(0.002)
    return item * item


def test_others_take_what_they_have_room_for(threads: int) -> None:
    helper = Helper(2)
    with use_remote_executor(helper):
        made = list(parallel_map(slow_square, range(40), picklable=True))
    assert made == [item * item for item in range(40)]
    assert 2 <= len(helper.given) < 40  # some; this process does not stand idle


def test_what_is_short_is_done_here(threads: int) -> None:
    helper = Helper(2)
    with use_remote_executor(helper):
        assert list(parallel_map(slow_square, range(3), picklable=True)) == [0, 1, 4]
        list(parallel_map(slow_square, range(5), picklable=True))
    assert helper.given == [3, 4]


def test_nothing_goes_elsewhere_that_is_not_portable(threads: int) -> None:
    helper = Helper(2)
    with use_remote_executor(helper):
        assert list(parallel_map(slow_square, range(20))) == [item * item for item in range(20)]
    assert not helper.given
    # Nor once nobody helps any more.
    assert len(list(parallel_map(slow_square, range(20), picklable=True))) == 20
    assert not helper.given


def test_what_is_done_elsewhere_does_not_pile_up(threads: int) -> None:
    """As many results wait as there are threads, and two for each item that is elsewhere."""
    helper, begun = Helper(3), list[int]()

    def items() -> Iterator[int]:
        for item in range(60):
            begun.append(item)
            yield item

    with use_remote_executor(helper):
        results = parallel_map(slow_square, items(), picklable=True)
        for done in range(40):
            next(results)
            assert len(begun) - done <= threads + 2 * 3 + 1


def test_what_is_made_is_told_as_it_is_made(threads: int) -> None:
    told = threading.Event()

    def making(item: int) -> Iterator[tuple[int, int]]:
        yield item, 0
        assert told.wait(300)  # for what was made, before more is
        yield item, 1

    found = []
    for made in parallel_iterate(making, range(5)):
        for it in made:
            found.append(it)
            told.set()
    assert found == [(item, number) for item in range(5) for number in range(2)]


def test_what_fails_in_the_middle_has_told_what_came_before(threads: int) -> None:
    def making(item: int) -> Iterator[int]:
        yield item
        if item == 1:
            raise ValueError("one")

    following = parallel_iterate(making, range(9))
    assert list(next(following)) == [0]
    second = iter(next(following))
    assert next(second) == 1
    with pytest.raises(ValueError, match="one"):
        next(second)


def test_nobody_waits_for_the_end_of_what_nobody_follows(threads: int) -> None:
    made: list[int] = []

    def making(item: int) -> Iterator[int]:
        for number in range(10**9):
            made.append(item)
            yield number

    following = parallel_iterate(making, range(9))
    assert next(iter(next(following))) == 0
    following.close()
    ended = len(made)
    time.sleep(0.05)
    assert len(made) == ended


def test_what_others_make_comes_whole_and_in_its_place(threads: int) -> None:
    helper = Helper(3)
    with use_remote_executor(helper):
        found = [list(made) for made in parallel_iterate(range, range(12), picklable=True)]
    assert found == [list(range(item)) for item in range(12)]
    assert helper.given
