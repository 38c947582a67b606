"""`tonewood reproduce`: a corpus → the paper's figures and table.

`tonewood search`: two folders → the smallest scorer that is good enough.

`tonewood manifest`: a data set or shards → a list to train from.

`tonewood harp`: an endpoint for HARP, and through it for audio workstations.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import common
from tonewood.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ReferenceOption,
    SetOption,
    SourceOption,
    check_output_path,
)
from tonewood.errors import CallError, printable

if TYPE_CHECKING:
    from tonewood.research.architecture_search import SizeSearchResult
    from tonewood.research.paper_reproduction import Reproduction
    from tonewood.settings import ModelSettings


def _training_settings(seed: int, assignments: Sequence[str] | None) -> "ModelSettings":
    """Return the default settings with a seed and the assignments of `--set`."""
    from tonewood.settings import ModelSettings
    from tonewood.settings_by_name import apply_assignments

    settings = ModelSettings().replace(training=dict(seed=seed))
    return apply_assignments(settings, assignments or [])


def reproduce_command(
    corpus: Annotated[Path, typer.Option(readable=False, help="Folder laid out as train|test/{good,cheap}.")],
    output: Annotated[Path, typer.Option("-o", "--output", readable=False, help="Folder for the report.")],
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model to take instead of training one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws what is random.")] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reproduce the paper's figures, accuracy and table on a corpus, as one page."""
    from tonewood.cli.progress import ReproducingDisplay
    from tonewood.enhancement import plotting
    from tonewood.model.model import load_model
    from tonewood.research import paper_reproduction

    if model is not None and set_:
        raise CallError("--set is for training, and -m names a model already trained: leave one")
    settings = _training_settings(seed, set_)
    plotting.check_matplotlib("a report")
    loaded = load_model(model) if model is not None else None
    with ReproducingDisplay() as display:
        for event in paper_reproduction.reproduce_paper(
            corpus, output, settings, model=loaded, device=device, overwrite=overwrite
        ):
            if isinstance(event, paper_reproduction.Reproduction):
                done = event
            else:
                display.show(event)
    _print_reproduction(done, json_)


def _print_reproduction(done: "Reproduction", as_json: bool) -> None:
    """Tell what `reproduce` made."""
    if as_json:
        common.print_json({"page": str(done.page), **done.summary})
        return
    for method, *figures in done.table:
        print(f"{method:<36}" + "".join(f"{figure:>11}" for figure in figures))
    print(
        f"accuracy   {100 * done.accuracy:.1f} % right on {done.windows} held-out windows of "
        f"{done.crop_seconds:g} s"
    )
    print(f"page       {printable(done.page)}")


