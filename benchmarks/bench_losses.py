"""Times the fused losses against their peers, forward and backward, in one run.

    python benchmarks/bench_losses.py                       # small and voc, every form
    python benchmarks/bench_losses.py --sizes coco --only focal --kept --json coco.json
    python benchmarks/bench_losses.py --scaling --threads 1

Every peer's value and gradient are compared with ours before anything is timed. The peers take
turns, so that a busy machine slows all of them; a figure is the median over the rounds. Ratios
to the best peer and to a copy of the bytes that must move say more than milliseconds. Our focal
figures contain the statistics of the losses, which no peer computes and which cannot be left out.
"loss / n outside" divides the loss behind the call, so that the incoming gradient is not 1.
"""

import argparse

import measure
import torch
from box_peers import SCALE, dense_peers, flat_peers
from cuda_peers import cuda_peers, missing
from focal_peers import focal_peers
from inputs import FORMS, SIZES, make_inputs, random_boxes
from measure import Run, compare, take_turns

from alwa_d2.layers import BOX_LOSS_KINDS, box_loss, dense_focal_loss

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Relative, of values; gradients are allowed ten times as much. Detectron2 and torchvision compute
# the focal loss in bfloat16 itself, where each factor is rounded to 8 bits.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
ROWS = (100, 1000, 10000)


def bytes_of(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors)


def bench_focal(args, device, dtype):
    rows = []
    for size in args.sizes:
        for form in args.forms:
            x = make_inputs(size, form, dtype, device)
            torch._dynamo.reset()  # so that no peer meets the limit of recompilations
            peers = focal_peers(x, args.compile) | cuda_peers(x)
            runs = {name: Run(peer, x.logits) for name, peer in peers.items()}
            moved = bytes_of(*x.logits, *x.logits, x.labels)  # the gradient is as large
            title = {"case": "focal", "size": size, "form": form}
            rows += compare(title, runs, moved, args.rounds, TOLERANCE[dtype])
    return rows


def bench_box(args, device, dtype):
    rows = []
    for size in args.sizes:
        for form in args.forms:
            x = make_inputs(size, form, dtype, device)
            for kind in args.kinds:
                torch._dynamo.reset()
                peers = dense_peers(x, kind, args.compile)
                runs = {name: Run(peer, x.deltas) for name, peer in peers.items()}
                moved = bytes_of(x.labels, *x.deltas)  # the labels and the gradient
                title = {"case": kind, "size": size, "form": form}
                rows += compare(title, runs, moved, args.rounds, TOLERANCE[dtype])
    return rows


def bench_pairs(args, device, dtype):
    rows = []
    for count in ROWS:
        pred, target = random_boxes(count, 1, torch.Generator().manual_seed(0))
        pred, target = pred.to(device, dtype), target[0].to(device, dtype)
        for kind in args.kinds:
            torch._dynamo.reset()
            peers = flat_peers(target, kind, args.compile)
            runs = {name: Run(peer, [pred]) for name, peer in peers.items()}
            moved = bytes_of(pred, pred, target)
            title = {"case": kind, "size": f"{count} pairs", "form": ""}
            rows += compare(title, runs, moved, args.rounds, TOLERANCE[dtype])
    return rows


def bench_overhead(args, device, dtype):
    """What a call costs, beside the cheapest operation with a backward."""
    x = make_inputs("small", "flat", dtype, device)
    levels = make_inputs("small", "nchw", dtype, device)
    pred, target = random_boxes(100, 1, torch.Generator().manual_seed(0))
    pred, target = pred.to(device, dtype), target[0].to(device, dtype)

    def focal(x):
        return lambda leaves: dense_focal_loss(
            leaves[0] if x.form == "flat" else leaves, x.labels, scale=SCALE
        )[0]

    runs = {
        "sum of 100 boxes": Run(lambda leaves: leaves[0].sum(), [pred]),
        "sum of small": Run(lambda leaves: leaves[0].sum(), x.logits),
    }
    for kind in args.kinds:
        runs[f"{kind} of 100 boxes"] = Run(
            lambda leaves, kind=kind: box_loss(leaves[0], target, kind, "sum"), [pred]
        )
    runs["focal small flat"] = Run(focal(x), x.logits)
    runs["focal small nchw"] = Run(focal(levels), levels.logits)
    for run in runs.values():
        run()
    print(f"\n{'call overhead':54}{'median ms':>10}{'/ sum':>13}")
    rows = []
    for name, milliseconds in take_turns(runs, 2 * args.rounds).items():
        rows.append({"case": "overhead", "peer": name, "ms": milliseconds})
    base = rows[0]["ms"], rows[1]["ms"]
    for row in rows:
        row["to_sum"] = row["ms"] / base["small" in row["peer"]]
        print(f"{'':28}{row['peer']:26}{row['ms']:10.4f}{row['to_sum']:13.2f}")
    return rows


