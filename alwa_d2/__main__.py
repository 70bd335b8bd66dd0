"""`python -m alwa_d2`, the same as `alwa-d2`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
