"""Rows about hostile files, calls and places."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

from campaigns.harness.reports.files import MODEL, make_recipe
from campaigns.harness.reports.rows import Outcome, Row, Workplace

_REPOSITORY = Path(__file__).parents[3]
_ESCAPE = "\x1b[31m"


def linked_root(place: Workplace) -> Outcome:
    """Try links below the studio's root that lead out of it."""
    root, outside = place.folder / "root", place.folder / "outside"
    (root / "in").mkdir(parents=True)
    outside.mkdir()
    shutil.copy(place.input("apple/take.wav"), outside / "secret.wav")
    shutil.copy(place.input("apple/take.wav"), root / "in" / "take.wav")
    (root / "in" / "p.wav").symlink_to(outside / "secret.wav")
    (root / "in" / "folder").symlink_to(outside)
    (root / "out").symlink_to(outside)
    code = """
import sys
from pathlib import Path
from tonewood.model.model import load_model
from tonewood.settings import EnhanceSettings
from tonewood.studio.job_functions import run_batch_job
from tonewood.studio.registries import FolderRegistry
root = Path(sys.argv[1])
registry = FolderRegistry(root)
view = registry.folder_view(registry.register(root / "in"))
settings = EnhanceSettings().replace(search=dict(steps=0)).model_dump(mode="json")
def batch(output):
    request = {"input": str(root / "in"), "output": str(output), "settings": settings, "overwrite": True,
               "root": str(root)}
    events = list(run_batch_job(request, load_model("soundfont-cello")))
    return [row["name"] for row in events[0]["rows"]], events[-1]["failed"]
print(view["sounds"], len(view["folders"]), batch(root / "good"), batch(root / "out"))
"""
    done = place.python(code, root)
    left = sorted(path.name for path in outside.iterdir())
    right = done.out.strip() == "1 0 (['take.wav'], 0) (['take.wav'], 1)" and left == ["secret.wav"]
    return Outcome(f"{done.out.strip() or done.last_line}; outside: {left}", right)


def overwriting_runs(place: Workplace) -> Outcome:
    """Try two runs with --overwrite at once."""
    mixed = 0
    for _ in range(4):
        runs = [
            subprocess.Popen(
                [sys.executable, "-m", "tonewood", "enhance", str(place.input("quiet")), "-o", "out", *MODEL,
                 "--steps", "0", "--amount", amount, "--overwrite"],
                cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(_REPOSITORY / "src")},
            )
            for amount in ("0.3", "1")
        ]  # fmt: skip
        for run in runs:
            run.wait(120)
        for path in place.outputs():
            recipe = json.loads(path.with_name(f"{path.name}.recipe.json").read_text())
            mixed += recipe["output_sha256"] != hashlib.sha256(path.read_bytes()).hexdigest()
    return Outcome(f"{mixed} of 20 outputs beside another run's recipe", mixed == 0)


def link_loop(place: Workplace) -> Outcome:
    """Try a link to itself."""
    folder = place.folder / "loops"
    folder.mkdir()
    shutil.copy(place.input("apple/take.wav"), folder / "take.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    done = place.run("enhance", folder, "-o", "out", *MODEL, "--steps", "0")
    return Outcome(
        f"{done.summary}; {len(place.outputs())} done", done.is_plain and len(place.outputs()) == 1
    )


def endless_files(place: Workplace) -> Outcome:
    """Try pipes and devices with the name of a recording."""
    folder = place.folder / "pipes"
    folder.mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "zero.wav").symlink_to("/dev/zero")
    os.mkfifo(place.folder / "pipe.csv")
    os.mkfifo(place.folder / "pipe.tonewood")
    calls = (
        ("enhance", folder, "-o", "out", *MODEL), ("score", folder, *MODEL),
        ("train", "--manifest", "pipe.csv", "-o", "m.tonewood"), ("info", "pipe.tonewood"),
        ("train", "--preferences", "pipe.csv", "-o", "m.tonewood"), ("diff", "pipe.tonewood", "cello"),
        ("explain", folder, "-o", "pages", *MODEL), ("render", "pipe.csv", "-o", "y.wav"),
    )  # fmt: skip
    results = [place.run(*call, timeout_s=30) for call in calls]
    right = sum(done.is_plain and done.code in (1, 2) for done in results)
    return Outcome(f"{right} of {len(calls)} end with a line", right == len(calls))


