"""Manifests from data sets, in folders laid out by mirdata's index, and from WebDataset shards."""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mirdata
import numpy as np
import pytest
import soundfile
import webdataset

from tonewood.audio_io.reader import read_recording
from tonewood.data import manifest

Run = Callable[..., Any]


def sound(seed: int, form: str = "WAV") -> bytes:
    stream = io.BytesIO()
    wave = 0.1 * np.random.default_rng(seed).standard_normal(4_000)
    soundfile.write(stream, wave, 8_000, format=form)
    return stream.getvalue()


def write_recordings(home: Path, name: str, wanted: Callable[[str], bool]) -> list[str]:
    """Write recordings where the index of a data set expects them; return their numbers."""
    data = mirdata.initialize(name, data_home=str(home))
    chosen = [track_id for track_id in data.track_ids if wanted(data._index["tracks"][track_id]["audio"][0])]
    for seed, number in enumerate(chosen):
        path = home / data._index["tracks"][number]["audio"][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound(seed))
    return chosen


@pytest.fixture(scope="module")
def good_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four notes of a flute by two microphones, two of them badly played."""
    home = tmp_path_factory.mktemp("catalog") / "good"
    numbers = write_recordings(home, "good_sounds", lambda name: "flute_almudena_reference" in name)[:8]
    takes, sounds = {}, {}
    for place, number in enumerate(numbers):
        note = place // 2
        takes[number] = {"sound_id": note, "microphone": ("akg", "iphone")[place % 2]}
        klass = (" good-sound", "bad-pitch-stability")[note % 2]
        sounds[str(note)] = {"instrument": "flute", "klass": klass, "pack_id": note % 3}
    packs = {str(number): {"name": f"day {number}"} for number in range(3)}
    tables = {"takes": takes, "sounds": sounds, "packs": packs, "ratings": {}}
    for name, table in tables.items():
        (home / f"{name}.json").write_text(json.dumps(table))
    return home


def test_good_sounds_manifest_states_what_its_labels_mean(good_sounds: Path, run: Run) -> None:
    out = good_sounds.parent / "list.csv"
    conditions = ["--reference", "klass=good*", "--source", "klass=BAD*"]
    where = ["--both", "microphone=akg", "--data-home", good_sounds, "-o", out]
    result = run("manifest", "good_sounds", *conditions, *where)
    assert result.code == 0, result.err
    assert result.out == f"{out}: 2 reference, 2 source\n"
    assert "klass) rate how well a note was played, not the instrument" in result.err
    assert "recordings of the index do not exist" in result.err
    reference, source = manifest.read_manifest(out)
    assert [len(item.entries) for item in (reference, source)] == [2, 2]
    assert {entry.session for entry in reference.entries} == {"day 0", "day 2"}
    assert all(read_recording(item.path).rate == 8_000 for item in (*reference.entries, *source.entries))
    assert out.read_text().splitlines()[1].startswith("good/good-sounds/")


def test_tinysol_and_medley_solos_db(tmp_path: Path, run: Run) -> None:
    home = tmp_path / "tiny"
    tuba, flute = "BTb-ord-F#1-pp-N-N", "Fl-ord-C4-pp-N-N"
    assert write_recordings(home, "tinysol", lambda name: tuba in name or flute in name) == [tuba, flute]
    rows = ["Path,Fold,Family,Abbr,Full,T,Technique,Pitch,ID,Dynamics,ID,Instance,String,Resampled"]
    rows += [f"x/{tuba}.wav,1,Brass,BTb,Bass Tuba,ord,ordinario,F#1,30,pp,0,0,,FALSE"]
    rows += [f"x/{flute}.wav,2,Winds,Fl,Flute,ord,ordinario,C4,60,mf,2,0,,TRUE"]
    (home / "annotation").mkdir()
    (home / "annotation" / "TinySOL_metadata.csv").write_text("\n".join(rows))
    out = tmp_path / "list.jsonl"
    sides = ["--reference", "family=winds", "--source", "instrument=bass*"]
    result = run("manifest", "tinysol", *sides, "--data-home", home, "-o", out, "--json")
    assert result.code == 0, result.err
    assert (result.objects[0]["reference"], result.objects[0]["source"]) == (1, 1)
    assert json.loads(out.read_text().splitlines()[0])["session"] == "fold 2"

    home = tmp_path / "medley"
    numbers = write_recordings(
        home, "medley_solos_db", lambda name: "test-0_0e4371ac" in name or "_3338" in name
    )
    rows = ["subset,instrument,instrument_id,song_id,uuid4"]
    rows += [f"test,{('violin', 'piano')[n % 2]},{n},{n},{item}" for n, item in enumerate(numbers)]
    (home / "annotation").mkdir()
    (home / "annotation" / "Medley-solos-DB_metadata.csv").write_text("\n".join(rows))
    out = tmp_path / "medley.csv"
    sides = ["--reference", "instrument=violin", "--source", "instrument=piano"]
    result = run("manifest", "medley_solos_db", *sides, "--data-home", home, "-o", out)
    assert result.code == 0, result.err
    assert {entry.session for side in manifest.read_manifest(out) for entry in side.entries} >= {"song 0"}


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (["--source", "klass=bad*"], 2, "a manifest has two sides"),
        (["--reference", "klass", "--source", "klass=bad*"], 2, "'klass' is not a condition"),
        (["--reference", "klass=*", "--source", "klass=bad*"], 2, "is on both sides"),
        (
            ["--reference", "klass=fine", "--source", "klass=bad*"],
            1,
            "no klass of good_sounds is fine: it has bad-pitch-stability, good-sound",
        ),
        (["--reference", "bow=x", "--source", "klass=b*"], 1, "no field bow: it has instrument"),
    ],
)
def test_invalid_conditions_are_one_error(
    tmp_path: Path, good_sounds: Path, run: Run, arguments: list[str], code: int, match: str
) -> None:
    out = tmp_path / "list.csv"
    result = run("manifest", "good_sounds", *arguments, "--data-home", good_sounds, "-o", out)
    assert result.code == code
    assert match in result.err
    assert result.err.count("\n") == 1
    assert not out.exists()


def test_folder_without_the_data_set_is_one_error(tmp_path: Path, run: Run) -> None:
    sides = ["--reference", "klass=good*", "--source", "klass=bad*", "-o", tmp_path / "l.csv"]
    write_recordings(
        tmp_path / "bare",
        "good_sounds",
        lambda name: name.endswith("flute_almudena_reference/akg/0000.wav"),
    )
    for more, code, match in (
        (["good_sounds"], 2, "give it with --data-home"),
        (
            ["good_words", "--data-home", tmp_path],
            2,
            "is not a known data set: give good_sounds, tinysol",
        ),
        (["good_sounds", "--data-home", tmp_path / "none"], 1, "is not a folder"),
        (["good_sounds", "--data-home", tmp_path], 1, "contains no recording: name"),
        (["good_sounds", "--data-home", tmp_path / "bare"], 1, "lacks good_sounds's tables"),
    ):
        result = run("manifest", *more, *sides)
        assert (result.code, result.err.count("\n")) == (code, 1), result.err
        assert match in result.err


def test_missing_mirdata_names_the_extra(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mirdata", None)
    sides = ["--reference", "klass=a", "--source", "klass=b", "-o", tmp_path / "l.csv"]
    result = run("manifest", "good_sounds", "--data-home", tmp_path, *sides)
    assert result.code == 1
    assert result.err == "tonewood: good_sounds needs mirdata: pip install '.[datasets]'\n"


# --- Shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards as WebDataset writes them."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        with webdataset.TarWriter(str(folder / f"takes-{number}.tar")) as writer:
            for take in range(3):
                seed = 3 * number + take
                said = {"session": f"day {take % 2}", "room": "hall", "tags": ["x"]}
                sample = {"__key__": f"a/take.{seed}".replace(".", "-"), "cls": seed % 2}
                writer.write({**sample, "json": said, "flac": sound(seed, "FLAC"), "txt": "ignored"})
    return folder


def test_shards_give_a_manifest_and_a_folder(tmp_path: Path, shards: Path, run: Run) -> None:
    out = tmp_path / "list.csv"
    arguments = ["--reference", "cls=0", "--source", "cls=1", "--both", "room=hall", "-o", out]
    result = run("manifest", shards, *arguments)
    assert result.code == 0, result.err
    reference, source = manifest.read_manifest(out)
    assert [len(item.entries) for item in (reference, source)] == [3, 3]
    assert {entry.session for entry in reference.entries} == {"day 0", "day 1"}
    got = sorted(item.path.read_bytes() for item in (*reference.entries, *source.entries))
    assert got == sorted(sound(seed, "FLAC") for seed in range(6))
    folder = tmp_path / "list-audio"
    assert all(entry.path.parent == folder for entry in reference.entries)
    assert run("manifest", shards, *arguments).code == 1
    assert run("manifest", shards, *arguments, "--overwrite").code == 0
    assert len(list(folder.iterdir())) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list-audio", "list.csv", "shards"]


def test_names_in_a_shard_never_leave_the_folder(tmp_path: Path, run: Run) -> None:
    shard, deep = tmp_path / "evil.tar", tmp_path / "deep"
    deep.mkdir()
    with tarfile.open(shard, "w") as archive:
        for number, name in enumerate(("../../out", "/tmp/tonewood-evil", "a/../../b\n", "..")):
            for suffix, content in ((".wav", sound(number)), (".cls", b"%d" % (number % 2))):
                member = tarfile.TarInfo(f"{name}/x{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("link/x.wav")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    result = run("manifest", shard, "--reference", "cls=0", "--source", "cls=1", "-o", deep / "l.csv")
    assert result.code == 0, result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "evil.tar"]
    assert not Path("/tmp/tonewood-evil").exists()
    names = [path.name for path in (deep / "l-audio").iterdir()]
    assert len(names) == 4
    assert all(name.isascii() and name.isprintable() and not name.startswith(".") for name in names)


@pytest.mark.parametrize("content", [b"", b"no tar at all", None])
def test_damaged_shards_leave_no_output(
    tmp_path: Path, shards: Path, run: Run, content: bytes | None
) -> None:
    whole = (shards / "takes-0.tar").read_bytes()
    bad = tmp_path / "bad.tar"
    bad.write_bytes(whole[: len(whole) // 2 - 300] if content is None else content)
    sides = ["--reference", "cls=0", "--source", "cls=1", "-o", tmp_path / "l.csv"]
    result = run("manifest", bad, *sides)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
    assert "is not a tar file, or is cut off" in result.err
    result = run("manifest", tmp_path / "none.tar", *sides)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "shards"]
