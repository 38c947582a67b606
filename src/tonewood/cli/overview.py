"""Commands that look before the work: `doctor` at the installation, `inventory` at an archive."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import common
from tonewood.cli.common import InputsArgument, JsonOption, OverwriteOption
from tonewood.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tonewood.batch.inventory import InventoryRow
    from tonewood.diagnosis import Diagnosis


def doctor_command(json_: JsonOption = False) -> None:
    """Show versions, extras, cores, cache and audio back ends, and test the installation."""
    from tonewood.diagnosis import diagnose

    diagnosis = diagnose()
    if json_:
        common.print_json(diagnosis.summary)
    else:
        _print_diagnosis(diagnosis)
    if diagnosis.self_test.error:
        common.print_stderr(
            f"tonewood: the self-test failed ({diagnosis.self_test.error}): install Tonewood again"
        )
        raise typer.Exit(1)


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    """Print a diagnosis on one screen."""
    for name, version in diagnosis.versions.items():
        print(f"{name:<12}{version or 'not installed'}")
    print(
        f"{'extras':<12}{' '.join(sorted(name for name, missing in diagnosis.extras.items() if not missing))}"
    )
    for extra, missing in sorted(diagnosis.extras.items()):
        if missing:
            print(f"{'':<12}{extra} needs {', '.join(missing)}: pip install '.[{extra}]'")
    print(f"{'cores':<12}{diagnosis.cores}")
    print(f"{'cache':<12}{printable(diagnosis.cache_folder)}, {diagnosis.cache_bytes / 1e6:.1f} MB")
    for name, version in diagnosis.back_ends.items():
        print(f"{name:<12}{version or 'not available'}")
    test = diagnosis.self_test
    print(
        f"{'self-test':<12}{test.verdict}: {test.audio_seconds:.0f} s of audio enhanced in "
        f"{test.seconds:.1f} s by model {test.model}"
    )


def inventory_command(
    inputs: InputsArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Table to write (.csv or .parquet)."),
    ] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """List recordings with duration, format, loudness and true peak, and those that cannot be used."""
    from tonewood.batch import inventory
    from tonewood.cli.progress import FilesDisplay
    from tonewood.enhancement.output_files import FileFailure, FileStarted

    if output is not None:
        inventory.check_inventory_output(output, overwrite)
    items = inventory.list_inventory(inputs)
    rows: list[InventoryRow] = []
    with FilesDisplay() as display:
        for row in inventory.inventory_rows(items):
            rows.append(row)
            display.show(FileStarted(len(rows) + 1, len(items), row.path))
    if output is not None:
        inventory.write_inventory(output, rows, overwrite=overwrite)
    for row in rows if json_ else ():
        common.print_json(vars(row))
    # A folder without recordings has a row with the reason, and is not a recording.
    folders = [item for item in items if isinstance(item, FileFailure)]
    recordings = len(items) - len(folders)
    if not json_:
        _print_inventory(rows, recordings, output)
    failed = sum(row.error is not None for row in rows)
    if failed:
        unusable = []
        if recordings:
            unusable.append(f"{failed - len(folders)} of {common.count_noun(recordings, 'recording')}")
        if folders:
            unusable.append(common.count_noun(len(folders), "folder"))
        common.print_stderr(f"tonewood: {' and '.join(unusable)} cannot be used")
        raise typer.Exit(1)


def _print_inventory(rows: "Sequence[InventoryRow]", recordings: int, output: Path | None) -> None:
    """Print the table unless it was written to a file, the reasons of failures, and the sums."""
    known = [row for row in rows if row.rate is not None]
    if output is None and known:
        heading = ("recording", "time", "Hz", "channels", "bits", "format", "LUFS", "dBTP", "SHA-256")
        common.print_columns([heading, *map(_inventory_cells, known)])
    for row in rows:
        if row.error is not None:
            print(f"cannot be used: {row.error}")
    hours = timedelta(seconds=round(sum(row.seconds or 0.0 for row in rows)))
    digests = [row.sha256 for row in rows if row.sha256]
    copies = len(digests) - len(set(digests))
    copied = "1 is a copy of another" if copies == 1 else f"{copies} are copies of others"
    print(f"{common.count_noun(recordings, 'recording')}, {hours} in all{f', {copied}' if copies else ''}")
    if output is not None:
        print(f"table      {printable(output)}")


def _inventory_cells(row: "InventoryRow") -> tuple[str, ...]:
    return (
        printable(row.path),
        "-" if row.seconds is None else common.format_time(row.seconds),
        str(row.rate),
        str(row.channels),
        str(row.depth or "-"),
        f"{row.format} {row.encoding}" if row.depth is None else str(row.format),
        "-" if row.loudness_lufs is None else f"{row.loudness_lufs:.1f}",
        "-" if row.true_peak_dbtp is None else f"{row.true_peak_dbtp:.1f}",
        (row.sha256 or "-")[:8],
    )
