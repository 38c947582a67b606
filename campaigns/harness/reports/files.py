"""Rows about files that other programs write, and about the names of files."""

import json
import shutil
import struct
from pathlib import Path

import soundfile

from campaigns.harness.reports.rows import Finished, Outcome, Row, Workplace

_FAST = ("--steps", "0")
MODEL = ("-m", "soundfont-cello")


def enhance(place: Workplace, *inputs: str | Path, options: tuple[str, ...] = ()) -> Finished:
    """Enhance inputs into the folder `out`."""
    return place.run("enhance", *inputs, "-o", "out", *MODEL, *_FAST, *options)


def flac_tails(place: Workplace) -> Outcome:
    """Try whole FLACs that something follows."""
    done = enhance(place, place.input("flactail"))
    count = len(place.outputs())
    return Outcome(f"{done.summary}; {count} of 8 done", done.code == 0 and count == 8)


def long_names(place: Workplace) -> Outcome:
    """Try names that become too long."""
    results = []
    for name in ("long1", "long2"):
        done = place.run("enhance", place.input(name), "-o", name, *MODEL, *_FAST, "--plot")
        results.append(done.is_plain and (place.folder / name / "ok.wav").exists())
    too_long = place.folder / ("x" * 300 + ".wav")
    for arguments in (
        ("score", too_long),
        ("diff", too_long, too_long),
        ("export", too_long, "--peq", "5", "-o", "x.txt"),
        ("export", "cello", "--peq", "5", "-o", "x" * 300 + ".txt"),
        ("train", "--reference", "a", "--source", "b", "-o", "x" * 300 + ".tonewood"),
        ("info", too_long),
        ("render", too_long, "-o", "y.wav"),
    ):
        done = place.run(*arguments)
        results.append(done.is_plain and done.code in (1, 2))
    recipe = make_recipe(place)
    long = place.folder / ("y" * 251 + ".wav")
    shutil.copy(place.input("apple/take.wav"), long)
    done = place.run("apply", recipe, long, "-o", "applied")
    results.append(done.is_plain)
    return Outcome(f"{sum(results)} of {len(results)} calls right", all(results))


def make_recipe(place: Workplace) -> Path:
    """Enhance a take and return its recipe."""
    place.run("enhance", place.input("apple/take.wav"), "-o", "made", *MODEL, *_FAST)
    return place.folder / "made" / "take.wav.recipe.json"


def dollar_names(place: Workplace) -> Outcome:
    """Try names that matplotlib takes for mathematics."""
    done = enhance(place, place.input("dollar"), options=("--plot",))
    pictures = len(list((place.folder / "out").glob("*.png")))
    explained = place.run("explain", place.input("dollar"), "-o", "pages", *MODEL)
    pages = len(list((place.folder / "pages").glob("*.html")))
    got = f"{done.summary}; {pictures} pictures, {pages} pages of explain (exit {explained.code})"
    return Outcome(got, done.code == 0 and pictures == 5 and explained.code == 0 and pages == 6)


def apple_forks(place: Workplace) -> Outcome:
    """Try files of macOS beside an mp3."""
    done = place.run("score", place.input("apple2"), *MODEL, "--json")
    count = len(done.out.splitlines())
    return Outcome(f"exit {done.code}, {count} of 4 scored", done.code == 0 and count == 4)


def stale_sizes(place: Workplace) -> Outcome:
    """Try headers that promise less than the file holds."""
    results = []
    whole = seconds_of(place, "apple/take.wav")
    for name in ("data_stale_half.wav", "data_stale_half_riff_whole.wav"):
        done = place.run("score", place.input(f"sizes/{name}"), *MODEL)
        enhanced = enhance(place, place.input(f"sizes/{name}"))
        length = soundfile.info(place.outputs()[0]).duration if place.outputs() else 0.0
        said = "more" in enhanced.err and "more" in done.err
        results.append((abs(length - whole) < 0.01 or said, f"{length:.2f} s{', said' if said else ''}"))
        shutil.rmtree(place.folder / "out", ignore_errors=True)
    code = "import sys; from tonewood.audio_io import reader; print(reader.probe_audio(sys.argv[1]).duration)"
    done = place.python(code, place.input("sizes/wrapped_4gib.wav"))
    results.append((done.code == 0 and float(done.out or 0) > 20_000, f"4 GiB: {done.last_line} s"))
    return Outcome("; ".join(text for _, text in results), all(right for right, _ in results))


