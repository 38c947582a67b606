"""Check the pinned versions against the Python Packaging Advisory Database.

    python scripts/vulnerabilities.py

Needs `pip install '.[release]'` and a package index that serves the database. Exit code 0: every
version was checked and none has a known vulnerability. 1: vulnerabilities are listed. 3: some
versions could not be checked.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class AuditResult(NamedTuple):
    """Lines to print, and the exit code."""

    code: int
    lines: list[str]


def evaluate(output: str) -> AuditResult:
    """Interpret pip-audit's JSON, which reports packages that the database does not know as safe."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        packages = []
    lines = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"fixed in {' or '.join(vulnerability.get('fix_versions', ())) or 'no version'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    unknown = [package["name"] for package in packages if "vulns" not in package]
    if lines:
        return AuditResult(1, lines)
    if len(unknown) == len(packages):
        return AuditResult(3, ["the database of vulnerabilities is not reachable: nothing was checked"])
    if unknown:
        return AuditResult(3, [f"the database does not know: {', '.join(unknown)}"])
    return AuditResult(0, [f"{len(packages)} versions checked, no known vulnerability"])


def main() -> None:
    """Run pip-audit and print the result."""
    command = (
        *(sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")),
        # The file pins every version, so nothing has to be resolved or run.
        *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
    )
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    result = evaluate(process.stdout)
    print("\n".join(result.lines), file=sys.stderr if result.code else sys.stdout)
    sys.exit(result.code)


if __name__ == "__main__":
    main()
