"""A corpus's results → a table as text or Markdown, JSON, and a figure."""

import json
import re
from pathlib import Path

from matplotlib.figure import Figure

from quality.measure import COLUMNS, summary

_BEGIN, _END = "<!-- quality:begin -->", "<!-- quality:end -->"
_COMMAND = "Made by `benchmarks/quality.py`; do not edit between the markers."


def cells(result: dict) -> list[list[str]]:
    """Head line and one line for each row, as text."""
    head = ["", *(f"{c.head}, {c.unit}" if c.unit else c.head for c in COLUMNS.values())]
    lines = [head]
    for row in result["rows"].values():
        if "skipped" in row:
            lines.append([row["title"], f"skipped: {row['skipped']}"])
            continue
        table = summary(row["seeds"])
        several = len(row["seeds"]) > 1
        lines.append(
            [row["title"], *(_cell(c.decimals, *table[n], several) for n, c in COLUMNS.items())]
        )
    return lines


def text(result: dict) -> str:
    """Table for a terminal."""
    lines = cells(result)
    whole = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(line[i]) for line in whole) for i in range(len(lines[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    drawn = [
        line[0].ljust(widths[0])
        + "  "
        + "  ".join(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=False))
        for line in lines
    ]
    drawn.insert(1, "─" * len(drawn[0]))
    return "\n".join([result["corpus"], head_line(result), "", *drawn])


def markdown(result: dict, figure: str | None = None) -> str:
    """Section of a page: heading, circumstances, table, picture."""
    lines = cells(result)
    width = len(lines[0])
    drawn = ["| " + " | ".join([*line, *[""] * (width - len(line))]) + " |" for line in lines]
    drawn.insert(1, "|" + "---|" + "---:|" * (width - 1))
    picture = [f"![Share of the distance closed on {result['corpus']}]({figure})", ""]
    return "\n".join(
        [f"### {result['corpus']}", "", head_line(result), "", *(picture if figure else []), *drawn]
    )


def head_line(result: dict) -> str:
    """Circumstances of a run in a few lines."""
    m, accuracies = result["machine"], result["accuracy"].values()
    scorer, outside = ([a[name] for a in accuracies] for name in ("scorer", "outside"))
    limits = "".join(f", {word}" for word in [*["quick"] * result["quick"], *result["set"]])
    seeds = [str(seed) for seed in result["seeds"]]
    spread = f" ± standard deviation over seeds {', '.join(seeds)}" if len(seeds) > 1 else ""
    return (
        f"{result['date']}, {m['cpu']}, one core of {m['cores']}, Python {m['python']}, "
        f"torch {m['torch']}, Tonewood {m['tonewood']}{limits}. "
        f"Mean over {result['pieces']} pieces{spread or ', seed ' + seeds[0]}. "
        f"On takes that they did not learn from, the scorer is right in {_percent(scorer)} and "
        f"the outside judge in {_percent(outside)} of the windows."
    )


def legend() -> str:
    return "\n".join(f"- *{column.head}*: {column.meaning}" for column in COLUMNS.values())


def save(results: dict[str, dict], json_path: Path, page: Path | None, images: Path) -> None:
    """Write JSON, figures and, if wanted, the page's generated block.

    What the JSON already holds of other corpora stays, so that they may be run one by one.
    """
    known = json.loads(json_path.read_text()) if json_path.exists() else {}
    results = {**known, **results}
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(results, indent=1) + "\n")
    sections = [legend()]
    for name, result in results.items():
        path = images / f"quality-{name}.png"
        images.mkdir(parents=True, exist_ok=True)
        figure(result).savefig(path, dpi=120)
        parent = (page or json_path).parent
        sections.append(markdown(result, path.relative_to(parent).as_posix()))
    if page:
        block = "\n\n".join([_BEGIN, _COMMAND, *sections, _END])
        before = page.read_text() if page.exists() else f"# Quality\n\n{_BEGIN}\n{_END}\n"
        pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
        if not pattern.search(before):
            raise SystemExit(f"{page} has no {_BEGIN} … {_END} to fill: add the two lines")
        page.write_text(pattern.sub(lambda _: block, before))


def figure(result: dict) -> Figure:
    """How much each row closed, every seed a dot, and what three judges made of it."""
    rows = {n: r for n, r in result["rows"].items() if "seeds" in r and n != "reference"}
    tables = [summary(row["seeds"]) for row in rows.values()]
    places = range(len(rows), 0, -1)
    drawn = Figure(figsize=(10, 1.2 + 0.32 * len(rows)), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    colours = ["#b5532c" if name == "tonewood" else "#9aa5b1" for name in rows]
    left.barh(places, [table["closed"][0] for table in tables], color=colours)
    for place, row in zip(places, rows.values(), strict=True):
        values = [seed["closed"] for seed in row["seeds"]]
        left.plot(values, [place] * len(values), "k.", markersize=4)
    left.axvline(0, color="black", linewidth=0.8)
    worst = min(table["closed"][0] for table in tables)
    left.set(xlabel="closed, %", xlim=(max(worst * 1.1, -60.0) - 2, None))
    left.set_ylim(0.3, len(rows) + 0.7)
    left.set_yticks(list(places), [row["title"] for row in rows.values()])
    for name, marker in (("scorer", "o"), ("judge", "s"), ("outside", "^")):
        scores = [table[name][0] for table in tables]
        if None not in scores:
            right.plot(scores, places, marker, label=name, alpha=0.7)
    right.set(xlabel="score (0 = reference-like)", xlim=(-0.03, 1.03))
    right.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=3, frameon=False)
    right.grid(axis="y", alpha=0.3)
    drawn.suptitle(result["corpus"])
    return drawn


def _cell(decimals: int, mean: float | None, spread: float, several: bool) -> str:
    if mean is None:
        return "–"
    return f"{mean:.{decimals}f}" + (f" ± {spread:.{decimals}f}" if several else "")


def _percent(shares: list[float]) -> str:
    low, high = round(100 * min(shares)), round(100 * max(shares))
    return f"{low} %" if low == high else f"{low}–{high} %"
