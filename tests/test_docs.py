"""The pages of docs/: their links, their examples, the list of config keys, and the site."""

import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import BOX_KINDS, REPO

from alwa_d2 import layers

DOCS = REPO / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [REPO / "README.md", REPO / "CONTRIBUTING.md", *PAGES]
# Op or class of alwa_d2.layers -> its page; the box losses have one for each kind.
LOSS_PAGES = {
    "dense_focal_loss": "focal_loss",
    "label_anchors": "label_anchors",
    "loss_scales": "loss_scales",
    "LossStats": "loss_stats",
} | {kind: kind for kind in BOX_KINDS}
# What each of these pages says something about.
PARTS = ("Gradient.", "hapes", "At the edges.", "Cost", "Origin.")


def name_of(page):
    return page.relative_to(REPO).with_suffix("").as_posix()


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(page):
    """Of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_sites_contents():
    contents = "".join(
        re.findall(r"```{toctree}(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    )
    entries = re.findall(r"^(?:.* <)?([\w/]+)>?$", contents, re.MULTILINE)
    pages = [page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES]
    assert sorted([*entries, "index"]) == sorted(pages)


@pytest.mark.parametrize("name", LOSS_PAGES)
def test_every_loss_has_a_page(name):
    assert name in layers.BOX_LOSS_KINDS or hasattr(layers, name)
    text = (DOCS / "losses" / f"{LOSS_PAGES[name]}.md").read_text(encoding="utf-8")
    for part in PARTS:
        assert f"{part}" in text, part
    for source in re.findall(r"`(csrc/[\w/.]+)`", text):
        assert (REPO / source).exists(), source


@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=name_of)
def test_examples_give_what_they_say(page):
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_python_examples_are_python(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        compile(code, str(page), "exec")


def test_the_example_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["logits"].grad.abs().sum() > 0 and names["deltas"].grad.abs().sum() > 0


def test_the_training_loops_of_the_method_run():
    """docs/method.md: each of eight batches is an iteration, then four batches are one."""
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    plain, accumulating, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    layer = torch.nn.Linear(1, 2)
    names = {
        "model": lambda x: dict(zip(("loss_cls", "loss_box_reg"), layer(x).square())),
        "loader": torch.ones(8, 1),
        "optimizer": torch.optim.SGD(layer.parameters(), lr=0.1),
        "device": "cpu",
    }
    for code, iterations in ((plain, 8), (accumulating, 8 + 2)):
        before = layer.weight.clone()
        exec(compile(code, "method.md", "exec"), names)
        assert int(names["weighter"].slot) == iterations
        assert not torch.equal(layer.weight, before)


def test_the_example_of_the_weighters_runs():
    """docs/weighting.md."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "weighting.md").read_text(), re.DOTALL)
    names = {}
    exec(compile(code, "weighting.md", "exec"), names)
    assert names["weighted"] == names["losses"]  # weights are 1 in the first iteration


@pytest.mark.parametrize("page, runs", [("experiments", 10), ("weighting", 12)])
def test_the_sweep_that_a_page_shows(page, runs, tmp_path, monkeypatch):
    """1:1 and ALWA with five seeds; three learning rates with two warm-ups."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    from alwa_d2.sweep.plan import make_runs
    from alwa_d2.sweep.read import read_sweep

    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    example = re.search("```yaml\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_sweep.yaml").write_text(example.replace("mine.yaml", "retina_alwa.yaml"))
    assert len(make_runs(read_sweep(Path("my_sweep.yaml"), []))) == runs


@pytest.fixture(scope="module")
def config_keys():
    spec = importlib.util.spec_from_file_location("config_keys", DOCS / "_ext" / "config_keys.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["config_keys"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


def test_every_config_key_is_described(config_keys):
    detectron2 = pytest.importorskip("detectron2.config", reason="needs Detectron2")
    from alwa_d2.config import own_defaults

    keys = config_keys.read_keys()
    assert {key.name: key.default for key in keys} == own_defaults(detectron2.get_cfg())
    # These mean what they mean in MODEL.RETINANET, which their section's comment says.
    sections = {key.name.rpartition(".")[0] for key in keys if key.of_section}
    assert sections == {"MODEL.FCOS"}
    markdown = config_keys.to_markdown(keys)
    for key in keys:
        assert len(key.text) > 20, key.name
        assert f"`{key.name}`: `{key.default!r}`" in markdown


def test_a_key_has_its_own_comment_or_its_sections(config_keys):
    source = """
def add(cfg):
    # Of the section.
    cfg.A = type(cfg)()
    cfg.A.ONE = 1
    # Its own,
    # in two lines.
    cfg.A.TWO = "b"
"""
    keys = config_keys.read_keys(source)
    assert [(key.name, key.default, key.text) for key in keys] == [
        ("A.ONE", 1, "Of the section."),
        ("A.TWO", "b", "Its own, in two lines."),
    ]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason="needs requirements-docs.txt, which `make docs` installs")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
    ]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, cwd=REPO
    )
    assert done.returncode == 0, done.stderr
    assert "MODEL.ALWA.INTERVAL" in (tmp_path / "configuration.html").read_text(encoding="utf-8")
