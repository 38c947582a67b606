"""Export scorer and predictor as ONNX files for other runtimes.

The graph contains the spectral analysis, so users feed it a waveform and need no Tonewood code.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tonewood.audio_io.reader import MIN_RECORDING_SECONDS
from tonewood.dsp.features import band_levels, center_frequencies, filterbank_matrix, frame_levels
from tonewood.errors import CallError, MissingExtraError, ModelError, printable
from tonewood.model.model import Model
from tonewood.priors.predictor import Predictor, StreamState
from tonewood.utils.files import check_not_existing, write_bytes

ModelPart = Literal["scorer", "predictor"]
ONNX_OPSET = 18
# Size of the example that the graph is traced with; both stay variable.
_EXAMPLE_BATCH, _EXAMPLE_SECONDS = 2, 2


class _OnnxFrontEnd(nn.Module):
    """Spectral analysis in front of a network."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.spectrum, self.bands = model.settings.spectrum, model.settings.scorer.bands
        # Computed and cached now, because tracing could not compute it.
        filterbank_matrix(self.bands, self.spectrum)

    def rows(self, waveform: Tensor) -> Tensor:
        return band_levels(waveform, self.spectrum.rate, self.bands, self.spectrum)


class ScorerGraph(_OnnxFrontEnd):
    """Scorer from waveforms [batch, sample] at the analysis rate to scores [batch] of whole clips."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.scorer = model.scorer.as_tensors()

    def forward(self, waveform: Tensor) -> Tensor:
        """Return scores of clips in (0, 1); 0 means that a clip sounds like the reference."""
        rows_db = self.rows(waveform)
        # `Scorer.level` takes the logarithm of the number of frames, which tracing would fix.
        power = torch.pow(10.0, frame_levels(rows_db + self.scorer.weights["loud_row"][:, None]) / 10)
        level = 10 * torch.log10(power.mean(dim=-1))[:, None, None]
        logit = self.scorer.logit_from_normalized(self.scorer.normalize(rows_db, level))
        return torch.sigmoid(logit)


class PredictorGraph(_OnnxFrontEnd):
    """Predictor from waveforms [batch, sample] at the analysis rate to masks [batch, row, frame], dB."""

    def __init__(self, model: Model, predictor: Predictor) -> None:
        super().__init__(model)
        self.predictor = predictor.as_tensors()

    def forward(self, waveform: Tensor) -> Tensor:
        """Return masks, dB."""
        # The look-ahead after the end repeats the last frame, as in `Predictor.predict`.
        rows_db, ahead = self.rows(waveform), self.predictor.settings.lookahead
        padded = torch.cat([rows_db, rows_db[:, :, -1:].expand(-1, -1, ahead)], dim=2)
        prediction, _ = self.predictor(padded, self._initial_state(padded))
        mask_db: Any = prediction.mask_db[:, :, ahead:]
        return mask_db  # type: ignore[no-any-return]

    def _initial_state(self, rows_db: Tensor) -> StreamState:
        batch = rows_db.shape[0]
        past = (rows_db.new_zeros(batch, *zeros.shape[1:]) for zeros in self.predictor.initial_past(1))
        return StreamState(rows_db.new_zeros(batch, 2, dtype=torch.float64), tuple(past))


def export_onnx(model: Model, part: ModelPart, path: Path, *, overwrite: bool = False) -> None:
    """Write a part of a model as an ONNX file, whole or not at all.

    The metadata state rate, hop, centre frequencies of the rows, and name and digest of the model.
    onnxruntime agrees with the model within 1e-6 (scores) and 1e-4 dB (masks).

    Raises
    ------
    CallError
        `part` does not exist.
    ModelError
        The model has no predictor.
    MissingExtraError
        onnx or onnxscript is not installed.
    OutputError
        The file cannot be written; see `atomic_path`.
    """
    if part not in get_args(ModelPart):
        raise CallError(f"part is {part!r}: choose {' or '.join(get_args(ModelPart))}")
    check_not_existing([path], overwrite)  # first, because tracing takes long
    graph: _OnnxFrontEnd
    if part == "scorer":
        graph, output = ScorerGraph(model), "score"
    elif model.predictor is None:
        raise ModelError(f"{printable(model.name)} has no predictor: add one with train --predictor")
    else:
        graph, output = PredictorGraph(model, model.predictor), "mask_db"
    write_bytes(path, _trace_graph(graph.eval(), output, _onnx_metadata(model, part)), overwrite=overwrite)


def _onnx_metadata(model: Model, part: ModelPart) -> dict[str, str]:
    spectrum = model.settings.spectrum
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    return {
        "tonewood": version("tonewood"),
        "model": model.name,
        "digest": model.digest,
        "part": part,
        "rate": str(spectrum.rate),
        "hop": str(spectrum.hop),
        "row_hz": json.dumps([round(float(center), 3) for center in hz]),
        "licence": model.card.licence,
    }


def _trace_graph(graph: _OnnxFrontEnd, output: str, metadata: dict[str, str]) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        raise MissingExtraError(
            "ONNX files need onnx and onnxscript, which are not installed: pip install '.[onnx]'"
        ) from None
    rate = graph.spectrum.rate
    example = 0.1 * torch.randn(
        _EXAMPLE_BATCH, _EXAMPLE_SECONDS * rate, generator=torch.Generator().manual_seed(0)
    )
    # The graph accepts what Tonewood accepts, so a clip has at least this length.
    min_samples = round(MIN_RECORDING_SECONDS * rate)
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sample", min=min_samples)}
    with _silence_exporter():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=ONNX_OPSET,
            dynamic_shapes=(dynamic,),
            input_names=["waveform"],
            output_names=[output],
            verbose=False,
        )
    assert program is not None
    model_proto = program.model_proto
    del model_proto.metadata_props[:]
    onnx.helper.set_model_props(model_proto, metadata)
    onnx.checker.check_model(model_proto)
    content: bytes = model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Suppress warnings, logs and printed text of the exporter."""
    before = logging.root.manager.disable
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
