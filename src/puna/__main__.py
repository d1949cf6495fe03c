"""`python -m puna` is `puna`."""

from __future__ import annotations

from puna.cli import main

if __name__ == "__main__":
    main()
