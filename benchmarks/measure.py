"""Times and memory of a loss, forward and backward, and the table that they are printed in."""

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # silences what the profiler says of itself

import torch

# glibc keeps freed blocks instead of giving them back: no page of a gradient is new each time.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


def keep_freed_blocks():
    """Starts this script again with an allocator that keeps what is freed, unless it does."""
    if any(os.environ.get(name) != value for name, value in KEEPING.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEPING)


def describe(device) -> dict:
    """What a figure depends on beside the code: name -> text or number."""
    if device == "cuda":
        machine, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        capability = "sm_{}{}".format(*capability)
    else:
        cpus = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in cpus if line.startswith("model name")]
        machine, capability = (names or ["CPU"])[0], torch.backends.cpu.get_cpu_capability()
    kept = all(os.environ.get(name) == value for name, value in KEEPING.items())
    return {
        "machine": machine,
        "capability": capability,
        "threads": torch.get_num_threads(),
        "allocator": "keeps freed blocks" if kept else "default",
        "torch": torch.__version__,
    }


def write_json(path, **content):
    with open(path, "w") as file:
        json.dump(content, file, indent=1)


class Run:
    """A loss of some leaves, ready to be run forward and backward again and again."""

    def __init__(self, function, leaves):
        """
        Args:
            function: leaves (a list) -> 0-dim loss
            leaves: tensors that want a gradient
        """
        self.function, self.leaves = function, leaves

    def __call__(self):
        """(loss, gradients) of one pass."""
        leaves = [x.detach().requires_grad_() for x in self.leaves]
        loss = self.function(leaves)
        loss.backward()
        return loss.detach(), [x.grad for x in leaves]

    def seconds(self):
        """Of one pass. Passes on a GPU are queued, so that launches do not count twice."""
        if not self.leaves[0].is_cuda:
            leaves = [x.detach().requires_grad_() for x in self.leaves]
            start = time.perf_counter()
            self.function(leaves).backward()
            return time.perf_counter() - start
        return queued(self)

    def mebibytes(self):
        """Peak of one pass above what is allocated before it."""
        if self.leaves[0].is_cuda:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self()
            torch.cuda.synchronize()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        # Each allocation of the CPU allocator, in order; what C++ code takes from the heap by
        # itself is not among them.
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            self()
        events = profile.profiler.kineto_results.events()
        events = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
        now = peak = 0
        for event in events:
            now += event.nbytes()
            peak = max(peak, now)
        return peak / 2**20


def gpu_milliseconds(function, calls=10):
    """What the GPU works for one call, launches and waiting not counted: for short kernels."""
    function()
    torch.cuda.synchronize()
    kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(calls):
            function()
        torch.cuda.synchronize()
    events = profile.profiler.kineto_results.events()
    events = (e for e in events if e.device_type() == torch.autograd.DeviceType.CUDA)
    return sum(e.duration_ns() for e in events) / calls / 1e6


class Copy:
    """A copy into new memory that reads and writes so many bytes in all."""

    def __init__(self, moved, device):
        self.source = torch.ones(max(moved // 2, 1), dtype=torch.uint8, device=device)

    def seconds(self):
        if self.source.is_cuda:
            return queued(self.source.clone)
        start = time.perf_counter()
        self.source.clone()
        return time.perf_counter() - start


def queued(function, calls=20):
    """Seconds of one of many calls that a GPU works off one after the other."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


# A turn: as many passes as take this long, after some that are not timed: caches and threads have
# gone over to another run meanwhile. Long ones are timed at once.
TURN_SECONDS = 2e-3


def take_turns(runs, rounds):
    """name -> median milliseconds. A busy machine slows all of them, since they alternate."""
    seconds = {name: [] for name in runs}
    passes = {}
    for name, run in runs.items():
        seconds_of_one = min(run.seconds() for _ in range(3)) if run.seconds() < 0.1 else 0.1
        passes[name] = int(TURN_SECONDS / seconds_of_one)
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(min(passes[name], 5)):
                run.seconds()
            turn = [run.seconds() for _ in range(max(passes[name], 1))]
            seconds[name].append(statistics.median(turn))
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def check_agreement(runs, ours, tolerance):
    """Raises an AssertionError that names the first run whose loss or gradient is not ours'.

    Every run is called twice: what it compiles, it has compiled afterwards.
    """
    loss, grads = runs[ours]()
    for name, run in runs.items():
        say = f"{name}: {{}}".format
        for _ in range(2):
            other, other_grads = run()
        torch.testing.assert_close(other.float(), loss.float(), rtol=tolerance, atol=1e-5, msg=say)
        for other_grad, grad in zip(other_grads, grads, strict=True):
            torch.testing.assert_close(other_grad, grad, rtol=10 * tolerance, atol=1e-6, msg=say)


HEADER = f"{'':28}{'':26}{'median ms':>10}{'/ best peer':>13}{'/ copy':>9}{'MiB':>10}"
HEADER += f"{'GPU ms':>10}" * torch.cuda.is_available()


def compare(title, runs, moved, rounds, tolerance, ours="alwa_d2"):
    """Rows of the table, printed as well: our loss, in one form or several, among its peers.

    Args:
        title: name -> text, what tells this case from others
        runs: peer -> :class:`Run`
        moved: bytes that any implementation must read or write
        rounds: how often each has its turn
        tolerance: relative, of the values; gradients are allowed ten times as much
    """
    check_agreement(runs, ours, tolerance)
    device = runs[ours].leaves[0].device
    times = take_turns(runs | {"copy": Copy(moved, device)}, rounds)
    gpu = {name: gpu_milliseconds(run) for name, run in runs.items() if device.type == "cuda"}
    best = min((times[name] for name in runs if not name.startswith(ours)), default=None)
    rows = []
    for name, milliseconds in times.items():
        row = title | {
            "peer": name,
            "ms": milliseconds,
            "to_best_peer": best and milliseconds / best,
            "to_copy": milliseconds / times["copy"],
            "mib": runs[name].mebibytes() if name in runs else None,
            "gpu_ms": gpu.get(name),
        }
        rows.append(row)
        print_row(row)
    return rows


def print_row(row):
    case = " ".join(str(row[key]) for key in ("case", "size", "form") if row.get(key))
    ratio, mib = (row[key] for key in ("to_best_peer", "mib"))
    ratio = "" if ratio is None or row["peer"] == "copy" else f"{ratio:.2f}"
    mib = "" if mib is None else f"{mib:.2f}"
    gpu = f"{row['gpu_ms']:10.4f}" if row["gpu_ms"] is not None else ""
    print(
        f"{case:28}{row['peer']:26}{row['ms']:10.3f}{ratio:>13}{row['to_copy']:9.1f}{mib:>10}{gpu}",
        flush=True,
    )