def seconds_of(place: Workplace, name: str) -> float:
    """Return the duration of a case."""
    return float(soundfile.info(place.input(name)).duration)


def zero_tails(place: Workplace) -> Outcome:
    """Try zeros after the samples."""
    code = (
        "import sys, time; from tonewood.audio_io.reader import read_recording; from pathlib import Path\n"
        "from tonewood.audio_io.headers import read_tag_chunks\n"
        "for p in sys.argv[1:]:\n"
        "    t = time.process_time(); read_recording(p); read_tag_chunks(Path(p), True)\n"
        "    print(time.process_time() - t)"
    )
    done = place.python(code, place.input("ztail/z0.wav"), place.input("ztail/z16.wav"))
    without, with_zeros = map(float, done.out.split())
    return Outcome(f"{with_zeros - without:.2f} s of work for 16 MB", with_zeros - without < 0.2)


def unicode_pairs(place: Workplace) -> Outcome:
    """Try the same names in two normal forms."""
    done = place.run(
        "evaluate", "--pairs", place.input("pairs/source"), place.input("pairs/reference"), *MODEL
    )
    return Outcome(done.summary, "no partner" not in done.text and done.code == 0)


def antiphase(place: Workplace) -> Outcome:
    """Try channels that cancel."""
    done = place.run(
        "score", place.input("levels/antiphase.wav"), place.input("levels/antiphase_mostly.wav"),
        place.input("apple/take.wav"), *MODEL, "--json",
    )  # fmt: skip
    scores = [json.loads(line).get("scorer") for line in done.out.splitlines()]
    near = len(scores) == 3 and None not in scores and max(abs(s - scores[2]) for s in scores) < 0.05
    return Outcome(f"scores {scores}; {done.last_line}", near or "cancel" in done.err)


def read_format_chunk(path: Path) -> bytes:
    """Return the content of a .wav's format chunk."""
    content = path.read_bytes()
    offset = 12
    while content[offset : offset + 4] != b"fmt ":
        offset += 8 + struct.unpack_from("<I", content, offset + 4)[0]
    return content[offset + 8 : offset + 8 + struct.unpack_from("<I", content, offset + 4)[0]]


def format_chunks(place: Workplace) -> Outcome:
    """Try channel masks, valid bits and ambisonics."""
    done = enhance(place, place.input("wavex"), options=("--force",))
    outputs = place.outputs()
    same = [
        path.name for path in outputs
        if read_format_chunk(path) == read_format_chunk(place.input("wavex") / path.name)
    ]  # fmt: skip
    return Outcome(f"{done.summary}; same format {len(same)} of 7", len(same) == 7)


def camilladsp(place: Workplace) -> Outcome:
    """Try CamillaDSP of each version: lists of channels are of version 3."""
    valid = []
    for form, key in (("camilladsp", "channels: ["), ("camilladsp2", "channel: 0")):
        path = place.folder / f"{form}.yml"
        done = place.run("export", "cello", "--peq", "3", "--format", form, "-o", path)
        valid.append(done.code == 0 and key in path.read_text())
    return Outcome(done.summary, all(valid))


def missing_sizes(place: Workplace) -> Outcome:
    """Try sizes that are a header's length too large."""
    names = ("data_8_too_much_riff_ok", "data_16_too_much", "data_44_too_much")
    done = place.run("score", *(place.input(f"sizes/{name}.wav") for name in names), *MODEL, "--json")
    count = len(done.out.splitlines())
    return Outcome(
        f"exit {done.code}, {count} of 3, {done.last_line}", done.code == 0 and "warning" in done.err
    )


def spreadsheet_lists(place: Workplace) -> Outcome:
    """Try manifests as spreadsheets save them."""
    code = (
        "import sys; from pathlib import Path; from tonewood.data.manifest import read_manifest\n"
        "r, s = read_manifest(Path(sys.argv[1])); print(len(r.entries), len(s.entries),"
        " all(e.path.exists() for e in (*r.entries, *s.entries)), r.entries[0].end)"
    )
    results = {}
    for table in sorted(place.input("lists").glob("*.csv")):
        done = place.python(code, table)
        results[table.stem] = done.out.strip()
    right = [name for name, out in results.items() if out == "4 4 True 5.5"]
    wrong = ", ".join(sorted(set(results) - set(right)))
    return Outcome(f"{len(right)} of {len(results)} read; not: {wrong or 'none'}", len(right) == len(results))


