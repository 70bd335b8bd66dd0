"""LazyConfigs: a model of Detectron2's zoo with ALWA, and examples/train_lazy.py, which trains it."""

import json
import runpy
from functools import partial

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import REPO
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import get_detection_dataset_dicts
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling import build_model
from omegaconf import OmegaConf
from test_rcnn import assert_equal, make_batch

from alwa_d2.engine.defaults import merged_cfg
from alwa_d2.model_zoo import get_config_file
from alwa_d2.modeling import AlwaFCOS, AlwaGeneralizedRCNN, AlwaRetinaNet, AlwaRPN
from alwa_d2.weighting import ALWA, Fixed, Inverse, Schedule, Uncertainty, weighters_of

FOLDER = REPO / "configs" / "lazy"
# Detectron2's folder, the classes that differ, and the pairs of losses that ALWA weighs.
PAIR = ("loss_cls", "loss_box_reg")
FCOS_PAIR, RPN_PAIR = ("loss_fcos_cls", "loss_fcos_loc"), ("loss_rpn_cls", "loss_rpn_loc")
OF_THE_ZOO = {
    "retinanet": ("COCO-Detection", {"model._target_": AlwaRetinaNet}, [PAIR]),
    "fcos": ("COCO-Detection", {"model._target_": AlwaFCOS}, [FCOS_PAIR]),
    "mask_rcnn": (
        "COCO-InstanceSegmentation",
        {"model._target_": AlwaGeneralizedRCNN, "model.proposal_generator._target_": AlwaRPN},
        [RPN_PAIR, PAIR],
    ),
}


def load(name):
    return LazyConfig.load(str(FOLDER / f"{name}.py"))


def flat(config, prefix=""):
    """Dotted key -> value, interpolations as they are written."""
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config)
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        key: value
        for name, part in config.items()
        for key, value in flat(part, f"{prefix}.{name}" if prefix else name).items()
    }


def make_small(model):
    """A ResNet-18 with norms that random weights do not need statistics for, in place."""
    body = model.backbone.bottom_up
    body.stem.norm = "GN"
    body.stages = dict(_target_=body.stages._target_, depth=18, norm="GN")
    if model.backbone.top_block.get("in_channels", 0) == 2048:
        model.backbone.top_block.in_channels = 512
    return model


@pytest.mark.parametrize("name", OF_THE_ZOO)
def test_classes_and_weighters_differ_from_detectron2s_and_the_losses_do_not(name):
    folder, classes, pairs = OF_THE_ZOO[name]
    ours = load(f"{name}_alwa_R_50_FPN_1x")
    stock = get_config(f"{folder}/{name}_R_50_FPN_1x.py")
    key = "loss_weighters" if len(pairs) > 1 else "loss_weighter"
    before, after = flat(stock), flat(ours)
    added = {name for name in after if name.startswith(f"model.{key}")}
    assert after.keys() - added == before.keys()
    assert {key: x for key, x in after.items() if key not in added and before[key] != x} == classes
    models = [instantiate(make_small(config.model)).train() for config in (ours, stock)]
    assert [(type(w), w.keys) for w in weighters_of(models[0])] == [(ALWA, pair) for pair in pairs]
    models[0].load_state_dict(models[1].state_dict(), strict=False)
    assert_equal(*models, make_batch((4, 2), size=64))


def test_without_a_weighter_each_pair_of_the_model_has_weights_of_1():
    for name, (_, _, pairs) in OF_THE_ZOO.items():
        model = make_small(load(f"{name}_alwa_R_50_FPN_1x").model)
        del model["loss_weighters" if len(pairs) > 1 else "loss_weighter"]
        weighters = weighters_of(instantiate(model))
        assert [(type(w), w.keys) for w in weighters] == [(Fixed, pair) for pair in pairs]
        assert all(weight == 1 for w in weighters for weight in w.weights.values())
    stages = get_config("common/models/cascade_rcnn.py").model
    stages._target_ = AlwaGeneralizedRCNN
    weighters = weighters_of(instantiate(make_small(stages)))
    assert all(type(weighter) is Fixed for weighter in weighters)
    suffixes = [f"_stage{i}" for i in range(3)]
    assert [weighter.keys for weighter in weighters] == [
        *(RPN_PAIR, *((f"loss_cls{x}", f"loss_box_reg{x}") for x in suffixes)),
    ]


