"""Faults to plant in the kernels: a test of the tests on the emulated device.

Each is one change of a file, compiled into one kernels' file (`unit`), linked with the clean rest,
and has to be noticed by the named tests with a message that says what it is. Where `old` is not in
the file exactly once, planting stops with an error: the table goes with the kernels.
"""

from typing import NamedTuple

SHARED_RACE = "a race in shared memory"
GLOBAL_RACE = "a race in global memory"
VALUES = "not close|not equal|assert|Expected"
OUT_OF_BOUNDS = "AddressSanitizer: heap-buffer-overflow"

FOCAL = "test_focal_loss.py::test_many_anchors"
FOCAL_SMALL = "test_focal_loss.py::test_parity"
PAIRS = "test_box_loss.py"
DENSE = "test_dense_box_loss.py"
LABELS = "test_label_anchors.py::test_equals_detectron2"
MANY_LABELS = "test_label_anchors.py::test_more_images_and_ground_truths_than_a_launch_takes"


class Fault(NamedTuple):
    name: str
    kernel: str
    kind: str  # "barrier", "tail", "stride", "lost block", "race", "lanes", "divergence"
    file: str  # below csrc/cuda
    old: str
    new: str
    unit: str  # below csrc/cuda
    build: str  # the variant that sees it
    tests: str
    message: str  # a regular expression

    def change(self, text):
        if text.count(self.old) != 1:
            raise ValueError(
                f"fault '{self.name}': in {self.file} {text.count(self.old)} times, not once: {self.old}"
            )
        return text.replace(self.old, self.new)


def in_launch(unit, tests):
    """A maker of faults in launch.cuh, as that kernels' file has it."""
    return lambda name, kernel, kind, old, new, build, message: Fault(
        name, kernel, kind, "launch.cuh", old, new, unit, build, tests, message
    )


def in_labels(name, kernel, kind, old, new, build, message, tests=LABELS):
    file = "label_anchors.cu"
    return Fault(name, kernel, kind, file, old, new, file, build, tests, message)


sums = in_launch("focal_loss.cu", FOCAL)
pairs = in_launch("box_loss.cu", PAIRS)

# The first one is the sign of life of `make test`.
FAULTS = [
    in_labels("a lane of 32 is not asked", "highest_kernel", "lanes", "lane = 16; lane > 0", "lane = 8; lane > 0", "plain", VALUES),
    # for_each_kernel
    pairs("a pair beyond the last", "for_each_kernel", "tail", "threadIdx.x; i < n;", "threadIdx.x; i <= n;", "sanitize", OUT_OF_BOUNDS),
    pairs("threads lie as far apart as half a block", "for_each_kernel", "stride", "blockIdx.x * int64_t(blockDim.x) +", "blockIdx.x * int64_t(blockDim.x / 2) +", "plain", VALUES),
    pairs("a block is not launched", "for_each_kernel", "lost block", "(n + per_block - 1) / per_block", "n / per_block", "plain", "no such launch"),
    pairs("two blocks write one pair", "for_each_kernel", "race", "blockIdx.x * int64_t(blockDim.x) +", "", "races", GLOBAL_RACE),
    # pieces_kernel, total_kernel and the tree of both
    sums("no barrier in the tree", "pieces_kernel", "barrier", "    __syncthreads();\n    if (threadIdx.x < half)", "    if (threadIdx.x < half)", "races", SHARED_RACE),
    sums("the tree ends one level early", "pieces_kernel", "tail", "half > 0; half /= 2", "half > 1; half /= 2", "plain", VALUES),
    sums("threads of a piece overlap", "pieces_kernel", "stride", "         i += kThreads)", "         i += kThreads - 1)", "plain", VALUES),
    sums("a loss beyond the last", "pieces_kernel", "tail", "i < min(n,", "i <= min(n,", "plain", VALUES),
    sums("the first block's piece is lost", "pieces_kernel", "lost block", "piece = blockIdx.x; piece", "piece = blockIdx.x + 1; piece", "plain", VALUES),
    sums("all threads write a piece's sums", "pieces_kernel", "race", "    if (threadIdx.x == 0) {\n      total.store(parts", "    {\n      total.store(parts", "races", GLOBAL_RACE),
    sums("a barrier for one thread", "total_kernel", "divergence", "    total = shared[0];\n  }\n  __syncthreads();", "    total = shared[0];\n  __syncthreads();\n  }", "plain", "deadlock|have ended before|different places"),
    sums("the last piece is lost", "total_kernel", "tail", "piece = threadIdx.x; piece < pieces", "piece = threadIdx.x; piece + 1 < pieces", "plain", VALUES),
    sums("pieces lie four numbers apart", "total_kernel", "stride", "parts + piece * Stats::kSize;\n    mine", "parts + piece * 4;\n    mine", "plain", VALUES),
    sums("all threads write the loss", "total_kernel", "race", "  if (threadIdx.x == 0) {\n    *loss", "  {\n    *loss", "races", GLOBAL_RACE),
    # highest_kernel, label_kernel and the tiles of both
    in_labels("no barrier before a tile is read", "label_kernel", "barrier", "    __syncthreads();\n    const int size", "    const int size", "races", SHARED_RACE),
    in_labels("no barrier after a tile is read", "highest_kernel", "barrier", "    __syncthreads();\n    if (mine < last) {\n      after", "    if (mine < last) {\n      after", "races", SHARED_RACE),
    in_labels("warps' maxima are stored, not merged", "highest_kernel", "race", "atomicMax(&highest[i], bits)", "highest[i] = max(highest[i], bits)", "races", SHARED_RACE),
    in_labels("blocks' maxima are stored, not merged", "highest_kernel", "race", "atomicMax(&p.highest[g], highest[i])", "p.highest[g] = max(p.highest[g], highest[i])", "races", GLOBAL_RACE),
    in_labels("a vote of some lanes", "highest_kernel", "divergence", "        if (__any_sync(0xffffffff, bits > 0)) {", "        if (bits > 0) {", "plain", "deadlock|different places|takes no part"),
    in_labels("an anchor beyond the last is read", "highest_kernel", "tail", "return r < count ?", "return r <= count ?", "sanitize", OUT_OF_BOUNDS),
    in_labels("an anchor beyond the last is written", "label_kernel", "tail", "if (r < p.count) {", "if (r <= p.count) {", "sanitize", OUT_OF_BOUNDS),
    in_labels("tiles lie too far apart", "label_kernel", "stride", "start += kThreads)", "start += kThreads + 1)", "plain", VALUES, MANY_LABELS),
    in_labels("boxes lie three numbers apart", "label_kernel", "stride", "p.boxes[4 * i + k]", "p.boxes[3 * i + k]", "plain", VALUES),
    in_labels("the last block is not launched", "label_kernel", "lost block", "(p.count + kThreads - 1) / kThreads", "(p.count + kThreads - 2) / kThreads", "plain", "no such launch|not equal|assert"),
    in_labels("images write one another's labels", "label_kernel", "race", "const int64_t i = blockIdx.y * p.count + r;", "const int64_t i = r;", "races", GLOBAL_RACE),
]  # fmt: skip