def several_bad_files(place: Workplace) -> Outcome:
    """Try several bad files in a training folder."""
    good = place.folder / "good"
    shutil.copytree(place.cases / "train/base/good", good)
    for number in range(3):
        (good / f"bad{number}.wav").write_bytes(b"RIFF" + bytes(number))
    results = []
    for command in (("train", "-o", "m.tonewood"), ("audit",)):
        done = place.run(
            command[0], "--reference", good, "--source", place.cases / "train/base/plain", *command[1:]
        )
        results.append(sum(f"bad{number}" in done.err for number in range(3)))
    sides = ("--reference", good, "--source", place.cases / "train/base/plain")
    skipped = place.run("audit", *sides, "--skip-bad")
    got = f"named by train {results[0]}, audit {results[1]} of 3; --skip-bad: exit {skipped.code}"
    # What was left out is named, and the exit code tells it.
    return Outcome(got, results == [3, 3] and skipped.code == 1 and "left out" in skipped.err)


def bw64(place: Workplace) -> Outcome:
    """Try a file of BW64."""
    done = place.run("score", place.input("sizes/bw64_ok.wav"), *MODEL)
    return Outcome(done.summary, done.code == 0 or "BW64" in done.err)


def streams(place: Workplace) -> Outcome:
    """Try standard streams as files."""
    take = place.input("apple/take.wav")
    done = place.run("enhance", "-", "-o", "-", *MODEL, *_FAST, stdin=take.read_bytes())
    is_wave = done.out.startswith("RIFF")
    pipe = place.shell(f"tonewood score <(cat '{take}') -m soundfont-cello")
    right = (
        done.is_plain and pipe.is_plain and not (place.folder / "-").exists() and (is_wave or done.code == 2)
    )
    return Outcome(f"{'wav' if is_wave else done.summary}; <(cat): {pipe.summary}", right)


def full_device(place: Workplace) -> Outcome:
    """Try results onto a full device."""
    take = place.input("apple/take.wav")
    recipe = make_recipe(place)
    results = [
        place.shell(f"tonewood {line} > /dev/full")
        for line in (
            f"score '{take}' -m soundfont-cello", "info cello", f"diff '{recipe}' cello", "settings",
            "info cello --json", f"enhance '{take}' -o again -m soundfont-cello --steps 0",
        )
    ]  # fmt: skip
    right = all(done.is_plain and done.code == 1 and len(done.err.splitlines()) == 1 for done in results)
    return Outcome("; ".join(done.summary for done in results[:3]), right)


def colliding_names(place: Workplace) -> Outcome:
    """Try files that would become one."""
    done = enhance(place, place.input("collide"))
    return Outcome(
        f"{done.summary}; {len(place.outputs())} done", done.is_plain and len(place.outputs()) >= 3
    )


def graphic_eq(place: Workplace) -> Outcome:
    """Try a line of GraphicEQ."""
    done = place.run("export", "cello", "--graphic-eq", "-o", "eq.txt")
    text = (place.folder / "eq.txt").read_text() if (place.folder / "eq.txt").exists() else ""
    return Outcome(done.summary, done.code == 0 and text.startswith("GraphicEQ:"))


ROWS = (
    Row("1", "FLACs with something after the last frame", "read", flac_tails),
    Row("2", "names of 244 bytes and more", "done or one line; the others are done", long_names),
    Row("3", "names with $ in pictures and pages", "as they are spelt", dollar_names),
    Row("4", "an mp3 beside a file ._name", "read", apple_forks),
    Row("5", "headers that promise less than the file holds", "read, or said", stale_sizes),
    Row("6", "zeros after the samples", "bounded work", zero_tails),
    Row("8", "names in NFC and NFD", "paired", unicode_pairs),
    Row("9", "channels in antiphase", "scored by power, or said", antiphase),
    Row("10", "masks, valid bits, ambisonics", "the input's fmt chunk", format_chunks),
    Row("13", "CamillaDSP", "valid for what is named", camilladsp),
    Row("15", "a data size too large by a header", "read with a warning", missing_sizes),
    Row("16", "manifests saved by spreadsheets", "read", spreadsheet_lists),
    Row("17", "several bad files in train and audit", "all named; --skip-bad", several_bad_files),
    Row("18", "BW64", "read, or told", bw64),
    Row("21", "- and <(cat)", "streams, or one line", streams),
    Row("23", "results to /dev/full", "one line, exit 1", full_device),
    Row("24", "take.flac, take.m4a, take.mp4", "the others are done", colliding_names),
    Row("26", "GraphicEQ", "a format", graphic_eq),
)
