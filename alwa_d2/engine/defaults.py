"""From a config file and the command line to a config that a run can start with."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from PIL import ImageFile

from ..config import add_alwa_config, get_key, scale_iterations
from ..data import check_classes, register_datasets
from ..data.entries import parse_entries
from ..errors import UserError, explain, user_errors
from ..weighting import LOSS_WEIGHTER_REGISTRY
from .run_folder import EVALUATION, keeps_training, prepare
from .settings import check_settings
from .test_time_augmentation import check_augmentation

# What yacs says of a value of another type than the one that it replaces.
MISMATCH = re.compile(
    r"Type mismatch \(<class '(\w+)'> vs. <class '(\w+)'>\) with values \((.*) vs. (.*)\) "
    r"for config key: (\S+)"
)


def merged_cfg(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """The config of a file and of KEY VALUE options, as they say it; see :func:`setup_cfg`."""
    cfg = get_cfg()
    add_alwa_config(cfg)
    if config_file:
        with user_errors(config_file), _in_plain_words(cfg):
            _check_file(config_file)
            _merge_file(cfg, config_file)
    opts = list(opts)
    with user_errors(), _in_plain_words(cfg):
        for place in range(1, len(opts), 2):  # yacs reads Python's lists, not JSON's null and true
            if opts[place - 1] == "DATASETS.REGISTER" and isinstance(opts[place], str):
                opts[place] = parse_entries(opts[place])
        cfg.merge_from_list(opts)
        _check_given(cfg)
    return cfg


def _check_given(cfg: CfgNode) -> None:
    """Refuses keys that were left empty, null in YAML, which yacs takes for any type."""
    default = get_cfg()
    add_alwa_config(default)
    for key in _names(default):
        if get_key(cfg, key) is None and (usual := get_key(default, key)) is not None:
            raise UserError(f"{key}: expected a value such as {usual!r}, got none (null)")


def _merge_file(cfg: CfgNode, path: str) -> None:
    """Detectron2's, but for YAML that makes objects of Python, which could run any code."""
    try:
        cfg.merge_from_file(path, allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        mark = error.problem_mark
        place = (
            f"line {mark.line + 1}" if mark.name == path else f"{mark.name}, line {mark.line + 1}"
        )
        raise UserError(f"{place}: expected plain YAML, {error.problem}") from error


def _check_file(path: str) -> None:
    """Refuses what is no mapping, such as an empty file, which Detectron2 stumbles over."""
    with PathManager.open(path) as file:
        content = yaml.compose(file, Loader=yaml.SafeLoader)
    if not isinstance(content, yaml.MappingNode):
        kind = "nothing" if content is None else f"a {content.id}"
        raise UserError(f"expected a mapping from config keys to values, got {kind}")


@contextlib.contextmanager
def _in_plain_words(cfg: CfgNode) -> Iterator[None]:
    """Adds to the refusal of an unknown key the names that it may have been meant for, and says
    what type a value should have had."""
    try:
        yield
    except ValueError as error:
        if not (found := MISMATCH.search(explain(error))):
            raise
        expected, got, usual, value, key = found.groups()
        such = f", such as {usual}" if usual else ""
        remedy = f"; write {value}.0" if (expected, got) == ("float", "int") else ""
        raise UserError(f"{key}: expected {expected}{such}, got {value} ({got}){remedy}") from error
    except (AssertionError, KeyError) as error:  # of KEY VALUE, of a file
        message = explain(error)
        if not message.startswith("Non-existent"):
            raise
        near = difflib.get_close_matches(message.rpartition(": ")[2], _names(cfg))
        raise UserError(f"{message}; nearest: {', '.join(near) or 'none'}") from error


def _names(cfg: CfgNode, start: str = "") -> list[str]:
    """All keys, such as "MODEL.ALWA.RULE"."""
    names = []
    for key, value in cfg.items():
        names += _names(value, f"{start}{key}.") if isinstance(value, CfgNode) else [start + key]
    return names


def setup_cfg(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """
    The frozen config of a file and of KEY VALUE options; nothing is written.

    The data sets of `DATASETS.REGISTER` are registered, classes are compared with the model's
    number of them, and a model meant for CUDA goes to the CPU where there is no GPU.

    Args:
        config_file: path of a YAML file, or "" for the defaults
        opts: key, value, key, value, ...

    Raises:
        UserError: a file, a key, a value, a data set or a number of classes that does not fit, or
            test-time augmentation of a model that Detectron2 has none for
    """
    cfg = merged_cfg(config_file, opts)
    check_settings(cfg)
    with user_errors():
        register_datasets(cfg.DATASETS.REGISTER)
        check_classes(cfg)
        check_augmentation(cfg)
    with user_errors("MODEL.DEVICE"):
        torch.device(cfg.MODEL.DEVICE)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    # For commands that read images themselves; data loaders see to it in their workers.
    ImageFile.LOAD_TRUNCATED_IMAGES = cfg.INPUT.LOAD_TRUNCATED
    cfg.freeze()
    return cfg


def setup(args) -> CfgNode:
    """
    The frozen config of a run, its folder and loggers set up, as Detectron2's `default_setup` does.

    An evaluation has its log and its config in the subfolder `inference`, so that they are never
    written over those of the training.

    Args:
        args: parsed by Detectron2's `default_argument_parser`

    Raises:
        UserError: a folder that holds another training, or none that can be resumed
        NothingToTrain: the training to resume has been done
    """
    cfg = setup_cfg(args.config_file, args.opts)
    if args.eval_only:
        return set_up_run(cfg, args)
    with keeps_training(Path(cfg.OUTPUT_DIR)):
        return set_up_run(cfg, args)


def scale_to_processes(cfg: CfgNode) -> CfgNode:
    """The config for as many processes as there are, where SOLVER.REFERENCE_WORLD_SIZE says so."""
    weighter = dict(LOSS_WEIGHTER_REGISTRY).get(cfg.MODEL.LOSS_WEIGHTER.NAME)
    taken = None if weighter is None else weighter.config_keys
    scaled = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
    return scale_iterations(scaled, cfg, taken)


def set_up_run(cfg: CfgNode, args) -> CfgNode:
    """What :func:`setup` does with the config of `setup_cfg`."""
    folder = cfg.OUTPUT_DIR
    unscaled = cfg
    if args.eval_only:
        folder = os.path.join(folder, EVALUATION)
    else:
        cfg = scale_to_processes(cfg)
        prepare(cfg, args.resume, needed=(args.config_file, cfg.MODEL.WEIGHTS))
    written = cfg.clone()
    written.defrost()
    written.OUTPUT_DIR = folder
    written.OVERWRITE = False  # a run that takes this one's config.yaml must not remove it
    default_setup(written, args)
    if args.eval_only and comm.is_main_process():
        Path(folder, "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    # Detectron2 sets up its own logger and fvcore's.
    logger = setup_logger(folder, distributed_rank=comm.get_rank(), name="alwa_d2")
    if not args.eval_only:
        scale_to_processes(unscaled)  # once more, for its lines in the log
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{torch.get_num_threads()} threads; CUDA available: {torch.cuda.is_available()}"
    logger.info(f"Running on {device} ({name})")
    return cfg
