"""`python -m tonewood` is the command `tonewood`."""

from tonewood.cli import main

main()
