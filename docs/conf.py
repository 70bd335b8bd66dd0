"""Settings of the site that `make docs` makes of this folder."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

from alwa_d2 import __version__  # noqa: E402 (found by the line above)

project = "alwa_d2"
author = copyright = "the alwa_d2 authors"
release = version = __version__
html_title = f"alwa_d2 {__version__}"
html_theme = "furo"

# Markdown pages; the API from docstrings, with their "Args:" and "Returns:"; the config keys.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "config_keys"]
exclude_patterns = ["_ext"]
myst_heading_anchors = 4  # as GitHub makes them
napoleon_include_init_with_doc = True
smartquotes = False  # names of settings are quoted
default_role = "literal"  # `name` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they are in the signature

# A link that leads nowhere is a warning, and `make docs` takes warnings for errors. Docstrings name
# Detectron2's functions and types too, which are no pages here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]

# `make docs-links` alone asks these.
linkcheck_timeout = 20
linkcheck_anchors = False
linkcheck_ignore = [r"https://$"]  # of a docstring


def list_returns(app, what, name, obj, options, lines):
    """Several lines of the form "name: text" under "Returns:" become a list."""
    if "Returns:" not in lines:
        return
    start = lines.index("Returns:") + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith(" ")), len(lines))
    named = [i for i in range(start, end) if re.match(r"    \w+: ", lines[i])]
    if len(named) > 1:
        items = [("    * " if i in named else "      ") + lines[i][4:] for i in range(start, end)]
        lines[start:end] = ["    tuple:", "", *items]


def setup(app):
    app.connect("autodoc-process-docstring", list_returns, priority=400)  # before napoleon, 500
