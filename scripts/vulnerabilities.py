"""Look up what constraints.txt pins in the Python Packaging Advisory Database.

    python scripts/vulnerabilities.py

Needs `pip install '.[release]'` and the package index's own interface, which holds the database.
Exit code 0: every version was looked up and none has a known vulnerability. 1: some has, and is
listed. 3: not every version could be looked up, so that nothing is known of the rest.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Answer(NamedTuple):
    """What is known, and the exit code that says so."""

    code: int
    lines: list[str]


def judge(told: str) -> Answer:
    """Read what pip-audit writes as JSON; it calls a package that it did not find unharmed."""
    try:
        found: list[dict[str, Any]] = json.loads(told)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        found = []
    lines = [
        f"{it['name']} {it['version']}: {fault['id']}, mended in {' or '.join(mended) or 'none'}"
        for it in found
        for fault in it.get("vulns", ())
        for mended in [fault.get("fix_versions", ())]
    ]
    unknown = [it["name"] for it in found if "vulns" not in it]
    if lines:
        return Answer(1, lines)
    if not found or len(unknown) == len(found):
        return Answer(3, ["the database of vulnerabilities cannot be reached: nothing was checked"])
    if unknown:
        return Answer(3, [f"the database does not know: {', '.join(unknown)}"])
    return Answer(0, [f"{len(found)} versions looked up, no known vulnerability"])


def main() -> None:
    """Ask and tell."""
    call = (
        *(sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")),
        # Every version is pinned there: nothing need be resolved, nor run.
        *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
    )
    ran = subprocess.run(call, capture_output=True, text=True, check=False)
    answer = judge(ran.stdout)
    print("\n".join(answer.lines), file=sys.stderr if answer.code else sys.stdout)
    sys.exit(answer.code)


if __name__ == "__main__":
    main()
