"""Functions of background jobs. Each yields dicts that update its job's progress.

They run in a worker process of `job_queue`. The last dict has the result.
"""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from tonewood.audio_io.recording import find_audio_files
from tonewood.batch.enhance_file import EnhanceOptions
from tonewood.batch.runner import BatchProgress, run_batch
from tonewood.batch.tasks import EnhanceTask
from tonewood.dsp.chunking import ArrayTimeSeries, mean_series
from tonewood.dsp.features import center_frequencies
from tonewood.dsp.loudness import integrated_loudness
from tonewood.enhancement import editing
from tonewood.enhancement.analysis import ArraySource, analyse_source
from tonewood.enhancement.certification import least_sufficient_amount, sounds_like_reference
from tonewood.enhancement.editing import Edit
from tonewood.enhancement.output_files import FileFailure, FileJob, FileStarted, find_left_out, plan_jobs
from tonewood.enhancement.pinned_search import search_around_pins
from tonewood.enhancement.pipeline import Enhancement, build_recipe, enhance_source
from tonewood.enhancement.recipe import InputRecord, MaskRecord, Recipe
from tonewood.errors import CallError, FolderError, MissingExtraError, TonewoodError, printable
from tonewood.mask.certificate import Certificate
from tonewood.mask.components import count_components, scored_masks
from tonewood.mask.render import RenderResult, render_through_masks
from tonewood.mask.search import SearchStep
from tonewood.model.card import summarize_audit
from tonewood.model.model import Model, load_model
from tonewood.setting_types import apply_assignments
from tonewood.settings import EnhanceSettings, ModelSettings
from tonewood.studio.database import EditState, RecordingInfo, StudioSession
from tonewood.studio.session_audio import (
    SALIENCY_FILE,
    FullRender,
    edit_key,
    get_full_render,
    levels_from_loudness,
    prune_renders,
    render_path,
    saliency_path,
    save_band_power,
    save_estimate_offset,
)
from tonewood.studio.session_masks import (
    PartialMaskWriter,
    compose_edited_masks,
    load_found_masks,
    load_found_recipe,
    mask_path,
    partial_mask_path,
)
from tonewood.studio.uploads import save_array
from tonewood.utils.arrays import Samples
from tonewood.utils.files import is_inside, write_text

JobData = dict[str, Any]
Report = Callable[[JobData], None]
"""Sends the progress of a job to its pages; raises if the job was cancelled."""
_REPORT_INTERVAL_S = 0.5


@dataclass(frozen=True, eq=False)
class ReportingSource(ArraySource):
    """Audio (channels, samples) in memory that reports how far it was read.

    `phases` are the names of the passes over the audio.
    """

    report: Report
    phases: Iterator[str]

    def blocks(self) -> Iterator[Samples]:
        """Yield views of the array."""
        phase, seconds, reported = next(self.phases), 0.0, 0.0
        for block in super().blocks():
            if time.monotonic() > reported + _REPORT_INTERVAL_S:
                reported = time.monotonic()
                self.report({"phase": phase, "at_s": round(seconds, 1)})
            yield block
            seconds += block.shape[1] / self.rate


@contextmanager
def _plain_errors(request: JobData) -> Iterator[None]:
    """Check that no recording leads out of the root, and remove the server's paths from errors."""
    folders = [Path(request[name]) for name in ("reference", "source")]
    try:
        for folder in folders:
            for path in find_audio_files(folder):
                if not is_inside(path, Path(request["root"])):
                    raise FolderError(
                        f"{printable(path)} is a link that leads out of the folders of the studio: replace "
                        "it by a file"
                    )
        yield
    except TonewoodError as error:
        raise type(error)(_without_folders(str(error), folders)) from None


def _without_folders(text: str, folders: Sequence[Path]) -> str:
    """Return a text without the paths of folders, which the page knows by their names."""
    for folder in folders:
        text = text.replace(f"{printable(folder)}/", "").replace(printable(folder), printable(folder.name))
    return text


def run_audit_job(request: JobData) -> Iterator[JobData]:
    """Audit two folders for confounds."""
    from tonewood.audit import pipeline
    from tonewood.data.loading import RecordingProgress

    for event in pipeline.audit_folders(Path(request["reference"]), Path(request["source"]), ModelSettings()):
        if isinstance(event, RecordingProgress):
            yield {"phase": event.side, "number": event.number, "of": event.total}
        else:
            yield {
                "phase": "done",
                "verdict": event.audit.verdict,
                "summary": summarize_audit(event.audit),
                "warnings": pipeline.confound_warnings(event.audit),
                "recordings": list(event.audit.recordings),
            }


