"""Training through trouble: planted in 2,000 iterations, or bad enough for Detectron2 to stop."""

import logging
from collections import Counter

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from test_resume import lines, load
from torch.utils.data import DataLoader
from toy import NUM_CLASSES, FixedData, Iterable, ToyTrainer, make_batch, toy_cfg

from alwa_d2.weighting import ALWA, LossWeighter

C = 20  # iterations of a window below
PAGE = 4096


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


class Trouble(FixedData):
    """Batches of a bad data set. The class NUM_CLASSES - 1 never occurs."""

    def __iter__(self):
        iteration = self.start
        while True:
            generator = torch.Generator().manual_seed(iteration)
            window = iteration // C
            # Windows without any box; else now and then an image, or a batch, without.
            counts = [0, 0] if window % 10 == 4 or iteration % 7 == 0 else [iteration % 3, 2]
            batch = make_batch(generator, counts)
            for sample in batch:
                instances = sample["instances"]
                instances.gt_classes %= NUM_CLASSES - 1
                if iteration % 5 == 0:  # partly and wholly outside the image
                    instances.gt_boxes.tensor[::2] += 40
                    instances.gt_boxes.tensor[1::2] -= 200
                if iteration % 11 == 0:  # of no area
                    instances.gt_boxes.tensor[:, 2:] = instances.gt_boxes.tensor[:, :2]
            yield batch
            iteration += 1


class Plant(HookBase):
    """Windows in which all anchors are ignored, so that dense losses are constant, 0; and a look at
    weights, memory and nothing else."""

    def __init__(self, model):
        self.model = model
        self.weights, self.resident = [], {}
        labeller = getattr(model, "proposal_generator", model)
        name = "label_anchors" if labeller is model else "label_and_sample_anchors"
        original = getattr(labeller, name)

        def label(*args):
            labels, boxes, *count = original(*args)
            if self.ignores:
                labels.fill_(-1)
                count = [x.zero_() for x in count]
            return labels, boxes, *count

        setattr(labeller, name, label)

    @property
    def ignores(self):
        return self.trainer.iter // C % 10 == 7

    def after_step(self):
        for module in self.model.modules():
            if isinstance(module, LossWeighter):
                self.weights.append(torch.stack(list(module.weights.values())))
        self.resident[self.trainer.iter] = resident_bytes()


class BadTrainer(ToyTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return DataLoader(Iterable(Trouble()), batch_size=None)


# Run times on one core: RetinaNet 7 s, R-CNN 12 s.
@pytest.mark.long
@pytest.mark.parametrize("rule", ["authors", "balance"])
@pytest.mark.parametrize("architecture", ["AlwaRetinaNet", "AlwaGeneralizedRCNN"])
def test_two_thousand_bad_iterations(architecture, rule, tmp_path, caplog):
    torch.manual_seed(0)
    opts = ("MODEL.ALWA.INTERVAL", C, "MODEL.ALWA.RULE", rule, "SOLVER.MAX_ITER", 2000)
    opts += ("SOLVER.CHECKPOINT_PERIOD", 500, "SOLVER.BASE_LR", 0.005)
    # A classification loss that begins high and falls, so that weights move; without clipping,
    # stock RetinaNet too diverges where the normaliser has come down to 1 for lack of boxes.
    opts += ("MODEL.RETINANET.PRIOR_PROB", 0.3, "SOLVER.CLIP_GRADIENTS.ENABLED", True)
    opts += ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "MODEL.ALWA.VARIANT", "ALWA_1")
    opts += ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou")
    with caplog.at_level(logging.INFO):
        trainer = BadTrainer(toy_cfg(architecture, tmp_path, *opts))
        plant = Plant(trainer.model)
        trainer.register_hooks([plant])
        trainer.train()

    weights = torch.stack(plant.weights)
    pairs = 1 if architecture == "AlwaRetinaNet" else 2
    assert weights.shape == (2000 * pairs, 2)
    assert weights.isfinite().all() and (weights <= 1).all()
    assert (weights[:, 0] >= (0.01 if rule == "balance" else 0)).all() and (
        weights[:, 1] == 1
    ).all()
    assert len(weights[:, 0].unique()) > (2 if rule == "balance" else 1)
    assert all(p.isfinite().all() for p in trainer.model.parameters())

    at_start = ("Data sets looked at", "Loss weights: ")
    ours = [line for line in lines(caplog) if not line.startswith(at_start)]
    assert all(count == 1 for count in Counter(ours).values()), ours
    zeros = [message for message in ours if "is 0: with this weight it trains nothing" in message]
    assert len(zeros) == (pairs if rule == "authors" else 0), ours
    assert len(ours) == len(zeros), ours
    # The event storage keeps every iteration's scalars, which is Detectron2's.
    grown = plant.resident[1999] - plant.resident[499]
    assert grown < 10e6, f"{grown / 1e6:.1f} MB"


