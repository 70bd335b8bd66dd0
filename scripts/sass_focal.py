"""The focal loss's loops in machine code: which they are, and what a logit costs in them."""

import heapq
import re
from dataclasses import dataclass

from sass_code import Code, Kernel

SIZES = {"double": 8, "float": 4, "Half": 2, "BFloat16": 2}
LAYOUTS = {"planes_kernel": "planes", "rows_kernel": "rows"}


@dataclass(frozen=True)
class FocalLoop:
    """A loop over logits.

    Attributes:
        least: instructions of the shortest way through the rest of the kernel: from its start to
            the loop, and from the loop to an end
        most: instructions of all the rest but for other loops over logits (the same for rows that
            are not aligned) and called functions, each counted once: seldom taken branches too
    """

    kernel: Kernel
    code: Code
    least: int
    most: int

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

    def total_per_logit(self, classes, lanes, anchors, rest):
        """Instructions a logit with everything that belongs to an anchor: labels, sums, addresses.

        `lanes` threads share `anchors` anchors of K classes, so that each runs through the loop
        ceil(K anchors / (lanes logits)) times, and through the `rest`, `least` or `most`, once.
        Idle lanes and last iterations that are not full count as if they worked.
        """
        iterations = -(-classes * anchors // (lanes * self.logits))
        return (iterations * len(self.code) + rest) * lanes / (classes * anchors)


def is_focal(kernel, gamma_is_two=True):
    """Whether it is one of the focal loss's two, <scalar, T, gamma is two, with gradient, ...>."""
    found = kernel.name.partition("<")[0] in LAYOUTS
    return found and (kernel.arguments[2] == "true") == gamma_is_two


def layout(kernel):
    return LAYOUTS[kernel.name.partition("<")[0]]


def element_size(kernel):
    return SIZES[kernel.arguments[0]]


def has_gradient(kernel):
    return kernel.arguments[3] == "true"


def range_per_logit(loop, classes):
    """(least, most) instructions a logit with everything that belongs to an anchor."""
    lanes, anchors = share(loop, classes)
    return tuple(
        loop.total_per_logit(classes, lanes, anchors, rest) for rest in (loop.least, loop.most)
    )


def share(loop, classes):
    """(lanes, anchors): so many threads take so many anchors together.

    Planes: a thread takes as many neighbouring positions as 16 bytes hold. Rows: an anchor is
    taken by 1, 2, 4, ... or 32 lanes, of which the number is supposed that costs least.
    """
    if layout(loop.kernel) == "planes":
        return 1, 16 // element_size(loop.kernel)
    groups = [2**i for i in range(6)]
    return min(groups, key=lambda n: loop.total_per_logit(classes, n, 1, loop.least)), 1


def loops_over_logits(kernel):
    """[FocalLoop], the one with the most logits an iteration first.

    A kernel without a loop of its own over an anchor's logits, since they are unrolled, has the
    loop over anchors here, or all of itself.
    """
    loops = [x for x in kernel.loops() if kernel.instructions(x).exponentials]
    loops = [loop for loop in loops if not any(other < loop for other in loops)]
    if not loops and kernel.instructions(kernel.reached).exponentials:
        loops = [kernel.reached]
    others = kernel.reached - set().union(*loops)
    result = []
    for loop in loops:
        most = len(kernel.instructions(others))
        result.append(FocalLoop(kernel, kernel.instructions(loop), least(kernel, loop), most))
    return sorted(result, key=lambda loop: -loop.logits)


def least(kernel, loop):
    """Instructions on the shortest way to the loop, and from it to an end of the kernel."""
    lengths = [0 if i in loop else len(block) for i, block in enumerate(kernel.blocks)]
    ends = {i for i in kernel.reached if any(x.kind == "EXIT" for x in kernel.blocks[i])}
    to_loop = shortest(kernel.after, lengths, {0}, loop)
    return to_loop + shortest(kernel.after, lengths, loop, ends)


def shortest(after, lengths, starts, ends):
    """Least sum of lengths from one of `starts` to one of `ends`, with both."""
    waiting, done = [(lengths[i], i) for i in sorted(starts)], set()
    while waiting:
        length, i = heapq.heappop(waiting)
        if i in ends:
            return length
        if i not in done:
            done.add(i)
            for j in after[i] - done:
                heapq.heappush(waiting, (length + lengths[j], j))
    raise ValueError(f"no way from blocks {sorted(starts)} to {sorted(ends)}")


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
