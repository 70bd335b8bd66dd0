"""Starts a training's processes, or joins those that torchrun or Slurm has started."""

import contextlib
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed as dist
from torch.multiprocessing import ProcessRaisedException

from .._show import counted
from ..detectron2_private import forget_process_groups
from ..errors import UserError, user_errors
from .defaults import merged_cfg

PATIENCE = 5  # seconds that a process has to end before it is killed; a collective may hold it


def launch(main: Callable, args, timeout: timedelta = DEFAULT_TIMEOUT):
    """
    Runs `main(args)` in every process of a training, with the process group set up.

    `--num-gpus N` starts N processes on this machine by Detectron2's `launch`, on the CPU with
    `MODEL.DEVICE cpu`. Where the environment has a `WORLD_SIZE` above 1 the processes are there
    already, as torchrun starts them; the variables are torchrun's, or Slurm's where those are
    missing. SIGINT and SIGTERM end all processes that were started here, also if this one alone
    gets them; the exit status is 128 and the signal's number.

    Args:
        main: takes `args`
        args: parsed by Detectron2's `default_argument_parser`
        timeout: after which a collective that a process does not take part in is an error

    Returns:
        What `main` returns, or None where that ran in processes started here.

    Raises:
        UserError: `--num-gpus` and `MODEL.DEVICE` that do not fit the machine, each other, or the
            environment; also one that `main` raises in a process started here
    """
    on_cpu = _on_cpu(args)
    if on_cpu:
        # Detectron2 takes any GPU that it sees for a reason to use NCCL.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with ending_on_signals():
        if _are_there():
            return _join(main, args, "gloo" if on_cpu else "nccl", timeout)
        if args.num_gpus * args.num_machines == 1:
            return main(args)
        return _start(main, args, on_cpu, timeout)


def _start(main: Callable, args, on_cpu: bool, timeout: timedelta):
    if on_cpu:
        # PyTorch would give each process all cores, which is far slower than sharing them.
        threads = len(os.sched_getaffinity(0)) // args.num_gpus
        os.environ.setdefault("OMP_NUM_THREADS", str(max(threads, 1)))
    mistakes = multiprocessing.get_context("spawn").SimpleQueue()
    others = multiprocessing.active_children()
    try:
        detectron2_launch(
            _run_started,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args, mistakes),
            timeout=timeout,
        )
    except ProcessRaisedException as error:
        # Its message is a process's traceback, of which a mistake of the user's is the last line.
        if mistakes.empty():
            raise
        raise mistakes.get() from error
    finally:
        _end([child for child in multiprocessing.active_children() if child not in others])


@contextlib.contextmanager
def ending_on_signals():
    """SIGINT and SIGTERM end this process in order, with the exit status that shells expect."""

    received = []

    def leave(number, frame):
        received.append(number)
        sys.exit(128 + number)

    with _handled_by(leave):
        try:
            yield
        except Exception as error:
            if not received:
                raise
            # What was interrupted raised an error of its own, as PyTorch's writer of files does.
            raise SystemExit(128 + received[0]) from error


@contextlib.contextmanager
def _handled_by(handler):
    """SIGINT and SIGTERM have this handler, but for threads that may not set one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _end(children: Sequence) -> None:
    """Ends processes that still run."""
    for child in children:
        child.terminate()
    for child in children:
        child.join(PATIENCE)
        if child.is_alive():
            child.kill()


def _are_there() -> bool:
    """Whether a launcher has started all processes, and this is one of them."""
    # A job of one process has a WORLD_SIZE too, and may start processes of its own.
    return os.environ.get("WORLD_SIZE", "").strip() not in ("", "1")


def _on_cpu(args) -> bool:
    """Whether the models go to the CPU; GPUs that are not there are refused."""
    device = merged_cfg(args.config_file, args.opts).MODEL.DEVICE
    if device == "cpu":
        return True
    if ":" in device and (args.num_gpus > 1 or _are_there()):
        raise UserError(f"MODEL.DEVICE: expected cuda for several processes, got {device}")
    found = torch.cuda.device_count()
    if args.num_gpus > max(found, 1):
        raise UserError(
            f"--num-gpus {args.num_gpus}: found {counted(found, 'GPUs')} (MODEL.DEVICE cpu runs "
            "as many processes on the CPU)"
        )
    return found == 0


def _join(main: Callable, args, backend: str, timeout: timedelta):
    world_size, local_size = _number("WORLD_SIZE"), _local_size()
    rank, local_rank = _number("RANK", "SLURM_PROCID"), _number("LOCAL_RANK", "SLURM_LOCALID")
    if args.num_gpus not in (1, local_size) or args.num_machines > 1:
        raise UserError(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: the environment has "
            f"{world_size} processes already, {local_size} on this machine (WORLD_SIZE); leave the "
            "options out"
        )
    if backend == "nccl" and local_rank >= torch.cuda.device_count():
        raise UserError(
            f"LOCAL_RANK: expected a process for each of {torch.cuda.device_count()} visible GPUs, "
            f"got {local_rank}"
        )
    # While PyTorch waits for the others, no handler in Python would run.
    with user_errors(), _handled_by(signal.SIG_DFL):  # errors: a variable that is not there
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timeout)
    comm.create_local_process_group(local_size)
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    return _run(main, args)


def _local_size() -> int:
    """The number of processes on this machine; Slurm writes it as 4, or 4(x2) for two machines."""
    of_slurm = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    uniform = re.fullmatch(r"(\d+)(\(x\d+\))?", of_slurm)
    return _number("LOCAL_WORLD_SIZE", default=uniform[1] if uniform else of_slurm)


def _number(*names: str, default: str = "") -> int:
    """The first of these variables of the environment that is there."""
    value = next((os.environ[name] for name in names if name in os.environ), default)
    if not value.isdecimal():
        reason = ""
        if names[0] != "WORLD_SIZE":
            reason = f" (WORLD_SIZE is {os.environ['WORLD_SIZE']}; torchrun sets both)"
        raise UserError(f"{names[0]}: expected a number{reason}, got '{value}'")
    return int(value)


def _run_started(main: Callable, args, mistakes) -> None:
    try:
        _run(main, args)
    except UserError as error:
        mistakes.put(error)
        raise


def _run(main: Callable, args):
    result = main(args)
    if dist.is_initialized():
        # Left to the interpreter's end, gloo's threads may abort a process that has done its work.
        # They end with the last reference to their group; a model's may be in a cycle.
        comm.synchronize()
        forget_process_groups()
        dist.destroy_process_group()
        gc.collect()
    return result
