"""Blocks of any size, regrouped."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.chunking import Chunk, overlapping_chunks, single_chunk, split_chunk, with_margin


@given(
    st.lists(st.integers(1, 50), max_size=12),
    st.integers(1, 40),
    st.integers(0, 30),
)
def test_chunks_are_contiguous_and_have_margins(sizes: list[int], size: int, margin: int) -> None:
    total = sum(sizes)
    wave = np.arange(total, dtype=np.float32)[None]
    edges = np.cumsum([0, *sizes])
    blocks = [wave[:, a:b] for a, b in pairwise(edges)]
    position = 0
    for piece in overlapping_chunks(blocks, size, margin):
        inner = piece.samples[:, piece.left_margin : piece.left_margin + piece.core_size]
        assert np.array_equal(inner[0], np.arange(position, position + piece.core_size))
        assert piece.offset == max(0, position - margin)
        assert piece.offset + piece.left_margin == position
        after = piece.samples.shape[1] - piece.left_margin - piece.core_size
        position += piece.core_size
        assert after == (margin if position < total else 0)
    assert position == total


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 9))
def test_chunks_do_not_depend_on_the_blocks(sizes: list[int], margin: int) -> None:
    wave = np.arange(sum(sizes), dtype=np.float32)
    edges = np.cumsum([0, *sizes])
    blocks = [wave[a:b] for a, b in pairwise(edges)]
    for one, other in zip(
        overlapping_chunks(blocks, 7, margin), overlapping_chunks([wave], 7, margin), strict=True
    ):
        assert np.array_equal(one.samples, other.samples)
        assert one[1:] == other[1:]


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 5), st.integers(0, 8))
def test_split_chunks_equal_chunks_of_the_whole(total: int, size: int, times: int, margin: int) -> None:
    """What `cut` makes of large pieces that are multiples is what `overlapping` makes of all."""
    wave = np.arange(total, dtype=np.float32)
    large = overlapping_chunks([wave], size * times, margin)
    small = [part for piece in large for part in split_chunk(piece, size, margin)]
    starts = [(part.core_start, part.core_size) for part in small]
    assert [start for start, _ in starts] == list(np.cumsum([0, *(n for _, n in starts[:-1])]))
    assert sum(length for _, length in starts) == total
    assert [part.is_last for part in small] == [False] * (len(small) - 1) + [True]
    for part in small:
        assert np.array_equal(part.core, wave[part.core_start : part.core_start + part.core_size])
        assert part.offset == max(0, part.core_start - margin)
        after = part.offset + len(part.samples)
        assert after == min(total, part.core_start + part.core_size + margin)


@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 12))
def test_with_margin_stops_at_the_ends_of_the_recording(total: int, size: int, more: int) -> None:
    wave = np.arange(total, dtype=np.float32)
    for piece in overlapping_chunks([wave], size, more + 3):
        wide = with_margin(piece, more)
        assert wide.core_start == max(0, piece.core_start - more)
        end = piece.core_start + piece.core_size + (0 if piece.is_last else more)
        assert np.array_equal(wide.core, wave[wide.core_start : end])


def test_single_chunk_is_the_whole_recording() -> None:
    wave = np.arange(5, dtype=np.float32)
    assert single_chunk(wave) == Chunk(wave, offset=0, left_margin=0, core_size=5, is_last=True)
    assert np.array_equal(single_chunk(wave).core, wave)
