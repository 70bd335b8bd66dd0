"""Every method in a RetinaNet, and those that look into the model in a Faster R-CNN."""

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

import test_rcnn
import test_retinanet
from detectron2.utils.events import EventStorage
from test_resume import run_toy
from toy import read_records

from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY, GradNorm

NAME, SECTION = "MODEL.LOSS_WEIGHTER.NAME", "MODEL.LOSS_WEIGHTER"
# So that weights move within three iterations.
OPTS = {
    "ALWA": {"MODEL.ALWA.INTERVAL": 2},
    "DWA": {f"{SECTION}.DWA.WINDOW": 1},
    "Fixed": {f"{SECTION}.WEIGHTS": [0.5, 2.0]},
    "GradNorm": {f"{SECTION}.GRADNORM.WINDOW": 1},
    "Schedule": {f"{SECTION}.SCHEDULE": [["loss_cls", [[0, 0.5], [4, 1.0]]]]},
}
# A layer that one loss alone trains.
LAYERS = {"loss_cls": "head.cls_score.weight", "loss_box_reg": "head.bbox_pred.weight"}


@pytest.mark.parametrize("name", dict(LOSS_WEIGHTER_REGISTRY))
def test_losses_and_gradients_are_the_plain_ones_times_the_weights(name):
    plain = test_retinanet.make_model(**{NAME: "Fixed"})
    model = test_retinanet.make_model(**{NAME: name, **OPTS.get(name, {})})
    weighter = model.loss_weighter
    seen = set()
    for counts in ((4, 2), (1, 3), (2, 2), (3, 1)):
        batch = test_retinanet.make_batch(counts)
        before = weighter.weights
        losses, gradients = test_retinanet.losses_and_gradients(plain, batch)
        weighted, got = test_retinanet.losses_and_gradients(model, batch)
        # Of GradNorm, and of what is learnt, `weights` are the next ones after a pass.
        known = weighter.known_before or name in ("GradNorm", "Uncertainty")
        weights = before if known else weighter.weights
        for key, layer in LAYERS.items():
            weight = float(weights[key])
            if name != "Uncertainty":  # whose weighted losses have a second term
                assert float(weighted[key].detach()) == pytest.approx(
                    weight * float(losses[key].detach()), rel=1e-5
                )
            torch.testing.assert_close(got[layer], weight * gradients[layer], rtol=1e-4, atol=1e-6)
        seen.add(tuple(float(x) for x in weights.values()))
    assert len(seen) > 1 or name in ("Fixed", "Uncertainty")
    assert name != "Uncertainty" or got["loss_weighter.loss_scale"].abs().min() > 0


def test_gradnorm_looks_at_the_fpns_output_convolutions():
    model = test_rcnn.make_model(MODEL__LOSS_WEIGHTER__NAME="GradNorm")
    weighters = [m for m in model.modules() if isinstance(m, GradNorm)]
    assert len(weighters) == 2
    names = [n for n, _ in model.named_parameters() if "fpn_output" in n and n.endswith("weight")]
    expected = {model.get_parameter(n) for n in names if "norm" not in n}
    for weighter in weighters:
        assert set(weighter._shared) == expected and len(expected) >= 3
    with EventStorage():
        losses = model(test_rcnn.make_batch())
    sum(losses.values()).backward()
    assert all(weighter.seen.tolist() == [1, 1] for weighter in weighters)


def test_gradnorm_says_which_key_to_set_where_there_is_no_fpn():
    with pytest.raises(ValueError, match="GRADNORM.PARAMETERS.*which finds none"):
        test_retinanet.make_model(
            **{NAME: "GradNorm", f"{SECTION}.GRADNORM.PARAMETERS": "no_such_layer"}
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DWA", "FAMO", "Uncertainty"])
def test_two_processes_agree_and_resume_to_the_bit(name, tmp_path):
    """Stopped in the middle of a window, of which each process has a sum of its own."""
    opts = ["AlwaRetinaNet", NAME, name, f"{SECTION}.DWA.WINDOW", 4, "SOLVER.IMS_PER_BATCH", 4]
    flags = ("--num-gpus", "2")
    for folder, stops in (("whole", (10,)), ("parts", (6, 10))):
        for stop in stops:
            resume = ("--resume",) if stop != stops[0] else ()
            done = run_toy(
                tmp_path / folder, *opts, "SOLVER.MAX_ITER", stop, flags=(*flags, *resume)
            )
            assert done.returncode == 0, done.stderr
    whole, parts = (
        [read_records(tmp_path / folder, rank) for rank in (0, 1)] for folder in ("whole", "parts")
    )
    for i in range(10):
        assert whole[0][i]["weights"] == whole[1][i]["weights"]
        assert whole[0][i]["observed"] != whole[1][i]["observed"]
        for rank in (0, 1):
            assert parts[rank][i]["weights"] == whole[rank][i]["weights"]
            assert parts[rank][i]["observed"] == whole[rank][i]["observed"]
    assert len({str(row["weights"]) for row in whole[0].values()}) > 1
