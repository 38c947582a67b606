"""Commands `listen …`: build, serve and evaluate blind listening tests."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonewood.cli import common
from tonewood.cli.common import JsonOption, OverwriteOption
from tonewood.errors import CallError, FolderError, printable
from tonewood.utils.files import real_path

if TYPE_CHECKING:
    from tonewood.listening.database import AnswerDatabase
    from tonewood.listening.definition import ListeningTest

listen_app = typer.Typer(
    help="Build a blind listening test, serve it, and evaluate the answers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

TestArgument = Annotated[
    Path, typer.Argument(metavar="TEST", readable=False, help="Folder of the listening test.")
]
FoldersArgument = list[Path] | None


@listen_app.command("new")
def new_test_command(
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Folder of the new test.")],
    more_conditions: Annotated[
        FoldersArgument,
        typer.Argument(metavar="[DIR]...", readable=False, help="More folders of conditions."),
    ] = None,
    outputs: Annotated[
        FoldersArgument,
        typer.Option("--from", readable=False, help="Output folder of enhance; repeat it for several."),
    ] = None,
    conditions: Annotated[
        FoldersArgument, typer.Option(readable=False, help="Folder of a condition; others may follow.")
    ] = None,
    inputs: Annotated[
        FoldersArgument,
        typer.Option(readable=False, help="Folder of the inputs of --from; default: next to it."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(readable=False, help="Folder of the reference in MUSHRA.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of test: pairs, abx or mushra.")] = "pairs",
    title: Annotated[str, typer.Option(help="Title of every page.")] = "Listening test",
    question: Annotated[str | None, typer.Option(help="Question of every trial.")] = None,
    seconds: Annotated[float, typer.Option(min=5, max=12, help="Duration of an excerpt in seconds.")] = 8.0,
    excerpts: Annotated[
        int,
        typer.Option(
            min=1, help="Excerpts per piece, alternately where the change is largest and at random."
        ),
    ] = 2,
    per_listener: Annotated[
        int | None, typer.Option(min=1, help="Trials per listener; default: all.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=0, help="Repeated trials; default: one in eight.")
    ] = None,
    training: Annotated[int, typer.Option(min=0, help="Training trials, which do not count.")] = 1,
    choice: Annotated[
        str, typer.Option(help="Order of trials: random, or active (most informative pair first).")
    ] = "random",
    checks: Annotated[
        bool, typer.Option("--checks/--no-checks", help="Check hearing and headphones.")
    ] = True,
    expect: Annotated[
        float | None,
        typer.Option(
            help="Smallest effect to detect (share, or MUSHRA points); gives the number of listeners."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of excerpts, order and sides.")] = 0,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Build a blind test from enhanced recordings or from a folder for each condition."""
    from tonewood.enhancement.output_files import FileFailure
    from tonewood.listening import builder, stimuli
    from tonewood.listening.analysis import required_listeners, resolve_effect_size
    from tonewood.listening.definition import ListeningTest

    folders = [*(conditions or []), *(more_conditions or [])]
    if bool(outputs) == bool(folders):
        raise CallError("exactly one of --from and --conditions is needed: give one of them")
    plan = builder.make_plan(
        kind=kind, title=title, question=question, seconds=seconds, excerpts=excerpts,
        per_listener=per_listener, repeats=repeats, training=training, choice=choice,
        checked=checks, seed=seed, reference=real_path(reference).name if reference else None,
    )  # fmt: skip
    resolve_effect_size(plan.kind, expect)
    builder.check_test_folder(output, overwrite)
    pieces = list(
        stimuli.pieces_from_outputs(outputs, inputs or ())
        if outputs
        else stimuli.pieces_from_conditions(folders)
    )
    if reference is not None:
        pieces = stimuli.add_reference(pieces, reference)
    failures: list[FileFailure] = []
    for event in builder.build_listening_test(pieces, plan, output, overwrite=overwrite):
        if isinstance(event, FileFailure):
            failures.append(event)
            common.print_failure(event, json_)
        elif isinstance(event, ListeningTest):
            test = event
    sample_size = required_listeners(test, expect)
    left_out = common.left_out_of_folders(*(outputs or folders), reference).left_out
    unfinished = common.Unfinished(failures, left_out)
    if json_:
        summary = {"test": str(output), **_test_json(test), "power": sample_size._asdict()}
        common.print_json({**summary, "skipped": unfinished.skipped_json})
    else:
        print(f"test       {printable(output)}")
        print(f"trials     {len(test.trials)}, {test.per_listener} for each listener, {test.repeats} again")
        print(f"stimuli    {len(test.stimuli)} of {test.seconds:g} s at {test.rate} Hz")
        print(f"listeners  {sample_size.text}")
    unfinished.exit(len(pieces))


