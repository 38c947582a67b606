"""Work on whole folders, as generators of what is told: audit, training, enhancement."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonewood.errors import shown
from tonewood.files.modelfile import Model
from tonewood.masking.optimise import Step
from tonewood.scoring.findings import summary
from tonewood.settings import EnhanceSettings, ModelSettings, changed
from tonewood.workflow import audit as audits
from tonewood.workflow import batch, layout
from tonewood.workflow.audit import Listened
from tonewood.workflow.courses import Checked
from tonewood.workflow.sides import Loaded
from tonewood.workflow.teach import Taught
from tonewood.workflow.train import Origin, train

Told = dict[str, Any]


def audit(asked: Told) -> Iterator[Told]:
    """What tells two folders apart besides the instrument."""
    sides = Path(asked["reference"]), Path(asked["source"])
    for event in audits.audit(*sides, ModelSettings()):
        if isinstance(event, audits.Listened):
            surveyed = event.surveyed
            yield {"phase": event.side, "number": surveyed.number, "of": surveyed.total}
        else:
            yield {
                "phase": "done",
                "verdict": event.audit.verdict,
                "summary": summary(event.audit),
                "warnings": audits.warnings(event.audit),
                "recordings": list(event.audit.recordings),
            }


def teach(asked: Told) -> Iterator[Told]:
    """A model of two folders, its accuracy check by check."""
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


def enhance_folder(asked: Told, model: Model) -> Iterator[Told]:
    """Every recording below a folder into another, told row by row."""
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
    path = Path(job.input)
    return {
        "name": str(path.relative_to(folder)) if path != folder else path.name,
        "input": str(job.input),
        "state": "waiting",
    }
