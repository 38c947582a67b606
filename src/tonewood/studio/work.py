"""What takes a while, as generators of what is told: run in a process of its own by `jobs`."""

import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import CallError, shown
from tonewood.files.modelfile import Model, load
from tonewood.files.recipe import InputRecord, MaskRecord, ModelRecord, Recipe
from tonewood.masking.certify import Change
from tonewood.masking.mask import LongMask
from tonewood.masking.optimise import Step
from tonewood.masking.render import Rendered, rendered
from tonewood.settings import EnhanceSettings, ModelSettings, changed
from tonewood.signal.bands import centres_hz
from tonewood.signal.loudness import integrated_loudness
from tonewood.studio.intake import save_array
from tonewood.studio.sound import (
    Whole,
    forget_wholes,
    found,
    found_mask,
    found_path,
    key_of,
    max_gain_db,
    measured,
    save_bands,
    set_anchor,
)
from tonewood.studio.store import Session, Sound, State
from tonewood.workflow import audit as audits
from tonewood.workflow import batch, edit, layout
from tonewood.workflow.audit import Listened
from tonewood.workflow.edit import Edit
from tonewood.workflow.enhance import Enhancement, enhance, mono_at, rows_of
from tonewood.workflow.explain import explain
from tonewood.workflow.teach import Taught
from tonewood.workflow.train import Checked, Loaded, Origin, train

Told = dict[str, Any]


def session_of(asked: Told) -> Session:
    """A session as a process without the database knows it."""
    folder = Path(asked["folder"])
    return Session(folder.name, "", 0, 0, Sound.model_validate(asked["sound"]), "", folder)


def state_of(asked: Told) -> State:
    """An edit as it was asked for."""
    return State(0, asked["found"], Edit.model_validate(asked["edit"]), undo=False, redo=False)


def run(kind: str, asked: Told, models: dict[str, Model]) -> Iterator[Told]:
    """Do a job; every dict updates what is told of it, the last one has its result."""
    if kind in ("audit", "train", "batch"):
        yield from {"audit": _audit, "train": _train, "batch": _batch}[kind](asked, models)
        return
    ways = {"enhance": _enhance, "again": _again, "whole": _whole, "explain": _explain}
    yield from ways[kind](asked, session_of(asked), _model(asked, models))


def _model(asked: Told, models: dict[str, Model]) -> Model:
    name = asked["model"]
    if name not in models:
        models[name] = load(name)
    return models[name]


# --- One session


def _enhance(asked: Told, session: Session, model: Model) -> Iterator[Told]:
    settings = EnhanceSettings.model_validate(asked["settings"])
    samples, rate = session.samples(), session.sound.rate
    yield {"phase": "listening", "of": settings.search.steps, "steps": []}
    hz = centres_hz(model.settings.scorer.bands, model.settings.spectrum)
    save_bands(session.folder, rows_of(mono_at(samples, rate, model), model).numpy(), hz)
    yield from _searched(enhance(samples, rate, model, settings), asked, session, model, ())


def _again(asked: Told, session: Session, model: Model) -> Iterator[Told]:
    settings = EnhanceSettings.model_validate(asked["settings"])
    state = state_of(asked)
    before = found(session, state)
    if before is None:
        raise CallError("nothing was searched yet: enhance the recording first")
    yield {"phase": "listening", "of": settings.search.steps, "steps": []}
    mask, pinned = found_mask(session, state, model), state.edit.pinned
    events = edit.again(
        session.samples(), session.sound.rate, model, mask, pinned, settings, before.certificate
    )
    yield from _searched(events, asked, session, model, pinned)


def _searched(
    events: Iterator[Step | Enhancement],
    asked: Told,
    session: Session,
    model: Model,
    pinned: tuple[edit.Note, ...],
) -> Iterator[Told]:
    """Tell every step; keep what was found as a recipe, and its sound as a whole rendering."""
    told: list[dict[str, float]] = []
    done: Enhancement | None = None
    for event in events:
        if isinstance(event, Enhancement):
            done = event
            continue
        told.append({"number": event.number, "score": event.score, "total": event.total})
        last = event.number == asked["settings"]["search"]["steps"] or event.stopped
        yield {"phase": "checking" if last else "searching", "steps": list(told)}
    assert done is not None
    number = asked["number"]
    recipe = recipe_of(session, model, done)
    recipe.save(found_path(session.folder, number), overwrite=True)
    state = State(0, number, Edit(notes=pinned), undo=False, redo=False)
    _keep(session, state, model, done.rendered, done)
    yield {
        "phase": "done",
        "found": number,
        "prior": done.prior,
        "certificate": done.certificate.model_dump(mode="json"),
    }


