from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tonewood.data.dataset import TrainingRecording, check_training_data, load_dataset, split_takes
from tonewood.data.manifest import group_of_path
from tonewood.errors import AudioError, FolderError
from tonewood.settings import ModelSettings, TrainingSettings


def take(number: int, group: str, seconds: float = 30.0) -> TrainingRecording:
    """Return a take without features."""
    path = Path("folder") / f"{number}.wav"
    return TrainingRecording(path, group, seconds, str(number), cast(Any, None), cast(Any, None), path)


groupings = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.floats(0.25, 600)), min_size=2, max_size=40
).filter(lambda drawn: len({group for group, _ in drawn}) >= 2)


@given(
    drawn=groupings,
    held_out=st.floats(0.01, 0.5),
    seed=st.integers(0, 2**31 - 1),
)
def test_no_group_is_on_both_sides_of_a_split(
    drawn: list[tuple[str, float]], held_out: float, seed: int
) -> None:
    takes = [take(n, group, seconds) for n, (group, seconds) in enumerate(drawn)]
    parts = split_takes(takes, held_out, seed)
    assert parts.train
    assert parts.held_out
    assert not {t.group for t in parts.train} & {t.group for t in parts.held_out}
    both = [*parts.train, *parts.held_out]
    assert sorted(t.path for t in both) == sorted(t.path for t in takes)
    assert split_takes(takes, held_out, seed) == parts


def test_held_out_share_is_met_and_depends_on_the_seed() -> None:
    takes = [take(n, str(n)) for n in range(50)]
    drawn = [split_takes(takes, 0.2, seed) for seed in range(10)]
    assert {len(parts.held_out) for parts in drawn} == {10}
    assert len({tuple(t.group for t in parts.held_out) for parts in drawn}) == 10


def test_one_long_take_is_not_the_only_one_held_out() -> None:
    takes = [take(0, "long", 10_000), *(take(n, str(n)) for n in range(1, 20))]
    sizes = [split_takes(takes, 0.2, seed).held_out for seed in range(20)]
    assert all(len(held) == 1 or "long" not in {t.group for t in held} for held in sizes)


@pytest.mark.parametrize(
    ("path", "by_file", "by_folder"),
    [
        ("a.wav", "a.wav", "."),
        ("monday/a.wav", "monday/a.wav", "monday"),
        ("monday/mic 2/a.wav", "monday/mic 2/a.wav", "monday"),
    ],
)
def test_group_is_file_or_first_subfolder(path: str, by_file: str, by_folder: str) -> None:
    assert group_of_path(Path(path), "file") == str(Path(by_file))
    assert group_of_path(Path(path), "folder") == by_folder


def test_takes_are_read_with_their_groups(tmp_path: Path, play: Callable[..., Any]) -> None:
    for n, name in enumerate(("b/x.wav", "a.flac")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, play(1.5 + n, 44_100, 2, seed=n).T, 44_100)
    settings = ModelSettings(training=TrainingSettings(group_by="folder"))
    loaded = list(load_dataset(tmp_path, settings))
    assert [(x.number, x.total, x.take.group) for x in loaded] == [(1, 2, "."), (2, 2, "b")]
    assert [x.take.seconds for x in loaded] == [2.5, 1.5]
    assert loaded[0].take.rows_db.shape[0] == settings.scorer.bands.count
    assert sum(progress.take.seconds for progress in loaded) == pytest.approx(4)


def test_a_copy_counts_once_whatever_its_container(tmp_path: Path, play: Callable[..., Any]) -> None:
    wave = np.round(play(1.0).T * 2**15) / 2**15
    for name in ("a.wav", "b/a.wav", "copy.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, wave, 16_000, "PCM_16")
    assert [x.take.path.name for x in load_dataset(tmp_path, ModelSettings())] == ["a.wav"]


def test_a_take_that_cannot_be_read_is_named(tmp_path: Path, play: Callable[..., Any]) -> None:
    soundfile.write(tmp_path / "a.wav", play(1.0).T, 16_000)
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"b\.wav is empty"):
        list(load_dataset(tmp_path, ModelSettings()))


def test_unusable_training_folders_are_refused() -> None:
    good = [take(n, str(n)) for n in range(3)]
    other = [take(10 + n, str(n)) for n in range(3)]
    folders = (Path("good"), Path("bad\n"))
    check_training_data(good, other, folders)
    check_training_data(good[:2], other[:2], folders)  # 60 s exactly
    with pytest.raises(FolderError, match=r"bad\\n contains 30\.0 s of audio; training needs 60 s"):
        check_training_data(good, other[:1], folders)
    with pytest.raises(FolderError, match=r"bad\\n contains 1 recording; .* needs 2"):
        check_training_data(good, [take(20, "a", 90)], folders)
    with pytest.raises(FolderError, match="contains 1 group; "):
        check_training_data(good, [take(20, "a", 90), take(21, "a", 90)], folders)
    with pytest.raises(FolderError, match=r"folder/1\.wav and folder/1\.wav are the same"):
        check_training_data(good, [*other, good[1]], folders)