def first_weights(model, weighter):
    """Of a small model whose config has that weighter."""
    model.loss_weighter = weighter
    (made,) = weighters_of(instantiate(model))
    return {key: round(float(weight), 6) for key, weight in made.weights.items()}


def test_weighters_with_lists_and_names_in_a_lazy_config():
    """Its lists and dictionaries are OmegaConf's, not Python's."""
    model = load("retinanet_alwa").model
    half = {"loss_cls": 0.5, "loss_box_reg": 1.0}
    assert first_weights(model, L(Fixed)(weights=[0.5, 1.0])) == half
    assert first_weights(model, L(Fixed)(weights={"loss_cls": 0.5})) == half
    assert first_weights(model, L(Schedule)(points={"loss_cls": [[0, 0.5], [10, 1.0]]})) == half
    assert first_weights(model, L(Inverse)(target={"loss_cls": 3.0}))["loss_cls"] == 1
    fcos = load("fcos_alwa").model
    halves = dict.fromkeys(FCOS_PAIR, 0.5)
    assert first_weights(fcos, partial(Fixed, weights=[0.5, 0.5])) == halves
    assert first_weights(fcos, Uncertainty) == dict.fromkeys(FCOS_PAIR, 1.0)
    rcnn = make_small(load("mask_rcnn_alwa_R_50_FPN_1x").model)
    rcnn.loss_weighters = [L(ALWA)(cls_key=RPN_PAIR[0], reg_key=RPN_PAIR[1], interval=7)]
    (weighter,) = weighters_of(instantiate(rcnn))
    assert (weighter.keys, weighter.interval) == (RPN_PAIR, 7)
    rcnn.loss_weighters = [L(Fixed)(), L(Fixed)(weights={"loss_cls": 0.5})]
    with pytest.raises(ValueError, match="each loss in one of them, got 'loss_cls' in 2"):
        instantiate(rcnn)


@pytest.mark.parametrize("name", ["retinanet_alwa", "mask_rcnn_alwa_R_50_FPN_1x"])
@pytest.mark.parametrize("given", ["ALWA", 1.0, dict, None])
def test_what_makes_no_weighter_is_refused(name, given):
    model = make_small(load(name).model)
    key = "loss_weighter" if "retinanet" in name else "loss_weighters"
    with pytest.raises(ValueError, match=rf"^{key}: expected a LossWeighter, or a class") as error:
        if given is dict:
            instantiate({**model, key: lambda *keys: dict.fromkeys(keys)})
        else:
            instantiate({**model, key: given})
    assert given is dict or str(error.value).endswith(f"got {given!r}")


