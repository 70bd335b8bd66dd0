"""Every command and each of its options is in the documents."""

import argparse

import pytest
from conftest import REPO

from alwa_d2.cli.main import COMMANDS, make_parser


@pytest.fixture(scope="module")
def commands():
    """Name -> parser."""
    (subparsers,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return subparsers.choices


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name, commands):
    pages = [REPO / "README.md", REPO / "Makefile", *(REPO / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert f"alwa-d2 {name}" in text
    for option in commands[name]._option_string_actions:
        assert option in text or option in ("-h", "--help"), option