def _whole(asked: Told, session: Session, model: Model) -> Iterator[Told]:
    state = state_of(asked)
    samples, rate = session.samples(), session.sound.rate
    yield {"phase": "rendering"}
    limit = max_gain_db(session, state)
    before = found(session, state)
    mask = edit.composed(found_mask(session, state, model), state.edit, limit)
    settings = before.settings if before else EnhanceSettings()
    if before is None:
        render = settings.render.model_copy(update={"amount": state.edit.amount})
        made = rendered(samples, rate, mask, render, model.settings.spectrum)
        _keep(session, state, model, made, None)
    else:
        done = edit.edited(samples, rate, model, mask, state.edit, settings, before.certificate)
        _keep(session, state, model, done.rendered, done)
    yield {"phase": "done", "key": key_of(state, state.edit)}


def _explain(asked: Told, session: Session, model: Model) -> Iterator[Told]:
    yield {"phase": "explaining"}
    heard = explain(session.samples(), session.sound.rate, model, parts=False, draws=20)
    evidence = heard.evidence.nan_to_num(0.0).float().numpy()
    reach = float(np.quantile(np.abs(evidence), 0.995)) or 1.0
    save_array(session.folder / f"saliency-{asked['digest']}.npy", evidence)
    told = {
        "digest": asked["digest"],
        "reach": reach,
        "holds": heard.faithful.holds,
        "verdict": heard.faithful.line,
        "score": heard.score,
    }
    (session.folder / "saliency.json").write_text(json.dumps(told), encoding="utf-8")
    yield {"phase": "done", **told}


def recipe_of(session: Session, model: Model, done: Enhancement) -> Recipe:
    """Recipe of an enhancement of a session's recording, as `tonewood enhance` writes it."""
    sound, made = session.sound, done.rendered
    finite = math.isfinite(made.loudness_before) and math.isfinite(made.loudness_after)
    return Recipe(
        tonewood=version("tonewood"),
        input=InputRecord(
            name=sound.name,
            sha256=sound.sha256,
            rate=sound.rate,
            channels=sound.channels,
            samples=sound.samples,
        ),
        model=ModelRecord(name=model.name, digest=model.digest),
        settings=done.settings,
        prior=done.prior,
        steps=done.steps,
        gain_db=made.gain_db,
        certificate=done.certificate,
        loudness_lufs=Change(before=made.loudness_before, after=made.loudness_after)
        if finite
        else None,
        mask=MaskRecord.of(LongMask.of(done.mask)),
        spectrum=done.spectrum,
    )


def recipe_edited(session: Session, state: State, model: Model, whole: Whole) -> Recipe:
    """Recipe of a session as it was edited: the mask that sounds, the found one and notes as one.

    Raises
    ------
    CallError
        Nothing was searched yet.
    """
    before = found(session, state)
    if before is None or whole.certificate is None:
        raise CallError("a recipe records what a search found: enhance the recording first")
    mask = edit.composed(found_mask(session, state, model), state.edit, max_gain_db(session, state))
    render = before.settings.render.model_copy(update={"amount": state.edit.amount})
    loudness = None
    if whole.loudness_before is not None and whole.loudness_after is not None:
        loudness = Change(before=whole.loudness_before, after=whole.loudness_after)
    return before.model_copy(
        update={
            "settings": before.settings.model_copy(update={"render": render}),
            "gain_db": whole.levels.output_db,
            "certificate": whole.certificate,
            "loudness_lufs": loudness,
            "mask": MaskRecord.of(LongMask.of(mask)),
        }
    )


def _keep(
    session: Session,
    state: State,
    model: Model,
    made: Rendered,
    done: Enhancement | edit.Edited | None,
) -> None:
    """Keep a whole rendering and what was measured of it."""
    source = session.samples()
    key = key_of(state, state.edit)
    difference = _difference(source, made, session.sound.rate)
    loudness = (made.loudness_before, made.loudness_after, difference)
    exact = measured(loudness, made.gain_db, made.held)
    finite = [value if math.isfinite(value) else None for value in loudness]
    whole = Whole(
        key=key,
        levels=exact,
        loudness_before=finite[0],
        loudness_after=finite[1],
        certificate=done.certificate if done else None,
    )
    save_array(session.folder / f"whole-{key}.npy", made.samples)
    part = session.folder / f"whole-{key}.json"
    part.write_text(whole.model_dump_json(), encoding="utf-8")
    set_anchor(session, state, model, exact)
    forget_wholes(session.folder, key)


