"""Write the lists of options in `docs/howto/` from the command line's definitions.

    python scripts/options.py [--check]

A page holds `<!-- options:begin COMMAND -->` and `<!-- options:end -->`, with the list of that
command between them. `--check` writes nothing, and fails if a list is out of date.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonewood import cli
from tonewood.cli.common import BatchOptions
from tonewood.cli.options import ControlOptions

PAGES = Path(__file__).parents[1] / "docs" / "howto"
BLOCK = re.compile(r"(<!-- options:begin ([a-z ]+) -->\n).*?(<!-- options:end -->)", re.DOTALL)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command by its full name, as in `listen new`."""
    for entry in cli.COMMANDS:
        command = entry.load()
        if hasattr(command, "commands"):
            yield from ((f"{entry.name} {name}", below) for name, below in command.commands.items())
        else:
            yield str(entry.name), command


# Options that several commands share are described on the page of one.
_DESCRIBED = "enhance"
_SHARED = {*ControlOptions._fields, *BatchOptions._fields, "overwrite", "json_", "set_"}


def option_list(name: str, command: Any) -> str:  # noqa: ANN401
    """Return a Markdown list of the arguments, options and defaults of a command."""
    lines, shared = [], []
    for param in command.params:
        if name != _DESCRIBED and param.name in _SHARED:
            shared.append(f"`{param.opts[0]}`")
            continue
        if param.param_type_name == "argument":
            # Of [DIR]... the name is enough, and RECIPE|MODEL are two names.
            metavar = re.sub(r"[\[\].]", "", param.metavar or param.name.upper())
            names = " or ".join(f"`{name}`" for name in metavar.split("|"))
        else:
            names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
            names += f" `{param.metavar}`" if param.metavar else ""
        lines.append(f"- {names}{_default(param)}: {param.help or ''}".rstrip())
    if shared:
        lines.append(f"- {', '.join(shared)}: as in [{_DESCRIBED}]({_DESCRIBED}.md).")
    return "\n".join(lines) + "\n"


def _default(param: Any) -> str:  # noqa: ANN401
    if param.required:
        return " (required)"
    if getattr(param, "is_flag", False):
        if not param.secondary_opts:
            return ""
        return f" (default `{(param.opts if param.default else param.secondary_opts)[0]}`)"
    return "" if param.default in (None, "") else f" (default `{param.default}`)"


def fill_lists(text: str, known: dict[str, Any]) -> str:
    """Return a page with its lists filled in."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{option_list(m[2], known[m[2]])}\n{m[3]}", text)


def main() -> None:
    """Fill every page, or report which is out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    known, stale = dict(commands()), []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text("utf-8")
        new = fill_lists(text, known)
        if new != text:
            stale.append(page.name)
            if not check:
                page.write_text(new, "utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python scripts/options.py")


if __name__ == "__main__":
    main()