def run_training_job(request: JobData) -> Iterator[JobData]:
    """Train a model from two folders; reports the accuracy of each validation."""
    # This imports torch, which the other jobs do not need.
    from tonewood.data.loading import RecordingProgress
    from tonewood.training.networks import CheckEvent, LabelProgress
    from tonewood.training.pipeline import Provenance, train_model

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
        if isinstance(event, Model):  # the last event
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
            # The judge, if there is one, is trained after the scorer.
            is_last_network = event.network == "judge" or not settings.training.judge
            is_last = is_last_network and check.step >= check.steps
            yield {"phase": "masks" if is_last else event.network, "curve": list(curve)}
        elif isinstance(event, RecordingProgress):
            phase = "listening" if event.stage == "survey" else "loading"
            yield {"phase": phase, "side": event.side, "number": event.number, "of": event.total}
        elif isinstance(event, LabelProgress):
            yield {"phase": "predictor", "number": event.number, "of": event.total}


def run_batch_job(request: JobData, model: Model) -> Iterator[JobData]:
    """Enhance all recordings of a folder; reports one row for each recording."""
    inputs, output = Path(request["input"]), Path(request["output"])
    settings = EnhanceSettings.model_validate(request["settings"])
    root = Path(request["root"])
    # As the list of folders: what a link leads to outside the root is not there.
    jobs = [job for job in plan_jobs([inputs], output) if is_inside(Path(job.input), root)]
    if any(isinstance(job, FileJob) for job in jobs):  # else the folder itself fails, with the reason
        jobs += [
            FileFailure(path, MissingExtraError(f"{printable(path)} {reason}"))
            for path, reason in find_left_out(inputs)
        ]
    rows = [_batch_row(job, inputs) for job in jobs]
    row_numbers = {str(job.input): number for number, job in enumerate(jobs)}
    # The table is sent once; later updates name the row that changed.
    yield {"phase": "enhancing", "rows": [*rows], "done": 0, "of": len(rows)}

    finished = 0
    task = EnhanceTask(settings, EnhanceOptions(overwrite=request["overwrite"], root=root))
    for event in run_batch(jobs, task, model):
        if isinstance(event, SearchStep | BatchProgress):  # the page shows recordings, not steps
            continue
        number = row_numbers[str(event.input)]
        if isinstance(event, FileStarted):
            rows[number] = rows[number] | {"state": "running"}
        elif isinstance(event, FileFailure):
            # The page knows the folders by ids, so their paths are removed.
            reason = _without_folders(str(event.error), (inputs, output))
            rows[number] = rows[number] | {"state": "failed", "error": reason}
            finished += 1
        else:
            certificate = event.certificate
            rows[number] = rows[number] | {
                "state": "done",
                "output": str(event.output),
                "verdict": certificate.verdict,
                "reasons": list(certificate.reasons),
                "before": certificate.scorer.before,
                "after": certificate.scorer.after,
                "change_db": certificate.rms_db if certificate.heard_db is None else certificate.heard_db,
                "seconds": event.seconds,
            }
            finished += 1
        yield {"phase": "enhancing", "row": [number, rows[number]], "done": finished}
    failed = sum(row["state"] == "failed" for row in rows)
    yield {"phase": "done", "done": finished, "failed": failed}


def _batch_row(job: FileJob | FileFailure, folder: Path) -> dict[str, Any]:
    path = Path(job.input)
    return {
        "name": str(path.relative_to(folder)) if path != folder else path.name,
        "input": str(job.input),
        "state": "waiting",
    }


def session_from_request(request: JobData) -> StudioSession:
    """Return a session without what only the database knows."""
    folder = Path(request["folder"])
    return StudioSession(folder.name, "", 0, 0, RecordingInfo.model_validate(request["sound"]), "", folder)


def state_from_request(request: JobData) -> EditState:
    """Return the edit of a request."""
    # Its place in the history decides nothing that a job computes.
    return EditState(
        0, request["found"], Edit.model_validate(request["edit"]), can_undo=False, can_redo=False
    )


def run_job(kind: str, request: JobData, models: dict[str, Model], report: Report) -> Iterator[JobData]:
    """Run a job and yield its progress.

    Parameters
    ----------
    models : dict of Model
        Cache of the worker process; loaded models are added.
    report : callable
        Receives progress within a step, too.
    """
    if kind in ("audit", "train"):
        with _plain_errors(request):
            yield from (run_audit_job if kind == "audit" else run_training_job)(request)
        return
    name = request["model"]
    if name not in models:
        models[name] = load_model(name)
    if kind == "batch":
        yield from run_batch_job(request, models[name])
        return
    if kind == "enhance":
        yield from _enhance_session(request, session_from_request(request), models[name], report)
        return
    functions = {"again": _search_session_again, "whole": _render_full, "explain": _explain_session}
    yield from functions[kind](request, session_from_request(request), models[name])


