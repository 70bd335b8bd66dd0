"""The command `alwa-d2`: its subcommands, its errors and its exit status."""

import argparse
import importlib
import sys

from ..errors import UserError

# In the order of the help.
COMMANDS = (
    "train",
    "demo",
    "plot",
    "show",
    "compare",
    "diagnose",
    "sweep",
    "box-shift",
    "env",
)
EPILOG = """
exit status: 0 all went well; 1 what was asked for was done and failed, such as a run of a sweep;
2 a mistake in the arguments, a config or a file, said in one line; 128 + N ended by signal N
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alwa-d2", description="Train detectors with balanced losses.", epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    args = make_parser().parse_args(arguments)
    try:
        return args.run(args)
    except (UserError, OSError) as error:
        print(f"alwa-d2 {args.command}:", *str(error).split(), file=sys.stderr)  # on one line
        return 2