def search_command(
    reference: ReferenceOption,
    source: SourceOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Picture to draw, a PNG."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first split; the next ones count up.")] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Find the smallest scorer that tells two folders apart as well as any."""
    from tonewood.cli.progress import SearchDisplay
    from tonewood.enhancement import plotting
    from tonewood.research import architecture_search
    from tonewood.research.architecture_search import plot_scorer_sizes

    settings = _training_settings(seed, set_)
    if output is not None:
        if output.suffix.lower() != ".png":
            raise CallError(f"{printable(output)} is no name of a PNG: end it in .png")
        check_output_path(output, overwrite)
        plotting.check_matplotlib("a picture")
    with SearchDisplay() as display:
        for event in architecture_search.search_sizes(reference, source, settings, device=device):
            if isinstance(event, architecture_search.SizeSearchResult):
                ladder = event
            else:
                display.show(event)
    if output is not None:
        plot_scorer_sizes(output, ladder, overwrite=overwrite)
    _print_ladder(ladder, output, json_)


def _print_ladder(ladder: "SizeSearchResult", picture: Path | None, as_json: bool) -> None:
    """Tell what `search` found: a rung a line."""
    chosen, knee = ladder.chosen, ladder.knee
    if as_json:
        rungs = [
            {
                **rung.size._asdict(),
                "parameters": rung.parameters,
                "accuracy": rung.accuracy._asdict(),
                "loss": rung.loss._asdict(),
                "accuracies": list(rung.accuracies),
                "losses": list(rung.losses),
                "seconds": rung.seconds,
            }
            for rung in ladder.results
        ]
        common.print_json(
            {
                "rungs": rungs,
                "knee": knee.size._asdict(),
                "chosen": chosen.size._asdict(),
                "options": ladder.options,
                "picture": str(picture) if picture else None,
            }
        )
        return
    print("width  depth  parameters  accuracy, %     loss")
    for rung in ladder.results:
        accuracy, loss = rung.accuracy, rung.loss
        marks = [name for name, it in (("knee", knee), ("chosen", chosen)) if it is rung]
        print(
            f"{rung.size.width:5}  {rung.size.depth:5}  {rung.parameters:10,}  "
            f"{100 * accuracy.mean:5.1f} ± {100 * accuracy.error:3.1f}  "
            f"{loss.mean:.4f} ± {loss.error:.4f}  {', '.join(marks)}".rstrip()
        )
    if picture:
        print(f"picture    {printable(picture)}")
    print(f"smallest within one standard error of the best: {ladder.options}")


_CONDITION_METAVAR = "FIELD=PATTERN"


def manifest_command(
    dataset_or_shards: Annotated[
        list[str],
        typer.Argument(metavar="WHAT", help="good_sounds, tinysol, medley_solos_db, or .tar shards."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="List to write: .csv or .jsonl.")
    ],
    data_home: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder in which the data set lies; none is fetched."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar=_CONDITION_METAVAR, help="What is wanted; given again, all must hold."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar=_CONDITION_METAVAR, help="What is to be improved; given again, all must hold."),
    ] = None,
    both: Annotated[
        list[str] | None,
        typer.Option(metavar=_CONDITION_METAVAR, help="What must hold on both sides."),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """List recordings of a data set, or of WebDataset shards, for train --manifest."""
    from tonewood.data import catalogs

    sides = catalogs.SideConditions(
        *(tuple(map(catalogs.FieldCondition.parse, it or [])) for it in (reference, source, both))
    )
    archives = [Path(it) for it in dataset_or_shards]
    if len(dataset_or_shards) == 1 and not archives[0].exists() and archives[0].suffix != ".tar":
        done = catalogs.write_dataset_manifest(
            dataset_or_shards[0], data_home, sides, output, overwrite=overwrite
        )
    else:
        done = catalogs.write_shards_manifest(archives, sides, output, overwrite=overwrite)
    common.print_stderr(f"note: {done.note}")
    if done.missing:
        common.print_stderr(f"note: {done.missing} recordings of the index are not there, and not listed")
    if json_:
        common.print_json({**done._asdict(), "output": str(done.output)})
    else:
        print(f"{printable(done.output)}: {done.reference} reference, {done.source} source")


def harp_command(
    model: ModelOption = "cello",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 7860,
    host: Annotated[str, typer.Option(help="This machine's own: 127.0.0.1 or ::1.")] = "127.0.0.1",
) -> None:
    """Serve a model to HARP, a sample editor for audio workstations; prints its address."""
    from tonewood import web

    if not web.is_loopback(host):
        raise CallError(
            f"{printable(host)} is not this machine's own address, and HARP sends no token: serve at "
            "127.0.0.1, and reach it through a tunnel, as in ssh -L 7860:127.0.0.1:7860"
        )
    web.require_server_extra("tonewood harp", "harp", "python_multipart")
    from tonewood import harp
    from tonewood.model.model import load_model

    loaded = load_model(model)
    with tempfile.TemporaryDirectory(prefix="tonewood-", ignore_cleanup_errors=True) as folder:
        made = web.secure(harp.create_harp_app(loaded, Path(folder)), limits_by_path=harp.UPLOAD_LIMITS)

        def ready(bound: int) -> None:
            print(web.server_url(host, bound), flush=True)

        web.run_server(made, host=host, port=port, on_ready=ready)
