"""Prose of documentation, help texts and error messages: short sentences, no rejected idioms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tonewood import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LONGEST_SENTENCE = 30  # words

# Idioms that a reader whose third language is English has to decode.
REJECTED = [
    r"\btells? of\b",
    r"\btold\b",
    r"\b(?:be|is|are|was|were|been) had\b",
    r"\b(?:goes|go|went|going) by\b",
    r"\b(?:is|are|was|were) gone\b",
    r"\b(?:becomes?|became) of\b",
    r"\b(?:whence|wherefore|whereof|wherein|whither|thereof|therein|hitherto|henceforth)\b",
    r"\b(?:that|those) which\b",
    r"\b(?:upon|anew|lest|shall|naught|aught|nought)\b",
    r"(?<!there )\b(?:is|are|was|were) no (?!longer|more|other|better|worse|less)",
    r"\b(?:stands?|stood) (?:in|on|here|there|beside|below|at)\b",
    r"\b(?:lies?|lay) (?:beside|here|there|under)\b",
    r"\b(?:is|are) (?:said|asked|wanted|questioned)\b",
    r"\bto be (?:had|found|heard|told|seen)\b",
    r"\b(?:do|does) without\b",
    r"\bwill do\b",
    r"\ball the same\b",
    r"\bat (?:length|hand)\b",
    r"\bin force\b",
    r"\bfor (?:want|lack) of\b",
    r"\bcannot both\b",
    r"\b(?:is|are|was) not there\b",
    r"\bthat (?:is|are) there\b",
    r"\bbelieved\b",
    r"\b(?:object|minutes|takes|recordings) a (?:line|side)\b",
    r", for (?:it|they|its|there|nothing|no|that|only)\b",
    r"\bof (?:your|its|our|his) own\b",
    r"\bwhat (?:is|was) (?:promised|wrong with|known|left|lost|kept|there)\b",
    r"\b(?:let|lets) be\b",
    r"\ba thing\b",
    r"\bas it (?:stands|stood)\b",
    r"\bas many as\b",
    r"\bmay be had\b",
    r"\bput right\b",
    r"\bmade good\b",
    r"\bmend\b",
    r"\b(?:say|is|are) no more(?! than)\b",
    r"\bvery same\b",
    r"\band (?:their|its) like\b",
    r"\b(?:is|are) nobody\b",
    r"\b(?:if|when) not said\b",
    r"\bwhat (?:is random|moves|speaks|must hold)\b",
    r"\bleave one\b",
    r"\bthat there (?:is|are)\b",
    r"\b(?:is|are) of (?:another|one)\b",
    r"\bso many\b",
    r"\bas they come\b",
]
IDIOM = re.compile("|".join(REJECTED), re.IGNORECASE)


def prose(markdown: str) -> str:
    """Return Markdown without code, tables, generated blocks and link targets; lines are kept."""
    blank = lambda match: re.sub(r"[^\n]+", "", match[0])  # noqa: E731
    markdown = re.sub(r"^(```|~~~).*?^\1", blank, markdown, flags=re.MULTILINE | re.DOTALL)
    markdown = re.sub(r"<!-- [\w ]+: ?begin.*?: ?end -->", blank, markdown, flags=re.DOTALL)
    markdown = re.sub(r"^( {4}\S|\||!!!|---).*$", "", markdown, flags=re.MULTILINE)
    markdown = re.sub(r"`[^`\n]+`", "code", markdown)
    markdown = re.sub(r"<[^>]+>|\{ [^}]*\}", "", markdown)
    return re.sub(r"\]\([^)]*\)", "]", markdown)


def without_code(markdown: str) -> str:
    """Return Markdown without code and tables of options, which are help texts; lines are kept."""
    blank = lambda match: re.sub(r"[^\n]+", "", match[0])  # noqa: E731
    markdown = re.sub(r"^(```|~~~).*?^\1", blank, markdown, flags=re.MULTILINE | re.DOTALL)
    markdown = re.sub(r"<!-- options:begin.*?options:end", blank, markdown, flags=re.DOTALL)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)", "`code`", markdown)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield the sentences of a text with their lines; paragraphs and list items end one."""
    ends = r"\n\s*\n|\n\s*(?:[-*#>]+|\d+\.) |(?<=[.!?])[\"')*_\]]*\s+(?=\S)"
    start = 0
    for match in [*re.finditer(ends, text), None]:
        stop = match.start() if match else len(text)
        yield text[:start].count("\n") + 1, text[start:stop]
        start = match.end() if match else stop


def faults(text: str, without_tables: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield line and fault of a text: its idioms, and the sentences that are too long."""
    for match in IDIOM.finditer(text.replace("\n", " ")):
        yield text[: match.start()].count("\n") + 1, match[0].strip()
    for line, sentence in sentences(text if without_tables is None else without_tables):
        words = [word for word in sentence.split() if re.search(r"\w", word)]
        if len(words) > LONGEST_SENTENCE:
            yield line, f"{len(words)} words: {' '.join(words[:8])} …"


def help_texts(command: Any = None, path: str = "tonewood") -> Iterator[tuple[str, str]]:
    """Yield the help of every command and option of the command line, with its name."""
    command = command or get_command(cli.cli_app)
    yield path, command.help or ""
    for param in command.params:
        yield f"{path} {param.opts[0]}", getattr(param, "help", None) or ""
    for name, below in getattr(command, "commands", {}).items():
        yield from help_texts(below, f"{path} {name}")


def error_messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of the arguments of exceptions; a formatted value becomes one word."""
    for node in ast.walk(tree):
        calls: set[ast.AST] = set()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            calls.add(node.exc)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
            calls.add(node)
        for call in calls:
            formatted = [part for part in ast.walk(call) if isinstance(part, ast.JoinedStr)]
            inside = {id(part) for text in formatted for part in ast.walk(text)}
            for text in formatted:
                parts = [getattr(part, "value", "") for part in text.values]
                yield text.lineno, "".join(p if isinstance(p, str) else "…" for p in parts)
            for part in ast.walk(call):
                if isinstance(part, ast.Constant) and id(part) not in inside:
                    yield part.lineno, str(part.value)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_documentation_reads_as_plain_english(page: Path) -> None:
    text = page.read_text("utf-8")
    found = [f"{line}: {fault}" for line, fault in faults(without_code(text), prose(text))]
    assert found == []


def test_help_texts_read_as_plain_english() -> None:
    found = [f"{name}: {fault}" for name, text in help_texts() for _, fault in faults(text)]
    assert found == []


def test_error_messages_read_as_plain_english() -> None:
    found = set()
    for path in sorted((ROOT / "src" / "tonewood").rglob("*.py")):
        for line, text in error_messages(ast.parse(path.read_text("utf-8"))):
            found |= {f"{path.relative_to(ROOT)}:{line}: {fault}" for _, fault in faults(text)}
    assert sorted(found) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("This page tells of\nmodels.", "tells of"),
        ("A pair cannot be had.", "be had"),
        ("That is no audio file.", "is no"),
        ("word " * 31 + ".", "31 words"),
    ],
)
def test_linter_finds_what_it_rejects(text: str, fault: str) -> None:
    assert fault in " ".join(next(faults(text))[1].split())


def test_linter_leaves_plain_text_alone() -> None:
    text = "There is no table. It is no longer used.\n\n| " + "cell " * 40 + "|\n\n```sh\ntold\n```\n"
    assert list(faults(without_code(text), prose(text))) == []
