"""What every process of a training, or of an evaluation, does."""

from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..errors import UserError, user_errors
from .checkpoint import Checkpointer
from .data_check import check_before_run
from .defaults import setup
from .run_folder import NothingToTrain
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
    """
    if args.eval_only:
        return _evaluate(args)
    with user_errors():
        try:
            cfg = setup(args)
        except NothingToTrain as done:
            if comm.is_main_process():
                print(done)
            return None
        trainer = Trainer(cfg)
    resumes = args.resume and trainer.checkpointer.has_checkpoint()
    with user_errors("--resume" if resumes else "MODEL.WEIGHTS"):
        trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def _evaluate(args):
    with user_errors():
        cfg = setup(args)
        if not cfg.DATASETS.TEST:
            raise UserError(
                "DATASETS.TEST: expected at least one data set to evaluate on, got (); name one, "
                "of DATASETS.REGISTER or one that Detectron2 knows"
            )
        Trainer.check_evaluators(cfg)
        check_before_run(cfg, training=False)
        model = Trainer.build_model(cfg)
        checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    with user_errors("MODEL.WEIGHTS"):
        resumes = args.resume and checkpointer.has_checkpoint()
        checkpointer.load_all_weights(
            checkpointer.get_checkpoint_file() if resumes else cfg.MODEL.WEIGHTS
        )
    results = Trainer.test(cfg, model)
    results = {**(results or {}), **augmented_results(Trainer, cfg, model)}
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
