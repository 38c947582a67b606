"""Blocks of any size, regrouped."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tonewood.signal.blocks import Piece, cut, overlapping, whole, widened


@given(
    st.lists(st.integers(1, 50), max_size=12),
    st.integers(1, 40),
    st.integers(0, 30),
)
def test_pieces_follow_one_another_with_their_margins(
    sizes: list[int], size: int, margin: int
) -> None:
    total = sum(sizes)
    wave = np.arange(total, dtype=np.float32)[None]
    edges = np.cumsum([0, *sizes])
    blocks = [wave[:, a:b] for a, b in pairwise(edges)]
    position = 0
    for piece in overlapping(blocks, size, margin):
        inner = piece.samples[:, piece.lead : piece.lead + piece.size]
        assert np.array_equal(inner[0], np.arange(position, position + piece.size))
        assert piece.first == max(0, position - margin)
        assert piece.first + piece.lead == position
        after = piece.samples.shape[1] - piece.lead - piece.size
        position += piece.size
        assert after == (margin if position < total else 0)
    assert position == total


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 9))
def test_the_pieces_do_not_depend_on_the_blocks(sizes: list[int], margin: int) -> None:
    wave = np.arange(sum(sizes), dtype=np.float32)
    edges = np.cumsum([0, *sizes])
    blocks = [wave[a:b] for a, b in pairwise(edges)]
    for one, other in zip(
        overlapping(blocks, 7, margin), overlapping([wave], 7, margin), strict=True
    ):
        assert np.array_equal(one.samples, other.samples)
        assert one[1:] == other[1:]


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 5), st.integers(0, 8))
def test_smaller_pieces_of_pieces_are_those_of_the_whole(
    total: int, size: int, times: int, margin: int
) -> None:
    """What `cut` makes of large pieces that are multiples is what `overlapping` makes of all."""
    wave = np.arange(total, dtype=np.float32)
    large = overlapping([wave], size * times, margin)
    small = [part for piece in large for part in cut(piece, size, margin)]
    starts = [(part.start, part.size) for part in small]
    assert [start for start, _ in starts] == list(np.cumsum([0, *(n for _, n in starts[:-1])]))
    assert sum(length for _, length in starts) == total
    assert [part.last for part in small] == [False] * (len(small) - 1) + [True]
    for part in small:
        assert np.array_equal(part.own, wave[part.start : part.start + part.size])
        assert part.first == max(0, part.start - margin)
        after = part.first + len(part.samples)
        assert after == min(total, part.start + part.size + margin)


@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 12))
def test_a_piece_is_widened_as_far_as_the_recording_goes(total: int, size: int, more: int) -> None:
    wave = np.arange(total, dtype=np.float32)
    for piece in overlapping([wave], size, more + 3):
        wide = widened(piece, more)
        assert wide.start == max(0, piece.start - more)
        end = piece.start + piece.size + (0 if piece.last else more)
        assert np.array_equal(wide.own, wave[wide.start : end])


def test_a_recording_in_one_piece_is_all_of_it_and_nothing_follows() -> None:
    wave = np.arange(5, dtype=np.float32)
    assert whole(wave) == Piece(wave, first=0, lead=0, size=5, last=True)
    assert np.array_equal(whole(wave).own, wave)
