"""Every place where this package relies on private names of Detectron2 and fvcore.

Such names may move without notice. When one does, this is the file to mend, and
tests/test_detectron2_private.py says which. The classes here give the private steps public names,
for subclasses elsewhere in the package.
"""

import contextlib
import io
import json
import logging
import os
import tempfile
import weakref

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from .errors import UserError

logger = logging.getLogger(__name__)


def become(module: nn.Module, kind: type) -> None:
    """Makes a finished module one of `kind`, a subclass of its class with the same parameters.

    Detectron2 has no registry for these modules, and to build them anew would need all arguments
    of their constructors. `kind` finds the attributes that its base class's constructor made, and
    must not need any other.
    """
    if kind.__base__ is not type(module):
        raise TypeError(f"expected a direct subclass of {type(module).__name__}, got {kind}")
    module.__class__ = kind


def forget_process_groups() -> None:
    """Drops Detectron2's references to process groups, whose threads live as long as they do."""
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()


def loop_of(trainer):
    """What does the steps: a part of a `DefaultTrainer`, any other trainer itself."""
    return getattr(trainer, "_trainer", trainer)


def start_data_loader(trainer) -> None:
    """Makes the iterator over a trainer's batches, if it has not begun."""
    getattr(loop_of(trainer), "_data_loader_iter", None)


def writers_of(hook) -> list:
    """The event writers of a `PeriodicWriter`."""
    return hook._writers


def last_results(trainer) -> dict | None:
    """Of a `DefaultTrainer`'s last evaluation; None where there was none."""
    return trainer._last_eval_results if hasattr(trainer, "_last_eval_results") else None


def optimizer_of(checkpointed) -> torch.optim.Optimizer | None:
    """The optimizer of what a checkpointer saves as "trainer"."""
    optimizer = getattr(loop_of(checkpointed), "optimizer", None)
    return optimizer if isinstance(optimizer, torch.optim.Optimizer) else None


def saved_optimizer(checkpoint: dict) -> dict:
    """The optimizer's state in a checkpoint of a trainer."""
    trainer = checkpoint.get("trainer", {})
    state = trainer.get("_trainer", trainer).get("optimizer")
    return state if isinstance(state, dict) else {}


def remove_hooks(trainer, kind: type) -> None:
    """Takes all hooks of a kind out of a trainer."""
    trainer._hooks = [hook for hook in trainer._hooks if not isinstance(hook, kind)]


def subsample_labels(rpn: nn.Module, label: torch.Tensor) -> None:
    """Detectron2's sampling of an RPN's anchors: all others become -1 in `label` (R,), in place."""
    rpn._subsample_labels(label)


class TrainerOfParts(DefaultTrainer):
    """`DefaultTrainer` of parts that were made elsewhere.

    Detectron2's own constructor makes them, and knows several processes and mixed precision on CUDA
    alone.
    """

    def __init__(self, cfg, loop: SimpleTrainer, model: nn.Module, checkpointer_class: type):
        """
        Args:
            cfg: the run's config
            loop: does the steps
            model: what checkpoints hold; a `DistributedDataParallel` may be around it
            checkpointer_class: takes model, folder and `trainer=`
        """
        super(DefaultTrainer, self).__init__()
        self._trainer = loop
        self.scheduler = self.build_lr_scheduler(cfg, loop.optimizer)
        self.checkpointer = checkpointer_class(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())


class OpenAMPTrainer(AMPTrainer):
    """`AMPTrainer` with names for the parts of a step that are the same on all devices."""

    def next_batch(self):
        return next(self._data_loader_iter)

    def write_losses(self, losses: dict[str, torch.Tensor], data_time: float) -> None:
        """Puts the losses and the seconds that the batch took into the event storage."""
        self._write_metrics(losses, data_time)


class OpenCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` with names for the steps of loading."""

    def load(self, path, checkpointables=None):
        try:
            return super().load(path, checkpointables)
        finally:
            self._parsed_url_during_load = None  # which a refusal would leave behind

    def read_file(self, path: str) -> dict:
        """The content of a `.pth` file."""
        raise NotImplementedError

    def refuse_file(self, path: str, error: Exception) -> None:
        """Raises what a file is refused with that could not be read, which `error` says."""
        raise error

    def check_content(self, path: str, checkpoint: dict) -> None:
        """Looks at what a file holds; "model" is there, other keys may be."""

    def check_loaded(self, incompatible) -> None:
        """Looks at which keys of the model's state were missing, unexpected or of another shape."""

    def _torch_load(self, f):
        return self.read_file(f)

    def _load_file(self, filename):
        try:
            checkpoint = super()._load_file(filename)
        except UserError:
            raise
        except Exception as error:  # of many types, for a file that may hold anything
            self.refuse_file(filename, error)
        self.check_content(filename, checkpoint)
        return checkpoint

    def _load_model(self, checkpoint):
        incompatible = super()._load_model(checkpoint)
        self.check_loaded(incompatible)
        return incompatible


class OpenCOCOEvaluator(COCOEvaluator):
    """`COCOEvaluator` whose ground truth may be given, also where nothing was detected of it."""

    def __init__(self, dataset_name: str, *args, truth: dict | None = None, **kwargs):
        """
        Args:
            dataset_name: a registered data set
            args, kwargs: Detectron2's
            truth: the content of a COCO file, in place of the one that the metadata names
        """
        self.tasks_of_nothing = ["bbox"]  # that are scored where nothing was detected
        if truth is None:
            super().__init__(dataset_name, *args, **kwargs)
            return
        # The constructor reads a file, with pycocotools, which takes less than COCO's readers do.
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "empty.json")
            with open(path, "w") as file:
                json.dump({"annotations": []} if "annotations" in truth else {}, file)
            MetadataCatalog.get(path).json_file = path
            try:
                super().__init__(path, *args, **kwargs)
            finally:
                MetadataCatalog.pop(path)
        self._metadata = MetadataCatalog.get(dataset_name)
        self.set_truth(truth)

    def set_truth(self, content: dict) -> None:
        """Puts the content of a COCO file in the place of what was read."""
        self._coco_api.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            self._coco_api.createIndex()

    @property
    def truth(self):
        """pycocotools' `COCO` object."""
        return self._coco_api

    @property
    def has_truth(self) -> bool:
        """Whether the file has annotations."""
        return self._do_evaluation

    def score_of_nothing(self, iou_type: str) -> COCOeval:
        """COCO's scores of a model that has detected nothing: 0 where there is an object."""
        nothing = COCO()
        nothing.dataset = {**self.truth.dataset, "annotations": []}
        with contextlib.redirect_stdout(io.StringIO()):
            nothing.createIndex()
            scores = COCOeval(self.truth, nothing, iou_type)
            if iou_type == "keypoints" and self._kpt_oks_sigmas:
                scores.params.kpt_oks_sigmas = np.array(self._kpt_oks_sigmas)
            scores.evaluate()
            scores.accumulate()
            scores.summarize()
        return scores

    def _tasks_from_predictions(self, predictions):
        if not predictions:
            return self.tasks_of_nothing
        return super()._tasks_from_predictions(predictions)

    def in_order_of_ids(self, class_names: list[str]) -> list[str]:
        """The classes' names in the order of the file's category ids, which results are in."""
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        return class_names if ids is None else [class_names[ids[number]] for number in sorted(ids)]

    def _derive_coco_results(self, coco_eval, iou_type, class_names=None):
        if class_names is not None:
            class_names = self.in_order_of_ids(class_names)
        if coco_eval is None:
            logger.warning("Nothing was detected: %s AP is 0 where there are objects", iou_type)
            coco_eval = self.score_of_nothing(iou_type)
        return super()._derive_coco_results(coco_eval, iou_type, class_names)


class OpenVOCEvaluator(PascalVOCDetectionEvaluator):
    """`PascalVOCDetectionEvaluator` for data sets without a year: its constructor is not called."""

    def __init__(self):
        self._cpu_device = torch.device("cpu")
        self.reset()

    @property
    def predictions(self) -> dict[int, list[str]]:
        """Class id -> lines of this process, as VOC's result files have them."""
        return self._predictions
