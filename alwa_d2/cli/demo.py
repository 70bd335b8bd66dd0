"""Trains a detector, evaluates it and draws what came out: a run to see the whole path work."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ..errors import UserError
from .options import add_config_arguments

HELP = "train on embedded data, evaluate, and draw what came out"
DESCRIPTION = """
Runs train, plot and show one after the other, and ends with a table of the results and the places
of all files. Nothing is downloaded.
"""
PLACES = {
    "checkpoint": "model_final.pth",
    "metrics": "metrics.json",
    "TensorBoard": "events.out.tfevents.*",
    "curves": "losses.png",
    "detections": "detections.png",
}


class StepFailed(Exception):
    """A step of the demo ended with an error of its own, which it has printed."""


def check_output(output: Path) -> None:
    """Refuses a folder that holds something else and no run."""
    from ..engine import run_folder

    if output.exists() and not output.is_dir():
        raise UserError(f"--output: expected a folder, got the file {output}")
    if output.is_dir() and any(output.iterdir()) and not run_folder.holds_run(output):
        raise UserError(
            f"--output: {output} holds other things than an earlier run (no metrics.json, no "
            "config.yaml of one); expected an empty or new folder"
        )


def run_step(command: str, *arguments: str) -> float:
    """Runs a command of the package on this terminal; returns the seconds it took."""
    line = [sys.executable, "-m", "alwa_d2", command, *arguments]
    print(f"\n== alwa-d2 {command} {' '.join(arguments)}", flush=True)  # before what it prints
    start = time.monotonic()
    code = subprocess.run(line).returncode
    if code:
        raise StepFailed(f"{command} ended with exit status {code}")
    return time.monotonic() - start


def find_places(output: Path) -> dict[str, Path]:
    """Where each result lies, by what it is; all of them exist."""
    found = {what: sorted(output.glob(pattern)) for what, pattern in PLACES.items()}
    missing = [PLACES[what] for what, paths in found.items() if not paths]
    if missing:
        raise UserError(f"{output}: no {', '.join(missing)}")
    return {what: paths[-1] for what, paths in found.items()}


def format_table(run, seconds: float, places: dict[str, Path]) -> str:
    """The results of a run, a line each, and below them where they lie.

    Args:
        run: an `analysis.runs.Run`
        seconds: wall time of training and evaluation
        places: paths by what they hold
    """
    from ..analysis.runs import WEIGHT

    scores = {name: run.last(f"bbox/{name}") for name in ("AP", "AP50", "AP75")}
    if None in scores.values():
        raise UserError("metrics.json: no line has bbox/AP, bbox/AP50, bbox/AP75; no evaluation?")
    rows = [(name, f"{score:.1f}") for name, score in scores.items()]
    weights = {name: run.last(WEIGHT + name) for name in run.losses}
    rows += [(f"final weight of loss_{name}", f"{value:.3f}") for name, value in weights.items()]
    rows.append(("training and evaluation", f"{seconds:.0f} s"))
    rows.append(("iterations", str(run.iterations)))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:{width}}  {value:>7}" for name, value in rows]
    lines += ["", *(f"  {what:{width}}  {os.path.relpath(path)}" for what, path in places.items())]
    return "\n".join(lines)


def run_demo(config_file: str, output: Path, opts: list[str]) -> None:
    """Trains, evaluates, draws, and prints the table last."""
    from ..analysis.runs import load_run

    if "OUTPUT_DIR" in opts[::2]:
        raise UserError("OUTPUT_DIR is set by --output, not by KEY VALUE")
    check_output(output)
    settings = (*opts, "OUTPUT_DIR", str(output), "OVERWRITE", "True")
    seconds = run_step("train", "--config-file", config_file, *settings)
    run_step("plot", str(output))
    # The run's own config has all settings in it, those of the command line too.
    weights = ("MODEL.WEIGHTS", str(output / "model_final.pth"))
    config = str(output / "config.yaml")
    run_step("show", "--config-file", config, *weights)
    table = format_table(load_run(output), seconds, find_places(output))
    print(f"\nResults of {Path(config_file).name}\n\n{table}")


def add_arguments(parser):
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", default=Path("output", "demo"),
        help="the run's folder, of which an earlier run is removed; default: output/demo",
    )  # fmt: skip
    add_config_arguments(parser, default="retina_alwa.yaml")


def run(args) -> int:
    from ..engine.launch import ending_on_signals

    try:
        with ending_on_signals():  # which subprocess.run() then ends its process for
            run_demo(args.config_file, args.output, args.opts)
    except StepFailed as error:
        print(f"alwa-d2 demo: {error}", file=sys.stderr)
        return 1
    return 0
