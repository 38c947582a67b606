"""`python -m tonewood` is the command `tonewood`."""

from tonewood.cli import main

if __name__ == "__main__":
    main()
