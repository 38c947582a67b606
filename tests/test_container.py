"""Check the container file without running it."""

import json
import re
import tomllib
from pathlib import Path

from tonewood import cli

ROOT = Path(__file__).parents[1]


def steps() -> list[tuple[str, str]]:
    """Instructions and their arguments, comments dropped and lines joined."""
    text = (ROOT / "Containerfile").read_text("utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    split = (line.split(maxsplit=1) for line in lines if line.strip())
    return [(name.upper(), " ".join(rest.split())) for name, rest in split]


STEPS = steps()
LAST = STEPS[[name for name, _ in STEPS[::-1]].index("FROM") * -1 - 1 :]


def value(name: str) -> str:
    (arguments,) = [rest for instruction, rest in LAST if instruction == name]
    return arguments


def test_base_image_is_slim_python_and_copied_files_exist() -> None:
    bases = [rest.split()[0] for name, rest in STEPS if name == "FROM"]
    assert set(bases) == {"docker.io/library/python:3.11-slim"}
    included = set((ROOT / ".dockerignore").read_text("utf-8").splitlines())
    copied = [rest.split()[:-1] for name, rest in STEPS if name == "COPY" and "--from" not in rest]
    assert copied
    for source in (Path(name).as_posix() for group in copied for name in group):
        assert (ROOT / source).exists()
        assert f"!{source}" in included
    assert {name for name, _ in STEPS} <= {
        *("FROM", "WORKDIR", "ENV", "RUN", "COPY", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD")
    }


def test_installed_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    locked, installed = [rest for name, rest in STEPS if name == "RUN" and "pip install" in rest]
    assert "--require-hashes -r container-requirements.txt" in locked
    (extras,) = re.findall(r"\.\[([\w,]+)\]", installed)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    # Nothing is fetched without a hash, the tools that build the wheel included.
    assert "--no-deps --no-build-isolation" in installed
    # The studio uses models without torch.
    assert not any("torch" in rest for name, rest in STEPS if name in ("ENV", "RUN"))


def test_container_runs_without_root_and_keeps_data_in_a_volume() -> None:
    names = [name for name, _ in LAST]
    assert names.index("USER") < names.index("ENTRYPOINT")
    user = value("USER")
    assert user not in ("root", "0")
    (command,) = [rest for name, rest in LAST if name == "RUN"]
    assert f"useradd --create-home --uid 10001 {user}" in command
    assert value("VOLUME") == "/data"
    assert "/data" in command


def test_container_command_is_valid() -> None:
    assert json.loads(value("ENTRYPOINT")) == ["tonewood"]
    command, *words = json.loads(value("CMD"))
    assert command == "studio"
    (studio,) = [command.load() for command in cli.COMMANDS if command.name == "studio"]
    options = {name: option for option in studio.params for name in option.opts}
    given = dict(zip(words, [*words[1:], ""], strict=True))
    assert {word for word in words if word.startswith("--")} <= set(options)
    assert given["--host"] == "0.0.0.0"
    assert given["--folder"].startswith(value("VOLUME"))
    assert value("EXPOSE") == str(options["--port"].default)
