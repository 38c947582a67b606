from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tonewood.enhancement.output_files import FileFailure
from tonewood.errors import AudioError, CallError, FolderError, InputFileError
from tonewood.evaluation.alignment import Anchor
from tonewood.evaluation.pipeline import PairFiles, pairs_by_name, pairs_from_table

Play = Callable[..., Any]


def write_recordings(folder: Path, play: Play, *names: str, seconds: float = 0.3) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, play(seconds).T, 16_000)
    return folder


def test_pairs_ignore_suffixes(tmp_path: Path, play: Play) -> None:
    source = write_recordings(tmp_path / "s", play, "a.wav", "day/b.1.wav")
    reference = write_recordings(tmp_path / "r", play, "a.flac", "day/b.1.wav")
    assert pairs_by_name(source, reference) == [
        PairFiles("a", source / "a.wav", reference / "a.flac"),
        PairFiles("day/b.1", source / "day/b.1.wav", reference / "day/b.1.wav"),
    ]


def test_missing_partner_is_reported(tmp_path: Path, play: Play) -> None:
    source = write_recordings(tmp_path / "s", play, "a.wav", "b.wav", "c.wav", "c.flac")
    reference = write_recordings(tmp_path / "r", play, "a.wav", "c.wav", "z.wav")
    pair, *failed = pairs_by_name(source, reference)
    assert isinstance(pair, PairFiles)
    errors = [str(failure.error) for failure in failed if isinstance(failure, FileFailure)]
    assert len(errors) == len(failed) == 3
    assert "b.wav has no partner: add" in errors[0]
    assert "have the same name: rename one" in errors[1]
    assert errors[2].startswith(str(reference / "z.wav"))


def test_folders_must_exist(tmp_path: Path, play: Play) -> None:
    with pytest.raises(FolderError, match="does not exist"):
        pairs_by_name(write_recordings(tmp_path / "s", play, "a.wav"), tmp_path / "none")


def test_table_gives_pairs_and_anchors(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(
        "\ufeffsource, reference,source_s,reference_s,source_s,reference_s\n"
        'one.wav,"the, other.wav",1,1.5,2,3\n'
        "\n"
        "two.wav,two.flac,,,,\n"
        'one.wav,"the, other.wav",4,5,,\n'
    )
    assert pairs_from_table(table, Path("s"), Path("r")) == [
        PairFiles(
            "one.wav",
            Path("s/one.wav"),
            Path("r/the, other.wav"),
            (Anchor(1, 1.5), Anchor(2, 3), Anchor(4, 5)),
        ),
        PairFiles("two.wav", Path("s/two.wav"), Path("r/two.flac")),
    ]


HEAD = "source,reference,source_s,reference_s\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is not the header"),
        ("a.wav,b.wav\n", "line 1 is not the header"),
        ("source,reference,source_s\n", "line 1 is not the header"),
        (HEAD, "has no pairs: add lines"),
        (HEAD + "a,b,1,2\n\na,b,1\n", "line 4 has 3 fields; give 4, as the header has"),
        (HEAD + "a,,1,2\n", "line 2 has an empty file name"),
        (HEAD + "a,b,1,soon\n", "line 2 has the time 'soon'"),
        (HEAD + "a,b,1,\n", "line 2 has the time ''"),
        (HEAD + "a,b,-1,2\n", "line 2 has the time '-1'"),
        (HEAD + "a,b,nan,2\n", "line 2 has the time 'nan'"),
        (HEAD + "a,b,inf,2\n", "line 2 has the time 'inf'"),
        (HEAD + "a,b,1,2\na,b,2,1\n", "line 3 goes back in time"),
    ],
)
def test_wrong_table_line_is_reported(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(CallError, match=message):
        pairs_from_table(table, Path("s"), Path("r"))


def test_table_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        pairs_from_table(tmp_path / "none.csv", Path("s"), Path("r"))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputFileError, match="it is not UTF-8"):
        pairs_from_table(tmp_path / "bytes.csv", Path("s"), Path("r"))
    (tmp_path / "nul.csv").write_text(HEAD + '"a\x00,b,1,2\n')
    with pytest.raises(CallError, match="line 2"):
        pairs_from_table(tmp_path / "nul.csv", Path("s"), Path("r"))


def test_anchor_beyond_the_end_is_refused(tmp_path: Path, play: Play) -> None:
    folder = write_recordings(tmp_path, play, "a.wav")
    files = PairFiles("a", folder / "a.wav", folder / "a.wav", (Anchor(0.1, 9.0),))
    with pytest.raises(AudioError, match=r"lasts 0\.30 s and has an anchor at 9 s"):
        files.read()
