"""Every configuration file loads, means what its name says, and builds a model."""

import pytest
from conftest import BOX_KINDS, REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from alwa_d2 import add_alwa_config

LEAVES = sorted(p for p in (REPO / "configs").rglob("*.yaml") if not p.name.startswith("Base-"))


def load(path, *opts):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *opts])
    return cfg


@pytest.mark.parametrize("path", LEAVES, ids=lambda p: str(p.relative_to(REPO / "configs")))
def test_config_builds(path):
    model = build_model(load(path))
    if "rcnn" in path.name:
        assert type(model).__name__ == "AlwaGeneralizedRCNN"
        assert type(model.proposal_generator).__name__ == "AlwaRPN"
        assert model.roi_heads.mask_on == path.name.startswith("mask")
        weighters = model.loss_weighters.values()
    else:
        kind = "AlwaFCOS" if "fcos" in path.name else "AlwaRetinaNet"
        assert type(model).__name__ == kind
        weighters = [model.loss_weighter]
    for weighter in weighters:
        assert type(weighter).__name__ == ("ALWA" if "alwa" in path.name else "Fixed")
    if path.parent.name == "voc" and path.name.startswith("retinanet"):
        kind = (
            path.name.removesuffix("_R_50_FPN.yaml")
            .removeprefix("retinanet_")
            .removeprefix("alwa_")
        )
        assert model.box_reg_loss_type == kind
    if path.parent.name in ("voc", "coco"):
        assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn"])
def test_rcnns_on_coco_are_those_of_the_model_zoo(name):
    """But for the classes of ours that take the place of Detectron2's."""
    kind = "Detection" if name == "faster_rcnn" else "InstanceSegmentation"
    zoo = load(model_zoo.get_config_file(f"COCO-{kind}/{name}_R_50_FPN_1x.yaml"))
    ours = load(REPO / "configs" / "coco" / f"{name}_R_50_FPN_1x.yaml")
    assert type(build_model(ours).backbone) is type(build_model(zoo).backbone)
    for cfg in (zoo, ours):
        cfg.MODEL.META_ARCHITECTURE = cfg.MODEL.PROPOSAL_GENERATOR.NAME = cfg.OUTPUT_DIR = ""
    assert ours == zoo


def test_every_run_with_alwa_has_a_twin_without():
    names = {str(path.relative_to(REPO)) for path in LEAVES}
    twins = {
        name.replace("_alwa", "")
        for name in names
        if name.startswith(("configs/voc", "configs/coco"))
    }
    assert twins <= names
    for kind in BOX_KINDS:
        assert f"configs/voc/retinanet_alwa_{kind}_R_50_FPN.yaml" in names
    for name in twins:
        with_alwa = name.replace("retinanet", "retinanet_alwa").replace("rcnn", "rcnn_alwa")
        plain, alwa = (load(REPO / n) for n in (name, with_alwa))
        alwa.MODEL.LOSS_WEIGHTER.NAME = plain.MODEL.LOSS_WEIGHTER.NAME
        alwa.OUTPUT_DIR = plain.OUTPUT_DIR
        assert alwa == plain


def test_unknown_keys_are_refused():
    with pytest.raises(AssertionError, match="Non-existent key: MODEL.ALWA.INTERVALL"):
        load(REPO / "configs" / "retina_alwa.yaml", "MODEL.ALWA.INTERVALL", 10)
