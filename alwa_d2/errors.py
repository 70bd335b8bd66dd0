"""The error of a command or a file that its user can put right."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

# Where a package is not called like what is imported.
PYPI_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python-headless"}


class UserError(ValueError):
    """A mistake on the command line or an unusable file; its message is one sentence."""

    status = 2  # with which a command ends


class RunError(UserError):
    """A file that turned out to be unusable in the middle of a run."""

    status = 1  # what was asked for had begun


@contextlib.contextmanager
def user_errors(where: str = "") -> Iterator[None]:
    """
    What is raised inside leaves as a :class:`UserError`: for steps in which others' code complains
    about what a user has given, by errors of any type.

    Args:
        where: what the message begins with, such as a config key; said once
    """
    try:
        yield
    except Exception as error:
        line = explain(error)
        if isinstance(error, UserError) and line.startswith(where):
            raise
        raise UserError(line if line.startswith(where) else f"{where}: {line}") from error


def explain(error: Exception) -> str:
    """
    What an error says, on one line. Where the words may not do alone its type comes first, and the
    line of code that raised it last, so that a bare assertion tells what it asserts.
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    # str() of a KeyError is the repr of what it says.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(text).split())
    if isinstance(error, UserError):
        return line
    says_enough = (
        isinstance(error, ValueError | OSError | AssertionError | KeyError) and " " in line
    )
    if says_enough:
        return line
    named = f"{type(error).__name__}: {line}".rstrip(": ")
    return named if " " in line else f"{named}{_place(error)}"


def _place(error: Exception) -> str:
    """The line of code that raised an error; "" for one that was never raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f" ({Path(last.filename).name}, line {last.lineno}: {last.line})"


def pip_install(module: str) -> str:
    """The command that installs the package of a module that could not be imported."""
    name = module.partition(".")[0]
    return f"pip install {PYPI_NAMES.get(name, name)}"