def escaped_texts(place: Workplace) -> Outcome:
    """Try texts of models and recipes with escape sequences."""
    code = f"""
import sys
import tonewood
from dataclasses import replace
model = tonewood.load("cello")
card = model.card.model_copy(update=dict(domain="x{_ESCAPE}y", licence="{_ESCAPE}z", notice="{_ESCAPE}n"))
replace(model, card=card).save("evil.tonewood")
"""
    place.python(code)
    recipe = make_recipe(place)
    text = recipe.read_text().replace('"take.wav"', '"ta\\u001b[31mke.wav"')
    text = text.replace('"soundfont-cello"', '"sound\\u001b[31mfont"')
    evil = place.folder / "evil.recipe.json"
    evil.write_text(text)
    calls = (
        ("info", "evil.tonewood"), ("info", "evil.tonewood", "--markdown"), ("diff", evil, recipe),
        ("render", evil, "-o", "y.wav"), ("apply", evil, place.input("apple/take.wav"), "-o", "applied"),
        ("apply", evil, place.input("apple/take.wav"), "-o", "applied", *MODEL),
    )  # fmt: skip
    results = [place.run(*call) for call in calls]
    right = sum("\x1b" not in done.text and done.is_plain for done in results)
    return Outcome(f"{right} of {len(calls)} without escape sequences", right == len(calls))


def infinite_models(place: Workplace) -> Outcome:
    """Try models with values that are not finite."""
    code = """
import sys, numpy as np
import tonewood
from dataclasses import replace
from tonewood.model import model as m
from tonewood.model.model_file import serialize_model
model = tonewood.load("cello")
tensors = m._model_tensors(model)
names = [n for n in tensors if np.issubdtype(tensors[n].dtype, np.floating)]
wrong = []
for value in (np.nan, np.inf):
    for name in names:
        changed = dict(tensors); changed[name] = np.full_like(tensors[name], value)
        open("bad.tonewood", "wb").write(serialize_model(changed, model.settings, model.card))
        try:
            tonewood.load("bad.tonewood"); wrong.append(name)
        except tonewood.TonewoodError:
            pass
print(len(names), wrong)
"""
    done = place.python(code)
    return Outcome(done.last_line, done.code == 0 and done.out.strip().endswith("[]"))


def double_answers(place: Workplace) -> Outcome:
    """Try two final answers at once."""
    source = (_REPOSITORY / "src/tonewood/listening/server.py").read_text()
    code = """
from pathlib import Path
from tonewood.listening.database import AnswerDatabase
answers = AnswerDatabase(Path("answers.db"))
listener = answers.add_listener("yes")
print([answers.save_answer(listener.id, 0, 1, final=True, seconds=1.0) for _ in range(2)])
"""
    done = place.python(code)
    is_refused = done.out.strip() == "[True, False]"
    told = "if not self.answers.save_answer(" in source
    return Outcome(f"{done.out.strip()}, the second is {'told' if told else 'not told'}", is_refused and told)


def private_files(place: Workplace) -> Outcome:
    """Try permissions of sessions, answers and tests."""
    code = """
from pathlib import Path
from tonewood.studio.database import SessionDatabase
from tonewood.listening.database import AnswerDatabase
SessionDatabase(Path("studio")).close()
AnswerDatabase(Path("answers.db"))
"""
    done = place.python(code)
    modes = {}
    for name in ("studio/sessions", "studio/studio.db", "answers.db"):
        path = place.folder / name
        modes[name] = oct(stat.S_IMODE(path.stat().st_mode)) if path.exists() else "missing"
    return Outcome(f"{modes} {done.last_line}", all(mode.endswith("00") for mode in modes.values()))


def changed_recipes(place: Workplace) -> Outcome:
    """Try recipes with impossible values."""
    recipe = make_recipe(place)
    content = json.loads(recipe.read_text())
    shutil.copy(place.input("apple/take.wav"), place.folder / "made" / "original.wav")
    results = []
    for path, value in (
        (("gain_db",), 1e308), (("gain_db",), -1e308), (("input", "samples"), -1),
        (("input", "samples"), 10**18), (("input", "name"), "x" * 300),
        (("input", "name"), "x" * 300 + ".wav"),
        (("input", "name"), "x" * 5000), (("input", "rate"), 0), (("input", "channels"), 10**9),
        (("mask", "hop_seconds"), 1e-300), (("steps",), -1), (("mask", "frames"), 10**12),
        (("settings", "render", "gain_db"), 1e308), (("input", "name"), "a\0b"),
    ):  # fmt: skip
        changed = json.loads(json.dumps(content))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        bad = place.folder / "made" / "bad.recipe.json"
        bad.write_text(json.dumps(changed))
        for call in (
            ("render", bad, place.input("apple/take.wav"), "-o", "r.wav", "--overwrite"),
            ("render", bad, "-o", place.folder, "--overwrite"),
            ("apply", bad, place.input("apple/take.wav"), "-o", "applied", "--same-mask", "--overwrite"),
            ("export", bad, "--peq", "3", "-o", "x.txt", "--overwrite"),
        ):
            done = place.run(*call)
            fine = done.is_plain and len(done.err.splitlines()) <= 2 and "disk is full" not in done.text
            results.append((fine, f"{'.'.join(path)}={str(value)[:12]} {call[0]}: {done.last_line[:80]}"))
    wrong = [text for right, text in results if not right]
    return Outcome(f"{len(results) - len(wrong)} of {len(results)}; {wrong[:3]}", not wrong)


