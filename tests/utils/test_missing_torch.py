"""The line that stands for PyTorch when it is not installed."""

import pytest

from tonewood.errors import MissingExtraError, class_without_torch, explain_missing_torch


@pytest.mark.parametrize("module", ["torch", "torch.nn"])
def test_missing_torch_names_feature_and_installation(module: str) -> None:
    with (
        pytest.raises(MissingExtraError, match=r"^onnx needs PyTorch: pip install '\.\[onnx\]'$"),
        explain_missing_torch("onnx", extra="onnx"),
    ):
        raise ModuleNotFoundError(name=module)


@pytest.mark.parametrize("module", ["torchaudio", "tonewood.scorer.lost", None])
def test_other_missing_modules_stay_as_they_are(module: str | None) -> None:
    with pytest.raises(ModuleNotFoundError) as raised, explain_missing_torch("train"):
        raise ModuleNotFoundError(name=module)
    assert raised.value.name == module


def test_decorated_function_names_itself() -> None:
    @explain_missing_torch("tonewood.train")
    def train() -> None:
        raise ModuleNotFoundError(name="torch")

    for _ in range(2):
        with pytest.raises(MissingExtraError, match=r"^tonewood\.train needs PyTorch"):
            train()


def test_class_without_torch_keeps_its_name_and_raises_when_called() -> None:
    stand_in = class_without_torch("tonewood.NeuralLoss")
    assert stand_in.__name__ == "NeuralLoss"
    assert "pip install '.[train]'" in str(stand_in.__doc__)
    with pytest.raises(MissingExtraError, match=r"^tonewood\.NeuralLoss needs PyTorch"):
        stand_in("cello", rate=44_100)
