"""ONNX files: onnxruntime and the model give the same outputs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tonewood.dsp.features import band_levels, center_frequencies
from tonewood.enhancement.prior_mask import features_at_rate
from tonewood.errors import CallError, MissingExtraError, ModelError, OutputError
from tonewood.model.model import Model
from tonewood.model.onnx import ONNX_OPSET, export_onnx

Run = Callable[..., Any]
# Batch and samples, none as in the example that the graph is traced with.
SHAPES = [(1, 16_000), (3, 12_345), (1, 160_001), (5, 4_000)]


@pytest.fixture(scope="module")
def files(
    predicting: Model, predicting_file: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder with both parts: the scorer by Python, the predictor by the command."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(predicting, "scorer", folder / "scorer.onnx")
    out = folder / "predictor.onnx"
    result = run("onnx", predicting_file, "--part", "predictor", "-o", out)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"predictor  {out} (opset {ONNX_OPSET})\n"
    return folder


def ran(path: Path, waveform: torch.Tensor) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [output] = session.run(None, {"waveform": waveform.numpy()})
    return output


def sounds(batch: int, samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(samples)
    noise = 0.1 * torch.randn(batch, samples, generator=generator)
    return noise * torch.linspace(0.001, 1, samples)


@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_scores_equal_those_of_the_model(shape: tuple[int, int], files: Path, predicting: Model) -> None:
    waveform = sounds(*shape)
    spectrum, bands = predicting.settings.spectrum, predicting.settings.scorer.bands
    expected = predicting.scorer.score(band_levels(waveform.numpy(), 16_000, bands, spectrum))
    np.testing.assert_allclose(ran(files / "scorer.onnx", waveform), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_masks_equal_those_of_the_model(shape: tuple[int, int], files: Path, predicting: Model) -> None:
    waveform = sounds(*shape)
    assert predicting.predictor is not None
    actual = ran(files / "predictor.onnx", waveform)
    for wave, mask in zip(waveform.numpy(), actual, strict=True):
        expected = predicting.predictor.predict(features_at_rate(wave, 16_000, predicting)).mask_db
        np.testing.assert_allclose(mask, expected, atol=1e-4)


@pytest.mark.parametrize("part", ["scorer", "predictor"])
def test_onnx_metadata_describe_the_graph(part: str, files: Path, predicting: Model) -> None:
    import onnx

    output = onnx.load(files / f"{part}.onnx")
    onnx.checker.check_model(output, full_check=True)
    assert [(item.domain, item.version) for item in output.opset_import] == [("", ONNX_OPSET)]
    fields = {metadata_prop.key: metadata_prop.value for metadata_prop in output.metadata_props}
    assert fields["digest"] == predicting.digest
    assert (fields["part"], fields["model"], fields["rate"], fields["hop"]) == (
        part,
        "tiny",
        "16000",
        "160",
    )
    expected = center_frequencies(predicting.settings.scorer.bands, predicting.settings.spectrum)
    np.testing.assert_allclose(json.loads(fields["row_hz"]), expected, atol=1e-3)
    assert [item.name for item in output.graph.input] == ["waveform"]


def test_onnx_command_keeps_existing_files(files: Path, predicting_file: Path, run: Run) -> None:
    again = run("onnx", predicting_file, "-o", files / "scorer.onnx")
    assert again.code == 1
    assert again.err.startswith(f"tonewood: {files / 'scorer.onnx'} exists")


def test_onnx_command_names_the_option_of_a_wrong_part(
    predicting_file: Path, tmp_path: Path, run: Run
) -> None:
    ran = run("onnx", predicting_file, "-o", tmp_path / "a.onnx", "--part", "judge")
    assert (ran.code, ran.err) == (2, "tonewood: --part is 'judge': choose scorer or predictor\n")


@pytest.mark.usefixtures("files")
def test_export_leaves_the_model_unchanged(predicting: Model) -> None:
    matrix = band_levels(
        torch.zeros(1, 4_000),
        16_000,
        predicting.settings.scorer.bands,
        predicting.settings.spectrum,
    )
    assert type(matrix) is torch.Tensor  # nothing of the tracing stayed behind


def test_impossible_exports_are_one_error(
    predicting: Model, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(CallError, match=r"^part is 'judge': choose scorer or predictor"):
        export_onnx(predicting, "judge", path)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="tiny has no predictor: add one with train --predictor"):
        export_onnx(model, "predictor", path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[onnx\]'"):
        export_onnx(model, "scorer", path)
    monkeypatch.undo()
    assert not path.exists()
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        export_onnx(model, "scorer", path)
    assert path.read_bytes() == b"mine"
