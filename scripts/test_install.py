#!/usr/bin/env python3
"""Installs alwa_d2 in throw-away environments, and prints what came of it as a table in Markdown.

    python3 scripts/test_install.py [--only NAME ...] [--list] [--work FOLDER]

The cases are in install_cases.py. Each has an environment of its own, with one Python and one
PyTorch. What was installed has to compute a loss with its gradient in an empty folder, and `alwa-d2
env` to find nothing wrong. A case whose Python or PyTorch cannot be had here counts as not run.

Needs a network and some GB; PyTorch comes from where pip is set up to take it from. Most cases
build the CPU kernels only. Objects are kept between the cases of one Python and PyTorch that build
in a folder, so that most seconds are no build times.
"""

import argparse
import datetime
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from install_cases import CASES, Case

ROOT = Path(__file__).resolve().parents[1]
CHECK = """
import torch, alwa_d2.layers
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], requires_grad=True)
loss = alwa_d2.layers.box_loss(boxes, torch.tensor([[0.0, 0.0, 2.0, 1.0]]), "iou")
loss.backward()
assert float(loss.detach()) == 0.5 and boxes.grad.abs().sum() > 0, (loss, boxes.grad)
"""
HEADER = """| Python | PyTorch | installer | isolation | what | result | seconds |
| --- | --- | --- | --- | --- | --- | ---: |"""


class NotRun(Exception):
    """What a case needs is not to be had here."""


class Failed(Exception):
    """Something went otherwise than the case says."""


def run(*command, environ=None, cwd=None, megabytes=0):
    """(exit status, output) of a command, each process of which may hold `megabytes` of data."""

    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))

    done = subprocess.run(
        [str(word) for word in command],
        env=environ,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=limit if megabytes else None,
    )
    return done.returncode, done.stdout


def must(*command, error=Failed, **more):
    """The output of a command that has to succeed."""
    status, text = run(*command, **more)
    if status:
        raise error(last_line(text))
    return text


def last_line(text):
    """The line that says most of what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b|^alwa_d2: ", line, re.I)]
    return (errors or lines or ["no output"])[-1][:200].replace("|", "/")


def find_python(version):
    """A Python of this version, such as "3.10"."""
    installed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for path in (shutil.which(f"python{version}"), *sorted(installed)):
        code = "import sys, venv; print('{}.{}'.format(*sys.version_info))"
        if path and run(path, "-c", code) == (0, f"{version}\n"):
            return path
    raise NotRun(f"no Python {version} here")


class Workshop:
    """The folder in which environments, archive, wheels and logs come to be."""

    def __init__(self, folder):
        self.folder = folder
        self.lacking = {}  # (Python, PyTorch) that could not be had -> why
        self.tools = folder / "tools"
        if not self.tools.exists():
            must(sys.executable, "-m", "venv", self.tools)
            must(self.tools / "bin/python", "-m", "pip", "install", "uv", "setuptools<81")
        archives = folder / "archive"
        must(self.tools / "bin/python", "setup.py", "-q", "egg_info", "-e", folder,
             "sdist", "-d", archives, cwd=ROOT)  # fmt: skip
        (self.archive,) = archives.glob("*.tar.gz")

    def with_torch(self, case):
        """An environment with a case's Python, its PyTorch, and what alwa_d2 depends on."""
        key = f"py{case.python}-torch{case.torch}"
        folder, ready = self.folder / key, self.folder / key / "ready"
        if key in self.lacking:
            raise NotRun(self.lacking[key])
        if not ready.exists():
            try:
                must(find_python(case.python), "-m", "venv", "--clear", folder)
                text = (ROOT / "pyproject.toml").read_text()
                listed = re.search(r"^dependencies = \[(.*?)\]", text, re.M | re.S)[1]
                needs = [name for name in re.findall(r'"(.*?)"', listed) if "torch" not in name]
                pip = (folder / "bin/python", "-m", "pip", "install", "-q")
                must(*pip, f"torch=={case.torch}", *needs, error=NotRun)
            except NotRun as error:
                self.lacking[key] = str(error)
                raise
            ready.touch()
        return folder

    def environment(self, case):
        """A case's own: a copy by hard links, which takes seconds, with its installer.

        It lies where that of the case before lay, since the place is among what objects are made
        from.
        """
        base = self.with_torch(case)
        folder = self.folder / "case" / base.name
        shutil.rmtree(folder, ignore_errors=True)
        must(base / "bin/python", "-m", "venv", "--without-pip", folder)
        packages = f"lib/python{case.python}/site-packages"
        shutil.copytree(
            base / packages, folder / packages, copy_function=os.link, dirs_exist_ok=True
        )
        pip = (folder / "bin/python", "-m", "pip", "install", "-q")
        if case.installer != "uv":
            must(*pip, "--upgrade", case.installer)
        if case.needs:
            must(*pip, *case.needs)
        return folder / "bin/python"

    def tree(self, python, torch):
        """The unpacked archive in which this Python and PyTorch build, so that objects are kept."""
        folder = self.folder / f"source-{python}-{torch}"
        if not folder.exists():
            shutil.unpack_archive(self.archive, folder, filter="data")
        return next(folder.iterdir())

    def wheel(self, case):
        torch = case.built_with or case.torch
        wheels = self.tree(case.python, torch) / "dist"
        if not list(wheels.glob("*.whl")):
            maker = Case("make-wheel", "", python=case.python, torch=torch)
            python = self.environment(maker)
            environ = self.environ(maker, python)
            must("make", "wheel", f"PYTHON={python}", cwd=wheels.parent, environ=environ)
        made = [path.name for path in wheels.glob("*.whl")]
        if len(made) != 1 or "+pt" not in made[0]:
            raise Failed(f"expected one wheel whose version names its PyTorch, got {made}")
        return wheels / made[0]

    def source(self, case):
        """The last words of the command that installs."""
        if case.source == "archive":
            return [self.archive]
        if case.source == "wheel":
            return [self.wheel(case)]
        tree = self.tree(case.python, case.torch)
        return ["-e", tree] if case.source == "editable" else [tree]

    def environ(self, case, python):
        """The variables of a case, as with its environment activated, so that ninja is the same in
        all; CUDA_HOME and PATH may name a stage set."""
        environ = {name: value for name, value in os.environ.items() if name != "FORCE_CUDA"}
        path = f"{python.parent}:{os.environ['PATH']}"
        environ |= {"PATH": path} | case.environ
        if case.environ.get("CUDA_HOME") == "OTHER":
            environ["CUDA_HOME"] = str(other_toolkit(self.folder / "cuda-12.8"))
        if case.environ.get("PATH") == "WRAPPER":
            environ["PATH"] = f"{nvcc_wrapper(self.folder / 'wrapper')}:{path}"
        if case.source == "wheel":
            environ["PATH"] = str(python.parent)
        return environ


