#!/usr/bin/env python
"""Trains or evaluates a detector: `alwa-d2 train` for those who look for this file."""

import sys

from alwa_d2.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
