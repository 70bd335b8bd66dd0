"""The files beside the code: versions that agree, forms that GitHub can read, names that are there."""

import ast
import re

import pytest
import yaml
from conftest import REPO

import alwa_d2

ANNOTATED = [REPO / "alwa_d2" / name for name in ("__init__.py", "config.py")]
ANNOTATED += [
    path for room in ("layers", "weighting") for path in REPO.glob(f"alwa_d2/{room}/*.py")
]


def pinned():
    """The lines of requirements-dev.txt."""
    lines = (REPO / "requirements-dev.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_pre_commit_has_the_versions_of_make_lint():
    (repo,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    used = {package for hook in repo["hooks"] for package in hook["additional_dependencies"]}
    assert used < pinned()
    assert {line.split("=")[0] for line in pinned() - used} == {"mypy"}  # it needs PyTorch
    extra = re.search(r"^dev = \[(.*)\]$", (REPO / "pyproject.toml").read_text(), re.M)[1]
    assert {line.split("=")[0] for line in pinned()} < set(re.findall(r'"([^"]+)"', extra))


def test_the_citation_is_of_this_version():
    content = yaml.safe_load((REPO / "CITATION.cff").read_text())
    project = (REPO / "pyproject.toml").read_text()
    assert content["version"] == alwa_d2.__version__
    for key, name in (("version", "version"), ("title", "name"), ("abstract", "description")):
        assert f'\n{name} = "{content[key]}"\n' in project
    (paper,) = content["references"]
    assert f'"{paper["title"]}"' in (REPO / "README.md").read_text()


@pytest.mark.parametrize("name", ["feature", "question"])
def test_an_issue_form_asks_for_something(name):
    form = yaml.safe_load((REPO / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert set(form) == {"name", "description", "labels", "body"}
    assert form["body"] and all(part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations") == {"required": True} for part in form["body"])
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["AGENTS.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_paths_in_it_are_there(name):
    text = (REPO / name).read_text()
    top = {path.name for path in REPO.iterdir()}
    paths = [path for path in re.findall(r"`([\w.-]+/[\w./-]*)", text) if path.split("/")[0] in top]
    assert paths or name == "SECURITY.md"
    for path in paths:
        # A name that ends in the middle, such as `csrc/losses/<kind>.h`, is a folder's.
        assert (REPO / path).exists() or path in ("csrc/losses/", "alwa_d2/cli/"), path


def test_the_guide_for_the_next_one_is_short():
    assert len((REPO / "AGENTS.md").read_text().splitlines()) <= 22


def test_type_checkers_see_the_parts_that_are_imported_when_asked_for():
    tree = ast.parse((REPO / "alwa_d2" / "__init__.py").read_text())
    (block,) = (
        x for x in tree.body if isinstance(x, ast.If) and ast.unparse(x.test) == "TYPE_CHECKING"
    )
    names = {alias.asname for node in block.body for alias in node.names}
    # The first is imported anyway, the second is no part for others.
    assert names == alwa_d2._PARTS - {"config", "detectron2_private"}


@pytest.mark.parametrize("path", ANNOTATED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_function_is_annotated(path):
    """As mypy has it, which the tests do not need."""
    tree = ast.parse(path.read_text())
    unseen = [
        x
        for x in ast.walk(tree)
        if isinstance(x, ast.If) and "TYPE_CHECKING" in ast.unparse(x.test)
    ]
    skipped = {id(node) for block in unseen for x in block.orelse for node in ast.walk(x)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or id(node) in skipped:
            continue
        given = node.args
        named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        bare = [x.arg for x in named if x and not x.annotation and x.arg not in ("self", "cls")]
        assert not bare, f"{node.name}: {', '.join(bare)}"
        assert node.returns, f"{node.name}: ->"
