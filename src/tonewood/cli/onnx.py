"""`tonewood onnx`: a part of a model for other runtimes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption, check_output_path
from tonewood.errors import printable

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.onnx import ModelPart


def onnx_command(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="File to write, as in a.onnx.")
    ],
    part: Annotated[str, typer.Option(help="scorer or predictor.")] = "scorer",
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a model's scorer or predictor as an ONNX file."""
    from tonewood.files import onnx as onnxfile
    from tonewood.files.modelfile import load_model

    check_output_path(output, overwrite)
    loaded = load_model(model)
    onnxfile.export_onnx(loaded, cast("ModelPart", part), output, overwrite=overwrite)
    if json_:
        told = {"model": model, "part": part, "file": str(output), "opset": onnxfile.ONNX_OPSET}
        report.print_json({**told, "digest": loaded.digest})
    else:
        print(f"{part}  {printable(output)} (opset {onnxfile.ONNX_OPSET})")
