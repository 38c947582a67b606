"""Prose of documentation, help texts and messages: short sentences, no rejected idioms."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tonewood import cli

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "benchmarks/*.md", "campaigns/*.md", "docs/**/*.md", "docs/**/*.ipynb")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
SOURCES = sorted((ROOT / "src" / "tonewood").rglob("*.py"))
LONGEST_SENTENCE = 30  # words

# Idioms that a reader whose third language is English has to decode.
IDIOM = re.compile(
    r"""\b(?:
    tells?\ of | told | (?:be|is|are|was|were|been)\ had | (?:goes|go|went|going)\ by
    | (?:is|are|was|were)\ gone | (?:becomes?|became)\ of | (?:that|those)\ which | a\ thing | lets?\ be
    | whence | wherefore | whereof | wherein | whither | thereof | therein | hitherto | henceforth
    | upon | anew | lest | shall | naught | aught | nought | believed | mend | very\ same | so\ many
    | (?:stands?|stood)\ (?:in|on|here|there|beside|below|at) | (?:lies?|lay)\ (?:beside|here|there|under)
    | (?:is|are)\ (?:said|asked|wanted|questioned|nobody) | (?:is|are)\ of\ (?:another|one)
    | (?:is|are|was)\ not\ there | that\ (?:is|are)\ there | that\ there\ (?:is|are)
    | to\ be\ (?:had|found|heard|told|seen) | may\ be\ had | (?:do|does)\ without | will\ do | in\ force
    | all\ the\ same | at\ (?:length|hand) | for\ (?:want|lack)\ of | cannot\ both | put\ right | made\ good
    | (?:object|minutes|takes|recordings)\ a\ (?:line|side) | of\ (?:your|its|our|his)\ own
    | what\ (?:is|was)\ (?:promised|wrong\ with|known|left|lost|kept|there|random)
    | what\ (?:moves|speaks|must\ hold) | as\ it\ (?:stands|stood) | as\ many\ as | as\ they\ come
    | (?:say|is|are)\ no\ more(?!\ than) | and\ (?:their|its)\ like | (?:if|when)\ not\ said | leave\ one
    )\b | ,\ for\ (?:it|they|its|there|nothing|no|that|only)\b
    | (?<!there\ )\b(?:is|are|was|were)\ no\ (?!longer|more|other|better|worse|less)""",
    re.IGNORECASE | re.VERBOSE,
)
SENTENCE_END = re.compile(r"\n\s*\n|\n\s*(?:[-*#>]+|\d+\.) |\||(?<=[.!?])[\"')*_\]]*\s+(?=\S)")
# Fenced and indented code, front matter; HTML and attributes; targets of links.
NOT_PROSE = re.compile(
    r"^(```|~~~).*?^\1|^(?: {4}\S|!!!|---).*?$|<!--.*?-->|</?\w[^>]*>|\{ [^}]*\}|(?<=\])\([^)]*\)",
    re.MULTILINE | re.DOTALL,
)


def read_page(path: Path) -> str:
    """Return the Markdown of a page or of a notebook."""
    text = path.read_text("utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def prose(markdown: str) -> str:
    """Return Markdown without code, HTML and link targets; a name in code counts as one word."""
    return re.sub(r"`[^`\n]+`", "code", NOT_PROSE.sub("", markdown))


def faults(text: str) -> Iterator[str]:
    """Yield idioms, with some words around them, and beginnings of sentences that are too long."""
    line = re.sub(r"\s", " ", text)
    for match in IDIOM.finditer(line):
        yield f"idiom: … {line[max(0, match.start() - 20) : match.end() + 20].strip()} …"
    for sentence in SENTENCE_END.split(text):
        words = [word for word in sentence.split() if re.search(r"\w", word)]
        if len(words) > LONGEST_SENTENCE:
            yield f"{len(words)} words: {' '.join(words[:8])} …"


def help_texts(command: Any = None, path: str = "tonewood") -> Iterator[tuple[str, str]]:
    """Yield the help of every command and option of the command line, with its name."""
    command = command or get_command(cli.cli_app)
    yield path, command.help or ""
    for param in command.params:
        yield f"{path} {param.opts[0]}", getattr(param, "help", None) or ""
    for name, below in getattr(command, "commands", {}).items():
        yield f"{path} {name}", below.get_short_help_str(1_000)
        yield from help_texts(below.load() if isinstance(below, cli.LazyCommand) else below, f"{path} {name}")


class _FillIn(ast.NodeTransformer):
    """Make each formatted string a constant, with one word for every value."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return ast.copy_location(ast.Constant("".join(map(str, parts))), node)


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string of several words, except docstrings, SQL and CSS."""
    tree = _FillIn().visit(ast.parse(source))
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node in docstrings:
            continue
        text = node.value
        if isinstance(text, str) and " " in text and not re.search(r"[{};]\s*$", text, re.MULTILINE):
            yield node.lineno, text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_documentation_reads_as_plain_english(page: Path) -> None:
    assert list(faults(prose(read_page(page)))) == []


def test_help_texts_read_as_plain_english() -> None:
    assert [(name, fault) for name, text in help_texts() for fault in faults(text)] == []


def test_messages_read_as_plain_english() -> None:
    found = []
    for path in SOURCES:
        for line, text in messages(path.read_text("utf-8")):
            # Recipes store this reason, and keep their bytes.
            found += [(path.name, line, fault) for fault in faults(text.replace("99 % of its own", ""))]
    assert found == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("This page tells of\nmodels.", "tells of"),
        ("A pair cannot be had.", "be had"),
        ("That is no audio file.", "is no"),
        ("| cell | takes a line |", "takes a line"),
        ("word " * 31 + ".", "31 words"),
        ("| " + "word " * 31 + "|", "31 words"),
    ],
)
def test_linter_finds_what_it_rejects(text: str, fault: str) -> None:
    assert fault in next(faults(prose(text)))


def test_linter_finds_messages_in_exceptions_and_printed_text() -> None:
    source = 'raise Error(f"{path} is " "gone")\nprint(f"{a} told apart {b}")\ndef f():\n    """Told."""\n'
    assert [fault for _, text in messages(source) for fault in faults(text)] == [
        "idiom: … … is gone …",
        "idiom: … … told apart … …",
    ]


def test_linter_leaves_plain_text_alone() -> None:
    text = "There is no table. It is no longer used.\n\n| " + "cell | " * 40 + "\n\n```sh\ntold\n```\n"
    assert list(faults(prose(text))) == []