@listen_app.command("serve")
def serve_test_command(
    test: TestArgument,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 8766,
    json_: JsonOption = False,
) -> None:
    """Serve the test, and print the address for listeners."""
    from tonewood import web
    from tonewood.listening import definition

    web.require_server_extra("tonewood listen serve", "listen")
    from tonewood.listening.server import create_listening_app

    loaded = definition.load_listening_test(test)
    app = web.secure(
        create_listening_app(loaded, test), token=loaded.access_token, hosts=web.accepted_hostnames(host)
    )

    def announce(bound_port: int) -> None:
        url = web.server_url(host, bound_port, loaded.access_token)
        if json_:
            common.print_json({"address": url})
        else:
            print(url, flush=True)

    web.run_server(app, host=host, port=port, on_ready=announce)


@listen_app.command("results")
def results_command(
    test: TestArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", readable=False, help="Report folder.")
    ] = None,
    headphones: Annotated[
        bool, typer.Option("--headphones", help="Use only listeners who passed the headphone check.")
    ] = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Evaluate the answers: intervals, preference strengths, sensitivity, medians."""
    from tonewood.listening import analysis, report

    loaded, answers = _load_test_and_answers(test)
    if output is not None:
        report.check_results_folder(output, overwrite)
    results = analysis.analyze_answers(loaded, answers, headphones_only=headphones)
    page = report.write_listening_report(output, test, results, overwrite=overwrite) if output else None
    if json_:
        common.print_json({**results.summary, "page": str(page) if page else None})
        return
    for heading, rows in report.result_tables(results):
        print(heading)
        common.print_columns(rows, indent="  ")
    if page:
        print(f"page       {printable(page)}")


@listen_app.command("delete")
def delete_listener_command(
    test: TestArgument,
    listener: Annotated[str, typer.Argument(help="Completion code, or name from the results.")],
    json_: JsonOption = False,
) -> None:
    """Delete a listener and all their answers."""
    from tonewood.listening.database import list_participants

    loaded, answers = _load_test_and_answers(test)
    for person in list_participants(loaded, answers):
        if listener.upper() in (person.code, person.name):
            answers.delete_listener(person.listener.id)
            if json_:
                common.print_json({"deleted": listener})
            else:
                print(f"deleted    {printable(listener)}")
            return
    raise CallError(
        f"{printable(listener)} is not a listener of this test: see the names in tonewood listen results"
    )


@listen_app.command("export")
def export_test_command(
    test: TestArgument,
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Folder to write.")],
    to: Annotated[str, typer.Option(help="Format: webmushra or reseval.")] = "webmushra",
    json_: JsonOption = False,
) -> None:
    """Write the test for webMUSHRA or ReSEval."""
    from tonewood.listening import definition, interchange

    config = interchange.export_listening_test(definition.load_listening_test(test), test, to, output)
    if json_:
        common.print_json({"config": str(config)})
    else:
        print(f"config     {printable(config)}")


@listen_app.command("import")
def import_answers_command(
    test: TestArgument,
    table: Annotated[
        Path, typer.Argument(metavar="CSV", readable=False, help="Answers from another program.")
    ],
    source_format: Annotated[str, typer.Option("--from", help="Format: webmushra or reseval.")] = "webmushra",
    json_: JsonOption = False,
) -> None:
    """Import answers from webMUSHRA or ReSEval."""
    from tonewood.listening import definition, interchange
    from tonewood.listening.database import AnswerDatabase

    loaded = definition.load_listening_test(test)
    imported = interchange.read_imported_answers(loaded, source_format, table)
    count = interchange.import_answers(AnswerDatabase(test / definition.ANSWERS_FILE), imported)
    if json_:
        common.print_json({"listeners": count.listeners, "answers": count.answers})
    else:
        print(f"imported   {count.answers} answers of {count.listeners} listeners")


def _load_test_and_answers(folder: Path) -> tuple["ListeningTest", "AnswerDatabase"]:
    """Return a test and its answers."""
    from tonewood.listening import definition
    from tonewood.listening.database import AnswerDatabase

    test = definition.load_listening_test(folder)
    path = folder / definition.ANSWERS_FILE
    if not path.exists():
        raise FolderError(f"{printable(folder)} has no answers yet: serve it with tonewood listen serve")
    return test, AnswerDatabase(path)


def _test_json(test: "ListeningTest") -> dict[str, Any]:
    return {
        "kind": test.kind,
        "conditions": list(test.conditions),
        "trials": len(test.trials),
        "per_listener": test.per_listener,
        "repeats": test.repeats,
        "stimuli": len(test.stimuli),
        "seconds": test.seconds,
        "seed": test.seed,
    }