def missing_places(place: Workplace) -> Outcome:
    """Try outputs that are a device, and a folder that disappears."""
    take = place.input("apple/take.wav")
    results = [place.run("enhance", take, "-o", "/dev/full", *MODEL, "--steps", "0")]
    results.append(place.run("enhance", take, "-o", "/dev/full/x.wav", *MODEL, "--steps", "0"))
    results.append(place.run("export", "cello", "--peq", "3", "-o", "/dev/full"))
    # A pipe stands for a device, which a rename over it would remove from the machine.
    link, pipe = place.folder / "link.wav", place.folder / "pipe"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    results.append(place.run("enhance", take, "-o", link, *MODEL, "--steps", "0", "--overwrite"))
    results.append(place.run("export", "cello", "--peq", "3", "-o", link, "--overwrite"))
    kept = pipe.is_fifo()
    run = subprocess.Popen(
        [sys.executable, "-m", "tonewood", "enhance", str(place.input("quiet")), "-o", "gone/below", *MODEL],
        cwd=place.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY / "src")},
    )  # fmt: skip
    for _ in range(100):
        if (place.folder / "gone").exists():
            break
        time.sleep(0.05)
    shutil.rmtree(place.folder / "gone", ignore_errors=True)
    _, err = run.communicate(timeout=120)
    plain = sum(done.is_plain and done.code in (1, 2) for done in results)
    removed = "Traceback" not in err and "please report" not in err
    return Outcome(
        f"{plain} of {len(results)} with a line; removed folder: {err[-100:]!r}",
        plain == len(results) and removed and kept,
    )


def token_option(place: Workplace) -> Outcome:
    """Try a token on 127.0.0.1."""
    done = place.run("studio", "--help")
    return Outcome("--token" if "--token" in done.out else "no option", "--token" in done.out)


def pinned_actions(place: Workplace) -> Outcome:
    """Try actions of the workflows."""
    texts = "".join(path.read_text() for path in (_REPOSITORY / ".github/workflows").glob("*.yml"))
    actions = re.findall(r"uses: (\S+)", texts)
    loose = sorted({action for action in actions if not re.search(r"@[0-9a-f]{40}$", action)})
    image = "@sha256:" in (_REPOSITORY / "Containerfile").read_text()
    return Outcome(f"{len(loose)} actions not by hash; image by digest: {image}", not loose and image)


def server_errors(place: Workplace) -> Outcome:
    """Try parallel reads of one .aiff, and paths in errors."""
    source = (_REPOSITORY / "src/tonewood/studio/routes_folders.py").read_text()
    code = """
import sys
from pathlib import Path
from tonewood.studio.job_functions import run_audit_job
root = Path("root"); (root / "a").mkdir(parents=True); (root / "b").mkdir()
(root / "a" / "x.wav").write_bytes(b"RIFF"); (root / "b" / "y.wav").write_bytes(b"RIFF")
root = root.resolve()
try:
    list(run_audit_job({"reference": str(root / "a"), "source": str(root / "b"), "root": str(root)}))
except Exception as error:
    print(error)
"""
    done = place.python(code)
    right = str(place.folder) not in done.out and "x.wav" in done.out and "_CONVERSION_LOCK" in source
    return Outcome(done.last_line, right)


ROWS = (
    Row("50", "studio --root: links that lead out", "held below the root at use", linked_root),
    Row("51", "two --overwrite runs at once", "one of them wins whole", overwriting_runs),
    Row("52", "loop.wav -> loop.wav", "one line, the others done", link_loop),
    Row("53", "pipes and devices as recordings", "one line", endless_files),
    Row("54", "escape sequences in cards and recipes", "shown safely", escaped_texts),
    Row("55", "models with NaN or infinite values", "refused at loading", infinite_models),
    Row("56", "two final answers at once", "the second is told", double_answers),
    Row("57", "parallel reads, paths in errors", "right, without paths", server_errors),
    Row("58", "sessions, answers and tests on disk", "0600 in 0700", private_files),
    Row("59", "recipes with impossible values", "refused with the reason", changed_recipes),
    Row("60", "removed folder, full device", "one line, nothing half done", missing_places),
    Row("61", "a token on 127.0.0.1", "--token", token_option),
    Row("62", "release workflow and image", "pinned by hash", pinned_actions),
)
