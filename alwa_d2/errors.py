"""The error of a command or a file that its user can put right."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake on the command line or an unusable file; its message is one sentence."""


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
    """What an error says, on one line; its type comes first where the words may not do alone."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    # str() of a KeyError is the repr of what it says.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(text).split())
    says_enough = (
        isinstance(error, ValueError | OSError | AssertionError | KeyError) and " " in line
    )
    return line if says_enough else f"{type(error).__name__}: {line}".rstrip(": ")
