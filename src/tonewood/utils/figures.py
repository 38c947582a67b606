"""Save figures of matplotlib with every text as it is spelt."""

import warnings
from pathlib import Path
from typing import Any, BinaryIO


def save_figure(figure: Any, target: Path | BinaryIO, dpi: int) -> None:  # noqa: ANN401 - matplotlib has no types
    """Save a figure as a PNG.

    matplotlib takes text between two `$` for mathematics, which names of files, folders and models are not.
    Only the numbers of an axis, which it writes itself, are mathematics.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    numbers = set[int]()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True), axis.get_offset_text())
            # Names at the ticks have such a formatter; all others write numbers.
            if not isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter):
                numbers.update(map(id, labels))
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; that is no fault of the recording.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(target, format="png", dpi=dpi)
