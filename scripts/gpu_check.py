#!/usr/bin/env python3
"""Every check that needs a GPU, the cheapest and most telling first, and a table at the end.

    python3 scripts/gpu_check.py                             everything
    python3 scripts/gpu_check.py --only losses --budget 540  one step, and what it needs
    python3 scripts/gpu_check.py --rehearse                  without a GPU: up to the first launch
    python3 scripts/gpu_check.py --list

It needs no network and installs nothing into the Python that it uses: PYTHON, or else the one in
.venv (VENV), or else python3. What that Python lacks is unpacked from the folder `wheels`, which
scripts/gpu_wheels.py fills. Table, logs and figures go to --out, or else $OUT, or else
build/gpu-check/out: at most eight files, no folders. The exit status is 1 where a step failed or
did not run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gpu_run import Check, cut_logs, gather_figures, run_steps, table, with_needs
from gpu_steps import STEPS

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 1800  # seconds
# What a line about the machine is made of; JSON, since a warning may be printed before it.
ABOUT = """
import json, sys, torch
gpu = torch.cuda.is_available()
about = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda}
about["gpu"] = torch.cuda.get_device_name() if gpu else None
about["capability"] = "sm_%d%d" % torch.cuda.get_device_capability() if gpu else None
print(json.dumps(about))
"""


def choose_python(environ, root=ROOT):
    if environ.get("PYTHON"):
        return environ["PYTHON"]
    python = root / environ.get("VENV", ".venv") / "bin" / "python"
    return str(python) if os.access(python, os.X_OK) else "python3"


def about_machine(python):
    """name -> text of what this Python and its PyTorch are; None where there is no PyTorch."""
    try:
        done = subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def prepare(out, work, steps):
    """Empty places for the logs of these steps, and for what they leave."""
    out.mkdir(parents=True, exist_ok=True)
    for name in {step.log for step in steps} | {"summary.txt", "figures.json"}:
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(work / "figures", ignore_errors=True)
    (work / "figures").mkdir(parents=True)


def environment(work, rehearse, root):
    """Of the steps' commands: they find what was unpacked and built, before what is installed."""
    environ = dict(os.environ)
    if rehearse:
        environ.setdefault("TORCH_CUDA_ARCH_LIST", "9.0")
    path = [str(work / "site"), str(work / "peers"), str(root), environ.get("PYTHONPATH", "")]
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environ["PATH"] = os.pathsep.join([str(work / "site" / "bin"), environ.get("PATH", "")])
    return environ | {"PYTHONUNBUFFERED": "1"}


def parse(arguments, steps):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [step.name for step in steps]
    parser.add_argument("--only", nargs="+", metavar="STEP", choices=names, help=", ".join(names))
    parser.add_argument("--budget", type=float, metavar="SECONDS", default=BUDGET)
    parser.add_argument("--out", type=Path, help="folder for table, logs and figures")
    parser.add_argument("--rehearse", action="store_true", help="no GPU: up to the first launch")
    parser.add_argument("--list", action="store_true", help="the steps, and what they show")
    args = parser.parse_args(arguments)
    if not args.budget > 0:
        parser.error(f"--budget is a positive number of seconds, got {args.budget:g}")
    return args


def main(arguments=None, steps=STEPS, root=ROOT):
    start = time.monotonic()
    args = parse(arguments, steps)
    if args.list:
        for step in steps:
            print(f"{step.name:10} about {step.seconds:4.0f} s  {step.about}")
        return 0
    python = choose_python(os.environ, root)
    about = about_machine(python)
    if about is None or not (about["gpu"] or args.rehearse):
        print(f"gpu-check: {python} has no PyTorch that can use a GPU here; nothing was checked")
        return 1
    work = root / "build" / "gpu-check"
    out = (args.out or Path(os.environ.get("OUT") or work / "out")).resolve()
    chosen = with_needs(steps, args.only)
    prepare(out, work, steps)
    environ = environment(work, args.rehearse, root)
    check = Check(python, root, work, out, start + args.budget, args.rehearse, environ)
    results = run_steps(chosen, check)
    gpu = "rehearsed without a GPU" if args.rehearse else f"{about['gpu']}, {about['capability']}"
    head = f"{gpu}; PyTorch {about['torch']}, CUDA {about['cuda']}, Python {about['python']}"
    text = table(results, head)
    (out / "summary.txt").write_text(text)
    figures = {"machine": about, "rehearsed": args.rehearse, **gather_figures(work / "figures")}
    (out / "figures.json").write_text(json.dumps(figures, indent=1))
    cut_logs(out)
    print(f"\n{text}{time.monotonic() - start:.0f} s of {args.budget:.0f}; see {out}")
    return int(any(result.verdict in ("failed", "not run") for result in results))


if __name__ == "__main__":
    sys.exit(main())
