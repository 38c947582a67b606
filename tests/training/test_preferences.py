from pathlib import Path

import pytest

from tonewood.errors import FolderError, InputFileError
from tonewood.settings import TrainingSettings
from tonewood.training.preferences import ListenerRating, Preference, read_answer_tables

TRAINING = TrainingSettings()


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    pairs = written(tmp_path / "p.csv", "preferred,other,again\na.wav,sub/b.wav,\nb.wav,a.wav,7\n")
    ratings = written(tmp_path / "r.csv", "\ufefffile,rating\na.wav,1\nc.wav,4\n")
    said = read_answer_tables(pairs, ratings, TRAINING)
    a, b, c = (tmp_path / name for name in ("a.wav", "sub/b.wav", "c.wav"))
    assert said.preferences == [Preference(a, b)]  # what was asked again counts once
    assert said.ratings == [ListenerRating(a, 0.0), ListenerRating(c, 0.75)]  # all fit 1 to 5
    assert said.groups == {a: "a.wav", b: "sub/b.wav", c: "c.wav"}
    by_folder = read_answer_tables(pairs, None, TRAINING.model_copy(update={"group_by": "folder"}))
    assert by_folder.groups[b] == "sub"


def test_rating_scale_is_given_or_guessed(tmp_path: Path) -> None:
    hundred = written(tmp_path / "h.csv", "file,rating\na.wav,80\nb.wav,3\n")
    assert [rating.value for rating in read_answer_tables(None, hundred, TRAINING).ratings] == [0.8, 0.03]
    stated = written(tmp_path / "s.csv", "file,rating,low,high\na.wav,0,-10,10\n")
    assert read_answer_tables(None, stated, TRAINING).ratings[0].value == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file,rating\na.wav,101\n", "line 2: the rating 101 is outside its scale from 0 to 100"),
        ("file,rating,low,high\na.wav,3,5,1\n", "line 2: low is 5 and high is 1"),
        ("file,rating,low,high\na.wav,3,one,5\n", "line 2: 'one' is not a number"),
        ("file,rating,low,high\na.wav,3,,5\n", "line 2: '' is not a number"),
        ("file,rating\na.wav,good\n", "line 2: 'good' is not a number"),
        ("file,rating\na.wav,nan\n", "line 2: 'nan' is not a number"),
        ("file,rating\na.wav,\n", "line 2: file or rating is missing"),
        ("file,rating\n", "has no answers"),
        ("name,rating\na.wav,1\n", "has no column file"),
        ("file,rating,group\na.wav,1,x\na.wav,1,y\n", "is in two groups, x and y"),
    ],
)
def test_wrong_line_is_reported_with_its_number(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(FolderError, match=why):
        read_answer_tables(None, written(tmp_path / "r.csv", text), TRAINING)


def test_no_tables_give_no_answers(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"none\.csv cannot be read"):
        read_answer_tables(tmp_path / "none.csv", None, TRAINING)
    (tmp_path / "b.csv").write_bytes(b"preferred,other\n\xff\xfe,a\n")
    with pytest.raises(FolderError, match="UTF-8"):
        read_answer_tables(tmp_path / "b.csv", None, TRAINING)
    same = written(tmp_path / "s.csv", "preferred,other\na.wav,a.wav\n")
    with pytest.raises(FolderError, match="line 2: preferred and other are the same recording"):
        read_answer_tables(same, None, TRAINING)
