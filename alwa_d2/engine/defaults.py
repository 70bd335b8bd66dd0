"""From a config file and the command line to a config that a run can start with."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import add_alwa_config
from ..data import check_classes, register_datasets
from .test_time_augmentation import check_augmentation


def merged_cfg(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """The config of a file and of KEY VALUE options, as they say it; see :func:`setup_cfg`."""
    cfg = get_cfg()
    add_alwa_config(cfg)
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    return cfg


def setup_cfg(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """
    The frozen config of a file and of KEY VALUE options; nothing is written.

    The data sets of `DATASETS.REGISTER` are registered, classes are compared with the model's
    number of them, and a model meant for CUDA goes to the CPU where there is no GPU.

    Args:
        config_file: path of a YAML file, or "" for the defaults
        opts: key, value, key, value, ...

    Raises:
        ValueError: a data set or a number of classes that does not fit, or test-time augmentation
            of a model that Detectron2 has none for
    """
    cfg = merged_cfg(config_file, opts)
    register_datasets(cfg.DATASETS.REGISTER)
    check_classes(cfg)
    check_augmentation(cfg)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def setup(args) -> CfgNode:
    """
    The frozen config of a run, its folder and loggers set up, as Detectron2's `default_setup` does.

    Args:
        args: parsed by Detectron2's `default_argument_parser`
    """
    cfg = setup_cfg(args.config_file, args.opts)
    default_setup(cfg, args)
    # Detectron2 sets up its own logger and fvcore's.
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="alwa_d2")
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{torch.get_num_threads()} threads; CUDA available: {torch.cuda.is_available()}"
    logger.info(f"Running on {device} ({name})")
    return cfg
