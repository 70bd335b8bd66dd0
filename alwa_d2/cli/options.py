"""Options that several commands have, with the same words in each."""

import argparse
import math
from pathlib import Path

import shtab

from ..errors import UserError
from ..model_zoo import find_config


def png_path(text: str) -> Path:
    """An argument that names a PNG file."""
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .png, got {text}")
    return Path(text)


def positive_int(text: str) -> int:
    """An argument that is a number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return int(text)


def score(text: str) -> float:
    """An argument that is a detection's score."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def config_path(text: str) -> str:
    """An argument that is a config's path, or the name of one of this package's."""
    try:
        return find_config(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def key_or_value(text: str) -> str:
    """An argument of a KEY VALUE pair; argparse takes all that follows the first for such."""
    if text.startswith("--") or text == "-h":
        raise argparse.ArgumentTypeError(f"options stand before KEY VALUE pairs, got {text} behind")
    return text


def add_config_arguments(parser, default: str | None = None) -> None:
    """
    `--config-file` and, at the end of the line, KEY VALUE pairs.

    Args:
        default: name of a config; without it the option has to be there
    """
    required = "" if default else "--config-file FILE "
    parser.usage = f"%(prog)s [options] {required}[KEY VALUE ...]"
    parser.add_argument(
        "--config-file", type=config_path, metavar="FILE", required=default is None,
        default=default, help="a config's path, or the name of one that comes with alwa_d2: "
        f"retina_alwa.yaml, voc/..., coco/...{f'; default: {default}' if default else ''}",
    ).complete = shtab.FILE  # fmt: skip
    parser.add_argument(
        "opts", metavar="KEY VALUE", nargs=argparse.REMAINDER, default=[], type=key_or_value,
        help="settings that take the place of the config's, after all options: KEY VALUE pairs "
        "such as SOLVER.BASE_LR 0.01",
    )  # fmt: skip


def add_run_arguments(parser) -> None:
    """One or more folders of finished runs."""
    parser.add_argument(
        "folders", metavar="OUTPUT_DIR", nargs="+", help="the folder of a finished run"
    ).complete = shtab.DIRECTORY


def add_image_arguments(parser, output: str, sets: str, count: int) -> None:
    """
    Which images a picture is made of, and where it goes.

    Args:
        output: says where by default
        sets: the key whose first data set is the default
        count: images by default
    """
    parser.add_argument(
        "--output", type=png_path, metavar="FILE", help=f"a PNG file; default: {output}"
    ).complete = shtab.FILE
    parser.add_argument(
        "--dataset", metavar="NAME", help=f"a registered data set; default: the first of {sets}"
    )
    parser.add_argument(
        "--num-images", type=positive_int, default=count, metavar="N",
        help=f"how many images, evenly spread over the data set; default: {count}",
    )  # fmt: skip
