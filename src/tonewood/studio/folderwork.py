"""Work on whole folders, as generators of what is told: audit, training, enhancement."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonewood.errors import printable
from tonewood.files.modelfile import Model
from tonewood.masking.optimise import SearchStep
from tonewood.scoring.findings import summarize_audit
from tonewood.settings import EnhanceSettings, ModelSettings, apply_assignments
from tonewood.workflow import audit as audits
from tonewood.workflow import batch, layout
from tonewood.workflow.audit import AuditProgress
from tonewood.workflow.courses import CheckEvent
from tonewood.workflow.sides import SideLoadProgress
from tonewood.workflow.teach import LabelProgress
from tonewood.workflow.train import Provenance, train_from_folders

JobData = dict[str, Any]


def run_audit_job(request: JobData) -> Iterator[JobData]:
    """What tells two folders apart besides the instrument."""
    sides = Path(request["reference"]), Path(request["source"])
    for event in audits.audit_folders(*sides, ModelSettings()):
        if isinstance(event, audits.AuditProgress):
            surveyed = event.progress
            yield {"phase": event.side, "number": surveyed.number, "of": surveyed.total}
        else:
            yield {
                "phase": "done",
                "verdict": event.audit.verdict,
                "summary": summarize_audit(event.audit),
                "warnings": audits.confound_warnings(event.audit),
                "recordings": list(event.audit.recordings),
            }


def run_training_job(request: JobData) -> Iterator[JobData]:
    """A model of two folders, its accuracy check by check."""
    target = Path(request["target"])
    curve: list[dict[str, Any]] = []
    settings = apply_assignments(ModelSettings(), request.get("settings", []))
    events = train_from_folders(
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
    laid = layout.plan_file_jobs([inputs], out)
    rows: list[dict[str, Any]] = [_batch_row(job, inputs) for job in laid]
    yield {"phase": "enhancing", "rows": [*rows], "done": 0, "of": len(rows)}
    done = 0
    place = {str(job.input): number for number, job in enumerate(laid)}
    for event in batch.enhance_files(laid, model, settings, overwrite=request["overwrite"]):
        if isinstance(event, SearchStep):
            continue
        at = place[str(event.input)]
        if isinstance(event, batch.FileStarted):
            rows[at] = {**rows[at], "state": "running"}
        elif isinstance(event, layout.FileFailure):
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


def _batch_row(job: layout.FileJob | layout.FileFailure, folder: Path) -> dict[str, Any]:
    path = Path(job.input)
    return {
        "name": str(path.relative_to(folder)) if path != folder else path.name,
        "input": str(job.input),
        "state": "waiting",
    }
