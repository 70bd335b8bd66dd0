"""`python -m alwa_d2`, the same as `alwa-d2`."""

import sys

from .cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command())
