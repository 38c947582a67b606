"""Manifests of training recordings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

from campaigns.harness.training import TINY_TRAINING, set_options
from tonewood.data import dataset
from tonewood.data.manifest import ExcerptReader, ManifestEntry, ManifestSide, read_manifest
from tonewood.errors import AudioError, FolderError
from tonewood.settings import ModelSettings

Run = Callable[..., Any]


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_become_entries_of_their_sides(tmp_path: Path) -> None:
    text = (
        "path,label,session,start,end,remark\n"
        'a.wav,Reference,monday,0.5,2,"fine, loud"\n'
        "sub/b.wav, source,,,\n"
        "a.wav,reference,,3,\n"
    )
    path = written(tmp_path, text)
    reference, source = read_manifest(path)
    assert reference == ManifestSide(
        path,
        "reference",
        (
            ManifestEntry(tmp_path / "a.wav", "monday", 0.5, 2.0, 2),
            ManifestEntry(tmp_path / "a.wav", None, 3.0, None, 4),
        ),
    )
    assert source.entries == (ManifestEntry(tmp_path / "sub" / "b.wav", None, None, None, 3),)
    assert reference.name == "list:reference"


def test_jsonl_and_csv_give_the_same_manifest(tmp_path: Path) -> None:
    rows = [
        {"path": "a.wav", "label": "reference", "session": "m", "start": 1, "end": 2.5},
        {"path": "b.wav", "label": "source"},
    ]
    text = "\n\n".join(map(json.dumps, rows))
    as_json = read_manifest(written(tmp_path, text, "l.jsonl"))
    as_csv = read_manifest(
        written(tmp_path, "path,label,session,start,end\na.wav,reference,m,1,2.5\n,,,,\n".replace(
            "\n,,,,\n", "\nb.wav,source,,,\n"
        ))
    )  # fmt: skip
    assert [[e[:4] for e in side.entries] for side in as_json] == [
        [e[:4] for e in side.entries] for side in as_csv
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path\na.wav\n", "has no column label: start it with path,label"),
        ("", "has no column label and no column path"),
        ("path,label\na.wav,good\n", "line 2: label is 'good'; write reference or source"),
        ("path,label\n,source\n", "line 2: no path is given"),
        ("path,label,start\na.wav,source,-1\n", "line 2: start is '-1'; write seconds"),
        ("path,label,end\na.wav,source,1:x\n", "line 2: end is '1:x'; write seconds or MIN:SEC"),
        ("path,label,start,end\na,source,3,2\n", "line 2: an excerpt from 3 to 2 s is empty"),
        ("path,label\na.wav,source\n", "names no reference; a model needs both sides"),
        ('path,label\n"a.wav,source\n', "after line 1: unexpected end of data: correct the manifest"),
    ],
)
def test_invalid_manifest_names_the_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FolderError) as raised:
        read_manifest(written(tmp_path, text))
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unreadable_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"no\.csv cannot be read \(no such file"):
        read_manifest(tmp_path / "no.csv")
    (tmp_path / "l.csv").write_bytes(b"path,label\n\xff\xfe,source\n")
    with pytest.raises(FolderError, match="is not UTF-8"):
        read_manifest(tmp_path / "l.csv")
    with pytest.raises(FolderError, match="line 1: this is not a JSON object"):
        read_manifest(written(tmp_path, "[1]\n", "l.jsonl"))


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> Path:
    folder = tmp_path_factory.mktemp("takes")
    for name, formant in (("good", 600), ("plain", 2_500)):
        wave = play(70, formant_hz=formant, seed=formant)[0]
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
    return folder


def test_excerpts_of_one_file_or_session_share_a_group(takes: Path) -> None:
    entries = [
        ManifestEntry(takes / "good.wav", session, start, start + 2.0, 2)
        for session, start in ((None, 0.0), (None, 10.0), ("m", 20.0), ("m", 30.0))
    ]
    listing = ManifestSide(takes / "l.csv", "reference", (*entries, entries[0]))
    groupings: tuple[Literal["file", "folder"], ...] = ("file", "folder")
    for group_by in groupings:
        settings = ModelSettings().replace(training=dict(group_by=group_by))
        actual = [item.take for item in dataset.load_dataset(listing, settings)]
        assert len(actual) == 4  # the last row is the first again
        assert [round(take.seconds, 3) for take in actual] == [2.0] * 4
        assert actual[0].group == actual[1].group != actual[2].group == actual[3].group == "m"
        assert [take.audit_features.session for take in actual] == [".", ".", "m", "m"]
    wave, _ = soundfile.read(takes / "good.wav", dtype="float32")
    piece = ExcerptReader(listing.entries[1])
    for _ in range(2):  # the second time it is not read to its end
        samples = np.concatenate(list(piece.blocks()), axis=1)
        assert np.array_equal(samples[0], wave[160_000:192_000])


def test_missing_excerpts_are_refused(takes: Path) -> None:
    beyond = ManifestSide(
        takes / "l.csv", "source", (ManifestEntry(takes / "good.wav", None, 80.0, None, 7),)
    )
    with pytest.raises(AudioError, match=r"lasts 70\.00 s, of which line 7 of the manifest selects 0\.00 s"):
        list(dataset.load_dataset(beyond, ModelSettings()))
    missing = ManifestSide(takes / "l.csv", "source", (ManifestEntry(takes / "no.wav", None, None, None, 2),))
    with pytest.raises(AudioError, match=r"no\.wav"):
        list(dataset.load_dataset(missing, ModelSettings()))


def test_train_reads_a_manifest(takes: Path, run: Run) -> None:
    rows = ["path,label,session,start,end"]
    for name, label in (("good", "reference"), ("plain", "source")):
        rows += [f"{name}.wav,{label},{part},{34 * part},{34 * part + 34}" for part in range(2)]
    manifest = written(takes, "\n".join(rows) + "\n")
    more = [*set_options(*TINY_TRAINING, "training.steps=4"), "--no-judge", "--json"]
    out = takes / "m.tonewood"
    ran = run("train", "--manifest", manifest, "-o", out, *more)
    assert ran.code == 0, ran.err
    card = ran.objects[0]["card"]
    assert card["reference"]["name"] == "list:reference"
    assert (card["reference"]["takes"], card["source"]["takes"]) == (2, 2)
    assert card["source"]["hours"] == pytest.approx(68 / 3600, abs=1e-4)


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ((), 2, "there is nothing to train from: give --reference and --source, a --manifest"),
        (("--reference", "a"), 2, "--source is missing: give both folders"),
        (("--manifest", "l.csv", "--source", "b"), 2, "--manifest names both sides"),
        (("--manifest", "nowhere.csv"), 1, "nowhere.csv cannot be read"),
    ],
)
def test_conflicting_options_are_refused(
    tmp_path: Path, run: Run, more: tuple[str, ...], code: int, reason: str
) -> None:
    ran = run("train", *more, "-o", tmp_path / "m.tonewood")
    assert ran.code == code
    assert reason in ran.err
    assert ran.err.count("\n") == 1
