"""Tracks: parts of what is known along a recording."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tonewood.signal.tracks import Held, Made, parts, spans


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 100))
def test_spans_cover_every_moment_once(frames: int, size: int, margin: int) -> None:
    moments = torch.arange(frames)
    seen = []
    for span in spans(frames, size, margin):
        looked_at = moments[span.begin : span.end]
        assert torch.equal(looked_at[span.inner], moments[span.first : span.last])
        assert span.begin == max(0, span.first - margin)
        assert span.end == min(frames, span.last + margin)
        seen.append(moments[span.first : span.last])
    assert torch.equal(torch.cat(seen), moments)


def test_held_or_made_it_is_the_same() -> None:
    values = torch.arange(60.0).reshape(3, 20)
    made = Made(20, lambda first, last: values[:, first:last])
    assert Held(values).frames == 20
    for track in (Held(values), made):
        assert torch.equal(torch.cat(list(parts(track, 7)), dim=1), values)
