"""The commands and their options are in the documents, and what the documents tell to run, runs."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPO

from alwa_d2.cli.main import COMMANDS, make_parser

PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
# Why a block of commands is not run here: <!-- not run: REASON --> stands before it. "hours" is for
# what takes them; a file of tests is where the same commands are run.
REASONS = {"needs a GPU", "needs data", "needs a network", "hours", "changes the shell"}
BENCHMARKS = (
    REPO / "docs" / "kernels.md"
)  # whose commands take minutes; test_benchmarks.py has them
BLOCK = re.compile(r"(?:<!-- not run: (.*?) -->\n)?```bash\n(.*?)```", re.DOTALL)

# What makes a training of a page short; a page's own settings come first and these after them.
SHORT = "SOLVER.MAX_ITER 4 SOLVER.STEPS (3,) SOLVER.CHECKPOINT_PERIOD 4 SOLVER.IMS_PER_BATCH 2"
SHIM = """\
#!{python} -W ignore
import sys
from alwa_d2_command import run_command
if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(run_command(words + {short!r}.split() * (words[0] == "train")))
"""


@dataclass(frozen=True)
class Block:
    page: Path
    reason: str | None
    text: str

    def commands(self):
        """Words of each `alwa-d2 COMMAND ...`; shell variables have one of their values."""
        text = re.sub(r"(^|\s)#.*", r"\1", self.text.replace("\\\n", " "))  # without comments
        text = re.sub("'[^']*'", lambda quoted: quoted[0].replace("\n", " "), text)
        text = text.replace("${LOSS}", "giou").replace("${MODEL}", "retinanet")
        for line in text.splitlines():
            words = shlex.split(line) if "alwa" in line else []
            places = [i for i, word in enumerate(words) if word in ("alwa-d2", "alwa_d2")]
            if places and not words[places[0] + 1].startswith("--"):
                end = words.index(">") if ">" in words else len(words)
                yield words[places[0] + 1 : end]


BLOCKS = [
    Block(page, reason or None, text)
    for page in PAGES
    for reason, text in BLOCK.findall(page.read_text(encoding="utf-8"))
]
RUN_PAGES = sorted({block.page for block in BLOCKS if not block.reason} - {BENCHMARKS})


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
    text = "".join(page.read_text(encoding="utf-8") for page in [*PAGES, REPO / "Makefile"])
    assert f"alwa-d2 {name}" in text
    for option in commands[name]._option_string_actions:
        assert option in text or option in ("-h", "--help"), option


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.page.stem)
def test_commands_can_be_given(block):
    """Options are known, and settings are keys and values that a config takes."""
    defaults = pytest.importorskip("alwa_d2.engine.defaults", reason="needs Detectron2")
    for words in block.commands():
        if "--config-file" in words:
            place = words.index("--config-file") + 1
            if not words[place].startswith(("voc/", "coco/", "faster_rcnn")):
                words[place] = "retina_alwa.yaml"  # or a file of the user's
        args = make_parser().parse_args(words)
        if getattr(args, "config_file", None):
            defaults.merged_cfg(args.config_file, args.opts)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.reason], ids=lambda b: b.page.stem)
def test_what_is_not_run_has_a_reason(block):
    is_test = block.reason.startswith("tests/") and (REPO / block.reason).is_file()
    assert is_test or block.reason in REASONS, block.reason


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Where the embedded pictures are drawn, once for all pages."""
    return str(tmp_path_factory.mktemp("datasets"))


@pytest.mark.long  # a short training for each that a page begins
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.stem)
def test_pages_run(page, tmp_path, datasets):
    """A page's commands, one after the other in one folder, as they stand but for SHORT."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    shim = tmp_path / "bin" / "alwa-d2"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable, short=SHORT))
    shim.chmod(0o755)
    for name in ("configs", "docs", "sweeps"):
        (tmp_path / name).symlink_to(REPO / name)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    env["DETECTRON2_DATASETS"] = datasets
    for block in BLOCKS:
        if block.page == page and not block.reason:
            done = subprocess.run(
                ["bash", "-e", "-c", block.text], cwd=tmp_path, env=env, capture_output=True,
                text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
