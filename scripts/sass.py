"""The CUDA kernels' machine code in numbers, and the times to be expected from it: three tables.

    python scripts/sass.py                 # Markdown, for docs/kernels.md
    python scripts/sass.py --arch sm_90    # of one architecture

Needs a CUDA toolkit and cuobjdump, no GPU. The kernels are those of the built extension where it
is up to date and has them for the architecture; else the files are compiled, minutes the first
time. No time in the tables is measured.
"""

import argparse
import sys
from pathlib import Path

import sass_focal
import sass_model
from sass_build import ARCHS, Missing, find_nvcc, project_kernels

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import inputs  # noqa: E402

STEMS = ("focal_loss", "dense_box_loss", "box_loss", "label_anchors")
DTYPES = sass_focal.SIZES
CLASSES = (80, 20, 3, 1)
LAUNCHES = 3  # of the focal loss: the pass, the sum of its parts, the backward's look at its input


def table(header, rows):
    """Lines of a Markdown table; all but the first column are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(str(x) for x in line)} |" for line in lines)


def kernel_rows(arch, kernels):
    """Registers, memory and warps, of each group of kernels those of the worst."""
    gpu = next(gpu for gpu in sass_model.GPUS if gpu.arch == arch)
    groups = {}
    for k in kernels:
        groups.setdefault((group(k), "float64" if "double" in k.name else ""), []).append(k)
    for (name, double), members in sorted(groups.items()):
        yield [
            f"`{name}` {double}",
            arch,
            len({k.name for k in members}),
            max(k.registers for k in members),
            max(k.stack for k in members),
            max(k.code.count("LDL", "STL") for k in members),
            max(k.shared for k in members),
            min(sass_model.resident_warps(gpu, k.registers, k.shared) for k in members),
        ]


def group(kernel):
    """The kernel's name with what it calls, without dtypes: `dense_box_loss_kernel<GIoU>`."""
    called = kernel.arguments[0].partition("<")[0] if kernel.arguments else ""
    name = kernel.name.partition("<")[0]
    return f"{name}<{called}>" if called[:1].isupper() and called not in DTYPES else name


def widths(code):
    """Loads and stores by their bits: "2 x 128 + 1 x 32, 2 x 128"."""
    parts = (code.widths("LDG"), code.widths("STG"))
    return ", ".join(
        " + ".join(f"{n} x {8 * width}" for width, n in part.items()) or "none" for part in parts
    )


def focal_rows(arch, kernels):
    """A logit's cost in each loop over logits."""
    for k in focal_kernels(kernels):
        for loop in sass_focal.loops_over_logits(k):
            totals = [sass_focal.per_logit(loop, classes) for classes in CLASSES]
            yield [
                f"`{k.name}`, {widths(loop.code)}",
                arch,
                f"{loop.per_logit:.1f}",
                *(f"{total[0]:.1f} to {total[1]:.1f}" if total else "" for total in totals),
                f"{loop.special_per_logit:.1f}",
                loop.code.doubles,
                sass_focal.bytes_in_flight(loop.code),
            ]


def focal_kernels(kernels):
    """Those for gamma = 2, without float64's."""
    found = filter(sass_focal.is_focal, kernels)
    found = [k for k in found if sass_focal.gamma_is_two(k) and sass_focal.element_size(k) < 8]
    return sorted(found, key=lambda k: k.name)


def time_rows(arch, kernels):
    """The focal loss with its gradient, in one pass, at the sizes of benchmarks/inputs.py."""
    for k in focal_kernels(kernels):
        loop = sass_focal.loops_over_logits(k)[0]
        for gpu in (gpu for gpu in sass_model.GPUS if gpu.arch == arch):
            for size in inputs.SIZES:
                anchors, classes = anchors_and_classes(size)
                if sass_focal.per_logit(loop, classes):
                    seconds, bound = focal_time(gpu, loop, anchors, classes)
                    yield [f"`{k.name}`", gpu.name, size, f"{seconds * 1e6:.0f}", bound, ""]


def anchors_and_classes(size):
    """(anchors of all images, K) of a size of benchmarks/inputs.py."""
    images, height, width, classes, _ = inputs.SIZES[size]
    positions = sum(-(-height // s) * -(-width // s) for s in inputs.STRIDES)
    return images * inputs.ANCHORS * positions, classes


def focal_time(gpu, loop, anchors, classes):
    """(seconds, what bounds them), with the most instructions that a logit can take."""
    _, most = sass_focal.per_logit(loop, classes)
    # The rest of the kernel is taken to have as large a part of float32 in it as the loop.
    floats = most * loop.code.count("FADD", "FMUL", "FFMA") / len(loop.code)
    work = [n * anchors * classes for n in (most, floats, loop.special_per_logit)]
    moved = sass_model.focal_bytes(anchors, classes, sass_focal.element_size(loop.kernel))
    return sass_model.predicted_time(gpu, moved, work, LAUNCHES)


def assumptions():
    gpus = "; ".join(
        f"{gpu.name} {gpu.bandwidth / 1e12:.2f} TB/s, {gpu.multiprocessors} multiprocessors at "
        f"{gpu.clock / 1e9:.1f} GHz, {gpu.bytes_in_flight / 1024:.0f} KB in flight for each"
        for gpu in sass_model.GPUS
    )
    return (
        "Predicted, not measured: the longest of bytes / bandwidth and instructions / rate (all, "
        f"float32, MUFU), and {sass_model.LAUNCH * 1e6:.0f} us for each of {LAUNCHES} launches. "
        f"Assumed: {gpus}; a latency of {sass_model.LATENCY * 1e9:.0f} ns.\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", nargs="+", choices=ARCHS, default=ARCHS)
    arguments = parser.parse_args()
    try:
        print(f"nvcc {find_nvcc()[1]}\n")
        found = {arch: project_kernels(arch, *STEMS) for arch in arguments.arch}
    except Missing as lack:
        sys.exit(f"sass: {lack}")
    header = ["kernel", "", "forms", "registers", "stack, bytes"]
    header += ["local loads, stores", "shared, bytes", "warps"]
    print(table(header, [row for arch in found for row in kernel_rows(arch, found[arch])]))
    header = ["focal loop, loads, stores (bits)", "", "instructions a logit"]
    header += [f"all, K = {classes}" for classes in CLASSES]
    header += ["MUFU a logit", "float64", "bytes in flight a thread"]
    print("\n" + table(header, [row for arch in found for row in focal_rows(arch, found[arch])]))
    print("\n" + assumptions())
    header = ["focal loss, one pass", "", "", "predicted, us", "bound by", "measured, us"]
    print("\n" + table(header, [row for arch in found for row in time_rows(arch, found[arch])]))


if __name__ == "__main__":
    main()
