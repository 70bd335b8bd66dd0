"""Trains or evaluates a detector: Detectron2's command line, with alwa_d2's models and data."""

from .options import add_config_arguments

HELP = "train a detector, or evaluate one"
DESCRIPTION = """
Detectron2's train_net.py with this package's models, losses and data sets.
"""


def add_arguments(parser):
    add_config_arguments(parser)


def run(args) -> int:
    return 0
