"""Mixed precision: losses in float32, the optimizer's steps, overflows; on CPU and CUDA."""

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import DEVICES
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from toy import INTERVAL, ToyTrainer, make_batch, toy_cfg

MODELS = ("AlwaRetinaNet", "AlwaGeneralizedRCNN")
AMP = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION")


@pytest.fixture
def make_trainer(tmp_path):
    def make(architecture, device, *opts):
        seed_all_rng(0)  # the toy's data draws from Python's and NumPy's generators, too
        return ToyTrainer(toy_cfg(architecture, tmp_path, "MODEL.DEVICE", device, *opts))

    return make


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("architecture", MODELS)
def test_losses_are_float32_and_near_those_of_full_precision(
    architecture, precision, device, make_trainer
):
    model = make_trainer(architecture, device).model
    seen = {}
    head = model.proposal_generator.rpn_head if "RCNN" in architecture else model.head
    head.register_forward_hook(lambda module, args, out: seen.update(dtype=out[0][0].dtype))
    batch = make_batch(torch.Generator().manual_seed(0), (3, 2))
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        dtype = getattr(torch, precision)
        with EventStorage(), torch.autocast(device, dtype=dtype, enabled=enabled):
            losses.append(model(batch))
    assert seen["dtype"] == dtype  # the layers did run in half precision
    for key, loss in losses[0].items():
        assert losses[1][key].dtype == torch.float32
        # Rounded activations move the boxes, and with them the sampled proposals.
        torch.testing.assert_close(losses[1][key], loss, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("architecture", MODELS)
def test_a_training_learns(architecture, precision, device, make_trainer):
    """The loss of one batch, at the same normaliser, before and after a hundred iterations on others."""
    opts = ("SOLVER.MAX_ITER", 100, "SOLVER.BASE_LR", 0.01, "SOLVER.CHECKPOINT_PERIOD", 1000)
    opts += ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm")
    trainer = make_trainer(architecture, device, *AMP, precision, *opts)
    batch = make_batch(torch.Generator().manual_seed(0), (3, 2, 4, 1))

    def loss():
        if hasattr(trainer.model, "loss_normalizer"):
            trainer.model.loss_normalizer.fill_(100)
        torch.manual_seed(0)
        with torch.no_grad(), EventStorage():
            return float(sum(trainer.model(batch).values()))

    before = loss()
    trainer.train()
    assert loss() < 0.8 * before


@pytest.mark.parametrize("device", DEVICES)
def test_an_overflow_leaves_out_the_step_and_not_the_statistics(device, make_trainer):
    """What a weighter sees are losses, which are finite where their scaled gradients are not."""
    trainer = make_trainer("AlwaRetinaNet", device, *AMP, "float16")
    trainer.max_iter = INTERVAL - 1
    scaler = torch.amp.GradScaler(device, init_scale=2.0**100, backoff_factor=2.0**-90)
    trainer._trainer.grad_scaler = scaler
    parameters = [p.detach().clone() for p in trainer.model.parameters()]
    moved = []

    def step(trainer):
        same = (torch.equal(p, q) for p, q in zip(trainer.model.parameters(), parameters))
        moved.append(not all(same))

    trainer._hooks[:] = []
    trainer.after_step = lambda: step(trainer)
    trainer.train()
    # The first iteration overflows; the next ones, at 2^10, do not.
    assert moved == [False, True, True]
    weighter = trainer.model.loss_weighter
    assert int(weighter.slot) == INTERVAL - 1
    window = weighter.window[: INTERVAL - 1]
    assert window.isfinite().all() and (window > 0).all()
    assert int(weighter.first_nonfinite) == -1


def test_an_unknown_precision_is_refused_by_key(make_trainer):
    words = "SOLVER.AMP.PRECISION: expected one of float16, bfloat16, got 'fp16'"
    with pytest.raises(ValueError, match=words):
        make_trainer("AlwaRetinaNet", "cpu", *AMP, "fp16")
