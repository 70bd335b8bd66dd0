"""Times training's iterations under several settings of OpenMP, alone and beside other work.

    python benchmarks/bench_spinning.py [--iterations 60] [--rounds 2] [--busy 0 1 2]

Between two parallel regions OpenMP's threads spin: they keep their cores busy while they wait. On
an idle machine this saves the time it takes to wake them. Beside other work the waiting threads
take the time of those that are waited for. Each setting trains configs/retina_alwa.yaml anew, as
`alwa-d2 train` does it, and the settings take turns; a figure is the median over the rounds of what
metrics.json has as the time of an iteration, itself the median of the last 20. `--busy N` are
processes that count without end beside it. Linux with GCC's OpenMP, which PyTorch's wheels have.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Counts until what has started it is gone.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "retina_alwa.yaml"
SETTINGS = {
    "GCC's default": {"GOMP_SPINCOUNT": "300000"},
    "alwa-d2's default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}


def seconds(threads: int, setting: dict, iterations: int) -> float:
    """Of an iteration of a training with this environment."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    env |= {"OMP_NUM_THREADS": str(threads), **setting}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "alwa_d2", "train", "--config-file", str(CONFIG)]
        pairs = {
            "OUTPUT_DIR": folder,
            "SOLVER.MAX_ITER": str(iterations),
            "SOLVER.STEPS": "()",
            "TEST.EVAL_PERIOD": "0",
            "DATASETS.TEST": "()",
        }
        command += [text for pair in pairs.items() for text in pair]
        subprocess.run(command, env=env, check=True, capture_output=True)
        lines = Path(folder, "metrics.json").read_text().splitlines()
        return [row["time"] for row in map(json.loads, lines) if "time" in row][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    args = parser.parse_args()

    cases = [(name, args.threads) for name in SETTINGS] + [("alwa-d2's default", 1)]
    print(f"seconds an iteration; {os.cpu_count()} cores\n", flush=True)
    for busy in args.busy:
        found = {case: [] for case in cases}
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        try:
            for _ in range(args.rounds):
                for name, threads in cases:
                    time = seconds(threads, SETTINGS[name], args.iterations)
                    found[name, threads].append(time)
                    print(f"{busy} {threads} {name} {time:.3f}", file=sys.stderr, flush=True)
        finally:
            for process in others:
                process.kill()
                process.wait()
        for (name, threads), times in found.items():
            each = " ".join(f"{x:.3f}" for x in times)
            print(
                f"{busy} busy processes, {threads} threads, {name}: "
                f"{statistics.median(times):.3f}   ({each})",
                flush=True,
            )


if __name__ == "__main__":
    main()