class NaNAt(FixedData):
    """The toy's batches, one of them without a number in it."""

    iteration = 9

    def __iter__(self):
        for i, batch in enumerate(super().__iter__(), self.start):
            if i == self.iteration:
                batch[0]["image"] = batch[0]["image"] * torch.nan
            yield batch


def trainer_on(data):
    class Own(ToyTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return DataLoader(Iterable(data()), batch_size=None)

    return Own


# Detectron2's words, in the trainer and in the proposals of a two-stage model.
DIVERGED = "Loss became infinite or NaN|Training has diverged"


@pytest.mark.parametrize("architecture", ["AlwaRetinaNet", "AlwaGeneralizedRCNN"])
def test_a_nan_batch_stops_and_the_run_resumes(architecture, tmp_path):
    cfg = toy_cfg(architecture, tmp_path, "SOLVER.CHECKPOINT_PERIOD", 4)
    with pytest.raises(FloatingPointError, match=DIVERGED):
        trainer_on(NaNAt)(cfg).train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000007.pth"
    state = load(tmp_path / "model_0000007.pth")["model"]
    assert all(x.isfinite().all() for name, x in state.items() if "statistic" not in name)
    trainer = ToyTrainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    assert (trainer.start_iter, trainer.iter) == (8, 12)


@pytest.mark.parametrize("architecture", ["AlwaRetinaNet", "AlwaGeneralizedRCNN"])
def test_a_learning_rate_far_too_high_stops_and_the_run_resumes(architecture, tmp_path):
    """A schedule that raises it in iteration 4, between two checkpoints, and one put right."""

    def cfg(gamma):
        opts = ("SOLVER.STEPS", (4,), "SOLVER.GAMMA", gamma, "SOLVER.CHECKPOINT_PERIOD", 3)
        return toy_cfg(architecture, tmp_path, *opts)

    with pytest.raises(FloatingPointError, match=DIVERGED):
        ToyTrainer(cfg(1e12)).train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    trainer = ToyTrainer(cfg(0.1))
    trainer.resume_or_load()
    trainer.train()
    assert (trainer.start_iter, trainer.iter) == (3, 12)


@pytest.mark.parametrize("rule", ["authors", "balance"])
def test_a_loop_that_goes_on_by_itself_keeps_its_weighter(rule, tmp_path):
    """A NaN batch in the second window: that window changes nothing, the third one does again."""
    cfg = toy_cfg("AlwaRetinaNet", tmp_path, "MODEL.ALWA.RULE", rule)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = NaNAt()
    data.iteration = 6
    weights = []
    for _, batch in zip(range(12), data):
        with EventStorage():
            losses = sum(model(batch).values())
        optimizer.zero_grad()
        if losses.isfinite():
            losses.backward()
            optimizer.step()
        weights.append(float(model.loss_weighter.weights["loss_cls"]))
    assert int(model.loss_weighter.first_nonfinite) == 6
    assert weights[3] < 1 and weights[3:11] == [weights[3]] * 8
    assert all(0 <= weight <= 1 for weight in weights)
    assert model.loss_normalizer.isfinite()
    if rule == "balance":
        assert weights[11] != weights[10]


@pytest.mark.parametrize("variant", ["ALWA_1", "ALWA_2"])
@pytest.mark.parametrize("rule", ["authors", "balance"])
@pytest.mark.parametrize("constant", [0.0, 0.3, 1e30])
def test_constant_losses(constant, rule, variant):
    """One of the two, then both, in windows between others that vary: what has no spread is no
    reason for a weight outside its bounds."""
    weighter = ALWA(interval=4, rule=rule, variant=variant)
    for i in range(64):
        window = i // 4
        varying = torch.tensor(1.0 + (i % 3), dtype=torch.float64)
        losses = [varying, 0.5 * varying]
        for side in (0, 1):
            if window % 4 in (side + 1, 3):
                losses[side] = torch.tensor(constant, dtype=torch.float64)
        weighter(dict(zip(("loss_cls", "loss_box_reg"), losses)))
        weight = float(weighter.weights["loss_cls"])
        assert (0.01 if rule == "balance" else 0) <= weight <= 1
    assert int(weighter.first_nonfinite) == -1
