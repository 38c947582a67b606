import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image as reader

from tonewood.html_report import encode_png, gains_image, html_figure, levels_image


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 9))
def test_png_is_read_back_by_another_decoder(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    back = reader.imread(io.BytesIO(encode_png(pixels)), format="png")
    assert np.array_equal(np.round(back[..., :3] * 255).astype(np.uint8), pixels)


def test_zero_gain_is_white_and_signs_differ_in_color() -> None:
    pixels = gains_image(np.array([[-6.0, 0.0, 6.0]]), 6.0)[0].astype(int)
    assert (pixels[1] > 240).all()
    assert pixels[0, 2] > pixels[0, 0] + 100
    assert pixels[2, 0] > pixels[2, 2] + 100
    assert np.array_equal(gains_image(np.array([[99.0]]), 6.0), gains_image(np.array([[6.0]]), 6.0))


def test_low_rows_are_at_the_bottom_and_loud_ones_bright() -> None:
    level = np.array([[0.0, 0.0], [-90.0, -40.0]])
    pixels = levels_image(level).astype(int)
    assert (pixels[1].sum(axis=1) > 600).all()
    assert pixels[0, 0].sum() < 20
    assert 20 < pixels[0, 1].sum() < 600


def test_long_recordings_are_subsampled() -> None:
    assert levels_image(np.zeros((3, 20_000))).shape == (3, 900, 3)


@pytest.mark.parametrize("caption", ['<b>"x"</b>', "a & b"])
def test_captions_are_escaped(caption: str) -> None:
    html = html_figure(np.zeros((1, 1, 3), np.uint8), caption)
    assert caption not in html
    assert "&lt;b&gt;" in html or "&amp;" in html
