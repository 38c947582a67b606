"""Work spread over the cores."""

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
        time.sleep(0.002 * (5 - item % 5))  # the last of five are done first
        return item * item

    assert list(parallel_map(work, range(23))) == [item * item for item in range(23)]


def test_few_items_are_computed_ahead(threads: int) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            begun.append(item)
            yield item

    results = parallel_map(lambda item: item, items())
    for done in range(10):
        assert next(results) == done
        assert len(begun) <= done + threads + 1


def test_one_thread_per_core(threads: int) -> None:
    together = threading.Barrier(threads, timeout=300)
    assert len(list(parallel_map(lambda _: together.wait(), range(3 * threads)))) == 3 * threads


def test_error_reaches_the_caller_and_stops_the_work(threads: int) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ValueError("two")
        done.append(item)

    with pytest.raises(ValueError, match="two"):
        list(parallel_map(work, range(1_000)))
    assert len(done) < 20


def test_closed_iterator_stops_the_work(threads: int) -> None:
    done: list[int] = []
    results = parallel_map(done.append, range(1_000))
    next(results)
    del results
    assert len(done) < 20


def test_available_cores_is_positive() -> None:
    assert available_cores() >= 1


def test_elements_are_available_as_they_are_produced(threads: int) -> None:
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


def test_failing_generator_yields_its_earlier_elements(threads: int) -> None:
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


def test_closed_iteration_does_not_wait_for_generators(threads: int) -> None:
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
