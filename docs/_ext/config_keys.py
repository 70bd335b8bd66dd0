"""The page of all config keys, from the comments in alwa_d2/config.py.

A key's text is the comment above the line that sets it. Where there is none, or one line sets a
whole section, it is the comment of the section.
"""

import ast
import inspect
import re
from dataclasses import dataclass

from alwa_d2 import config

SECTION = "MODEL.LOSS_WEIGHTER"  # what `keys` stands for in config.py


@dataclass(frozen=True)
class Key:
    name: str  # with dots
    default: object
    text: str
    of_section: bool = False  # the text says nothing of the key alone


def read_keys(source: str | None = None) -> list[Key]:
    """All keys that `add_alwa_config` adds, in the order of the file."""
    source = inspect.getsource(config) if source is None else source
    lines, found, section_texts = source.splitlines(), [], {}
    for node in sorted(ast.walk(ast.parse(source)), key=lambda node: getattr(node, "lineno", 0)):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        owner, _, name = ast.unparse(node.targets[0]).partition(".")
        if owner not in ("cfg", "keys"):
            continue
        name = f"{SECTION}.{name}" if owner == "keys" else name
        text = comment_above(lines, node.lineno)
        if isinstance(node.value, ast.Call):
            section_texts[name] = text
            inner = ast.literal_eval(node.value.args[0]) if node.value.args else {}
            found += [Key(f"{name}.{key}", value, text) for key, value in inner.items()]
        else:
            of_section = "" if text else section_texts.get(name.rpartition(".")[0], "")
            value = ast.literal_eval(node.value)
            found.append(Key(name, value, text or of_section, bool(of_section)))
    return found


def comment_above(lines: list[str], lineno: int) -> str:
    """The comment that ends on the line before `lineno`, counted from 1, as one paragraph."""
    words = []
    for line in reversed(lines[: lineno - 1]):
        if not line.strip().startswith("#"):
            break
        words.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(words)


def to_markdown(keys: list[Key]) -> str:
    """A heading for each section; its keys that share a text stand above it together."""
    sections: dict[str, dict[str, list[Key]]] = {}
    for key in keys:
        section = sections.setdefault(key.name.rpartition(".")[0] or "At the top", {})
        section.setdefault(key.text, []).append(key)
    lines = []
    for name, texts in sections.items():
        lines += [f"## {name}", ""]
        for text, same in texts.items():
            lines += ["\\\n".join(f"`{key.name}`: `{key.default!r}`" for key in same), ""]
            lines += [f"> {escape(text)}", ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """A comment as Markdown that says the same; what is in backticks stays code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def setup(app):
    """Adds the directive; Sphinx is not needed for the rest, which the tests read."""
    from sphinx.util.docutils import SphinxDirective

    class ConfigKeys(SphinxDirective):
        def run(self):
            self.env.note_dependency(inspect.getsourcefile(config))
            return self.parse_text_to_nodes(to_markdown(read_keys()), allow_section_headings=True)

    app.add_directive("config-keys", ConfigKeys)
    return {"parallel_read_safe": True}
