"""Arrays as pictures: colours, and a PNG (ISO/IEC 15948) as bytes, without any drawing library."""

import base64
import struct
import zlib
from html import escape

import numpy as np
from numpy.typing import NDArray

from tonewood.signal.spectrum import FloatArray

Pixels = NDArray[np.uint8]
"""Red, green and blue [row, column, 3], the first row on top."""

_MAX_COLUMNS = 900
# Blue below nought, red above; and from black over violet and orange to pale yellow.
_DIVERGING = np.array([(33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130),
                       (178, 24, 43)])  # fmt: skip
_SEQUENTIAL = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)])


def gains_image(gain_db: FloatArray, max_db: float) -> Pixels:
    """Gains [row, frame] in dB as colours, low rows at the bottom: white is no change."""
    return _apply_colormap(0.5 + 0.5 * np.asarray(gain_db) / max_db, _DIVERGING)


def levels_image(level_db: FloatArray, range_db: float = 80.0) -> Pixels:
    """Levels [row, frame] in dB as colours, low rows at the bottom: bright is loud."""
    level = np.asarray(level_db)
    return _apply_colormap(1 + (level - level.max()) / range_db, _SEQUENTIAL)


def encode_png(pixels: Pixels) -> bytes:
    """Pixels as a PNG file's bytes."""
    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    # Every line is led by its filter: 0, none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )  # fmt: skip


def html_figure(pixels: Pixels, caption: str, height: int = 160) -> str:
    """HTML of a picture that is stretched to the page, and what is on it."""
    source = base64.b64encode(encode_png(pixels)).decode("ascii")
    style = f"width:100%;max-width:60rem;height:{height}px;image-rendering:auto"
    return (
        f'<figure style="margin:.5rem 0"><img style="{style}" alt="{escape(caption)}" '
        f'src="data:image/png;base64,{source}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _apply_colormap(position: FloatArray, anchors: NDArray[np.int64]) -> Pixels:
    columns = position.shape[1]
    kept = np.linspace(0, columns - 1, min(columns, _MAX_COLUMNS)).round().astype(np.int64)
    place = np.clip(position[::-1, kept], 0, 1) * (len(anchors) - 1)
    parts = [np.interp(place, np.arange(len(anchors)), colour) for colour in anchors.T]
    return np.stack(parts, axis=-1).round().astype(np.uint8)