def bench_scaling(args, device, dtype):
    """Focal time over the number of logits, and the straight line through it."""
    rows = []
    for classes in (3, 20, 80):
        runs = {}
        for logits in args.scaling_logits:
            anchors = round(logits / classes / 2)
            labels = torch.full((2, anchors), classes)
            labels.view(-1)[:: max(anchors // 100, 1)] = 0
            labels = labels.to(device)
            x = torch.randn(2, anchors, classes).to(device, dtype) - 4.6
            runs[x.numel()] = Run(
                lambda leaves, labels=labels: dense_focal_loss(leaves[0], labels)[0], [x]
            )
            runs[x.numel()]()
        times = take_turns(runs, args.rounds)
        print(
            f"\n{'focal, K = ' + str(classes):28}{'logits':>12}{'median ms':>12}{'ns / logit':>12}"
        )
        for count, milliseconds in times.items():
            row = {"case": "scaling", "classes": classes, "logits": count, "ms": milliseconds}
            rows.append(row | {"ns_per_logit": 1e6 * milliseconds / count})
            print(f"{'':28}{count:12}{milliseconds:12.3f}{rows[-1]['ns_per_logit']:12.3f}")
        start, slope, off = linear_fit(times)
        fit = {"start_ms": start, "ns_per_logit": 1e6 * slope, "largest_error": off}
        rows.append({"case": "scaling", "classes": classes, "fit": fit})
        print(
            f"{'':28}fit: {1000 * start:.1f} us + {1e6 * slope:.3f} ns a logit, "
            f"off by at most {100 * off:.0f} %"
        )
    return rows


def linear_fit(times):
    """(start, slope, largest error) of milliseconds = start + slope * logits; errors relative."""
    counts = torch.tensor(list(times), dtype=torch.float64)
    ms = torch.tensor(list(times.values()), dtype=torch.float64)
    matrix = torch.stack([1 / ms, counts / ms], 1)  # each row divided by its time
    solution = torch.linalg.lstsq(matrix, torch.ones_like(ms).unsqueeze(1)).solution
    errors = (matrix @ solution).squeeze(1) - 1
    return float(solution[0]), float(solution[1]), float(errors.abs().max())


BENCHES = {
    "focal": (bench_focal,),
    "box": (bench_box, bench_pairs),
    "overhead": (bench_overhead,),
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "voc"])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--kinds", nargs="+", choices=BOX_LOSS_KINDS, default=list(BOX_LOSS_KINDS))
    parser.add_argument("--only", choices=BENCHES, help="one part of the table")
    parser.add_argument("--scaling", action="store_true", help="time over the number of logits")
    parser.add_argument(
        "--scaling-logits", nargs="+", type=int, metavar="COUNT",
        default=[10**4, 10**5, 10**6, 10**7, 3 * 10**7],
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--kept", action="store_true", help="the allocator keeps freed blocks")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args(arguments)


def main():
    args = parse()
    if args.kept:
        measure.keep_freed_blocks()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[args.dtype]
    about = measure.describe(device) | {"dtype": args.dtype}
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    if device == "cuda":
        about["copy_gb_per_s"] = 2 * 2**30 / measure.Copy(2**31, device).seconds() / 1e9
        print(f"device copy: {about['copy_gb_per_s']:.0f} GB/s")
    if args.scaling:
        benches = (bench_scaling,)
    else:
        print(*missing(device), sep="\n")
        print(measure.HEADER)
        chosen = [args.only] if args.only else BENCHES
        benches = [bench for name in chosen for bench in BENCHES[name]]
    rows = [row for bench in benches for row in bench(args, device, dtype)]
    if args.json:
        measure.write_json(args.json, **about, rows=rows)


if __name__ == "__main__":
    main()
