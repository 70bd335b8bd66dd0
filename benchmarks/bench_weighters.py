"""Times a training step with each loss weighter, beside one with weights of 1.

    python benchmarks/bench_weighters.py [--sizes small voc] [--rounds 11] [--threads 1] [--json F]

All train the same RetinaNet (ResNet-18-FPN, configs/retina_alwa.yaml) on the same random images,
with their defaults, and take turns; a figure is the median over the rounds. The last line is the
first one's model once more: what it differs by is noise.

"alone" is what a weighter adds to two losses that are given: weighing them, their backward, and its
own step, the mean over 1000 iterations with the ends of their windows. GradNorm has none, since its
cost is a partial backward of the model.
"""

import argparse
import statistics
import time

import measure
import torch
from bench_step import SIZES, Trainee, make_batch, make_model
from detectron2.utils.events import EventStorage

from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY

BASE, AGAIN = "Fixed", "Fixed again"
ALONE = 1000  # iterations


def make_trainees(size, device):
    """Name of a weighter -> :class:`Trainee`; weights of 1 first and last."""
    batch, trainees = make_batch(size), {}
    others = [name for name, _ in LOSS_WEIGHTER_REGISTRY if name != BASE]
    for name in (BASE, *others, AGAIN):
        opts = ("MODEL.LOSS_WEIGHTER.NAME", name.split()[0])
        model = make_model("AlwaRetinaNet", size, device, *opts)
        trainees[name] = Trainee(model, batch, device)
    return trainees


def step(trainee):
    """Milliseconds of a step, the weighter's own one included."""
    seconds = trainee.watch.seconds
    seconds.clear()
    trainee.step()
    return 1000 * sum(seconds[part] for part in ("forward", "backward", "optimizer"))


def added_by(name, device, rounds):
    """Microseconds of an iteration that a weighter adds to two losses; None for GradNorm."""
    if name == "GradNorm":
        return None
    weighter = LOSS_WEIGHTER_REGISTRY.get(name)().to(device)
    given = {key: torch.ones((), device=device, requires_grad=True) for key in weighter.keys}

    def run(weigh):
        start = time.perf_counter()
        for _ in range(ALONE):
            sum(weigh(given).values()).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e6 * (time.perf_counter() - start) / ALONE

    run(weighter)
    return statistics.median(run(weighter) - run(dict) for _ in range(rounds))


def bench(size, device, rounds, alone):
    """Rows of the table, printed as well."""
    trainees = make_trainees(size, device)
    for trainee in trainees.values():
        step(trainee)
    times = {name: [] for name in trainees}
    for _ in range(rounds):
        for name, trainee in trainees.items():
            times[name].append(step(trainee))
    base = statistics.median(times[BASE])
    print(f"\n{size:24}{'ms a step':>12}{'more':>10}{'alone, us':>12}{'of a step':>12}")
    rows = []
    for name, found in times.items():
        ms, us = statistics.median(found), alone[name.split()[0]]
        rows.append({"size": size, "weighter": name, "ms": ms, "more": ms / base - 1, "alone": us})
        own = "" if us is None else f"{us:12.0f}{us / base / 10:10.2f} %"
        print(f"{name:24}{ms:12.3f}{100 * (ms / base - 1):+9.1f}%{own}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = measure.describe(device)
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    rounds = min(args.rounds, 5)
    alone = {name: added_by(name, device, rounds) for name, _ in LOSS_WEIGHTER_REGISTRY}
    with EventStorage():
        rows = [row for size in args.sizes for row in bench(size, device, args.rounds, alone)]
    if args.json:
        measure.write_json(args.json, **about, rows=rows)


if __name__ == "__main__":
    main()
