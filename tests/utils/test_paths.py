"""Names are compared, found and shortened alike everywhere."""

import io
import os
import unicodedata
from pathlib import Path

import pytest

from tonewood.html_report import save_figure
from tonewood.utils.files import (
    append_to_name,
    fit_name,
    is_inside,
    listed_path,
    name_key,
    read_regular,
    real_path,
)


def test_accents_are_compared_by_their_look() -> None:
    assert name_key(unicodedata.normalize("NFD", "Étude")) == name_key("Étude")


def test_listed_name_finds_the_file_that_it_means(tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "Élise")
    folder.mkdir()
    (folder / "a.wav").touch()
    assert listed_path(tmp_path, "Élise/a.wav").exists()
    assert listed_path(tmp_path, "Élise\\a.wav").exists()
    assert listed_path(tmp_path, "none/b.wav") == tmp_path / "none" / "b.wav"


def test_long_names_are_shortened_and_stay_different(tmp_path: Path) -> None:
    names = [append_to_name(tmp_path / ("é" * 124 + letter + ".wav"), ".recipe.json").name for letter in "ab"]
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".wav.recipe.json") for name in names)
    assert names[0] != names[1]
    assert fit_name("take.wav", ".png") == "take.wav.png"


def test_link_loop_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert real_path(tmp_path / "loop.wav").name == "loop.wav"


def test_link_out_of_a_folder_is_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert is_inside(tmp_path / "root" / "new.wav", tmp_path / "root")
    assert not is_inside(tmp_path / "root" / "link" / "x.wav", tmp_path / "root")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["Ba$$in", "a$\\frac$", "$", "cash $5 and $10"])
def test_names_are_drawn_as_they_are_spelt(name: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 1000], [1, 2], label=name)
    axes.set(title=name, xlabel=name, xscale="log")
    axes.set_yticks([1, 2], [name, "b"])
    axes.legend()
    figure.suptitle(name)
    stream = io.BytesIO()
    save_figure(figure, stream, 50)
    assert stream.getvalue().startswith(b"\x89PNG")
    assert [label.get_text().replace(r"\$", "$") for label in axes.get_yticklabels()] == [name, "b"]
