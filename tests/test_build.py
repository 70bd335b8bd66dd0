"""The build's decisions and words, without building, and the house rules of the build files."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPO

SWITCHES = (
    "FORCE_CUDA", "ALWA_D2_CPU_ONLY", "ALWA_D2_SANITIZE", "ALWA_D2_LOCAL_VERSION", "CUDA_HOME",
    "TORCH_CUDA_ARCH_LIST", "MAX_JOBS",
)  # fmt: skip
WITHOUT_TORCH = "sys.modules['torch'] = None"
PINNED = re.compile(
    r"[A-Za-z0-9_.-]+(\[[a-z]+\])?==[A-Za-z0-9_.]+(; python_version (<|>=) \"3\.\d+\")?"
)


def make_toolkit(folder, version=13000):
    """A folder that looks like a CUDA toolkit; `version` as in CUDART_VERSION."""
    for name in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(mode=0o755)
    header = f"/* runtime */\n#define CUDART_VERSION  {version}\n"
    (folder / "include" / "cuda_runtime_api.h").write_text(header)
    return folder


def run_setup(prelude="pass", command=("--version",), **switches):
    """A command of setup.py in a process of its own, after the Python line `prelude`."""
    code = f"import runpy, sys; {prelude}; sys.argv = {['setup.py', *command]}; "
    code += f"runpy.run_path({str(REPO / 'setup.py')!r}, run_name='__main__')"
    env = {name: value for name, value in os.environ.items() if name not in SWITCHES} | switches
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


# The command line


def test_missing_torch_is_one_message_that_says_what_to_install():
    result = run_setup(WITHOUT_TORCH)
    assert result.returncode == 1
    assert "no PyTorch" in result.stderr and sys.prefix in result.stderr
    assert "pip install torch" in result.stderr and "--no-build-isolation" in result.stderr
    assert "uv pip install --no-build-isolation" in result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("\n") <= 6


def test_switches_are_printed():
    result = run_setup(WITHOUT_TORCH, FORCE_CUDA="1", MAX_JOBS="3")
    assert "alwa_d2: FORCE_CUDA=1" in result.stdout and "alwa_d2: MAX_JOBS=3" in result.stdout
    assert "ALWA_D2_CPU_ONLY" not in result.stdout


def test_switches_that_exclude_each_other_stop_the_build():
    result = run_setup(WITHOUT_TORCH, FORCE_CUDA="1", ALWA_D2_CPU_ONLY="1")
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "alwa_d2: FORCE_CUDA=1 and ALWA_D2_CPU_ONLY=1 exclude each other"
    )


def test_every_switch_is_listed_at_the_top(setup_py):
    assert setup_py.SWITCHES == SWITCHES
    assert all(re.search(rf"^    {name}\b", setup_py.__doc__, re.M) for name in SWITCHES)


# Switches


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, (False, False, False, False)),
        ({"FORCE_CUDA": "", "ALWA_D2_CPU_ONLY": "0"}, (False, False, False, False)),
        ({"FORCE_CUDA": "1"}, (True, False, False, False)),
        ({"ALWA_D2_CPU_ONLY": "1", "FORCE_CUDA": "0"}, (False, True, False, False)),
        ({"ALWA_D2_CPU_ONLY": "1", "ALWA_D2_SANITIZE": "1"}, (False, True, True, False)),
        ({"ALWA_D2_LOCAL_VERSION": "1"}, (False, False, False, True)),
    ],
)
def test_read_switches(setup_py, environ, expected):
    assert setup_py.read_switches(environ) == expected


def test_other_values_of_a_switch_are_refused(setup_py):
    for name in setup_py.YES_OR_NO:
        with pytest.raises(SystemExit, match=f"{name} is 1 or 0, got 'yes'"):
            setup_py.read_switches({name: "yes"})


def test_too_old_torch_is_refused(setup_py, monkeypatch):
    monkeypatch.setattr(setup_py, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2.3.1+cu121"))
    with pytest.raises(SystemExit, match="PyTorch 2.4 or newer, found 2.3.1"):
        setup_py.import_torch()


# The CUDA toolkit


def test_toolkit_in_cuda_home_comes_first(setup_py, tmp_path):
    home = make_toolkit(tmp_path / "home", 12040)
    path = make_toolkit(tmp_path / "path") / "bin"
    environ = {"CUDA_HOME": str(home), "PATH": str(path)}
    assert setup_py.find_toolkit(environ, tmp_path / "none") == (home, "12.4")


@pytest.mark.parametrize("lacking", ["bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"])
def test_incomplete_toolkit_is_passed_over(setup_py, tmp_path, lacking):
    home, usual = make_toolkit(tmp_path / "home"), make_toolkit(tmp_path / "usual", 13020)
    (home / lacking).unlink()
    environ = {"CUDA_HOME": str(home), "PATH": str(home / "bin")}
    assert setup_py.find_toolkit(environ, usual) == (usual, "13.2")
    assert setup_py.find_toolkit(environ, tmp_path / "none") == (None, None)


def test_toolkit_behind_nvcc_on_the_path(setup_py, tmp_path):
    toolkit = make_toolkit(tmp_path / "cuda-13.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").symlink_to(toolkit / "bin" / "nvcc")
    for folder in (toolkit / "bin", tmp_path / "bin"):
        found = setup_py.find_toolkit({"PATH": str(folder)}, tmp_path / "none")
        assert found == (toolkit, "13.0")


def test_nvcc_that_is_a_wrapper_script_does_not_mislead(setup_py, tmp_path):
    toolkit = make_toolkit(tmp_path / "cuda")
    wrapper = tmp_path / "local" / "bin" / "nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(f'#!/bin/sh\nexec {toolkit}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    environ = {"PATH": str(wrapper.parent)}
    assert setup_py.find_toolkit(environ, toolkit) == (toolkit, "13.0")
    assert setup_py.find_toolkit(environ, tmp_path / "none") == (None, None)


# What is built

CASES = {
    "builds": ((False, "13.0", "/cuda", "13.2"), True, "PyTorch has CUDA 13.0, and /cuda is CUDA"),
    "declined": ((True, "13.0", "/cuda", "13.0"), False, "ALWA_D2_CPU_ONLY=1"),
    "torch without CUDA": ((False, None, "/cuda", "13.0"), False, "PyTorch was built without CUDA"),
    "no toolkit": ((False, "13.0", None, None), False, "no CUDA toolkit"),
    "other major": ((False, "13.0", "/cuda", "12.8"), False, "CUDA 13.0, and /cuda is CUDA 12.8"),
}


@pytest.mark.parametrize("arguments, expected, why", CASES.values(), ids=CASES)
def test_what_is_built_and_why(setup_py, arguments, expected, why):
    with_cuda, reason = setup_py.choose_cuda(False, *arguments)
    assert with_cuda is expected
    assert why in reason


@pytest.mark.parametrize(
    "case, remedy",
    [
        ("torch without CUDA", "install a CUDA build of PyTorch"),
        ("no toolkit", "install CUDA toolkit 13.0, or set CUDA_HOME"),
        ("other major", "install CUDA toolkit 13.0, and set CUDA_HOME"),
    ],
)
def test_force_cuda_says_what_is_missing(setup_py, case, remedy):
    arguments, _, why = CASES[case]
    with pytest.raises(SystemExit) as stop:
        setup_py.choose_cuda(True, *arguments)
    assert str(stop.value).startswith("alwa_d2: FORCE_CUDA=1, but ")
    assert why in str(stop.value) and remedy in str(stop.value)


def test_force_cuda_builds_where_everything_is_there(setup_py):
    arguments, _, _ = CASES["builds"]
    assert setup_py.choose_cuda(True, *arguments)[0]


@pytest.mark.parametrize(
    "listed, gpus, expected", [("7.5", 1, "7.5"), (None, 2, ""), ("", 0, "8.0;9.0+PTX")]
)
def test_gpu_architectures(setup_py, listed, gpus, expected):
    environ = {} if listed is None else {"TORCH_CUDA_ARCH_LIST": listed}
    assert setup_py.choose_archs(environ, gpus)[0] == expected


def test_plan_prints_the_reason_and_prepares_the_environment(setup_py, tmp_path, capsys):
    toolkit = make_toolkit(tmp_path / "cuda")
    torch = SimpleNamespace(
        version=SimpleNamespace(cuda="13.0"), cuda=SimpleNamespace(device_count=lambda: 0)
    )
    environ = {"CUDA_HOME": str(toolkit), "PATH": "/bin"}
    assert setup_py.plan(torch, environ, force=False, cpu_only=False)
    printed = capsys.readouterr().out
    assert "CPU and CUDA: PyTorch has CUDA 13.0" in printed and "8.0;9.0+PTX" in printed
    assert environ["CUDA_HOME"] == str(toolkit)
    assert environ["TORCH_CUDA_ARCH_LIST"] == "8.0;9.0+PTX"

    environ = {"CUDA_HOME": str(toolkit), "PATH": "/bin"}
    assert not setup_py.plan(torch, environ, force=False, cpu_only=True)
    assert "CPU only: ALWA_D2_CPU_ONLY=1" in capsys.readouterr().out
    assert "TORCH_CUDA_ARCH_LIST" not in environ


# What a build says of itself


@pytest.mark.parametrize(
    "version, cuda, with_cuda, expected",
    [
        ("2.14.1+cu130", "13.0", True, "pt214cu130"),
        ("2.14.1+cu130", "13.0", False, "pt214cpu"),
        ("2.4.1+cpu", None, False, "pt24cpu"),
        ("2.8.0.dev20250601+cu128", "12.8", True, "pt28cu128"),
    ],
)
def test_the_local_part_of_the_version(setup_py, version, cuda, with_cuda, expected):
    torch = SimpleNamespace(__version__=version, version=SimpleNamespace(cuda=cuda))
    assert setup_py.local_version(torch, with_cuda) == expected


@pytest.mark.parametrize(
    "switches, expected",
    [
        ({}, "0.1.0"),
        (
            {"ALWA_D2_LOCAL_VERSION": "1", "ALWA_D2_CPU_ONLY": "1"},
            f"0.1.0+pt{''.join(torch.__version__.split('.')[:2])}cpu",
        ),
    ],
)
def test_the_version_of_a_wheel(switches, expected, tmp_path):
    command = ["-q", "dist_info", "--output-dir", str(tmp_path)]
    result = run_setup(command=command, **switches)
    (folder,) = tmp_path.glob("*.dist-info")
    assert f"\nVersion: {expected}\n" in (folder / "METADATA").read_text(), result.stderr


def test_the_local_part_does_not_get_lost_in_a_source_archive(setup_py, tmp_path):
    """Whose setup.cfg says that there is none."""
    from setuptools import Distribution

    project = Distribution({"name": "alwa_d2", "version": "0.1.0"})
    project.get_option_dict("egg_info")["tag_build"] = ("setup.cfg", "")
    project.cmdclass["egg_info"] = setup_py.tagging("pt214cpu")
    command = project.get_command_obj("egg_info")
    command.egg_base = str(tmp_path)
    command.ensure_finalized()
    assert command.egg_version == project.get_version() == "0.1.0+pt214cpu"


def test_a_record_lies_beside_the_library(setup_py, monkeypatch, tmp_path):
    """Nothing is compiled for this."""
    from setuptools import Distribution
    from torch.utils.cpp_extension import BuildExtension

    monkeypatch.setattr(BuildExtension, "run", lambda self: None)
    extension, build_ext = setup_py.extension(torch, False, False)
    project = Distribution({"name": "alwa_d2", "ext_modules": [extension]})
    command = build_ext(project, use_ninja=False)
    command.ensure_finalized()
    command.get_ext_fullpath = lambda name: str(tmp_path / "_C.cpython-39.so")
    command.run()
    record = json.loads((tmp_path / "_C.cpython-39.json").read_text())
    assert record["torch"] == torch.__version__ and record["cuda"] is record["archs"] is None
    assert record["python"] == sys.version.split()[0] and record["compiler"]
    # Otherwise, without ninja, a library for another PyTorch could count as up to date.
    assert command.force


def test_the_record_names_cuda_and_architectures(setup_py, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    record = setup_py.describe(torch, True, "true")
    assert (record["cuda"], record["archs"]) == ("13.0", "8.0;9.0+PTX")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")  # as with GPUs in sight: theirs
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9 - gpu // 2, 0))
    assert setup_py.describe(torch, True, "env true")["archs"] == "8.0;9.0+PTX"


def test_a_source_archive_has_all_that_is_needed_to_build_and_test(tmp_path):
    """And packing it needs no PyTorch."""
    command = ["-q", "egg_info", "-e", str(tmp_path), "sdist", "-d", str(tmp_path)]
    result = run_setup(WITHOUT_TORCH, command)
    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.name == "alwa_d2-0.1.0.tar.gz"
    with tarfile.open(archive) as file:
        packed = {Path(*Path(name).parts[1:]).as_posix() for name in file.getnames()}
    folders = ("csrc", "configs", "alwa_d2", "tests", "scripts", "examples", "sweeps", "benchmarks")
    files = [path for folder in folders for path in (REPO / folder).rglob("*") if path.is_file()]
    made = ("__pycache__", "_C.", ".pyc")
    needed = {path.relative_to(REPO).as_posix() for path in files}
    needed = {name for name in needed if not any(word in name for word in made)}
    needed |= {path.name for path in REPO.glob("requirements*.txt")}
    assert needed | {"setup.py", "pyproject.toml", "Makefile", "LICENSE", "README.md"} <= packed
    assert not [name for name in packed if name.endswith((".so", ".json")) and "_C." in name]


# The sanitizers


def test_sanitizers_are_in_their_own_build_alone(setup_py):
    plain, checked = (setup_py.extension(torch, False, sanitize)[0] for sanitize in (False, True))
    flags = plain.extra_compile_args["cxx"]
    assert not [flag for flag in flags + plain.extra_link_args if "sanitize" in flag]
    assert checked.extra_compile_args["cxx"] == flags + setup_py.SANITIZE_FLAGS
    assert checked.extra_link_args == setup_py.SANITIZERS


@pytest.mark.parametrize("first", ["", '#pragma GCC optimize("fp-contract=off")'])
@pytest.mark.parametrize("wrapping", ["-fwrapv", "-fno-strict-overflow"])
def test_overflow_is_looked_for_whatever_flags_python_has(setup_py, first, wrapping):
    """Either makes overflow a defined one, for which the compiler leaves the check out."""
    if shutil.which("g++") is None:
        pytest.skip("needs GCC")
    command = ["g++", wrapping, *setup_py.SANITIZE_FLAGS, "-S", "-o", "-", "-x", "c++", "-"]
    source = f"{first}\nint sum(int a, int b) {{ return a + b; }}"
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    assert "__ubsan_handle_add_overflow_abort" in done.stdout


def test_sanitize_says_what_the_compiler_lacks(tmp_path):
    """GCC answers with the bare name of a file that it does not have."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho "${1#*=}"\n')
    compiler.chmod(0o755)
    result = subprocess.run(
        [str(REPO / "scripts" / "sanitize.sh")],
        env=os.environ | {"CXX": str(compiler)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"sanitize: {compiler} has no libasan.so; set CXX to a GCC that has its sanitizers\n"
    )


# House rules


def test_flags_keep_nan_and_denormals(setup_py):
    flags = setup_py.CXX_FLAGS + setup_py.SANITIZE_FLAGS + setup_py.NVCC_FLAGS
    forbidden = ("fast-math", "use_fast_math", "finite-math", "Ofast", "march=")
    assert flags and not [flag for flag in flags if any(word in flag for word in forbidden)]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_exact(name):
    lines = [line for line in (REPO / name).read_text().splitlines() if line]
    pins = [line for line in lines if not line.startswith("#")]
    assert pins and [pin for pin in pins if not PINNED.fullmatch(pin)] == []


def test_detectron2_is_pinned_by_hash():
    text = (REPO / "requirements-detectron2.txt").read_text()
    pins = re.findall(r"^([^#\s]\S*) \\\n +--hash=sha256:[0-9a-f]{64}$", text, re.M)
    assert pins == ["sal-detectron2==0.7.2"]


def test_setuptools_stays_below_81():
    pin = re.search(r"^setuptools==(\d+)", (REPO / "requirements.txt").read_text(), re.M)
    assert int(pin.group(1)) < 81  # Detectron2's model zoo imports pkg_resources
    assert '"setuptools>=64,<81"' in (REPO / "pyproject.toml").read_text()


def test_what_the_command_imports_is_among_the_dependencies():
    """And pinned. What Detectron2 alone needs is left to it."""
    names = {"PIL": "pillow", "yaml": "pyyaml"}
    project = (REPO / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|slurm) = \[(.*?)\]", project, re.M | re.S)
    listed = {re.split("[<>=]", name)[0] for name in re.findall(r'"([^"]+)"', "".join(lists))}
    pins = (REPO / "requirements.txt").read_text().lower()
    for path in (REPO / "alwa_d2").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                absolute = isinstance(node, ast.ImportFrom) and not node.level
                modules = [node.module] if absolute else []
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names:
                name = names.get(module, module)
                if name not in ("detectron2", "alwa_d2", "alwa_d2_command"):
                    assert name in listed, f"{path.name} imports {module}"
                    assert f"\n{name}==" in pins, name


def test_scripts_can_be_run():
    for name in (".ci/run", "scripts/setup_env.sh", "scripts/sanitize.sh"):
        assert os.access(REPO / name, os.X_OK), name
        subprocess.run(["bash", "-n", str(REPO / name)], check=True)


def test_setup_refuses_a_python_that_is_too_old(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    python.chmod(0o755)
    result = subprocess.run(
        [str(REPO / "scripts" / "setup_env.sh"), "packages"],
        env=os.environ | {"PYTHON": str(python), "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "needs Python 3.10 to 3.13" in result.stderr and "Python 3.9.1" in result.stderr
    assert not (tmp_path / "venv").exists()