def _enhance_session(
    request: JobData, session: StudioSession, model: Model, report: Report
) -> Iterator[JobData]:
    settings = EnhanceSettings.model_validate(request["settings"])
    yield {"phase": "listening", "of": settings.search.steps, "steps": []}
    phases = chain(["listening"], repeat("checking"))
    source = ReportingSource(session.open_samples(), session.recording.rate, report, phases)
    analysis = analyse_source(source, model)
    # Playback estimates loudness from these levels until an edit is rendered.
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    rows_db = analysis.rows_db.read(0, analysis.rows_db.frames)
    save_band_power(session.folder, rows_db, hz)
    enhancement = yield from _follow_search(
        enhance_source(source, model, settings, analysis), request, session, model, ()
    )
    # A first mask is applied no more than it takes to sound like the reference.
    amount, certificate = 1.0, enhancement.certificate
    if request["found"] is None and certificate.verdict in ("good", "limited"):
        frame_s = np.arange(rows_db.shape[1]) * enhancement.mask.hop_seconds
        masks = scored_masks((enhancement.mask, *enhancement.others), settings.render.link)
        mask_db = mean_series([ArrayTimeSeries(mask.gain_at(hz, frame_s)) for mask in masks])
        amount = least_sufficient_amount(ArrayTimeSeries(rows_db), mask_db, certificate, model)
    while amount < 1:
        edit = Edit(amount=amount).model_dump(mode="json")
        rendering = request | {"found": request["number"], "edit": edit}
        yield from _render_full(rendering, session, model)
        render = get_full_render(session, state_from_request(rendering))
        # The estimate is that of levels; the rendering decides.
        if render and render.certificate and sounds_like_reference(render.certificate):
            break
        amount += 0.25
    yield _search_result(request, enhancement) | {"amount": amount}


