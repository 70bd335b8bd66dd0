"""The focal loss's loops in machine code: which they are, and what a logit costs in them."""

import heapq
import re
from dataclasses import dataclass

from sass_code import Code, Kernel, reverse

SIZES = {"double": 8, "float": 4, "Half": 2, "BFloat16": 2}
# The focal loss's kernels, by layout, and their templates' parameters.
LAYOUTS = {
    "focal_planes_kernel": "planes",
    "focal_rows_kernel": "rows",
    "focal_strided_kernel": "strided",
}
TEMPLATE = ("gamma_is_two", "T", "scalar_t")
# As in csrc/cuda: kVector, kSlices and kRowAhead.
VECTOR, SLICES, ROW_AHEAD = 4, 4, 5


@dataclass(frozen=True)
class FocalLoop:
    """A loop over logits, with what lies around it.

    Attributes:
        code: the loop; all of it counts, whether there are branches in it or not
        around: (least, most) instructions in the loop over anchors that it lies in, (0, 0) if it
            lies in none
        rest: (least, most) instructions of the kernel outside these loops

    `least` is the shortest way that takes every barrier, `most` is everything, rare branches too,
    but for other loops over logits, which take this one's place, and called functions; small loops
    count once.
    """

    kernel: Kernel
    code: Code
    around: tuple
    rest: tuple

    @property
    def logits(self):
        """Of a thread in an iteration: for gamma = 2 each has one exponential."""
        return self.code.exponentials

    @property
    def per_logit(self):
        return len(self.code) / self.logits

    @property
    def special_per_logit(self):
        return self.code.count("MUFU") / self.logits

    def with_anchor(self, classes, share, passes):
        """(least, most) instructions a logit with everything that belongs to an anchor of K
        classes: labels, sums, addresses. A thread ends one anchor.

            (rest + share (around + passes loop)) / K

        Args:
            share: threads that an anchor takes: some, or a part of one that has several anchors
            passes: of each of them through the loop

        Idle lanes and a last pass that is not full count as if they worked.
        """
        return tuple(
            (rest + share * (around + passes * len(self.code))) / classes
            for around, rest in zip(self.around, self.rest)
        )


def is_focal(kernel):
    return kernel.name.partition("<")[0] in LAYOUTS


def parameters(kernel):
    """{parameter: argument} of a focal kernel's template, strings."""
    return dict(zip(TEMPLATE, kernel.arguments))


def gamma_is_two(kernel):
    return parameters(kernel)["gamma_is_two"] == "true"


def layout(kernel):
    return LAYOUTS[kernel.name.partition("<")[0]]


def element_size(kernel):
    return SIZES[parameters(kernel)["scalar_t"]]


def per_logit(loop, classes):
    """(least, most) instructions a logit with everything that belongs to an anchor, for K =
    `classes`; None where the kernel does not take that K."""
    if layout(loop.kernel) == "planes":  # a thread has a slice of the classes of VECTOR anchors
        logits = VECTOR * -(-classes // SLICES)
        return loop.with_anchor(classes, 1, -(-logits // loop.logits))
    if layout(loop.kernel) == "strided":
        share = lanes(classes)
        return loop.with_anchor(classes, share, -(-classes // (share * loop.logits)))
    vectors, rest = divmod(classes, VECTOR)
    if rest or not 0 < vectors <= 32 * ROW_AHEAD:
        return None
    chunk = min(32, 32 * ROW_AHEAD // vectors)
    # There are two ways through the loop, each of all of a chunk's loads: what is counted is their
    # mean.
    return loop.with_anchor(classes, 32 / chunk, VECTOR * ROW_AHEAD / loop.logits)


def lanes(classes):
    """Threads for an anchor, as plan_strided of csrc/cuda/focal_loss.cu chooses them."""
    result = 1
    while result < 32 and 8 * result <= classes:
        result *= 2
    return result


def loops_over_logits(kernel):
    """[FocalLoop], the main one first: the widest loads, then most logits an iteration.

    A kernel without a loop of its own over an anchor's logits, since they are unrolled, has the
    loop over anchors here, or all of itself.
    """
    all_loops = kernel.loops()
    loops = [x for x in all_loops if kernel.instructions(x).exponentials]
    # The loop around may hold single exponentials too: those of the anchor's own class.
    loops = [loop for loop in loops if not any(other < loop for other in loops)]
    if not loops and kernel.instructions(kernel.reached).exponentials:
        loops = [kernel.reached]
    everything = set().union(*loops)
    result = []
    for loop in loops:
        outer = min((x for x in all_loops if loop < x), key=len, default=loop)
        around = len(kernel.instructions(outer - everything))
        rest = len(kernel.instructions(kernel.reached - outer - everything))
        result.append(
            FocalLoop(
                kernel,
                kernel.instructions(loop),
                (least_around(kernel, loop, outer), around),
                (least_rest(kernel, outer), rest),
            )
        )
    return sorted(result, key=lambda x: (-max(x.code.widths("LDG"), default=0), -x.logits))


def least_around(kernel, loop, outer):
    """Instructions on the shortest way round `outer` that passes through `loop`, without it."""
    before = reverse(kernel.after)
    heads = {i for i in outer - loop if before[i] - outer}
    if not heads:
        return 0
    to_loop, _ = shortest(kernel, loop, heads, loop)
    back, _ = shortest(kernel, loop, loop, heads)
    return to_loop + back


def least_rest(kernel, loop):
    """Instructions on the shortest way to `loop`, and from it past all barriers to an end."""
    length, _ = shortest(kernel, loop, {0}, loop)
    at = loop
    blocks = sorted(kernel.reached - loop)
    barriers = [{i} for i in blocks if any(x.kind == "BAR" for x in kernel.blocks[i])]
    ends = {i for i in kernel.reached if any(x.kind == "EXIT" for x in kernel.blocks[i])}
    for goal in (*barriers, ends):
        leg, reached = shortest(kernel, loop, at, goal)
        if reached is not None:  # it is None for a barrier before the loop
            length, at = length + leg, {reached}
    return length + sum(len(kernel.blocks[i]) for i in at - loop)


def shortest(kernel, free, starts, ends):
    """(instructions on the shortest way from one of `starts` to one of `ends`, that end): without
    those of the end and of the blocks in `free`; (0, None) where there is no way."""
    waiting, done = [(0, i) for i in sorted(starts)], set()
    while waiting:
        length, i = heapq.heappop(waiting)
        if i in ends:
            return length, i
        if i not in done:
            done.add(i)
            length += 0 if i in free else len(kernel.blocks[i])
            for j in kernel.after[i] - done:
                heapq.heappush(waiting, (length, j))
    return 0, None


def bytes_in_flight(code):
    """Most bytes that a thread has asked for and not yet waited for, in a loop that goes round.

    A load is waited for when a register that it fills is named again.
    """
    most, waiting = 0, {}  # register -> bytes, of each load that is on its way
    for x in [*code, *code]:
        named = {int(r) for r in re.findall(r"\bR(\d+)", x.operands)}
        if x.kind in ("STG", "STS"):
            data = re.search(r"\bR(\d+)(?:\.reuse)?$", x.operands)
            named |= set(range(int(data[1]), int(data[1]) + x.width // 4)) if data else set()
        waiting = {r: n for r, n in waiting.items() if not named & registers(r, n)}
        if x.kind == "LDG":
            filled = re.match(r"(?:P\w+, )?R(\d+)", x.operands)
            if filled:
                waiting[int(filled[1])] = x.width
        most = max(most, sum(waiting.values()))
    return most


def registers(first, width):
    return set(range(first, first + max(width // 4, 1)))
