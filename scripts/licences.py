"""Say under which licence each package comes that Tonewood needs or may need.

    python scripts/licences.py [--every-extra]

Looks at what is installed here: Tonewood's own needs, those of its extras, and theirs in turn. Exit
code 1 if a licence is not on the list below, or, with --every-extra, if anything is not installed.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import NamedTuple

from packaging.requirements import Requirement

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",  # binds whoever changes its files; nobody does here
    "PSF-2.0",
    "Unlicense",
    "Zlib",
}
EXCEPTIONS = {
    "docutils": (
        "Public Domain AND BSD-3-Clause AND GNU General Public License (GPL)",
        "under the GPL is a mode for Emacs, which its wheel does not hold; for releases alone",
    ),
    "soxr": ("LGPL-2.1-or-later", "called as a package of its own, replaceable; named in NOTICE"),
}
"""By name: the licence, and why it is accepted from this package alone."""
OLD_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""Classifiers and free words of before SPDX; what says BSD alone may be of two or three clauses."""


class Licensed(NamedTuple):
    """A package and its licence, as an SPDX expression or as the package's own words."""

    name: str
    version: str
    licence: str


def plain(name: str) -> str:
    """Return the one spelling that an index knows a package by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stated(package: Distribution) -> str:
    """Return the licence that a package states, by the newest of the three ways it may."""
    about = package.metadata
    for expression in about.get_all("License-Expression") or []:
        return str(expression)
    classified = [
        it.rpartition(" :: ")[2]
        for it in about.get_all("Classifier") or []
        if it.startswith("License :: ") and it != "License :: OSI Approved"
    ]
    # The field may hold a whole licence, whose first line names it.
    words = classified or [it.strip().splitlines()[0] for it in about.get_all("License") or [] if it.strip()]
    return " AND ".join(OLD_NAMES.get(it, it) for it in words) or "nothing stated"


def allowed(licence: str) -> bool:
    """Tell whether an expression can be met by what is on the list; brackets are not read."""
    return any(all(term in ALLOWED for term in choice.split(" AND ")) for choice in licence.split(" OR "))


def faults(packages: Iterable[Licensed]) -> list[str]:
    """Name what is neither on the list nor an exception."""
    return [
        f"{it.name} {it.version}: {it.licence} is not on the list of scripts/licences.py"
        for it in packages
        if not allowed(it.licence) and EXCEPTIONS.get(plain(it.name), ("",))[0] != it.licence
    ]


def needed(name: str, extras: Iterable[str], missing: set[str]) -> Iterator[Licensed]:
    """Walk over all that a package needs here; what is not installed is added to `missing`."""
    waiting = [(name, it) for it in ("", *extras)]
    seen: set[tuple[str, str]] = set()
    told: set[str] = {plain(name)}
    while waiting:
        name, extra = waiting.pop()
        if (plain(name), extra) in seen:
            continue
        seen.add((plain(name), extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            missing.add(plain(name))
            continue
        if plain(name) not in told:
            told.add(plain(name))
            yield Licensed(package.name, package.version, stated(package))
        for line in package.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need.name, it) for it in ("", *need.extras)]


def main() -> None:
    """List, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--every-extra", action="store_true", help="nothing may be missing")
    every = parser.parse_args().every_extra
    missing: set[str] = set()
    extras = distribution("tonewood").metadata.get_all("Provides-Extra") or []
    packages = sorted(needed("tonewood", extras, missing), key=lambda it: plain(it.name))
    for it in packages:
        print(f"{it.name} {it.version}: {it.licence}")
    for name in sorted(missing):
        print(f"{name} is not installed: its licence is not known", file=sys.stderr)
    found = faults(packages)
    if found:
        sys.exit("\n".join(found))
    sys.exit(bool(missing and every))


if __name__ == "__main__":
    main()
