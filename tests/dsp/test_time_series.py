"""Tracks: parts of what is known along a recording."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.chunking import LazyTimeSeries, TensorTimeSeries, read_segments, split_segments


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 100))
def test_segments_cover_every_frame_once(frames: int, size: int, margin: int) -> None:
    moments = torch.arange(frames)
    seen = []
    for span in split_segments(frames, size, margin):
        looked_at = moments[span.padded_start : span.padded_stop]
        assert torch.equal(looked_at[span.core], moments[span.start : span.stop])
        assert span.padded_start == max(0, span.start - margin)
        assert span.padded_stop == min(frames, span.stop + margin)
        seen.append(moments[span.start : span.stop])
    assert torch.equal(torch.cat(seen), moments)


def test_tensor_and_lazy_time_series_agree() -> None:
    values = torch.arange(60.0).reshape(3, 20)
    made = LazyTimeSeries(20, lambda first, last: values[:, first:last])
    assert TensorTimeSeries(values).frames == 20
    for track in (TensorTimeSeries(values), made):
        assert torch.equal(torch.cat(list(read_segments(track, 7)), dim=1), values)
