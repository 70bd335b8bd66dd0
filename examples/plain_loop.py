"""ALWA in a training loop of plain PyTorch, without Detectron2."""

import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss

from alwa_d2.weighting import ALWA

torch.manual_seed(0)
inputs, classes, boxes = torch.randn(256, 8), torch.randint(0, 3, (256,)), torch.rand(256, 4)
model = torch.nn.Linear(8, 3 + 4)
weighter = ALWA("loss_cls", "loss_box_reg", interval=10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for rows in torch.randint(0, 256, (30, 32)):
    logits, pred = model(inputs[rows]).split([3, 4], dim=1)
    loss_cls, loss_box = cross_entropy(logits, classes[rows]), smooth_l1_loss(pred, boxes[rows])
    losses = weighter({"loss_cls": loss_cls, "loss_box_reg": loss_box})
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
print({key: round(float(weight), 3) for key, weight in weighter.weights.items()})
