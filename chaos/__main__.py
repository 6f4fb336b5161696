"""``python -m chaos``."""

import sys

from chaos.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
