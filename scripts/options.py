"""Write the tables of options in `docs/howto/`, from the command line itself.

    python scripts/options.py [--check]

A page holds `<!-- options:begin COMMAND -->` and `<!-- options:end -->`; what lies between is the
table of that command. `--check` writes nothing, and fails where a table is out of date.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from tonewood import cli

PAGES = Path(__file__).parents[1] / "docs" / "howto"
BLOCK = re.compile(r"(<!-- options:begin ([a-z ]+) -->\n).*?(<!-- options:end -->)", re.DOTALL)


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield every command by its full name, as in `listen new`."""
    top: Any = group or get_command(cli.cli_app)
    for name, command in top.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def table(command: Any) -> str:  # noqa: ANN401
    """Markdown of what a command takes: its arguments, its options, their defaults."""
    lines = ["| | | without it |", "|---|---|---|"]
    for it in command.params:
        if it.param_type_name == "argument":
            spelt = f"`{(it.metavar or it.name).strip('[]').replace('|', '` or `')}`"
        else:
            spelt = ", ".join(f"`{name}`" for name in (*it.opts, *it.secondary_opts))
            if it.metavar:
                spelt += f" `{it.metavar}`"
        lines.append(f"| {spelt} | {it.help or ''} | {_default(it)} |")
    return "\n".join(lines) + "\n"


def _default(it: Any) -> str:  # noqa: ANN401
    if it.required:
        return "*needed*"
    if getattr(it, "is_flag", False) and not it.secondary_opts:
        return ""
    if getattr(it, "is_flag", False):
        return f"`{it.opts[0] if it.default else it.secondary_opts[0]}`"
    return "" if it.default in (None, "") else f"`{it.default}`"


def filled(text: str, known: dict[str, Any]) -> str:
    """Return a page with its tables as they should be."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{table(known[m[2]])}\n{m[3]}", text)


def main() -> None:
    """Fill every page, or say which is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    known, stale = dict(commands()), []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text("utf-8")
        new = filled(text, known)
        if new != text:
            stale.append(page.name)
            if not check:
                page.write_text(new, "utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python scripts/options.py")


if __name__ == "__main__":
    main()
