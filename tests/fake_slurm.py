"""sbatch, srun, sacct and scancel without a cluster: enough of Slurm for submitit's way of using it.

`install` lays a command of each name into a folder for the PATH; each runs this file, which goes by
the name that it was called by. A job is a process of this machine, begun at once or, while a file
`hold` lies in $FAKE_SLURM, when that is gone. $FAKE_SLURM has for each job N:

- `N.state`: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED by 0, or what a test writes there;
- `N.pid`: its process group; `N.sh`: its script.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel")
PATIENCE = 120  # seconds after which a job that a failed test has left gives up


def install(folder):
    """The commands in `folder`/bin; returns the environment variables that make them found."""
    (folder / "bin").mkdir()
    (folder / "jobs").mkdir()
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        command.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "FAKE_SLURM": str(folder / "jobs")}


def state_of(jobs, number):
    return (jobs / f"{number}.state").read_text()


def set_state(jobs, number, state):
    part = jobs / f".{number}.state"
    part.write_text(state)
    part.replace(jobs / f"{number}.state")


def sbatch(jobs, arguments):
    number, script = 100 + len(list(jobs.glob("*.sh"))), Path(arguments[-1]).read_text()
    if "#SBATCH --partition=nowhere" in script:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    (jobs / f"{number}.sh").write_text(script)
    set_state(jobs, number, "PENDING")
    words = [sys.executable, __file__, "job", str(number)]
    null = subprocess.DEVNULL
    process = subprocess.Popen(words, start_new_session=True, stdin=null, stdout=null, stderr=null)
    (jobs / f"{number}.pid").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def job(jobs, arguments):
    """What slurmd does: waits for its turn, then runs the script."""
    (number,) = arguments
    patience = time.monotonic() + PATIENCE
    while (jobs / "hold").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    set_state(jobs, number, "RUNNING")
    script = (jobs / f"{number}.sh").read_text()
    output = re.search(r"^#SBATCH --output=(.*)$", script, re.M).group(1).replace("%j", number)
    environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1"}
    environment |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    with open(output.strip("'"), "a") as file:
        done = subprocess.run(
            ["bash", str(jobs / f"{number}.sh")], env=environment, stdout=file, stderr=file
        )
    set_state(jobs, number, "FAILED" if done.returncode else "COMPLETED")


def srun(jobs, arguments):
    """Runs the command behind its own options, of which --output takes a value."""
    while arguments[0].startswith("-"):
        arguments = arguments[2 if arguments[0] == "--output" else 1 :]
    os.execvp(arguments[0], arguments)


def sacct(jobs, arguments):
    numbers = [value for key, value in zip(arguments, arguments[1:]) if key == "-j"]
    print("JobID|State|NodeList")
    for number in numbers:
        if (jobs / f"{number}.state").exists():
            print(f"{number}|{state_of(jobs, number)}|node1")
            print(f"{number}.batch|{state_of(jobs, number)}|node1")


def scancel(jobs, arguments):
    for number in arguments:
        os.killpg(int((jobs / f"{number}.pid").read_text()), signal.SIGKILL)
        set_state(jobs, number, "CANCELLED by 0")


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    {"sbatch": sbatch, "job": job, "srun": srun, "sacct": sacct, "scancel": scancel}[name](
        Path(os.environ["FAKE_SLURM"]), rest
    )