def _search_session_again(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    settings = EnhanceSettings.model_validate(request["settings"])
    state = state_from_request(request)
    recipe = load_found_recipe(session, state)
    if recipe is None:
        raise CallError("this session has no mask yet: enhance the recording first")
    yield {"phase": "listening", "of": settings.search.steps, "steps": []}
    masks, pinned = load_found_masks(session, state, model), state.edit.pinned_notes
    samples, rate = session.open_samples(), session.recording.rate
    events = search_around_pins(samples, rate, model, masks, pinned, settings, recipe.certificate)
    enhancement = yield from _follow_search(events, request, session, model, pinned)
    yield _search_result(request, enhancement)


def _follow_search(
    events: Iterator[SearchStep | Enhancement],
    request: JobData,
    session: StudioSession,
    model: Model,
    pinned: tuple[editing.Note, ...],
) -> Generator[JobData, None, Enhancement]:
    """Report the steps of a search; then store its mask as a recipe, and its output as a rendering."""
    number, settings = request["number"], EnhanceSettings.model_validate(request["settings"])
    part = PartialMaskWriter(partial_mask_path(session.folder, number), settings.render.max_gain_db)
    try:
        enhancement = yield from _report_steps(events, request, session, model, part)
        recipe = build_session_recipe(session, model, enhancement)
        # A cancelled job may have written a mask with this number already.
        recipe.save(mask_path(session.folder, number), overwrite=True)
    finally:
        part.remove()
    state = EditState(0, number, Edit(notes=pinned), can_undo=False, can_redo=False)
    _store_render(session, state, model, enhancement.rendered, enhancement.certificate)
    return enhancement


def _report_steps(
    events: Iterator[SearchStep | Enhancement],
    request: JobData,
    session: StudioSession,
    model: Model,
    part: PartialMaskWriter,
) -> Generator[JobData, None, Enhancement]:
    """Report the steps of a search, segment by segment, and store what it found in each.

    Of separate masks, which are searched one after the other, no part is stored.
    """
    channels, link = session.recording.channels, request["settings"]["render"].get("link", "all")
    is_linked = count_components(channels, link) == 1
    hop_s = model.settings.spectrum.hop / model.settings.spectrum.rate
    steps: list[dict[str, float]] = []
    last: SearchStep | None = None
    for event in events:
        if isinstance(event, Enhancement):
            return event
        progress: JobData = {"phase": "searching", "at_s": round(event.offset * hop_s, 1)}
        if last is not None and event.offset != last.offset:  # the segment before is finished
            steps.clear()
            if is_linked:
                part.append(last.mask_db)
                progress["part"] = {"found": request["number"], "seconds": round(part.frames * hop_s, 3)}
        last = event
        steps.append({"number": event.number, "score": event.objective.score, "total": event.objective.total})
        # The rendering and the certificate follow the last step of the last segment.
        is_last = event.number == request["settings"]["search"]["steps"] or event.stopped
        if is_linked and is_last and event.offset + event.mask_db.shape[1] >= event.total_frames:
            progress["phase"] = "checking"
        yield progress | {"steps": list(steps)}
    raise AssertionError("a search ends with its result")


def _search_result(request: JobData, enhancement: Enhancement) -> JobData:
    return {
        "phase": "done",
        "found": request["number"],
        "prior": enhancement.prior,
        "certificate": enhancement.certificate.model_dump(mode="json"),
    }


def _render_full(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    state = state_from_request(request)
    samples, rate = session.open_samples(), session.recording.rate
    yield {"phase": "rendering", "at_s": None}
    recipe = load_found_recipe(session, state)
    masks = compose_edited_masks(session, state, model)
    if recipe is None:  # notes without a search: there is nothing to certify
        settings = EnhanceSettings().render.replace(amount=state.edit.amount)
        rendered = render_through_masks(samples, rate, masks, settings, model.settings.spectrum)
        _store_render(session, state, model, rendered, None)
    else:
        result = editing.render_edit(
            samples, rate, model, masks, state.edit, recipe.settings, recipe.certificate
        )
        _store_render(session, state, model, result.rendered, result.certificate)
    yield {"phase": "done", "key": edit_key(state)}


def _explain_session(request: JobData, session: StudioSession, model: Model) -> Iterator[JobData]:
    from tonewood.explanation.pipeline import explain_recording

    yield {"phase": "explaining"}
    explanation = explain_recording(
        session.open_samples(), session.recording.rate, model, parts=False, draws=20
    )
    # Frames outside all scored windows are NaN; they get no colour.
    evidence = np.nan_to_num(explanation.evidence).astype(np.float32)
    # A quantile instead of the maximum: a few outliers must not make the image pale.
    reach = float(np.quantile(np.abs(evidence), 0.995)) or 1.0
    save_array(saliency_path(session, request["digest"]), evidence)
    summary = {
        "digest": request["digest"],
        "reach": reach,
        "holds": explanation.faithfulness.is_faithful,
        "verdict": explanation.faithfulness.line,
        "score": explanation.score,
    }
    write_text(session.folder / SALIENCY_FILE, json.dumps(summary), overwrite=True)
    yield {"phase": "done", **summary}


def build_session_recipe(session: StudioSession, model: Model, enhancement: Enhancement) -> Recipe:
    """Return the recipe of a search, as `tonewood enhance` would write it."""
    info = session.recording
    recording = InputRecord(
        name=info.name, sha256=info.sha256, rate=info.rate, channels=info.channels, samples=info.samples
    )
    mask = MaskRecord.from_mask(enhancement.mask)
    return build_recipe(recording, model, enhancement, enhancement.rendered, mask)


def _store_render(
    session: StudioSession,
    state: EditState,
    model: Model,
    rendered: RenderResult,
    certificate: Certificate | None,
) -> None:
    """Store a full rendering and its measurements."""
    key = edit_key(state)
    before, after = rendered.loudness_before, rendered.loudness_after
    # The difference is measured between signals of equal loudness, as they are played.
    gain_db = after - before if math.isfinite(before) and math.isfinite(after) else 0.0
    difference = rendered.samples - session.open_samples() * np.float32(10 ** (gain_db / 20))
    difference_lufs = integrated_loudness(difference, session.recording.rate)
    levels = levels_from_loudness(
        before, after, difference_lufs, rendered.gain_db, limited=rendered.peak_limited
    )
    render = FullRender(
        key=key,
        levels=levels,
        loudness_before=before if math.isfinite(before) else None,
        loudness_after=after if math.isfinite(after) else None,
        certificate=certificate,
    )
    path = render_path(session, key)
    save_array(path, rendered.samples)
    # The measurements are written last: they declare the rendering complete.
    write_text(path.with_suffix(".json"), render.model_dump_json(), overwrite=True)
    save_estimate_offset(session, state, model, levels)
    prune_renders(session, key)