@pytest.mark.parametrize("name, yaml", [("retinanet_alwa", "retina_alwa"), ("fcos_alwa",) * 2])
def test_the_small_ones_are_the_yaml_ones(name, yaml):
    config, cfg = load(name), merged_cfg(get_config_file(f"{yaml}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    if "anchor_generator" in config.model:  # whose sizes are rounded in the YAML file
        sizes = torch.tensor(config.model.anchor_generator.sizes)
        torch.testing.assert_close(
            sizes, torch.tensor(cfg.MODEL.ANCHOR_GENERATOR.SIZES), rtol=1e-3, atol=0
        )
        config.model.anchor_generator.sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    ours, theirs = instantiate(config.model).train(), build_model(cfg).train()
    assert not any(ours.load_state_dict(theirs.state_dict()))
    assert_equal(ours, theirs, make_batch((4, 2), size=64))
    assert weighters_of(ours)[0].settings() == weighters_of(theirs)[0].settings()
    data, solver = config.dataloader, cfg.SOLVER
    assert (data.train.dataset.names,) == cfg.DATASETS.TRAIN
    assert (data.evaluator.dataset_name,) == cfg.DATASETS.TEST
    assert data.train.total_batch_size == solver.IMS_PER_BATCH
    assert config.train.max_iter == solver.MAX_ITER
    assert config.optimizer.lr == solver.BASE_LR
    assert tuple(config.lr_multiplier.scheduler.milestones) == (*solver.STEPS, solver.MAX_ITER)
    for part, size in ((data.train, cfg.INPUT.MIN_SIZE_TRAIN[0]), (data.test, 160)):
        assert part.mapper.augmentations[0].short_edge_length == size


def faster_rcnn():
    """Detectron2's Mask R-CNN without masks, on the small set."""
    config = load("retinanet_alwa")
    model = make_small(load("mask_rcnn_alwa_R_50_FPN_1x").model)
    for name in ("mask_in_features", "mask_pooler", "mask_head"):
        del model.roi_heads[name]
    model.roi_heads.num_classes = 5
    model.backbone.out_channels = 32
    model.proposal_generator.head.in_channels = 32
    model.roi_heads.box_head.update(
        input_shape=ShapeSpec(channels=32, height=7, width=7), fc_dims=[32]
    )
    model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=32)
    config.model = model
    return config


def four_images(names, filter_empty):
    return get_detection_dataset_dicts(names, filter_empty)[:4]


CASES = {
    "retinanet": partial(load, "retinanet_alwa"),
    "fcos": partial(load, "fcos_alwa"),
    "faster_rcnn": faster_rcnn,
}


@pytest.mark.parametrize("name", CASES)
def test_the_example_trains_and_evaluates(name, tmp_path):
    """Three iterations, on the device that the config names; what it writes is loadable."""
    config = CASES[name]()
    overrides = ["train.max_iter=3", "train.log_period=3", f"train.output_dir={tmp_path}"]
    overrides += ["train.device=cpu", "dataloader.train.total_batch_size=2"]
    config = LazyConfig.apply_overrides(config, overrides)
    LazyConfig.save(config, str(tmp_path / "config.yaml"))  # as Detectron2's script does
    again = LazyConfig.load(str(tmp_path / "config.yaml")).model
    config.dataloader.test.dataset._target_ = four_images
    train = runpy.run_path(str(REPO / "examples" / "train_lazy.py"))["train"]
    results = train(config)
    assert set(results) == {"bbox"} and {"AP", "AP50"} <= set(results["bbox"])
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    last = json.loads(lines[-1])
    model = instantiate(again)
    for weighter in weighters_of(model):
        for key in weighter.keys:
            assert last[key] > 0 and last[f"alwa/weight_{key.removeprefix('loss_')}"] == 1
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert not any(model.load_state_dict(state))
    assert all(torch.isfinite(x).all() for x in state.values() if x.dtype == torch.float32)
    moved = [int(w.slot) for w in weighters_of(model)]
    assert moved == [3] * len(moved)


def test_the_example_starts_from_a_models_weights_alone(tmp_path):
    """Of the training that they are from, neither rate nor momentum, nor its weighter's state."""
    train = runpy.run_path(str(REPO / "examples" / "train_lazy.py"))["train"]
    for folder, rate, weights in (
        ("a", 0.001, ""),
        ("b", 0.0, str(tmp_path / "a/model_final.pth")),
    ):
        config = load("retinanet_alwa")
        config.dataloader.test.dataset._target_ = four_images
        opts = ["train.max_iter=2", f"train.output_dir={tmp_path / folder}", "train.device=cpu"]
        opts += [f"train.init_checkpoint={weights}", f"optimizer.lr={rate}"]
        train(LazyConfig.apply_overrides(config, [*opts, "dataloader.train.total_batch_size=1"]))
    first, second = (
        torch.load(tmp_path / folder / "model_final.pth", weights_only=True) for folder in "ab"
    )
    assert all(group["lr"] == 0 for group in second["trainer"]["optimizer"]["param_groups"])
    name = "head.cls_score.bias"
    assert torch.equal(first["model"][name], second["model"][name])
    assert int(second["model"]["loss_weighter.slot"]) == 2  # not 4


def test_the_example_gives_learnt_weights_a_rate_of_their_own(tmp_path, caplog):
    config = load("retinanet_alwa")
    config.model.loss_weighter = L(Uncertainty)(lr=0.5)
    config.optimizer.params.overrides = {"bias": {"lr": 0.25}}  # stays
    config.dataloader.test.dataset._target_ = four_images
    opts = ["train.max_iter=1", f"train.output_dir={tmp_path}", "train.device=cpu"]
    config = LazyConfig.apply_overrides(config, [*opts, "dataloader.train.total_batch_size=1"])
    runpy.run_path(str(REPO / "examples" / "train_lazy.py"))["train"](config)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]
    groups = saved["optimizer"]["param_groups"]
    sizes = {group["initial_lr"]: len(group["params"]) for group in groups}
    assert sizes[0.5] == 1 and sizes[0.25] > 1 and sizes[0.04] > 1
    assert not [message for message in caplog.messages if "learns the weights" in message]
