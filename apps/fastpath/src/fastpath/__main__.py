"""The command `fastpath`."""

import sys

from fastpath.cli import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
