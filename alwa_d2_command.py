"""The command `alwa-d2`. Imported before the package, this tells it so: see alwa_d2/__init__.py."""

from alwa_d2.cli.main import run_command

__all__ = ["run_command"]
