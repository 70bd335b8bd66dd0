"""GPU time of the losses beside a copy of the same bytes, without the host: graphs are replayed.

    python benchmarks/bench_gpu.py --copy                   how fast PyTorch copies 256 MB
    python benchmarks/bench_gpu.py --sizes small voc coco --json figures.json

A replay holds forward and backward. Its time is that between two CUDA events around many replays,
so that launches by the host, which are most of a short kernel's time, do not count. The copy
reads as many bytes as the loss reads logits (or deltas) and writes as many as the loss writes
gradients, and is replayed in the same way. Needs neither Detectron2 nor another peer. `--device
cpu` only shows that the script runs; what it prints then says nothing of a GPU.
"""

import argparse
import statistics
import time

import measure
import torch
from inputs import FORMS, SIZES, make_inputs

from alwa_d2.layers import BOX_LOSS_KINDS, dense_box_loss, dense_focal_loss

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COPY_BYTES = 256 * 10**6
SCALE = 1 / 100
TURN_SECONDS = 5e-3  # of replays between two events


class Replay:
    """A function recorded once, whose replays are timed; on the CPU it is called again."""

    def __init__(self, function, device):
        self.on_gpu = device == "cuda"
        self.call = self.record(function) if self.on_gpu else function

    def record(self, function):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what a first call allocates or loads is not recorded
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.kept = function()
        return self.graph.replay

    def seconds(self, calls=1):
        """Of one of so many calls in a row."""
        if not self.on_gpu:
            start = time.perf_counter()
            for _ in range(calls):
                self.call()
            return (time.perf_counter() - start) / calls
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            self.call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / calls


def take_turns(replays, rounds):
    """name -> median seconds; they alternate, so that a change of the clock meets all of them."""
    calls = {}
    for name, replay in replays.items():
        replay.seconds(3)
        calls[name] = max(int(TURN_SECONDS / max(replay.seconds(3), 1e-6)), 1)
    turns = {name: [] for name in replays}
    for _ in range(rounds):
        for name, replay in replays.items():
            turns[name].append(replay.seconds(calls[name]))
    return {name: statistics.median(seconds) for name, seconds in turns.items()}


def copy_of(tensors):
    """Function that copies these into memory that is there already."""
    copies = [torch.empty_like(x) for x in tensors]

    def copy():
        for x, to in zip(tensors, copies):
            to.copy_(x)

    return copy


def gradients_of(loss, leaves):
    """Function that runs a loss of these leaves forward and backward."""
    for x in leaves:
        x.requires_grad_()
    return lambda: torch.autograd.grad(loss(), leaves)


def focal_cases(x, kinds):
    labels, logits = x.labels, x.plain("logits")
    loss = lambda: dense_focal_loss(logits, labels, scale=SCALE)[0]  # noqa: E731
    yield "focal", copy_of([y.detach() for y in x.logits]), gradients_of(loss, x.logits)


def box_cases(x, kinds):
    deltas = x.plain("deltas")
    copy = copy_of([y.detach() for y in x.deltas])
    for kind in kinds:
        args = (x.anchors, deltas, x.gt_boxes, x.labels, kind)
        keys = {"num_classes": x.classes, "scale": SCALE}
        loss = lambda args=args, keys=keys: dense_box_loss(*args, **keys)[0]  # noqa: E731
        yield kind, copy, gradients_of(loss, x.deltas)


def bench_copy(device, size=COPY_BYTES, rounds=31):
    """Figures of one large copy; bytes read and bytes written both count."""
    source = torch.ones(size // 4, device=device)
    seconds = take_turns({"copy": Replay(copy_of([source]), device)}, rounds)["copy"]
    moved = 2 * source.numel() * source.element_size()
    return {"bytes_moved": moved, "gb_per_s": moved / seconds / 1e9}


def bench_losses(args):
    rows = []
    print(f"{'':32}{'us':>10}{'copy us':>10}{'/ copy':>8}")
    for size in args.sizes:
        for form in args.forms:
            for dtype in args.dtypes:
                x = make_inputs(size, form, DTYPES[dtype], args.device)
                for cases in (focal_cases, box_cases):
                    for name, copy, passes in cases(x, args.kinds):
                        replays = {"copy": copy, "loss": passes}
                        replays = {key: Replay(f, args.device) for key, f in replays.items()}
                        times = take_turns(replays, args.rounds)
                        row = {"case": name, "size": size, "form": form, "dtype": dtype}
                        row |= {"us": 1e6 * times["loss"], "copy_us": 1e6 * times["copy"]}
                        row["to_copy"] = row["us"] / row["copy_us"]
                        rows.append(row)
                        title = f"{name} {size} {form} {dtype}"
                        print(f"{title:32}{row['us']:10.2f}{row['copy_us']:10.2f}"
                              f"{row['to_copy']:8.2f}", flush=True)  # fmt: skip
    return rows


def summary(rows):
    """One line: the largest size's focal loss beside the copy, and its slowest box loss."""
    last = [row for row in rows if row["size"] == rows[-1]["size"]]
    parts = []
    for dtype in dict.fromkeys(row["dtype"] for row in last):
        focal = [row for row in last if row["case"] == "focal" and row["dtype"] == dtype]
        ratios = ", ".join(f"{row['form']} {row['to_copy']:.2f}" for row in focal)
        parts.append(f"{dtype} {ratios}")
    text = f"{rows[-1]['size']}: focal / copy: {'; '.join(parts)}"
    boxes = [row["us"] for row in last if row["case"] != "focal"]
    return text + (f"; box losses up to {max(boxes):.1f} us" if boxes else "")


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copy", action="store_true", help="only a large copy")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["flat", "nchw"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--kinds", nargs="*", choices=BOX_LOSS_KINDS, default=["l1", "ciou"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("bench_gpu.py: needs a GPU; --device cpu only shows that it runs")
    figures = measure.describe(args.device)
    print(", ".join(f"{key}: {value}" for key, value in figures.items()))
    if args.copy:
        figures |= bench_copy(args.device)
        megabytes = COPY_BYTES // 10**6
        line = f"{figures['gb_per_s']:.0f} GB/s, read and written, copying {megabytes} MB"
    else:
        figures["rows"] = bench_losses(args)
        line = summary(figures["rows"])
    if args.json:
        measure.write_json(args.json, **figures)
    print(line)


if __name__ == "__main__":
    main()
