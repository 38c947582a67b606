"""Requests by the thousand drawn from the servers' own OpenAPI documents, right and wrong ones.

    python campaigns/contract.py [--examples 500]

Every operation of the studio and of listening tests is asked so often. No answer may be a failure
of the server's own, and each must be of a status, media type and shape that is declared. The exit
code is 1 if one is not. `make test` runs a share of it, always the same.
"""

import argparse
import os
import sys
from pathlib import Path

import pytest

TESTS = [f"tests/{it}/test_contract.py" for it in ("studio", "listening")]


def main() -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=500, help="of each operation")
    asked = parser.parse_args()
    os.environ["TONEWOOD_EXAMPLES"] = str(asked.examples)
    os.chdir(Path(__file__).parents[1])
    return int(pytest.main(["-q", "-x", "-s", *TESTS, "-k", "openapi_document_is_kept_to"]))


if __name__ == "__main__":
    sys.exit(main())
