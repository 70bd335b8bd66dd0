"""A detector of a few layers, trained by the project's trainer on fixed random batches.

A program, too: `python tests/toy.py --config-file "" --num-gpus 2 [--resume] KEY VALUE ...` trains it
like train_net.py. Each process appends to OUTPUT_DIR/record_<rank>.jsonl what every iteration saw.
TOY_STOP="ITERATION HOW RANK" makes that process stop before that iteration: by an exception ("raise"),
by SIGKILL ("kill"), or by going to sleep ("sleep").
"""

import json
import os
import random
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.engine import HookBase, default_argument_parser
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from alwa_d2 import add_alwa_config
from alwa_d2.engine import Trainer, launch, setup
from alwa_d2.weighting import weighters_of

SIZE, NUM_CLASSES, INTERVAL = 64, 3, 4


@BACKBONE_REGISTRY.register()
class ToyBackbone(Backbone):
    """Three convolutions; feature maps of strides 8 and 16."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.p3 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.p4 = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        p3 = self.p3(self.stem(x).relu())
        return {"p3": p3, "p4": self.p4(p3.relu())}

    def output_shape(self):
        return {"p3": ShapeSpec(channels=8, stride=8), "p4": ShapeSpec(channels=8, stride=16)}

    size_divisibility = 16


def toy_opts(architecture, output_dir="", *opts):
    """KEY VALUE pairs of the small model and a run of twelve iterations, three windows."""
    names = ["p3", "p4"]
    return [
        "MODEL.META_ARCHITECTURE", architecture,
        "MODEL.DEVICE", "cpu",
        "MODEL.WEIGHTS", "",
        "MODEL.BACKBONE.NAME", "ToyBackbone",
        "MODEL.ANCHOR_GENERATOR.SIZES", [[16, 24], [32, 48]],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]],
        "MODEL.RETINANET.IN_FEATURES", names,
        "MODEL.RETINANET.NUM_CLASSES", NUM_CLASSES,
        "MODEL.RETINANET.NUM_CONVS", 1,
        "MODEL.PROPOSAL_GENERATOR.NAME", "AlwaRPN",
        "MODEL.RPN.IN_FEATURES", names,
        "MODEL.RPN.HEAD_NAME", "StandardRPNHead",
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 16,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 40,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN", 20,
        "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES", names,
        "MODEL.ROI_HEADS.NUM_CLASSES", NUM_CLASSES,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8,
        "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC", 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM", 16,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 4,
        "MODEL.LOSS_WEIGHTER.NAME", "ALWA",
        "MODEL.ALWA.INTERVAL", INTERVAL,
        "DATASETS.TRAIN", (),
        "DATASETS.TEST", (),
        "SOLVER.IMS_PER_BATCH", 2,
        "SOLVER.BASE_LR", 0.01,
        "SOLVER.WARMUP_ITERS", 0,
        "SOLVER.MAX_ITER", 3 * INTERVAL,
        "SOLVER.CHECKPOINT_PERIOD", 1,
        "SEED", 7,
        "OUTPUT_DIR", str(output_dir),
        *opts,
    ]  # fmt: skip


def toy_cfg(*args):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_list(toy_opts(*args))
    return cfg


def make_batch(generator, counts):
    """Images with so many objects each, brighter inside their boxes."""
    batch = []
    for count in counts:
        image = 80 * torch.rand(3, SIZE, SIZE, generator=generator)
        corner = torch.randint(0, SIZE // 2, (count, 2), generator=generator)
        extent = torch.randint(8, SIZE // 2, (count, 2), generator=generator)
        classes = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
        for (x, y), (w, h), number in zip(corner.tolist(), extent.tolist(), classes.tolist()):
            image[number, y : y + h, x : x + w] += 150
        instances = Instances((SIZE, SIZE))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + extent], dim=1).float())
        instances.gt_classes = classes
        batch.append({"image": image, "instances": instances})
    return batch


class FixedData:
    """Batches that depend on the process and the iteration alone; every third of a process other
    than the first has one image instead of two, every fifth no boxes."""

    def __init__(self):
        self.start = 0

    def __iter__(self):
        iteration, rank = self.start, comm.get_rank()
        while True:
            generator = torch.Generator().manual_seed(1000 * rank + iteration)
            counts = [3] if rank and iteration % 3 == 2 else [2, 4]
            if rank and iteration % 5 == 3:
                counts = [0] * len(counts)
            batch = make_batch(generator, counts)
            # As augmentations do.
            batch[0]["image"] += random.random() + float(np.random.rand())
            yield batch
            iteration += 1


class Iterable(IterableDataset):
    """For a DataLoader, whose iterators draw a random number when they are made."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Record(HookBase):
    """Writes down, to the last bit, what an iteration saw, and stops where TOY_STOP says so."""

    def __init__(self, model, output_dir):
        self.model = model
        self.path = Path(output_dir) / f"record_{comm.get_rank()}.jsonl"
        self.collectives = 0
        iteration, how, rank = os.environ.get("TOY_STOP", "-1 - 0").split()
        self.stop = int(iteration), how, int(rank)

    COLLECTIVES = ("all_reduce", "broadcast", "all_gather", "reduce_scatter", "reduce", "barrier")

    def count(self, name):
        original = getattr(dist, name)

        def counted(*args, **kwargs):
            self.collectives += 1
            return original(*args, **kwargs)

        setattr(dist, name, counted)
        return original

    def before_train(self):
        self.originals = {name: self.count(name) for name in self.COLLECTIVES}

    def after_train(self):
        for name, original in self.originals.items():
            setattr(dist, name, original)

    def before_step(self):
        at, how, rank = self.stop
        if self.trainer.iter != at or comm.get_rank() != rank:
            return
        if how == "raise":
            raise RuntimeError("stopped for the test")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "sleep":
            time.sleep(600)

    def after_step(self):
        weighters = weighters_of(self.model)
        row = {"iteration": self.trainer.iter, "collectives": self.collectives}
        self.collectives = 0
        for name in ("observed", "weights", "statistics"):
            values = [w.observed[0] if name == "observed" else getattr(w, name) for w in weighters]
            row[name] = {key: float(x).hex() for of_one in values for key, x in of_one.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_records(output_dir, rank=0):
    """Iteration -> what it saw; where a resumed run wrote one again, what that one saw."""
    lines = (Path(output_dir) / f"record_{rank}.jsonl").read_text().splitlines()
    return {row["iteration"]: row for row in map(json.loads, lines)}


class ToyTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return DataLoader(Iterable(FixedData()), batch_size=None)

    def build_hooks(self):
        return [*super().build_hooks(), Record(self.checkpointer.model, self.cfg.OUTPUT_DIR)]

    def resume_or_load(self, resume=True):
        super().resume_or_load(resume)
        self._trainer.data_loader.dataset.batches.start = self.start_iter


def train(cfg, resume=False):
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = ToyTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def main(args):
    cfg = setup(args)
    process = {
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
        "local_size": comm.get_local_size(),
        "backend": dist.get_backend() if dist.is_initialized() else None,
    }
    Path(cfg.OUTPUT_DIR, f"process_{comm.get_rank()}.json").write_text(json.dumps(process))
    train(cfg, args.resume)


if __name__ == "__main__":
    timeout = timedelta(seconds=int(os.environ.get("TOY_TIMEOUT", "60")))
    sys.exit(launch(main, default_argument_parser().parse_args(), timeout))
