"""What takes a while, as generators of what is told: run in a process of its own by `jobs`.

Work on whole folders, as generators of what is told: audit, training, enhancement.
"""

import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tonewood.audit import pipeline
from tonewood.batch import enhance_file
from tonewood.data.loading import AuditProgress, SideLoadProgress
from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.loudness import integrated_loudness
from tonewood.enhancement import editing, output_files
from tonewood.enhancement.editing import Edit
from tonewood.enhancement.output_files import FileStarted
from tonewood.enhancement.pipeline import Enhancement, enhance_array, scorer_input, to_analysis_rate
from tonewood.enhancement.recipe import InputRecord, MaskRecord, ModelRecord, Recipe
from tonewood.errors import CallError, printable
from tonewood.explanation.pipeline import explain_recording
from tonewood.mask.certificate import Change
from tonewood.mask.render import RenderResult, render_through_mask
from tonewood.mask.search import SearchStep
from tonewood.model.card import summarize_audit
from tonewood.model.model import Model, load_model
from tonewood.settings import EnhanceSettings, ModelSettings
from tonewood.settings_by_name import apply_assignments
from tonewood.studio.database import EditState, RecordingInfo, StudioSession
from tonewood.studio.session_audio import (
    FullRender,
    edit_key,
    gain_limit_db,
    levels_from_loudness,
    load_found_mask,
    load_found_recipe,
    mask_path,
    prune_renders,
    save_band_power,
    save_estimate_offset,
)
from tonewood.studio.uploads import save_array
from tonewood.training.distillation import LabelProgress
from tonewood.training.pipeline import Provenance, train_model
from tonewood.training.scorers import CheckEvent
from tonewood.utils.atomic_write import write_text

JobData = dict[str, Any]


def run_audit_job(request: JobData) -> Iterator[JobData]:
    """What tells two folders apart besides the instrument."""
    sides = Path(request["reference"]), Path(request["source"])
    for event in pipeline.audit_folders(*sides, ModelSettings()):
        if isinstance(event, AuditProgress):
            surveyed = event.progress
            yield {"phase": event.side, "number": surveyed.number, "of": surveyed.total}
        else:
            yield {
                "phase": "done",
                "verdict": event.audit.verdict,
                "summary": summarize_audit(event.audit),
                "warnings": pipeline.confound_warnings(event.audit),
                "recordings": list(event.audit.recordings),
            }