def _difference(source: NDArray[np.float32], made: Rendered, rate: int) -> float:
    """Loudness of output less input, both as they are heard, LUFS."""
    gain = 0.0
    if math.isfinite(made.loudness_before) and math.isfinite(made.loudness_after):
        gain = made.loudness_after - made.loudness_before
    return integrated_loudness(made.samples - source * np.float32(10 ** (gain / 20)), rate)


# --- Folders


def _audit(asked: Told, models: dict[str, Model]) -> Iterator[Told]:
    sides = Path(asked["reference"]), Path(asked["source"])
    for event in audits.audit(*sides, ModelSettings()):
        if isinstance(event, audits.Listened):
            surveyed = event.surveyed
            yield {"phase": event.side, "number": surveyed.number, "of": surveyed.total}
        else:
            yield {
                "phase": "done",
                "verdict": event.audit.verdict,
                "summary": audits.summary(event.audit),
                "warnings": audits.warnings(event.audit),
                "recordings": list(event.audit.recordings),
            }


def _train(asked: Told, models: dict[str, Model]) -> Iterator[Told]:
    target = Path(asked["target"])
    curve: list[dict[str, Any]] = []
    settings = changed(ModelSettings(), asked.get("settings", []))
    events = train(
        Path(asked["reference"]),
        Path(asked["source"]),
        settings,
        name=target.stem,
        origin=Origin(domain=asked["domain"]),
    )
    for event in events:
        if isinstance(event, Model):
            event.save(target)
            card = event.card.scorer
            yield {
                "phase": "done",
                "model": target.stem,
                "accuracy": card.accuracy,
                "interval": list(card.accuracy_interval),
            }
        elif isinstance(event, Checked):
            check = event.check
            curve.append({
                "who": event.who, "step": check.step, "of": check.steps,
                "accuracy": check.accuracy, "loss": check.held_out_loss,
            })  # fmt: skip
            done = event.who == "judge" or not settings.training.judge
            last = done and check.step >= check.steps
            yield {"phase": "masks" if last else event.who, "curve": list(curve)}
        elif isinstance(event, Loaded):
            loading = event.loading
            yield {"phase": "loading", "side": event.side, "number": loading.number,
                   "of": loading.total}  # fmt: skip
        elif isinstance(event, Taught):
            yield {"phase": "predictor", "number": event.number, "of": event.total}
        elif isinstance(event, Listened):
            surveyed = event.surveyed
            yield {"phase": "listening", "side": event.side, "number": surveyed.number,
                   "of": surveyed.total}  # fmt: skip


def _batch(asked: Told, models: dict[str, Model]) -> Iterator[Told]:
    model = _model(asked, models)
    inputs, out = Path(asked["input"]), Path(asked["output"])
    settings = EnhanceSettings.model_validate(asked["settings"])
    laid = layout.jobs([inputs], out)
    rows: list[dict[str, Any]] = [_row(job, inputs) for job in laid]
    yield {"phase": "enhancing", "rows": [*rows], "done": 0, "of": len(rows)}
    done = 0
    place = {str(job.input): number for number, job in enumerate(laid)}
    for event in batch.enhance_files(laid, model, settings, overwrite=asked["overwrite"]):
        if isinstance(event, Step):
            continue
        at = place[str(event.input)]
        if isinstance(event, batch.Started):
            rows[at] = {**rows[at], "state": "running"}
        elif isinstance(event, layout.Failed):
            rows[at] = {
                **rows[at],
                "state": "failed",
                "error": str(event.error).replace(f"{shown(inputs)}/", ""),
            }
            done += 1
        else:
            certificate = event.certificate
            rows[at] = {
                **rows[at],
                "state": "done",
                "output": str(event.output),
                "verdict": certificate.verdict,
                "reasons": list(certificate.reasons),
                "before": certificate.scorer.before,
                "after": certificate.scorer.after,
                "seconds": event.seconds,
            }
            done += 1
        yield {"phase": "enhancing", "row": [at, rows[at]], "done": done}
    yield {"phase": "done", "done": done, "failed": sum(r["state"] == "failed" for r in rows)}


def _row(job: layout.Job | layout.Failed, folder: Path) -> dict[str, Any]:
    input = Path(job.input)
    return {
        "name": str(input.relative_to(folder)) if input != folder else input.name,
        "input": str(job.input),
        "state": "waiting",
    }
