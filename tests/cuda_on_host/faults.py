"""Faults to plant in the kernels: a test of the tests on the emulated device.

Each is one change of a file, compiled into one kernels' file (`unit`), linked with the clean rest,
and has to be noticed by the named tests with a message that says what it is. Where `old` is not in
the file exactly once, planting stops with an error: the table goes with the kernels.
"""

from typing import NamedTuple

SHARED_RACE = "a race in shared memory"
GLOBAL_RACE = "a race in global memory"
VALUES = "AssertionError"
DIVERGENCE = "a deadlock|have ended before a barrier|meet at different places|takes no part"
MISALIGNED = "a misaligned address"
OUT_OF_BOUNDS = "AddressSanitizer: heap-buffer-overflow"

FOCAL = "test_focal_loss.py::test_many_anchors"
CHUNKS = "test_focal_loss.py::test_chunks_of_rows"
IGNORED = "test_focal_loss.py::test_ignored_anchors_are_not_looked_at"
FOCAL_EDGES = "test_edges.py::test_focal_loss"
PAIRS = "test_box_loss.py::test_parity"
PAIRS_EDGES = "test_edges.py::test_box_loss"
DENSE = "test_dense_box_loss.py"
DENSE_EDGES = "test_edges.py::test_dense_box_loss"
LABELS = "test_label_anchors.py"
SCALES = "test_loss_scales.py"
AHEAD = "test_gradient_ahead.py"


class Fault(NamedTuple):
    name: str
    kernel: str
    kind: str  # "barrier", "divergence", "lanes", "lost block", "race", "stride", "tail"
    file: str  # below csrc/cuda
    old: str
    new: str
    unit: str  # below csrc/cuda
    build: str  # the variant that sees it
    tests: str
    message: str  # a regular expression

    def change(self, text):
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: not once but {count} times in {self.file}: {self.old}")
        return text.replace(self.old, self.new)


def of(kernel, own_file, unit, tests):
    """A maker of faults in a kernel: in its own file, where no other is named."""

    def make(kind, name, old, new, build, message, tests=tests, file=own_file):
        return Fault(name, kernel, kind, file, old, new, unit, build, tests, message)

    return make


box = of("box_loss_kernel", "box_loss.cu", "box_loss.cu", PAIRS)
dense = of("dense_box_loss_kernel", "dense_box_kernel.cuh", "dense_box_loss.cu", DENSE_EDGES)
planes = of("focal_planes_kernel", "focal_planes.cuh", "focal_loss.cu", FOCAL_EDGES)
rows = of("focal_rows_kernel", "focal_rows.cuh", "focal_loss.cu", FOCAL_EDGES)
strided = of("focal_strided_kernel", "focal_strided.cuh", "focal_loss.cu", FOCAL_EDGES)
highest = of("highest_kernel", "label_kernels.cuh", "label_anchors.cu", LABELS)
label = of("label_kernel", "label_kernels.cuh", "label_anchors.cu", LABELS)
total = of("total_kernel", "launch.cuh", "focal_loss.cu", FOCAL)
scales = of("loss_scales_kernel", "loss_scales.cu", "loss_scales.cu", SCALES)
multiply = of("multiply_kernel", "multiply.cu", "multiply.cu", AHEAD)
BLOCK, LAUNCH = "block.cuh", "launch.cuh"
NO_BARRIER_IN_TOTAL = ("  __syncthreads();\n  Stats total;", "  Stats total;")
NO_BARRIER_BEFORE_END = ("  __syncthreads();\n  if (has_anchor) {", "  if (has_anchor) {")

