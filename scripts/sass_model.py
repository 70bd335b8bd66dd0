"""What GPUs have of each thing that a kernel needs, and the times that follow from it.

The figures of a GPU are assumptions; clock and bandwidth of the H200 are near what was measured on
one (docs/kernels.md).
"""

from dataclasses import dataclass

LANES = 32
BLOCK = 256  # threads; kThreads in csrc/cuda
LATENCY = 700e-9  # seconds from a load to its data when memory is busy; 600 to 700 ns assumed
LAUNCH = 2e-6  # seconds that a kernel adds: its start, and the wait for the last block before it


@dataclass(frozen=True)
class GPU:
    """
    Attributes:
        multiprocessors: number
        clock: cycles a second under load
        bandwidth: bytes a second that a copy moves, read and written
        float_lanes: float32 operations (FADD, FMUL, FFMA) a cycle and multiprocessor
        shared: bytes a multiprocessor
        system: bytes of shared memory that a block takes besides what cuobjdump says; for sm_90 it
            counts them in
    """

    name: str
    arch: str
    multiprocessors: int
    clock: float
    bandwidth: float
    float_lanes: int
    shared: int
    system: int = 0
    issue_lanes: int = 128  # instructions a cycle and multiprocessor, counted for each lane
    special_lanes: int = 16  # MUFU
    registers: int = 65536
    warps: int = 64
    blocks: int = 32

    @property
    def bytes_in_flight(self):
        """Bytes on their way to a multiprocessor that keep memory busy (Little's law)."""
        return self.bandwidth * LATENCY / self.multiprocessors


GPUS = (
    GPU("H100", "sm_90", 132, 1.7e9, 3.0e12, 128, 228 * 1024),
    GPU("H200", "sm_90", 132, 1.9e9, 4.2e12, 128, 228 * 1024),
    GPU("A100", "sm_80", 108, 1.4e9, 1.55e12, 64, 164 * 1024, 1024),
)


def resident_warps(gpu, registers, shared, threads=BLOCK):
    """Warps of a kernel that a multiprocessor holds at once.

    Registers are given out to a warp 256 at a time, and each of a multiprocessor's four parts has
    a quarter of them; blocks get shared memory in pieces of 128 bytes.
    """
    per_warp = -(-registers * LANES // 256) * 256
    by_registers = gpu.registers // 4 // per_warp * 4
    warps = -(-threads // LANES)
    block = -(-(shared + gpu.system) // 128) * 128
    by_shared = gpu.shared // block if block else gpu.blocks
    return min(gpu.blocks, gpu.warps // warps, by_registers // warps, by_shared) * warps


def predicted_time(gpu, moved, lanes_work, launches):
    """(seconds, what bounds them) of a pass.

        max(bytes / bandwidth, instructions / (multiprocessors x clock x lanes), the same for
        float32 and special-function instructions alone) + launches x LAUNCH

    Args:
        moved: bytes read and written
        lanes_work: instructions of all threads: (all, float32, special)
    """
    cycles = gpu.multiprocessors * gpu.clock
    lanes = (gpu.issue_lanes, gpu.float_lanes, gpu.special_lanes)
    bounds = {"memory": moved / gpu.bandwidth}
    for name, work, width in zip(("issue", "float32", "special"), lanes_work, lanes):
        bounds[name] = work / (cycles * width)
    bound = max(bounds, key=bounds.get)
    return bounds[bound] + launches * LAUNCH, bound


def focal_bytes(anchors, classes, element_size, passes=1):
    """Bytes that the focal loss, forward and backward, has to move for all `anchors` of a batch.

    In one pass logits are read and gradients written; in two logits are read again. Besides, for
    each anchor and pass, its label (int64), and its loss, written and read once (float32).
    """
    logits = anchors * classes * element_size
    return (1 + passes) * logits + anchors * (8 * passes + 8)
