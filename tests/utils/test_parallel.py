"""Ordered parallel work: order, look-ahead, errors, closing."""

import threading
import time
from collections.abc import Iterator

import pytest

from tonewood.utils import parallel
from tonewood.utils.parallel import available_cores, parallel_iterate, parallel_map


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(parallel, "available_cores", lambda: count)
    return count


def test_results_have_the_order_of_the_items(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (5 - item % 5))  # the last of five finish first
        return item * item

    assert list(parallel_map(work, range(23))) == [item * item for item in range(23)]


def test_few_items_are_computed_ahead(threads: int) -> None:
    started: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            started.append(item)
            yield item

    results = parallel_map(lambda item: item, items())
    for finished in range(10):
        assert next(results) == finished
        assert len(started) <= finished + threads + 1


def test_one_thread_per_core(threads: int) -> None:
    together = threading.Barrier(threads, timeout=300)
    assert len(list(parallel_map(lambda _: together.wait(), range(3 * threads)))) == 3 * threads


def test_error_reaches_the_caller_and_stops_the_work(threads: int) -> None:
    finished: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ValueError("two")
        finished.append(item)

    with pytest.raises(ValueError, match="two"):
        list(parallel_map(work, range(1_000)))
    assert len(finished) < 20


def test_closed_iterator_stops_the_work(threads: int) -> None:
    finished: list[int] = []
    results = parallel_map(finished.append, range(1_000))
    next(results)
    del results
    assert len(finished) < 20


def test_available_cores_is_positive() -> None:
    assert available_cores() >= 1


def test_elements_are_available_as_they_are_produced(threads: int) -> None:
    consumed = threading.Event()

    def generate(item: int) -> Iterator[tuple[int, int]]:
        yield item, 0
        assert consumed.wait(300)  # until the element was consumed
        yield item, 1

    received = []
    for elements in parallel_iterate(generate, range(5)):
        for element in elements:
            received.append(element)
            consumed.set()
    assert received == [(item, number) for item in range(5) for number in range(2)]


def test_failing_generator_yields_its_earlier_elements(threads: int) -> None:
    def generate(item: int) -> Iterator[int]:
        yield item
        if item == 1:
            raise ValueError("one")

    results = parallel_iterate(generate, range(9))
    assert list(next(results)) == [0]
    second = iter(next(results))
    assert next(second) == 1
    with pytest.raises(ValueError, match="one"):
        next(second)


def test_closed_iteration_does_not_wait_for_generators(threads: int) -> None:
    produced: list[int] = []

    def generate(item: int) -> Iterator[int]:
        for number in range(10**9):
            produced.append(item)
            yield number

    results = parallel_iterate(generate, range(9))
    assert next(iter(next(results))) == 0
    results.close()
    count = len(produced)
    time.sleep(0.05)
    assert len(produced) == count
