"""Trains and evaluates a LazyConfig in a loop of Detectron2's parts, as its lazyconfig_train_net.py
does: python examples/train_lazy.py configs/lazy/retinanet_alwa.py [train.max_iter=100 ...]"""

import sys

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer, default_writers, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.logger import setup_logger

from alwa_d2.engine import LossWeightLogger, optimizer_overrides
from alwa_d2.modeling import reset_loss_state


def train(cfg):
    model = instantiate(cfg.model).to(cfg.train.device)
    cfg.optimizer.params.model = model
    learnt = optimizer_overrides(model)  # weights with a learning rate of their own
    cfg.optimizer.params.overrides = {**(cfg.optimizer.params.get("overrides") or {}), **learnt}
    optimizer = instantiate(cfg.optimizer)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
    trainer.register_hooks(
        [
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            LossWeightLogger(model),  # the weights, beside the losses in metrics.json
            hooks.PeriodicWriter(writers, cfg.train.log_period),
        ]
    )
    checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])  # the model alone
    reset_loss_state(model)  # whose weights may have moved in the training before
    trainer.train(0, cfg.train.max_iter)
    test = instantiate(cfg.dataloader.test)
    return inference_on_dataset(model.eval(), test, instantiate(cfg.dataloader.evaluator))


if __name__ == "__main__":
    setup_logger()
    cfg = LazyConfig.load(sys.argv[1])
    print(train(LazyConfig.apply_overrides(cfg, sys.argv[2:])))
