"""Hook of mkdocs that inserts the Python reference at the markers of a page.

A page holds `<!-- api: load Stream+ … -->`, which a code host does not show. The site shows the
docstrings of these names of `tonewood` there; a plus includes inherited members.
"""

import re
from typing import Any

_MARKER = re.compile(r"<!-- api: ([\w+ ]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401
    """Return a page with mkdocstrings' directives instead of its markers."""
    return _MARKER.sub(lambda match: "\n\n".join(map(_directive, match[1].split())), markdown)


def _directive(name: str) -> str:
    inherited = "\n    options: {inherited_members: true}" if name.endswith("+") else ""
    return f"::: tonewood.{name.removesuffix('+')}{inherited}"
