"""Send generated requests, valid and invalid, to the studio and to listening tests.

    python campaigns/contract.py [--examples 500]

Requests come from the servers' OpenAPI documents. No answer may be a server error, and each must have a
declared status, media type and shape; otherwise the exit code is 1. `make test` runs a constant share.
"""

import argparse
import os
import sys
from pathlib import Path

import pytest

TESTS = ["tests/studio/test_openapi.py", "tests/listening/test_openapi.py"]


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=500, help="requests of each operation")
    options = parser.parse_args()
    os.environ["TONEWOOD_EXAMPLES"] = str(options.examples)
    os.chdir(Path(__file__).parents[1])
    return int(pytest.main(["-q", "-x", "-s", *TESTS, "-k", "match_openapi_document"]))


if __name__ == "__main__":
    sys.exit(main())