def other_toolkit(folder):
    """What looks like CUDA 12.8, where PyTorch is for CUDA 13."""
    for name in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(mode=0o755)
    (folder / "include/cuda_runtime_api.h").write_text("#define CUDART_VERSION 12080\n")
    return folder


def nvcc_wrapper(folder):
    """A folder whose nvcc is a script that calls the one of the PATH."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise NotRun("no nvcc here")
    folder.mkdir(exist_ok=True)
    (folder / "nvcc").write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    (folder / "nvcc").chmod(0o755)
    return folder


def install_command(case, workshop, python, source):
    flags = [] if case.isolation else ["--no-build-isolation"]
    if case.installer == "uv":
        # Its cache knows a folder's wheel by the folder alone, not by the PyTorch it was built for.
        uv = [workshop.tools / "bin/uv", "pip", "install", "-v", "--python", python, "--no-cache"]
        return [*uv, *flags, *source]
    return [python, "-m", "pip", "install", "-v", *flags, *source]


def try_case(case, workshop):
    """The table's word for how it went, and the seconds that installing took."""
    source = workshop.source(case)  # first: a wheel is made in an environment of the same place
    python = workshop.environment(case)
    environ = workshop.environ(case, python)
    command = install_command(case, workshop, python, source)
    empty = Path(tempfile.mkdtemp(dir=workshop.folder))
    jobs = int(environ.get("MAX_JOBS", 1))
    start = time.monotonic()
    status, text = run(
        *command, environ=environ, cwd=empty, megabytes=1024 * case.gigabytes // jobs
    )
    seconds = time.monotonic() - start
    (workshop.folder / f"{case.name}.log").write_text(text)
    if status == 0:
        status, told = run(python, "-c", CHECK, environ=environ, cwd=empty)
        env_status, env = run(python.parent / "alwa-d2", "env", environ=environ, cwd=empty)
        text += told + env
        if env_status != (1 if case.refused else 0):
            raise Failed(f"alwa-d2 env: exit status {env_status}: {last_line(env)}")
        if not case.refused and not re.search(rf"^kernels +{case.kernels}", env, re.M):
            raise Failed(f"alwa-d2 env: expected the kernels {case.kernels}")
    if case.refused:
        if status == 0 or case.refused not in text:
            raise Failed(f"expected to be refused with: {case.refused}")
        return "refused, with the remedy", seconds
    if status or case.says not in text:
        raise Failed(last_line(text) if status else f"expected to read: {case.says}")
    return "passed", seconds


def row(case, result, seconds):
    isolation = "" if case.source == "wheel" else "yes" if case.isolation else "no"
    cells = [
        case.python,
        case.torch,
        case.installer.replace("==", " "),
        isolation,
        case.what,
        result,
    ]
    return f"| {' | '.join(cells)} | {seconds} |"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--work", type=Path, help="a folder that stays, and is taken up again")
    args = parser.parse_args(arguments)
    if args.list:
        print("\n".join(f"{case.name:20}{case.what}" for case in CASES))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        workshop = Workshop(folder)
        print(f"On {datetime.date.today()}:\n\n{HEADER}", flush=True)
        failed = 0
        for case in (case for case in CASES if case.name in args.only):
            seconds = ""
            try:
                result, taken = try_case(case, workshop)
                seconds = f"{taken:.0f}"
            except NotRun as error:
                result = f"not run: {error}"
            except Failed as error:
                result, failed = f"FAILED: {error}", failed + 1
            print(row(case, result, seconds), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
