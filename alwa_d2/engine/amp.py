"""Training steps in mixed precision, on CPU and CUDA."""

import logging
import time

import torch

from ..detectron2_private import OpenAMPTrainer

logger = logging.getLogger(__name__)

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class MixedPrecisionTrainer(OpenAMPTrainer):
    """
    Detectron2's `AMPTrainer`, which knows CUDA alone, for the model's device.

    The model runs under autocast; the losses come out in float32. float16 gradients are scaled by a
    `GradScaler`, which leaves out the optimizer's step where they overflow; loss weighters have
    observed the iteration's losses by then, as they would have without.
    """

    def __init__(self, model, data_loader, optimizer, precision: str):
        """
        Args:
            model, data_loader, optimizer: see Detectron2's :class:`SimpleTrainer`
            precision: SOLVER.AMP.PRECISION, "float16" or "bfloat16"
        """
        if precision not in PRECISIONS:
            raise ValueError(
                f"SOLVER.AMP.PRECISION: expected one of {', '.join(PRECISIONS)}, got '{precision}'"
            )
        self.device_type = next(model.parameters()).device.type
        scaler = torch.amp.GradScaler(self.device_type, enabled=precision == "float16")
        super().__init__(
            model, data_loader, optimizer, grad_scaler=scaler, precision=PRECISIONS[precision]
        )

    def run_step(self):
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        data = self.next_batch()
        data_time = time.perf_counter() - start

        with torch.autocast(self.device_type, dtype=self.precision):
            losses = self.model(data)  # a dictionary, as all of Detectron2's models return
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        self.write_losses(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def load_state_dict(self, state_dict):
        # Empty or missing after a training in bfloat16 or float32.
        if not state_dict.get("grad_scaler"):
            if self.grad_scaler.is_enabled():
                logger.info("The checkpoint holds no state of a GradScaler: a new one begins.")
            state_dict = {**state_dict, "grad_scaler": self.grad_scaler.state_dict()}
        super().load_state_dict(state_dict)
