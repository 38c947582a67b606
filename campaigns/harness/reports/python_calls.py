"""Rows about calls from Python."""

import json
from pathlib import Path

from campaigns.harness.reports.rows import Outcome, Row, Workplace

_REPOSITORY = Path(__file__).parents[3]

_SETUP = """
import sys, json, numpy as np, soundfile, tonewood
wave, rate = soundfile.read(sys.argv[1], dtype="float32"); wave = wave[: 2 * rate]
model = tonewood.load("soundfont-cello")
from tonewood import settings as S
quick = S.EnhanceSettings().replace(search=dict(steps=2))
want = tonewood.enhance(wave, rate, model, settings=quick).samples
def tried(f):
    try:
        return f()
    except tonewood.TonewoodError as error:
        return "told" if len(str(error).splitlines()) == 1 else "long"
    except BaseException as error:
        return f"RAW {type(error).__name__}: {str(error)[:80]}"
results = {}
"""


def torch_states(place: Workplace) -> Outcome:
    """Try the caller's torch state."""
    code = (
        _SETUP
        + """
import torch, contextlib
want_loss = float(tonewood.NeuralLoss(model, rate)(torch.from_numpy(wave)[None, None]).sum())
@contextlib.contextmanager
def dtype():
    torch.set_default_dtype(torch.float64)
    try: yield
    finally: torch.set_default_dtype(torch.float32)
states = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "float64": dtype,
          "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)}
def enhance(m): return bool(np.array_equal(tonewood.enhance(wave, rate, m, settings=quick).samples, want))
def loss(m):
    x = torch.from_numpy(wave.copy()).to("cpu")[None, None]
    return abs(float(tonewood.NeuralLoss(m, rate)(x).sum()) - want_loss) < 1e-4 * abs(want_loss)
def gradient(m):
    x = torch.from_numpy(wave.copy())[None, None].requires_grad_()
    tonewood.NeuralLoss(m, rate)(x).sum().backward()
    return bool(torch.isfinite(x.grad).all())
for name, state in states.items():
    with state():
        results[name + " enhance"] = tried(lambda: enhance(model))
        results[name + " load"] = tried(lambda: enhance(tonewood.load("soundfont-cello")))
        results[name + " loss"] = tried(lambda: loss(model))
        loaded = tonewood.load("soundfont-cello")
        made = tried(lambda: tonewood.NeuralLoss(loaded, rate))
    results[name + " loaded inside"] = tried(lambda: gradient(loaded))
    def train_with():
        x = torch.from_numpy(wave.copy())[None, None].requires_grad_()
        made(x).sum().backward()
        return bool(torch.isfinite(x.grad).all())
    results[name + " loss made inside"] = tried(train_with)
print(json.dumps(results))
"""
    )
    return _all_true(place, code)


def integer_samples(place: Workplace) -> Outcome:
    """Try integer samples."""
    code = (
        _SETUP
        + """
double = wave.astype(float)
arrays = {"int16": np.round(double * 32767).astype(np.int16), "bool": wave > 0,
          "int32": np.round(double * (2**31 - 1)).astype(np.int32),
          "int8": np.round(double * 127).astype(np.int8),
          "uint8": np.round(double * 127 + 128).astype(np.uint8),
          "int64": np.round(double * 32767).astype(np.int64)}
for name, x in arrays.items():
    def call(x=x):
        y = tonewood.enhance(x, rate, model, settings=quick).samples
        return bool(0.5 < np.abs(y).max() / np.abs(want).max() < 2)
    r = tried(call)
    results[name] = r == "told" or r
    s = tried(lambda: bool(tonewood.score(x, rate, model).scorer >= 0))
    results["score " + name] = s == "told" or s
print(json.dumps(results))
"""
    )
    return _all_true(place, code)


def other_arguments(place: Workplace) -> Outcome:
    """Try rates and samples of other types."""
    code = (
        _SETUP
        + """
import torch
for r in (float(rate), np.float32(rate), np.int64(rate), np.array(rate)):
    results[f"rate {type(r).__name__}"] = tried(lambda: tonewood.score(wave, r, model).scorer > 0)
for r in (str(rate), None, True, rate + 0.5, 0, -1, float("nan"), "x", [rate]):
    results[f"rate {r!r}"] = tried(lambda: tonewood.score(wave, r, model)) == "told"
t = torch.from_numpy(wave.copy()).requires_grad_()
results["grad"] = tried(lambda: tonewood.score(t, rate, model).scorer > 0)
others = {"strings": np.array(["a"] * rate), "object": wave.astype(object), "none": None,
          "complex": wave.astype(complex), "ragged": [[1.0], [1.0, 2.0]], "dict": {"a": 1}}
for name, x in others.items():
    s = tried(lambda: tonewood.score(x, rate, model))
    results[name] = s == "told" or not isinstance(s, str)
p = tried(lambda: tonewood.score(sys.argv[1], model))
results["path"] = p == "told" or not isinstance(p, str)
p = tried(lambda: tonewood.score(sys.argv[1]))
results["path alone"] = p == "told" or not isinstance(p, str)
p = tried(lambda: tonewood.score(wave, model))
results["no rate"] = p == "told"
print(json.dumps(results, default=bool))
"""
    )
    return _all_true(place, code)


def fork_after_use(place: Workplace) -> Outcome:
    """Try a fork after use."""
    code = (
        _SETUP
        + """
import multiprocessing as mp
context = mp.get_context("fork"); queue = context.Queue()
def work(): queue.put(tonewood.enhance(wave, rate, model, settings=quick).samples.shape)
process = context.Process(target=work); process.start(); process.join(30)
hangs = process.is_alive()
if hangs: process.kill()
print(json.dumps({"fork": not hangs}))
"""
    )
    outcome = _all_true(place, code)
    pages = "".join(path.read_text() for path in (_REPOSITORY / "docs").rglob("*.md"))
    return Outcome(outcome.got, outcome.right or "fork" in pages)


def _all_true(place: Workplace, code: str) -> Outcome:
    """Run code that prints what is right as JSON."""
    done = place.python(code, place.input("apple/take.wav"))
    if done.code != 0:
        return Outcome(done.last_line, right=False)
    results = json.loads(done.out.splitlines()[-1])
    wrong = {name: value for name, value in results.items() if value is not True}
    return Outcome(f"{len(results) - len(wrong)} of {len(results)}; not: {wrong or 'none'}", not wrong)


ROWS = (
    Row("7", "no_grad, inference_mode, float64, autocast", "no difference", torch_states),
    Row("11", "integer samples", "scaled or refused", integer_samples),
    Row("12", "rates and samples of other types", "taken, or one line", other_arguments),
    Row("25", "fork after use", "works, or documented", fork_after_use),
)
