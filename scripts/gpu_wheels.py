#!/usr/bin/env python3
"""Collects what a machine with only PyTorch lacks, as wheels in the folder `wheels`.

    python3 scripts/gpu_wheels.py [--python 3.12] [--torch 2.11] [--into wheels]

Needs a network, pip, and the processor and operating system of the machine they are for.
scripts/gpu_check.py unpacks those of them that its Python lacks. Versions are those of
requirements.txt. Wheels and tree together stay below a limit, so that both can be sent at once.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 64 << 20  # bytes
# What tests and benchmarks import, of requirements.txt.
PINNED = ("cloudpickle", "fvcore", "hypothesis", "iopath", "ninja", "omegaconf", "pillow")
PINNED += ("pycocotools", "pytest", "setuptools", "shtab", "tabulate", "termcolor", "yacs")
# What those need, which requirements.txt leaves to pip.
NEEDED = {
    "antlr4-python3-runtime": "4.9.3",  # the only one that omegaconf 2.3 takes
    "iniconfig": "2.3.1",
    "packaging": "26.4",
    "pluggy": "1.7.0",
    "portalocker": "4.4.2",
    "pygments": "2.21.0",
    "pyyaml": "6.0.4",
    "sortedcontainers": "2.4.0",
    "tqdm": "4.70.1",
}
# No wheels of these are published; they hold Python only, so those built here run anywhere.
FROM_SOURCE = ("antlr4-python3-runtime", "fvcore", "iopath")


def read_pins(text, python):
    """name -> version for this Python, such as "3.12", from the text of a requirements file."""
    version = tuple(int(part) for part in python.split("."))
    pins = {}
    for line in text.splitlines():
        pin, _, marker = line.partition(";")
        found = re.fullmatch(r"([\w.-]+)==(\S+)", pin.strip())
        if found and applies(marker.strip(), version):
            pins[found[1].lower()] = found[2]
    return pins


def applies(marker, version):
    """Whether a marker of requirements.txt is true; those are all about the Python's version."""
    if not marker:
        return True
    found = re.fullmatch(r'python_version (>=|<) "(\d+)\.(\d+)"', marker)
    if found is None:
        raise SystemExit(f'gpu-wheels: expected python_version >= or < "3.N", got {marker}')
    newer = version >= (int(found[2]), int(found[3]))
    return newer if found[1] == ">=" else not newer


def wanted(text, python, torch):
    """name -> version of everything but Detectron2."""
    pins = read_pins(text, python)
    # torchvision is made for one PyTorch: 0.26 for 2.11, and so on.
    vision = {"torchvision": f"0.{int(torch.split('.')[1]) + 15}.*"}
    return {name: pins[name] for name in PINNED} | NEEDED | vision


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    if subprocess.run([*command, "-q", "--no-deps", "--disable-pip-version-check"]).returncode:
        raise SystemExit(f"gpu-wheels: pip {arguments[0]} failed, see above")


def collect(args):
    text = (ROOT / "requirements.txt").read_text()
    versions = wanted(text, args.python, args.torch)
    args.into.mkdir(parents=True, exist_ok=True)
    for old in args.into.glob("*.whl"):
        old.unlink()
    pins = [f"{name}=={version}" for name, version in versions.items()]
    source = [pin for pin in pins if pin.split("==")[0] in FROM_SOURCE]
    pip("wheel", "-w", args.into, *source)
    download = ("download", "-d", args.into, "--only-binary=:all:", "--python-version")
    pip(*download, args.python, *(pin for pin in pins if pin not in source))
    # Its wheel is tagged for CPython 3.10, for a compiled file that nothing here uses.
    pip(*download, "3.10", "--require-hashes", "-r", ROOT / "requirements-detectron2.txt")


def tree_bytes(root):
    """Bytes of the files that git has or would take; 0 outside a repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    files = {root / name for name in done.stdout.split("\0") if name}
    return sum(path.stat().st_size for path in files if path.is_file())


def report(folder, tree, limit=LIMIT):
    """The exit status; prints each wheel with its size, and the sum."""
    wheels = {path.name: path.stat().st_size for path in sorted(folder.glob("*.whl"))}
    for name, size in sorted(wheels.items(), key=lambda item: -item[1]):
        print(f"{size / 2**20:7.2f} MiB  {name}")
    total = sum(wheels.values()) + tree
    print(f"{total / 2**20:7.2f} MiB  in all, {tree / 2**20:.2f} of them the tree's own files")
    if total > limit:
        print(f"gpu-wheels: expected at most {limit / 2**20:.0f} MiB, got {total / 2**20:.2f}")
    return int(total > limit)


def version(text):
    """A version of two numbers, as text."""
    if not re.fullmatch(r"\d+\.\d+", text):
        raise argparse.ArgumentTypeError(f"expected two numbers, such as 3.12, got {text!r}")
    return text


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=version, default="3.12", help="version of the Python")
    parser.add_argument("--torch", type=version, default="2.11", help="version of the PyTorch")
    parser.add_argument("--into", type=Path, default=ROOT / "wheels")
    args = parser.parse_args(arguments)
    collect(args)
    return report(args.into, tree_bytes(ROOT))


if __name__ == "__main__":
    sys.exit(main())