def run_training_job(request: JobData) -> Iterator[JobData]:
    """A model of two folders, its accuracy check by check."""
    target = Path(request["target"])
    curve: list[dict[str, Any]] = []
    settings = apply_assignments(ModelSettings(), request.get("settings", []))
    events = train_model(
        Path(request["reference"]),
        Path(request["source"]),
        settings,
        name=target.stem,
        provenance=Provenance(domain=request["domain"]),
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
        elif isinstance(event, CheckEvent):
            check = event.check
            curve.append({
                "who": event.network, "step": check.step, "of": check.steps,
                "accuracy": check.accuracy, "loss": check.held_out_loss,
            })  # fmt: skip
            done = event.network == "judge" or not settings.training.judge
            last = done and check.step >= check.steps
            yield {"phase": "masks" if last else event.network, "curve": list(curve)}
        elif isinstance(event, SideLoadProgress):
            loading = event.progress
            yield {"phase": "loading", "side": event.side, "number": loading.number,
                   "of": loading.total}  # fmt: skip
        elif isinstance(event, LabelProgress):
            yield {"phase": "predictor", "number": event.number, "of": event.total}
        elif isinstance(event, AuditProgress):
            surveyed = event.progress
            yield {"phase": "listening", "side": event.side, "number": surveyed.number,
                   "of": surveyed.total}  # fmt: skip


def run_batch_job(request: JobData, model: Model) -> Iterator[JobData]:
    """Every recording below a folder into another, told row by row."""
    inputs, out = Path(request["input"]), Path(request["output"])
    settings = EnhanceSettings.model_validate(request["settings"])
    laid = output_files.plan_file_jobs([inputs], out)
    rows: list[dict[str, Any]] = [_batch_row(job, inputs) for job in laid]
    yield {"phase": "enhancing", "rows": [*rows], "done": 0, "of": len(rows)}
    done = 0
    place = {str(job.input): number for number, job in enumerate(laid)}
    for event in enhance_file.enhance_files(laid, model, settings, overwrite=request["overwrite"]):
        if isinstance(event, SearchStep):
            continue
        at = place[str(event.input)]
        if isinstance(event, FileStarted):
            rows[at] = {**rows[at], "state": "running"}
        elif isinstance(event, output_files.FileFailure):
            rows[at] = {
                **rows[at],
                "state": "failed",
                "error": str(event.error).replace(f"{printable(inputs)}/", ""),
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


def _batch_row(job: output_files.FileJob | output_files.FileFailure, folder: Path) -> dict[str, Any]:
    path = Path(job.input)
    return {
        "name": str(path.relative_to(folder)) if path != folder else path.name,
        "input": str(job.input),
        "state": "waiting",
    }


def session_from_request(request: JobData) -> StudioSession:
    """A session as a process without the database knows it."""
    folder = Path(request["folder"])
    return StudioSession(folder.name, "", 0, 0, RecordingInfo.model_validate(request["sound"]), "", folder)


def state_from_request(request: JobData) -> EditState:
    """An edit as it was asked for."""
    return EditState(
        0, request["found"], Edit.model_validate(request["edit"]), can_undo=False, can_redo=False
    )


def run_job(kind: str, request: JobData, models: dict[str, Model]) -> Iterator[JobData]:
    """Do a job; every dict updates what is told of it, the last one has its result."""
    if kind == "audit":
        yield from run_audit_job(request)
        return
    if kind == "train":
        yield from run_training_job(request)
        return
    if kind == "batch":
        yield from run_batch_job(request, _load_job_model(request, models))
        return
    ways = {
        "enhance": _enhance_session,
        "again": _search_session_again,
        "whole": _render_full,
        "explain": _explain_session,
    }
    yield from ways[kind](request, session_from_request(request), _load_job_model(request, models))


def _load_job_model(request: JobData, models: dict[str, Model]) -> Model:
    name = request["model"]
    if name not in models:
        models[name] = load_model(name)
    return models[name]


def _enhance_session(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    settings = EnhanceSettings.model_validate(request["settings"])
    samples, rate = session.open_samples(), session.recording.rate
    yield {"phase": "listening", "of": settings.search.steps, "steps": []}
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    save_band_power(session.folder, scorer_input(to_analysis_rate(samples, rate, model), model).numpy(), hz)
    yield from _follow_search(enhance_array(samples, rate, model, settings), request, session, model, ())


def _search_session_again(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    settings = EnhanceSettings.model_validate(request["settings"])
    state = state_from_request(request)
    before = load_found_recipe(session, state)
    if before is None:
        raise CallError("nothing was searched yet: enhance the recording first")
    yield {"phase": "listening", "of": settings.search.steps, "steps": []}
    mask, pinned = load_found_mask(session, state, model), state.edit.pinned_notes
    events = editing.search_around_pins(
        session.open_samples(),
        session.recording.rate,
        model,
        mask,
        pinned,
        settings,
        before.certificate,
    )
    yield from _follow_search(events, request, session, model, pinned)


def _follow_search(
    events: Iterator[SearchStep | Enhancement],
    request: JobData,
    session: StudioSession,
    model: Model,
    pinned: tuple[editing.Note, ...],
) -> Iterator[JobData]:
    """Tell every step; keep what was found as a recipe, and its sound as a whole rendering."""
    told: list[dict[str, float]] = []
    done: Enhancement | None = None
    for event in events:
        if isinstance(event, Enhancement):
            done = event
            continue
        told.append({"number": event.number, "score": event.score, "total": event.total})
        last = event.number == request["settings"]["search"]["steps"] or event.stopped
        yield {"phase": "checking" if last else "searching", "steps": list(told)}
    assert done is not None
    number = request["number"]
    recipe = build_session_recipe(session, model, done)
    recipe.save(mask_path(session.folder, number), overwrite=True)
    state = EditState(0, number, Edit(notes=pinned), can_undo=False, can_redo=False)
    _store_render(session, state, model, done.rendered, done)
    yield {
        "phase": "done",
        "found": number,
        "prior": done.prior,
        "certificate": done.certificate.model_dump(mode="json"),
    }


def _render_full(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    state = state_from_request(request)
    samples, rate = session.open_samples(), session.recording.rate
    yield {"phase": "rendering"}
    limit = gain_limit_db(session, state)
    before = load_found_recipe(session, state)
    mask = editing.compose_mask(load_found_mask(session, state, model), state.edit, limit)
    settings = before.settings if before else EnhanceSettings()
    if before is None:
        render = settings.render.model_copy(update={"amount": state.edit.amount})
        made = render_through_mask(samples, rate, mask, render, model.settings.spectrum)
        _store_render(session, state, model, made, None)
    else:
        done = editing.render_edit(samples, rate, model, mask, state.edit, settings, before.certificate)
        _store_render(session, state, model, done.rendered, done)
    yield {"phase": "done", "key": edit_key(state, state.edit)}


def _explain_session(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    yield {"phase": "explaining"}
    heard = explain_recording(session.open_samples(), session.recording.rate, model, parts=False, draws=20)
    evidence = heard.evidence.nan_to_num(0.0).float().numpy()
    reach = float(np.quantile(np.abs(evidence), 0.995)) or 1.0
    save_array(session.folder / f"saliency-{request['digest']}.npy", evidence)
    told = {
        "digest": request["digest"],
        "reach": reach,
        "holds": heard.faithfulness.is_faithful,
        "verdict": heard.faithfulness.line,
        "score": heard.score,
    }
    write_text(session.folder / "saliency.json", json.dumps(told), overwrite=True)
    yield {"phase": "done", **told}


def build_session_recipe(session: StudioSession, model: Model, enhancement: Enhancement) -> Recipe:
    """Recipe of an enhancement of a session's recording, as `tonewood enhance` writes it."""
    sound, made = session.recording, enhancement.rendered
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
        settings=enhancement.settings,
        prior=enhancement.prior,
        steps=enhancement.steps,
        gain_db=made.gain_db,
        certificate=enhancement.certificate,
        loudness_lufs=Change(before=made.loudness_before, after=made.loudness_after) if finite else None,
        mask=MaskRecord.from_mask(enhancement.mask),
        spectrum=enhancement.spectrum,
    )


def build_edited_recipe(
    session: StudioSession, state: EditState, model: Model, full_render: FullRender
) -> Recipe:
    """Recipe of a session as it was edited: the mask that sounds, the found one and notes as one.

    Raises
    ------
    CallError
        Nothing was searched yet.
    """
    before = load_found_recipe(session, state)
    if before is None or full_render.certificate is None:
        raise CallError("a recipe records what a search found: enhance the recording first")
    mask = editing.compose_mask(
        load_found_mask(session, state, model), state.edit, gain_limit_db(session, state)
    )
    render = before.settings.render.model_copy(update={"amount": state.edit.amount})
    loudness = None
    if full_render.loudness_before is not None and full_render.loudness_after is not None:
        loudness = Change(before=full_render.loudness_before, after=full_render.loudness_after)
    return before.model_copy(
        update={
            "settings": before.settings.model_copy(update={"render": render}),
            "gain_db": full_render.levels.output_db,
            "certificate": full_render.certificate,
            "loudness_lufs": loudness,
            "mask": MaskRecord.from_mask(mask),
        }
    )


def _store_render(
    session: StudioSession,
    state: EditState,
    model: Model,
    rendering: RenderResult,
    result: Enhancement | editing.EditResult | None,
) -> None:
    """Keep a whole rendering and what was measured of it."""
    source = session.open_samples()
    key = edit_key(state, state.edit)
    difference = _difference_loudness(source, rendering, session.recording.rate)
    loudness = (rendering.loudness_before, rendering.loudness_after, difference)
    exact = levels_from_loudness(loudness, rendering.gain_db, rendering.peak_limited)
    finite = [value if math.isfinite(value) else None for value in loudness]
    whole = FullRender(
        key=key,
        levels=exact,
        loudness_before=finite[0],
        loudness_after=finite[1],
        certificate=result.certificate if result else None,
    )
    save_array(session.folder / f"whole-{key}.npy", rendering.samples)
    write_text(session.folder / f"whole-{key}.json", whole.model_dump_json(), overwrite=True)
    save_estimate_offset(session, state, model, exact)
    prune_renders(session.folder, key)


def _difference_loudness(source: NDArray[np.float32], rendering: RenderResult, rate: int) -> float:
    """Loudness of output less input, both as they are heard, LUFS."""
    gain = 0.0
    if math.isfinite(rendering.loudness_before) and math.isfinite(rendering.loudness_after):
        gain = rendering.loudness_after - rendering.loudness_before
    return integrated_loudness(rendering.samples - source * np.float32(10 ** (gain / 20)), rate)
