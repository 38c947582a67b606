"""Work spread over the cores."""

import threading
import time
from collections.abc import Iterator

import pytest

from tonewood.signal import spread as spreading
from tonewood.signal.spread import cores, spread


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(spreading, "cores", lambda: count)
    return count


def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (5 - item % 5))  # the last of five are done first
        return item * item

    assert list(spread(work, range(23))) == [item * item for item in range(23)]


def test_few_items_are_ahead(threads: int) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            begun.append(item)
            yield item

    results = spread(lambda item: item, items())
    for done in range(10):
        assert next(results) == done
        assert len(begun) <= done + threads + 1


def test_as_many_threads_work_as_there_are_cores(threads: int) -> None:
    together = threading.Barrier(threads, timeout=20)
    assert len(list(spread(lambda _: together.wait(), range(3 * threads)))) == 3 * threads


def test_an_error_reaches_the_caller_and_ends_the_work(threads: int) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ValueError("two")
        done.append(item)

    with pytest.raises(ValueError, match="two"):
        list(spread(work, range(1_000)))
    assert len(done) < 20


def test_who_stops_asking_stops_the_work(threads: int) -> None:
    done: list[int] = []
    results = spread(done.append, range(1_000))
    next(results)
    del results
    assert len(done) < 20


def test_there_is_a_core() -> None:
    assert cores() >= 1
