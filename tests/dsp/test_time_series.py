"""Time series and their segments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.chunking import ArrayTimeSeries, LazyTimeSeries, read_segments, split_segments


@given(st.integers(1, 500), st.integers(1, 200), st.integers(0, 100))
def test_segments_cover_every_frame_once(frames: int, size: int, margin: int) -> None:
    indices = np.arange(frames)
    cores = []
    for segment in split_segments(frames, size, margin):
        padded = indices[segment.padded_start : segment.padded_stop]
        assert np.array_equal(padded[segment.core], indices[segment.start : segment.stop])
        assert segment.padded_start == max(0, segment.start - margin)
        assert segment.padded_stop == min(frames, segment.stop + margin)
        cores.append(indices[segment.start : segment.stop])
    assert np.array_equal(np.concatenate(cores), indices)


def test_array_and_lazy_time_series_agree() -> None:
    values = np.arange(60, dtype=np.float32).reshape(3, 20)
    lazy = LazyTimeSeries(20, lambda first, last: values[:, first:last])
    assert ArrayTimeSeries(values).frames == 20
    for series in (ArrayTimeSeries(values), lazy):
        assert np.array_equal(np.concatenate(list(read_segments(series, 7)), axis=1), values)
