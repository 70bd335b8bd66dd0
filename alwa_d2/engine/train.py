"""What every process of a training, or of an evaluation, does."""

from pathlib import Path

from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..detectron2_private import last_results
from ..errors import UserError, user_errors
from .checkpoint import Checkpointer, check_is_there, check_weights_given
from .data_check import check_before_run
from .defaults import set_up_run, setup, setup_cfg
from .run_folder import NothingToTrain, keeps_training, last_checkpoint
from .test_time_augmentation import augmented_results
from .trainer import Trainer


def train_model(args):
    """
    Trains, or with `args.eval_only` evaluates, the model of a config; for :func:`launch`.

    Args:
        args: parsed by Detectron2's `default_argument_parser`

    Returns:
        The results of the last evaluation, by task and metric, on the main process; None where
        there was none.

    Raises:
        UserError: anything that goes wrong before the first iteration or image
        RunError: an image that cannot be read when its turn comes
    """
    if args.eval_only:
        return _evaluate(args)
    trainer = _begin(args)
    if trainer is None:
        return None
    trainer.train()
    return last_results(trainer) if comm.is_main_process() else None


def _begin(args):
    """The trainer, ready for its first iteration; None where all have been done."""
    with user_errors():
        cfg = setup_cfg(args.config_file, args.opts)
    with keeps_training(Path(cfg.OUTPUT_DIR)):
        with user_errors():
            try:
                cfg = set_up_run(cfg, args)
            except NothingToTrain as done:
                if comm.is_main_process():
                    print(done)
                return None
            Trainer.check_train_sets(cfg)
            if not (args.resume and last_checkpoint(Path(cfg.OUTPUT_DIR))):
                check_is_there(cfg.MODEL.WEIGHTS)
            trainer = Trainer(cfg)
        resumes = args.resume and trainer.checkpointer.has_checkpoint()
        with user_errors("--resume" if resumes else "MODEL.WEIGHTS"):
            trainer.resume_or_load(resume=args.resume)
    return trainer


def _evaluate(args):
    with user_errors():
        cfg = setup(args)
        if not cfg.DATASETS.TEST:
            raise UserError(
                "DATASETS.TEST: expected at least one data set to evaluate on, got (); name one, "
                "of DATASETS.REGISTER or one that Detectron2 knows"
            )
        Trainer.check_evaluators(cfg)
        resumed = last_checkpoint(Path(cfg.OUTPUT_DIR)) if args.resume else None
        weights = str(resumed or cfg.MODEL.WEIGHTS)
        check_weights_given(weights)
        check_before_run(cfg, training=False)
        model = Trainer.build_model(cfg)
        checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    with user_errors("MODEL.WEIGHTS"):
        checkpointer.load_all_weights(weights)
    results = Trainer.test(cfg, model)
    results = {**(results or {}), **augmented_results(Trainer, cfg, model)}
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
