"""Ordered parallel work: order, look-ahead, errors, closing."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np  # noqa: F401 - loads BLAS
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tonewood.utils import parallel
from tonewood.utils.parallel import (
    available_cores,
    lazy_property,
    parallel_iterate,
    parallel_map,
    raise_if_closed,
)


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


def test_closing_ends_long_work_that_asks(threads: int) -> None:
    ended: list[int] = []

    def work(item: int) -> int:
        for _ in range(3_000 if item else 0):  # a minute, unless it is ended
            time.sleep(0.02)
            raise_if_closed()
        ended.append(item)
        return item

    results = parallel_map(work, range(3))
    assert next(results) == 0
    results.close()
    assert ended == [0]


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


def test_closing_joins_no_thread(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may close an iteration while a thread starts: a join there would never end."""
    begun, finished = threading.Event(), list[int]()

    def work(item: int) -> int:
        if item:
            begun.set()
            time.sleep(0.05)
            finished.append(item)
        return item

    results = parallel_map(work, range(9))
    assert next(results) == 0
    assert begun.wait(300)
    monkeypatch.setattr(threading.Thread, "join", lambda *_: pytest.fail("a thread was joined"))
    results.close()
    count = len(finished)
    assert count >= 1  # work that had begun was waited for
    time.sleep(0.1)
    assert len(finished) == count


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_while_work_runs(threads: int) -> None:
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        outer = parallel_map(lambda _: blas_threads(), range(9))
        assert next(outer) == {1}
        # Other work that ends first does not restore the number.
        assert list(parallel_map(lambda _: blas_threads(), range(3))) == [{1}] * 3
        assert list(outer) == [{1}] * 8
        assert blas_threads() == before


def test_threads_of_blas_are_restored_after_an_error(threads: int) -> None:
    def fail(_: int) -> None:
        raise ValueError

    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with pytest.raises(ValueError):  # noqa: PT011 - without a message
            list(parallel_map(fail, range(3)))
        assert blas_threads() == before


def test_a_lazy_property_is_computed_once_and_blocks_no_other_object() -> None:
    """A property of one object is computed while that of another still waits for it."""
    first_asked, computed = threading.Event(), list[int]()

    class Asked:
        def __init__(self, number: int) -> None:
            self.number = number

        @lazy_property
        def answer(self) -> int:
            """Return the number, the first one's when the second's is there."""
            first_asked.set()
            if self.number == 1:
                assert second_done.wait(60)
            computed.append(self.number)
            return self.number

    second_done = threading.Event()
    first, second = Asked(1), Asked(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: first.answer)
        assert first_asked.wait(60)
        assert second.answer == 2
        second_done.set()
        assert waiting.result() == 1
    assert (first.answer, second.answer, computed) == (1, 2, [2, 1])
