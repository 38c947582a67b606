"""Inventory of recordings: what each file is, how loud it is, and whether it can be used."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tonewood.audio_io.libsndfile import AudioFormat, read_error
from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.audio_io.remote import Location
from tonewood.batch.results_table import check_parquet_available
from tonewood.dsp.chunking import overlapping_chunks
from tonewood.dsp.loudness import LoudnessBlocks, gated_loudness, level_db, measure_loudness_blocks, true_peak
from tonewood.enhancement.output_files import FileFailure, expand_input, find_left_out
from tonewood.errors import AudioError, TonewoodError, printable
from tonewood.utils.files import atomic_path, check_not_existing, check_parent, check_suffix, write_text
from tonewood.utils.parallel import parallel_map

INVENTORY_SUFFIXES = (".csv", ".parquet")
_CHUNK_SECONDS = 10.0
_MARGIN_SECONDS = 0.5  # the weighting of the loudness settles in 0.25 s
_FLOAT_DEPTHS = {"FLOAT": 32, "DOUBLE": 64}


@dataclass(frozen=True)
class InventoryRow:
    """Properties of one recording; None where they are not known."""

    path: str
    seconds: float | None = None  # duration: that of the decoded samples, or else that of the header
    rate: int | None = None  # samples per second
    channels: int | None = None
    depth: int | None = None  # bits of a sample; None for lossy encodings
    # Names of libsndfile, as in ``WAV`` and ``PCM_16``
    format: str | None = None
    encoding: str | None = None
    loudness_lufs: float | None = None
    true_peak_dbtp: float | None = None
    readable: bool = True  # whether the recording can be used
    error: str | None = None  # why not
    sha256: str | None = None  # of the file's bytes


def list_inventory(inputs: Sequence[Path]) -> list[Path | FileFailure]:
    """Return all recordings of files and folders, those that need a missing package included."""
    items: list[Path | FileFailure] = []
    for location in inputs:
        try:
            location.stat()
        except OSError as error:  # a name of nothing is no recording
            items.append(FileFailure(location, read_error(location, error)))
            continue
        left_out = [Path(path) for path, _ in find_left_out(location)]
        expanded = expand_input(location)
        listed = [item if isinstance(item, FileFailure) else _as_path(item.location) for item in expanded]
        # A folder in which every recording needs the package is not a failure here: its rows say so.
        items += left_out if left_out and isinstance(listed[0], FileFailure) else [*listed, *left_out]
    return items


def inventory_rows(items: Sequence[Path | FileFailure]) -> Iterator[InventoryRow]:
    """Yield the row of each recording, in order; files are read in parallel."""
    yield from parallel_map(_row_of_item, items)


def _as_path(location: Location) -> Path:
    assert isinstance(location, Path)
    return location


def _row_of_item(item: Path | FileFailure) -> InventoryRow:
    if isinstance(item, FileFailure):
        return InventoryRow(str(item.input), readable=False, error=str(item.error))
    digest = None
    with suppress(AudioError):  # the reader gives the reason
        digest = file_sha256(item)
    try:
        reader = AudioReader(item)
    except TonewoodError as error:
        return InventoryRow(str(item), readable=False, error=str(error), sha256=digest)
    level = _Level()
    problem = None
    try:
        level.measure(reader)
    except TonewoodError as error:
        problem = str(error)
    has_sound = level.peak > 0
    return InventoryRow(
        path=str(item),
        seconds=round(level.samples / reader.rate, 3) if level.samples else reader.declared_seconds,
        rate=reader.rate,
        channels=reader.channels,
        depth=_sample_depth(reader.format),
        format=reader.format.container,
        encoding=reader.format.subtype,
        loudness_lufs=round(gated_loudness(level.parts, reader.rate), 2) if has_sound else None,
        true_peak_dbtp=round(level_db(level.peak), 2) if has_sound else None,
        readable=problem is None,
        error=problem,
        sha256=digest,
    )


class _Level:
    """Loudness and true peak of what was decoded, even if the recording ends in an error."""

    def __init__(self) -> None:
        self.parts: list[LoudnessBlocks] = []
        self.peak, self.samples = 0.0, 0

    def measure(self, reader: AudioReader) -> None:
        """Read a recording to its end."""
        size, margin = round(_CHUNK_SECONDS * reader.rate), round(_MARGIN_SECONDS * reader.rate)
        for chunk in overlapping_chunks(reader.blocks(), size, margin):
            self.parts.append(measure_loudness_blocks(chunk, reader.rate))
            self.peak = max(self.peak, true_peak(chunk, reader.rate))
            self.samples += chunk.core_size


def _sample_depth(audio_format: AudioFormat) -> int | None:
    return audio_format.integer_bits or _FLOAT_DEPTHS.get(audio_format.subtype)


def check_inventory_output(path: Path, overwrite: bool) -> None:
    """Check before the work that an inventory can be written.

    Raises
    ------
    CallError
        The suffix is neither .csv nor .parquet.
    MissingExtraError
        Parquet needs pyarrow, which is not installed.
    OutputError
        The file exists, or its folder cannot be written to.
    """
    check_suffix(path, INVENTORY_SUFFIXES, "a table")
    if path.suffix.lower() == ".parquet":
        check_parquet_available(f"--output {printable(path)}")
    check_not_existing([path], overwrite)
    check_parent(path)


def write_inventory(path: Path, rows: Sequence[InventoryRow], *, overwrite: bool = False) -> None:
    """Write an inventory as CSV or Parquet, by the suffix."""
    columns = {field.name: field for field in fields(InventoryRow)}
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        # Text that is not UTF-8 in a file name is escaped, as everywhere for people.
        table.writerows({**asdict(row), "path": printable(row.path)} for row in rows)
        write_text(path, text.getvalue(), overwrite=overwrite)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = dict.fromkeys(("seconds", "loudness_lufs", "true_peak_dbtp"), pa.float64())
    types |= dict.fromkeys(("rate", "channels", "depth"), pa.int32())
    types["readable"] = pa.bool_()
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    with atomic_path(path, overwrite) as temporary:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), temporary)
