"""HTML of results in notebooks, and the notebooks of the documentation."""

import base64
import dataclasses
import io
import re
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile
from nbclient import NotebookClient

import tonewood
from tonewood.enhancement.analysis import Score
from tonewood.html_report import MAX_EMBEDDED_SECONDS, audio_player_html, score_curve_html, table_html
from tonewood.model.model import Model

Play = Callable[..., Any]
NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


class Tags(HTMLParser):
    """Elements and text of a page; an unclosed element fails an assertion."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.names.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def enhanced(model: Model, play: Play) -> tonewood.Enhancement:
    return tonewood.enhance(play(1.3, 22_050, 2, seed=3), 22_050, model)


def test_enhancement_has_player_spectrogram_and_mask(
    enhanced: tonewood.Enhancement,
) -> None:
    html = enhanced._repr_html_()
    tags = Tags(html)
    assert tags.names.count("img") == 2
    assert tags.names.count("audio") == 1
    assert enhanced.certificate.line in tags.text
    (wav,) = re.findall(r'src="data:audio/wav;base64,([^"]+)"', html)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(wav)), dtype="float32")
    assert rate == 22_050
    assert np.abs(samples.T - enhanced.samples).max() < 1e-4
    for picture in re.findall(r"data:image/png;base64,([^\"]+)", html):
        assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_text_of_a_result_is_escaped(enhanced: tonewood.Enhancement) -> None:
    reasons = ('<script>alert("x")</script>', "a & b")
    certificate = enhanced.certificate.model_copy(update={"verdict": "limited", "reasons": reasons})
    html = dataclasses.replace(enhanced, certificate=certificate)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_score_has_a_curve_over_time(model: Model, play: Play) -> None:
    score = tonewood.score(play(4.0, seed=1), 16_000, model)
    tags = Tags(score._repr_html_())
    assert {"svg", "polyline", "table"} <= set(tags.names)
    assert f"{score.scorer:.2f}" in tags.text
    assert "none" in Tags(Score(0.5, None, (0.5,), 0.8)._repr_html_()).text
    assert "0.80 of the limit: known" in Tags(Score(0.5, None, (0.5,), 0.8)._repr_html_()).text
    assert "1.20 of the limit: unlike both folders" in Tags(Score(0.5, None, (0.5,), 1.2)._repr_html_()).text
    points = re.findall(r'points="([^"]+)"', score_curve_html((0.0, 1.0)))
    assert points == ["0.0,90.0 600.0,0.0"]


def test_mask_is_a_picture_with_its_caption(enhanced: tonewood.Enhancement) -> None:
    tags = Tags(enhanced.mask._repr_html_())
    assert tags.names == ["figure", "img", "figcaption"]
    assert f"{enhanced.mask.rms_db:.1f} dB rms" in tags.text


def test_long_audio_is_not_embedded() -> None:
    rate = 8_000
    short, long = (np.zeros((1, round(s * rate)), np.float32) for s in (1, MAX_EMBEDDED_SECONDS + 1))
    assert "<audio" in audio_player_html(short, rate)
    assert "<audio" not in audio_player_html(long, rate)
    assert "21 s of audio" in audio_player_html(long, rate)
    assert table_html([("a<b", "c&d")]).count("&") == 2


# The others train, as tests/test_api.py and tests/training/test_preference_model.py do.
@pytest.mark.parametrize(
    "path",
    [NOTEBOOKS[0], *(pytest.param(path, marks=pytest.mark.long) for path in NOTEBOOKS[1:])],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    book: Any = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Jupyter's client warns about event loops
        client = NotebookClient(
            book, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert "text/html" in kinds
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


def test_all_notebooks_are_tested() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "cello",
        "phone-to-studio",
        "train-from-preferences",
    ]
