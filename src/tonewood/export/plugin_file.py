"""Export a model's predictor as the file that the audio plug-in loads.

All values are little-endian and nothing is aligned or padded. bins is fft / 2 + 1, rounded down.

=======  ==========================  ==========================================================
offset   type                        content
=======  ==========================  ==========================================================
0        8 bytes                     ``TWPLUGIN``
8        uint32                      version of the format, 1
12       uint32                      CRC-32 (ISO-HDLC, as in zlib) of all bytes from offset 16 on
16       uint32                      rate of the analysis, Hz
20       uint32, uint32, uint32      window, hop, FFT length, samples at that rate
32       uint32                      rows of the mask
36       uint32, uint32, uint32      network: width, kernel, depth
48       uint32                      lookahead, frames
52       uint32, uint32              bytes of the name, bytes of the licence (UTF-8)
60       float32                     smallest magnitude, dBFS
64       float32                     time constant of level and loudness, s
68       float32 [2], float32 [2]    amounts, and the loudness that masks add at each, dB
84       float32 [rows]              centre frequency of each row, Hz
         float32 [rows, bins]        weight of each bin's power in each row
         float32 [rows]              K-weighting of each row, factor of power
         float32 [rows], [rows]      mean level of each row, static mask, dB
         float32 [width, rows]       first layer; then its bias [width]
         float32 [width, width,      dilated convolutions, `depth` times, each followed by its
         kernel]                     bias [width]
         float32 [rows, width]       last layer; then its bias [rows]
         bytes                       name, licence
=======  ==========================  ==========================================================
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from tonewood.dsp.features import center_frequencies, filterbank_matrix
from tonewood.dsp.loudness import k_weighting_db
from tonewood.enhancement.prior_mask import require_predictor
from tonewood.errors import ModelError, printable
from tonewood.export.export import ExportedFile
from tonewood.model.model import Model
from tonewood.priors.predictor import LOUDNESS_AMOUNTS
from tonewood.utils.arrays import FloatArray
from tonewood.utils.files import write_bytes

PLUGIN_FILE_MAGIC, PLUGIN_FILE_VERSION = b"TWPLUGIN", 1
MAX_PLUGIN_FILE_BYTES = 1_000_000


def export_plugin_file(model: Model, out: Path, *, overwrite: bool = False) -> ExportedFile:
    """Write the predictor of a model as a file for the audio plug-in, whole or not at all.

    ModelError if the model has no predictor, or its file would be too large for the plug-in. OutputError if
    the file cannot be written; see `atomic_path`.
    """
    content = serialize_plugin_file(model)
    if len(content) > MAX_PLUGIN_FILE_BYTES:
        raise ModelError(
            f"{printable(model.name)} needs {len(content):,} bytes; the plug-in loads at most "
            f"{MAX_PLUGIN_FILE_BYTES:,}: train with fewer rows or a smaller predictor.width"
        )
    write_bytes(out, content, overwrite=overwrite)
    return ExportedFile(
        out,
        {"kind": "plugin", "version": PLUGIN_FILE_VERSION, "bytes": len(content), "name": model.name,
         "licence": model.card.licence},
        (f"model {printable(model.name)} for the audio plug-in, {len(content):,} bytes",
         f"licence {printable(model.card.licence)}"),
    )  # fmt: skip


def serialize_plugin_file(model: Model) -> bytes:
    """Return the bytes of a plug-in file; the same model gives the same bytes."""
    predictor, spectrum = require_predictor(model), model.settings.spectrum
    bands, settings = model.settings.scorer.bands, predictor.settings
    hz = center_frequencies(bands, spectrum)
    name, licence = model.name.encode(), model.card.licence.encode()
    sizes = (
        spectrum.rate, spectrum.window, spectrum.hop, spectrum.fft, len(hz),
        settings.width, settings.kernel, settings.depth, settings.lookahead, len(name), len(licence),
    )  # fmt: skip
    weights = predictor.weights
    levels = (spectrum.floor_db, settings.level_seconds, *LOUDNESS_AMOUNTS, *weights["loudness_db"])
    arrays = [
        hz,
        filterbank_matrix(bands, spectrum),
        np.power(10.0, k_weighting_db(hz) / 10),
        weights["row_mean"],
        weights["static_db"],
    ]
    for layer in ("first", *(f"middle.{number}" for number in range(settings.depth))):
        arrays += [weights[f"{layer}.weight"], weights[f"{layer}.bias"]]
    # The second half of the last layer predicts the departure, which only training and search use.
    arrays += [weights[f"last.{part}"][: len(hz)] for part in ("weight", "bias")]
    payload = struct.pack("<11I6f", *sizes, *levels) + b"".join(map(_float32_bytes, arrays)) + name + licence
    return PLUGIN_FILE_MAGIC + struct.pack("<2I", PLUGIN_FILE_VERSION, zlib.crc32(payload)) + payload


def _float32_bytes(values: FloatArray) -> bytes:
    return values.astype("<f4").tobytes()
