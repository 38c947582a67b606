"""`tonewood audit`: two folders → what tells them apart besides the instrument."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import (
    JsonOption,
    OverwriteOption,
    ReferenceOption,
    SourceOption,
    check_output_path,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.workflow.audit import AuditResult


def audit_command(
    reference: ReferenceOption,
    source: SourceOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Report to write, an HTML page."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model of these folders, whose accuracy to set beside."),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Ask what tells two folders apart besides the instrument: room, microphone, codec."""
    from tonewood.files.modelfile import load_model
    from tonewood.settings import ModelSettings
    from tonewood.terminal import AuditDisplay
    from tonewood.workflow import audit as workflow
    from tonewood.workflow import auditpage, picture

    if output is not None:
        if output.suffix.lower() not in (".html", ".htm"):
            raise CallError(f"{printable(output)} is no name of a page: end it in .html")
        check_output_path(output, overwrite)
        picture.check_matplotlib("a report")
    loaded = load_model(model) if model is not None else None
    settings = loaded.settings if loaded else ModelSettings()
    with AuditDisplay() as display:
        for event in workflow.audit_folders(reference, source, settings):
            if isinstance(event, workflow.AuditResult):
                done = event
            else:
                display.show(event)
    if output is not None:
        auditpage.write_audit_report(output, done, loaded, overwrite=overwrite)
    _print_audit(done, loaded, output, json_)


def _print_audit(done: "AuditResult", model: "Model | None", page: Path | None, as_json: bool) -> None:
    """Tell what an audit found: a confound a line."""
    from tonewood.scoring.findings import format_accuracy, summarize_audit
    from tonewood.workflow import audit as workflow
    from tonewood.workflow.confounds import CONFOUNDS

    found = done.audit
    accuracy = model.card.scorer.accuracy if model else None
    if as_json:
        report.print_json(
            {
                "verdict": found.verdict,
                **found.model_dump(mode="json"),
                "scorer": accuracy,
                "page": str(page) if page else None,
            }
        )
        return
    print("verdict     what            told apart         median reference | source")
    for finding, confound in zip(found.findings, CONFOUNDS, strict=True):
        told = format_accuracy(finding.accuracy) if finding.accuracy else "-"
        print(
            f"{finding.verdict:10}  {finding.name:14}  {told:17}  "
            f"{workflow.format_medians(finding, 'reference')} | {workflow.format_medians(finding, 'source')}"
        )
        if finding.verdict in ("beware", "confounded"):
            print(f"{'':12}{workflow.format_remedy(finding, confound)}")
    for session in found.sessions:
        print(
            f"{'session':12}{printable(session.name)} ({session.side}), left out: the long-term "
            f"spectrum is right on {100 * session.accuracy:.0f} % of {session.windows} windows"
        )
    for number, line in enumerate(summarize_audit(found)):
        print(f"{'' if number else 'in all':12}{line}")
    if model is not None:
        card = model.card.scorer
        print(
            f"{'':12}the scorer of {printable(model.name)} is right on {100 * card.accuracy:.0f} % of "
            f"{card.windows} held-out windows"
        )
    if page:
        print(f"{'page':12}{printable(page)}")
