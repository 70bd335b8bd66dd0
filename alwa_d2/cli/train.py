"""Trains or evaluates a detector: Detectron2's command line, with alwa_d2's models and data."""

import argparse
import traceback

from ..errors import UserError
from .options import add_config_arguments, positive_int
from .quiet import silence

HELP = "train a detector, or evaluate one"
DESCRIPTION = """
Trains the model of a config, evaluates it, and writes checkpoints, metrics.json, config.yaml and
TensorBoard's files into the config's OUTPUT_DIR. Under torchrun, and under Slurm with WORLD_SIZE,
MASTER_ADDR and MASTER_PORT set, it joins the processes that are there.
"""


def rank(text: str) -> int:
    """An argument that is a number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return int(text)


def add_arguments(parser):
    parser.add_argument(
        "--resume", action="store_true",
        help="go on from the last checkpoint in OUTPUT_DIR, where there is one",
    )  # fmt: skip
    parser.add_argument(
        "--eval-only", action="store_true",
        help="train nothing, evaluate the model of MODEL.WEIGHTS on DATASETS.TEST",
    )  # fmt: skip
    parser.add_argument(
        "--num-gpus", type=positive_int, default=1, metavar="N",
        help="processes on this machine, one for each GPU; with MODEL.DEVICE cpu they share the "
        "cores; default: 1",
    )  # fmt: skip
    machines = parser.add_argument_group("several machines")
    machines.add_argument(
        "--num-machines", type=positive_int, default=1, metavar="N", help="their number; default: 1"
    )
    machines.add_argument(
        "--machine-rank", type=rank, default=0, metavar="N",
        help="which of them this one is, from 0 on; default: 0",
    )  # fmt: skip
    machines.add_argument(
        "--dist-url", default="auto", metavar="URL",
        help="where all processes meet: tcp://HOST:PORT of the first machine; default: a free "
        "port of this one",
    )  # fmt: skip
    add_config_arguments(parser)


def run(args) -> int:
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError(
            f"--dist-url: expected tcp://HOST:PORT of the first machine, with --num-machines "
            f"{args.num_machines}, got none"
        )
    if args.machine_rank >= args.num_machines:
        raise UserError(
            f"--machine-rank: expected less than --num-machines {args.num_machines}, got "
            f"{args.machine_rank}"
        )
    from ..engine import launch

    try:
        launch(train_quietly, args)
    except OSError:
        # From here on one of the training's own, such as a full disk, with all that is known.
        traceback.print_exc()
        return 1
    return 0


def train_quietly(args):
    """What each process of a training does."""
    from ..engine import train_model

    silence()
    return train_model(args)
