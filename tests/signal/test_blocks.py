"""Blocks of any size, regrouped."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tonewood.signal.blocks import overlapping


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
