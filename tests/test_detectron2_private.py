"""Private names of Detectron2: all of them are in one file, and where they were."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.engine.hooks import PeriodicWriter
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.modeling import FastRCNNOutputLayers
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils import comm
from torch import nn

import alwa_d2
from alwa_d2 import detectron2_private
from alwa_d2.detectron2_private import become

PRIVATE = re.compile(r"_[a-z]\w*")
# Class -> its private names that detectron2_private.py uses. TorchScript cannot call a function
# there from the anchor generator's scripted method, so that one stands in modeling/anchors.py.
NAMES = {
    TrainerBase: {"_hooks"},
    PeriodicWriter: {"_writers"},
    SimpleTrainer: {"_data_loader_iter", "_write_metrics"},
    DefaultTrainer: {"_last_eval_results", "_trainer"},
    DetectionCheckpointer: {
        "_load_file",
        "_load_model",
        "_parsed_url_during_load",
        "_torch_load",
    },
    COCOEvaluator: {
        "_coco_api",
        "_derive_coco_results",
        "_do_evaluation",
        "_kpt_oks_sigmas",
        "_metadata",
        "_tasks_from_predictions",
    },
    PascalVOCDetectionEvaluator: {"_cpu_device", "_predictions"},
    RPN: {"_subsample_labels"},
    DefaultAnchorGenerator: {"_grid_anchors"},
    comm: {"_get_global_gloo_group"},
}
ELSEWHERE = {"KeptAnchorGenerator": {"_grid_anchors"}}
SIGNATURES = {
    "_torch_load": ["self", "f"],
    "_load_file": ["self", "filename"],
    "_load_model": ["self", "checkpoint"],
    "_derive_coco_results": ["self", "coco_eval", "iou_type", "class_names"],
    "_tasks_from_predictions": ["self", "predictions"],
    "_subsample_labels": ["self", "label"],
    "_grid_anchors": ["self", "grid_sizes"],
}


@pytest.mark.parametrize(
    "owner, name", [(owner, name) for owner, names in NAMES.items() for name in sorted(names)]
)
def test_it_is_where_it_was(owner, name):
    source = inspect.getsource(owner)
    assert re.search(rf"def {name}\(|self\.{name}\b", source), f"{owner.__name__} has no {name}"
    if name in SIGNATURES:
        assert [*inspect.signature(getattr(owner, name)).parameters] == SIGNATURES[name]


def test_process_groups_are_kept_where_they_were():
    assert "_LOCAL_PROCESS_GROUP" in vars(comm)
    assert hasattr(comm._get_global_gloo_group, "cache_clear")


def test_the_steps_of_loading_are_called_as_before():
    """The checkpointer's overrides run only if Detectron2 calls these methods."""
    for caller, name in (("load", "_parsed_url_during_load"), ("_load_file", "_torch_load")):
        assert name in inspect.getsource(getattr(DetectionCheckpointer, caller))
    base = inspect.getsource(DetectionCheckpointer.__mro__[1].load)
    assert "self._load_file(" in base and "self._load_model(" in base


def test_the_trainer_that_is_made_of_parts_has_all_that_detectron2s_has():
    def assigned(cls):
        return set(
            re.findall(r"^\s+self\.(\w+)(?:: \w+)? = ", inspect.getsource(cls.__init__), re.M)
        )

    assert assigned(DefaultTrainer) <= assigned(detectron2_private.TrainerOfParts)


def private_names(tree):
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_private(n.attr)}


def is_private(name):
    return bool(PRIVATE.fullmatch(name))


def foreign_names(cls):
    """Private names that a class uses or overrides, and that Detectron2's or fvcore's bases have."""
    bases = [b for b in cls.__mro__ if b.__module__.split(".")[0] in ("detectron2", "fvcore")]
    theirs = {name for base in bases for name in vars(base) if is_private(name)}
    for base in bases:
        theirs |= set(re.findall(r"self\.(_[a-z]\w*)\b", inspect.getsource(base)))
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    methods = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    # nn.Module's, which PyTorch's documentation has for subclasses, are not Detectron2's.
    return (private_names(tree) | methods) & theirs - set(vars(nn.Module))


def modules():
    for found in pkgutil.walk_packages(alwa_d2.__path__, "alwa_d2."):
        if not found.name.endswith(("._C", ".__main__", ".detectron2_private")):
            yield importlib.import_module(found.name)


def test_no_other_file_uses_one():
    used = {}
    for module in modules():
        for name, cls in vars(module).items():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                if names := foreign_names(cls):
                    used[name] = names
    assert used == ELSEWHERE


def test_all_that_the_file_uses_are_named_above():
    known = set().union(*NAMES.values()) - ELSEWHERE["KeptAnchorGenerator"]
    tree = ast.parse(inspect.getsource(detectron2_private))
    methods = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert private_names(tree) | {name for name in methods if is_private(name)} == known


def test_become_wants_a_direct_subclass():
    class Own(FastRCNNOutputLayers):
        pass

    with pytest.raises(TypeError, match="expected a direct subclass of Linear"):
        become(nn.Linear(1, 1), Own)


def test_nobody_else_changes_a_class():
    for module in modules():
        assert ".__class__ =" not in inspect.getsource(module), module.__name__
