"""Modules that a command imports."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

_COUNT = """
import sys
from tonewood.cli import main
sys.argv = ["tonewood", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code
for name, module in sorted(sys.modules.items()):
    # Packages are empty, and the command line parses every command's options.
    is_package = hasattr(module, "__path__")
    if name.startswith("tonewood.") and not name.startswith("tonewood.cli") and not is_package:
        print("module", name)
"""


def test_enhance_imports_at_most_fifty_modules(
    tmp_path: Path, play: Callable[..., npt.NDArray[np.float32]], model_file: Path
) -> None:
    take = tmp_path / "take.wav"
    soundfile.write(take, play(1.0).T, 16_000)
    command = ["enhance", take, "-o", tmp_path / "out.wav", "-m", model_file, "--force", "--steps", "1"]
    ran = subprocess.run(
        [sys.executable, "-c", _COUNT, *map(str, command)], capture_output=True, text=True, check=True
    )
    modules = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("module ")]
    assert "tonewood.enhancement.pipeline" in modules
    assert len(modules) <= 50, modules
    unused = ("training", "audit", "evaluation", "explanation", "research", "studio", "data", "html_report")
    assert not [name for name in modules if name.split(".")[1] in unused]