# The first one is the sign of life of `make test`.
FAULTS = [
    highest("lanes", "a lane of 32 is not asked", "lane = 16; lane > 0", "lane = 8; lane > 0", "plain", VALUES),
    box("tail", "a pair beyond the last", "if (i < pairs.count) {", "if (i <= pairs.count) {", "sanitize", OUT_OF_BOUNDS),
    box("stride", "blocks of pairs overlap", "int64_t(blockIdx.x) * kThreads +", "int64_t(blockIdx.x) * (kThreads - 1) +", "plain", VALUES, PAIRS_EDGES),
    box("lost block", "the last block of pairs is lost", "blocks = (n + kThreads - 1) / kThreads", "blocks = n / kThreads", "plain", VALUES),
    box("race", "all blocks write the first pairs", "int64_t(blockIdx.x) * kThreads +", "", "races", GLOBAL_RACE),
    box("barrier", "no barrier in the pairs' total", *NO_BARRIER_IN_TOTAL, "races", SHARED_RACE, file=BLOCK),
    box("divergence", "only threads with a pair add up", "  if (pairs.parts) {", "  if (pairs.parts && i < pairs.count) {", "plain", DIVERGENCE),
    dense("tail", "an anchor beyond a level's last", "int count = n < level.anchors;", "int count = n <= level.anchors;", "sanitize", OUT_OF_BOUNDS),
    dense("tail", "a position beyond a plane's last", "(positions - mine - 1) / step + 1", "(positions - mine) / step + 1", "sanitize", OUT_OF_BOUNDS, file=BLOCK),
    dense("stride", "an anchor index's anchors side by side", "step = share.step * level.per_position;", "step = share.step;", "plain", VALUES),
    dense("stride", "rows of three numbers", "stride_image + 4 * n;", "stride_image + 3 * n;", "plain", MISALIGNED),
    dense("lost block", "the last block of anchors is lost", "(threads + kThreads - 1) / kThreads", "threads / kThreads", "plain", VALUES, file="dense_box_loss.cu"),
    dense("race", "all threads write a block's part", "  if (threadIdx.x == 0) {\n    total.store", "  {\n    total.store", "races", GLOBAL_RACE, file=BLOCK),
    dense("barrier", "no barrier in the anchors' total", *NO_BARRIER_IN_TOTAL, "races", SHARED_RACE, file=BLOCK),
    dense("divergence", "only threads with foreground add up", "__syncthreads_or(stats.count > 0)", "stats.count > 0", "plain", DIVERGENCE),
    planes("tail", "the last classes are left out", "k < end; k += kPlanesAhead", "k + kPlanesAhead <= end; k += kPlanesAhead", "plain", VALUES),
    planes("tail", "a position beyond the last", "(positions - mine - 1) / step + 1", "(positions - mine) / step + 1", "sanitize", OUT_OF_BOUNDS, file=BLOCK),
    planes("stride", "channels read three by three", "  x += kPlanesAhead *", "  x += (kPlanesAhead - 1) *", "plain", VALUES),
    planes("stride", "vectors where the memory has none", "reinterpret_cast<uintptr_t>(level.data) % alignof(Vector<scalar_t>) == 0 &&", "", "plain", MISALIGNED, file=LAUNCH),
    planes("lost block", "a level's last block is lost", "(plane_shares(pass.in.items[i]) + kShares - 1) / kShares", "plane_shares(pass.in.items[i]) / kShares", "plain", VALUES, file="focal_loss.cu"),
    planes("race", "shares of a plane are the same positions", "first = aligned ? mine * kVector : mine;", "first = 0;", "races", GLOBAL_RACE, file=BLOCK),
    planes("tail", "ignored anchors keep gradients of inf and NaN", "sum - sum != 0", "sum - sum > 0", "plain", VALUES, IGNORED, file="focal_pass.cuh"),
    planes("lanes", "the last slice's losses are not added", "slice < kSlices; ++slice", "slice + 1 < kSlices; ++slice", "plain", VALUES),
    planes("barrier", "sums are read before all are there", *NO_BARRIER_BEFORE_END, "races", SHARED_RACE),
    rows("barrier", "losses are read before all are there", *NO_BARRIER_BEFORE_END, "races", SHARED_RACE),
    rows("barrier", "a block's losses are read before all are there", "    __syncthreads();\n    if (threadIdx.x < 32) {\n      Stats stats;", "    if (threadIdx.x < 32) {\n      Stats stats;", "races", SHARED_RACE, file="focal_pass.cuh"),
    rows("tail", "a vector beyond the rows' last", "if (fills && n == pass.chunk) {", "if (fills) {", "sanitize", OUT_OF_BOUNDS, CHUNKS),
    rows("stride", "warps lie too far apart", "c += kWarps * pass.chunk", "c += (kWarps + 1) * pass.chunk", "plain", VALUES, CHUNKS),
    rows("stride", "anchors' losses overlap", "return vectors | 1;", "return vectors > 1 ? vectors - 1 : 1;", "plain", VALUES),
    rows("race", "warps take the same chunks", "int c = mine / 32 * pass.chunk;", "int c = 0;", "races", SHARED_RACE),
    strided("barrier", "sums are read before all are there", *NO_BARRIER_BEFORE_END, "races", SHARED_RACE),
    strided("tail", "an anchor beyond the last", "    if (n < count) {", "    if (n <= count) {", "sanitize", OUT_OF_BOUNDS),
    strided("stride", "logits read side by side", "x[at * in.stride_value]", "x[at]", "plain", VALUES, "test_focal_loss.py::test_strided_input"),
    strided("divergence", "groups of lanes lie too far apart", "n += kThreads / pass.lanes) {", "n += kThreads / pass.lanes + 1) {", "plain", DIVERGENCE),
    strided("lanes", "half of the lanes are not asked", "other = pass.lanes / 2; other > 0", "other = pass.lanes / 4; other > 0", "plain", VALUES),
    strided("lost block", "the last block of anchors is lost", "(pass.in.items[i].anchors + anchors - 1) / anchors", "pass.in.items[i].anchors / anchors", "plain", VALUES, file="focal_loss.cu"),
    strided("race", "all lanes write their sum", "    if (lane == 0) {\n      losses", "    {\n      losses", "races", SHARED_RACE),
    total("tail", "the last part is lost", "i < count; i += kThreads", "i + 1 < count; i += kThreads", "plain", VALUES),
    total("stride", "parts of four numbers", "parts + i * Stats::kSize", "parts + i * 4", "plain", VALUES),
    total("race", "all threads write the loss", "  if (threadIdx.x == 0) {\n    *loss", "  {\n    *loss", "races", GLOBAL_RACE),
    total("divergence", "a shuffle of some lanes", "if (threadIdx.x < 32) {\n    total", "if (threadIdx.x < 31) {\n    total", "plain", DIVERGENCE, file=BLOCK),
    total("lanes", "the last lane is not asked", "lane = size / 2; lane > 0", "lane = size / 2; lane > 1", "plain", VALUES, file=BLOCK),
    highest("barrier", "no barrier after a tile is read", "    __syncthreads();\n    if (mine < total) {\n      after", "    if (mine < total) {\n      after", "races", SHARED_RACE),
    highest("race", "warps' maxima are stored, not merged", "atomicMax(&highest[i], bits)", "highest[i] = max(highest[i], bits)", "races", SHARED_RACE),
    highest("race", "blocks' maxima are stored, not merged", "atomicMax(&out[g], highest[i])", "out[g] = max(out[g], highest[i])", "races", GLOBAL_RACE),
    highest("divergence", "a shuffle of some lanes", "if (__any_sync(0xffffffff, bits > 0)) {", "if (bits > 0) {", "plain", DIVERGENCE),
    highest("tail", "an anchor beyond the last is read", "if (r >= p.count) {", "if (r > p.count) {", "sanitize", OUT_OF_BOUNDS),
    highest("stride", "launches begin at the same ground truth", "p.highest += first;", "", "plain", VALUES, file="label_anchors.cu"),
    highest("lost block", "an image's last block is lost", "(p.count + kThreads - 1) / kThreads", "(p.count + kThreads - 2) / kThreads", "plain", VALUES + "|no such launch", file="label_anchors.cu"),
    label("barrier", "no barrier before a tile is read", "    __syncthreads();\n    const int size", "    const int size", "races", SHARED_RACE),
    label("tail", "an anchor beyond the last is written", "  if (r < p.count) {", "  if (r <= p.count) {", "sanitize", OUT_OF_BOUNDS),
    label("stride", "tiles lie too far apart", "start += kThreads)", "start += kThreads + 1)", "plain", VALUES),
    label("stride", "boxes of three numbers", "(p.boxes + 4 * i) = box", "(p.boxes + 3 * i) = box", "plain", MISALIGNED),
    label("race", "images write one another's labels", "const int64_t i = blockIdx.y * p.count + r;", "const int64_t i = r;", "races", GLOBAL_RACE),
    label("race", "blocks add without an atomic", "atomicAdd(p.num_foreground, static_cast<unsigned long long>(foreground));", "*p.num_foreground += foreground;", "races", GLOBAL_RACE),
    label("divergence", "only threads with an anchor count", "  const int foreground = __syncthreads_count(is_foreground);", "  if (r >= p.count) return;\n  const int foreground = __syncthreads_count(is_foreground);", "plain", DIVERGENCE),
    scales("tail", "the last weight is lost", "i < job.size; ++i", "i + 1 < job.size; ++i", "plain", VALUES),
    scales("stride", "all have the first weight", "*job.weights[i] / normalizer", "*job.weights[0] / normalizer", "plain", VALUES),
    scales("race", "two threads write", "<<<1, 1, 0", "<<<1, 2, 0", "races", GLOBAL_RACE),
    multiply("tail", "the last number is left", "i < job.size[t]; i", "i + 1 < job.size[t]; i", "plain", VALUES),
    multiply("tail", "a vector beyond the last", "i < vectors; i", "i <= vectors; i", "sanitize", OUT_OF_BOUNDS),
    multiply("stride", "the rest begins too early", "i = vectors * kVector + thread", "i = vectors + thread", "plain", VALUES),
    multiply("race", "threads take what others have", "int64_t(gridDim.x) * kThreads;", "int64_t(gridDim.x) * 32;", "races", GLOBAL_RACE),
]  # fmt: skip
