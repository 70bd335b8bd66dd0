"""Versions, and where things are."""

HELP = "print versions and where things are"
DESCRIPTION = "What a report of a problem should hold."


def add_arguments(parser):
    pass


def run(args) -> int:
    return 0
