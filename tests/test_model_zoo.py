"""The package's configs by name, and paths, which come first."""

import subprocess
import sys

import pytest
from conftest import REPO

from alwa_d2.errors import UserError
from alwa_d2.model_zoo import find_config, get_config_file, list_configs


def test_every_config_of_the_top_folder_has_its_name():
    files = (REPO / "configs").rglob("*.yaml")
    assert list_configs() == sorted(str(path.relative_to(REPO / "configs")) for path in files)
    lazy = sorted(f"lazy/{path.name}" for path in (REPO / "configs" / "lazy").iterdir())
    assert list_configs("lazy/*.py") == [name for name in lazy if name.endswith(".py")] != []
    for name in list_configs("lazy/*.py"):
        assert get_config_file(name) == str(REPO / "configs" / name)
    assert get_config_file("voc/retinanet_giou_R_50_FPN.yaml") == str(
        REPO / "configs" / "voc" / "retinanet_giou_R_50_FPN.yaml"
    )


@pytest.mark.parametrize("name", ["no.yaml", "retina_alwa", "voc", "../pyproject.toml", ""])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(UserError) as error:
        get_config_file(name)
    text = str(error.value)
    assert f"got {name}; names are: coco/faster_rcnn_R_50_FPN_1x.yaml, " in text
    assert " retina_alwa.yaml, " in text and "\n" not in text
    assert "Base-" not in text  # half a config


def test_lazy_configs_are_named_apart_and_not_for_the_command():
    with pytest.raises(UserError, match=r"got lazy/no.py; names are: lazy/fcos_alwa.py, "):
        get_config_file("lazy/no.py")
    for path in ("lazy/retinanet_alwa.py", str(REPO / "configs" / "lazy" / "retinanet_alwa.py")):
        with pytest.raises(UserError, match=r"^expected a YAML config, .* examples/train_lazy.py$"):
            find_config(path)


def test_a_path_that_exists_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = str(REPO / "configs" / "retina_alwa.yaml")
    assert find_config("retina_alwa.yaml") == package
    assert find_config("configs/retina_alwa.yaml") == package  # as the docs of a checkout have it
    (tmp_path / "retina_alwa.yaml").touch()
    assert find_config("retina_alwa.yaml") == "retina_alwa.yaml"
    assert find_config("https://example.org/a.yaml") == "https://example.org/a.yaml"


def test_a_config_by_name_has_what_its_base_says():
    pytest.importorskip("detectron2", reason="needs Detectron2")
    from alwa_d2.engine.defaults import merged_cfg

    path = get_config_file("voc/retinanet_giou_R_50_FPN.yaml")
    base = (REPO / "configs" / "voc" / "Base-RetinaNet-R_50_FPN.yaml").read_text()
    assert "voc_2007_test" in base and "voc_2007_test" not in open(path).read()
    assert merged_cfg(path).DATASETS.TEST == ("voc_2007_test",)


def test_installed_copies_have_the_configs(setup_py):
    """All folders of configs, as a part of the package, and the package's own."""
    from setuptools import find_packages

    given = setup_py.packages(find_packages)
    configs = {f"alwa_d2.configs{part}" for part in ("", ".coco", ".lazy", ".voc")}
    assert set(given["package_data"]) == {"alwa_d2", *configs}
    folders = {p.parent.relative_to(REPO).as_posix() for p in REPO.glob("alwa_d2/**/__init__.py")}
    assert set(given["packages"]) == configs | {folder.replace("/", ".") for folder in folders}
    assert given["package_dir"] == {"alwa_d2.configs": "configs"}
    assert given["py_modules"] == ["alwa_d2_command"] and (REPO / "alwa_d2_command.py").exists()


def test_a_build_copies_every_config_and_the_mark_of_annotations(setup_py, tmp_path, monkeypatch):
    from setuptools import Distribution, find_packages

    monkeypatch.chdir(REPO)
    settings = {"name": "alwa_d2", "script_name": "setup.py", **setup_py.packages(find_packages)}
    command = Distribution(settings).get_command_obj("build_py")
    command.build_lib = str(tmp_path)
    command.ensure_finalized()
    command.run()
    built = tmp_path / "alwa_d2"
    assert (built / "py.typed").exists()
    for path in (path for kind in ("yaml", "py") for path in REPO.glob(f"configs/**/*.{kind}")):
        assert (built / path.relative_to(REPO)).read_text() == path.read_text()


def test_an_installed_copy_finds_them_in_itself(tmp_path):
    """The layout of a wheel, copied by hand: no top folder beside the package."""
    package = tmp_path / "alwa_d2"
    (package / "configs").mkdir(parents=True)
    for name in ("__init__.py", "config.py", "errors.py", "model_zoo.py"):
        (package / name).write_text((REPO / "alwa_d2" / name).read_text())
    (package / "configs" / "own.yaml").touch()
    code = "import sys; sys.modules['alwa_d2_command'] = None; from alwa_d2 import model_zoo; "
    code += "print(model_zoo.list_configs(), model_zoo.get_config_file('own.yaml'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == f"['own.yaml'] {package / 'configs' / 'own.yaml'}\n", done.stderr
