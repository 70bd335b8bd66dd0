"""The command `alwa-d2`: its subcommands, its errors and its exit status."""

import argparse
import importlib
import os
import signal
import sys
import traceback
from types import ModuleType

import shtab

from .. import __version__
from ..errors import UserError, explain, pip_install
from .quiet import leave_output, silence

# In the order of the help.
COMMANDS = (
    "train",
    "check-data",
    "demo",
    "plot",
    "show",
    "compare",
    "diagnose",
    "sweep",
    "box-shift",
    "env",
)
DESCRIPTION = "Train detectors with balanced losses, and see what came out."
EPILOG = """\
`alwa-d2 COMMAND --help` has the rest.

exit status:
  0      all went well
  1      what was asked for was begun and failed, such as a training
  2      a mistake in the arguments, a config or a file, told in one line
  128+N  ended by signal N
"""
TRACEBACK = "print where in the code a mistake was noticed, not only what it is"
OURS = __package__.partition(".")[0]
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage."""

    def error(self, message):
        message = message.removeprefix("argument ")
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def load(command: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f".{command.replace('-', '_')}", __package__)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="alwa-d2",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"alwa-d2 {__version__}")
    shtab.add_argument_to(parser, help="print a script that completes this command in a shell")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = load(name)
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        command.add_argument("--traceback", action="store_true", help=TRACEBACK)
        module.add_arguments(command)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command, whose mistakes are told in one line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 0
    try:
        return load(args.command).run(args)
    except KeyboardInterrupt:
        print(f"alwa-d2 {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        message = missing_package(error) or broken_package(error)
        if message is None and not isinstance(error, UserError | OSError):
            raise
        if args.traceback:
            traceback.print_exc()
        print(f"alwa-d2 {args.command}: {message or explain(error)}", file=sys.stderr)
        return error.status if isinstance(error, UserError) else 2


def missing_package(error: Exception) -> str | None:
    """What to do where a package is not installed; None for other errors."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = (error.name or "").partition(".")[0]
    if name == "detectron2":
        return "Detectron2 is not installed; README.md says how it is"
    return f"the package {name} is not installed; {pip_install(name)}"


def broken_package(error: Exception) -> str | None:
    """Which package could not be imported, and why; None for an error that came later."""
    places = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = [p.f_globals["__name__"] for p in places if p.f_code.co_name == "<module>"]
    packages = [name.partition(".")[0] for name in modules]
    others = [name for name in packages if name not in ("__main__", OURS)]
    if not others:
        return None
    name = {"detectron2": "Detectron2"}.get(others[-1], f"the package {others[-1]}")
    return f"{name} is installed, but cannot be imported ({explain(error)}); install it anew"


def spin_briefly() -> None:
    """Has OpenMP's threads wait asleep after a short while, if the user has not said how they wait.

    GCC's, which PyTorch's wheels bring, else keep their cores busy: beside other work training
    takes twice as long, and alone it is not faster (docs/faq.md). Read when PyTorch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def run_command(arguments: list[str] | None = None) -> int:
    """:func:`main` for a process of its own: others' warnings are left out, and what reads its
    output may go, as `head` does."""
    spin_briefly()
    silence()
    # A file's name may hold bytes that are no text: they are shown as \udce9, as on stderr.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        leave_output()
        return 128 + signal.SIGPIPE
