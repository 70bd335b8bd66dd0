"""Versions, where things are, and what is known to break; says what is wrong where something is."""

from ..environment import facts
from ..known_problems import find_all

HELP = "print versions, where things are, and what is wrong"
DESCRIPTION = """
What a report of a problem should hold: versions, folders, what the compiled extension was built
for, the GPUs; and what is known to break, with its remedy. Works with a broken installation too.
The exit status is 1 where something is wrong.
"""


def add_arguments(parser):
    pass


def run(args) -> int:
    rows = list(facts())
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    found = find_all()
    for finding in found:
        print(f"\n{'wrong' if finding.wrong else 'note'}: {finding.text}")
        print(f"  remedy: {finding.remedy}")
    wrong = sum(finding.wrong for finding in found)
    print(f"\n{wrong} of the problems that are known {'is' if wrong == 1 else 'are'} here")
    return int(wrong > 0)
