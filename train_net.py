#!/usr/bin/env python
"""Trains or evaluates a detector: `alwa-d2 train` for those who look for this file."""

import sys

from alwa_d2_command import run_command

if __name__ == "__main__":
    sys.exit(run_command(["train", *sys.argv[1:]]))
