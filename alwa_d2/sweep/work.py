"""What `alwa-d2 sweep` does: trains what is missing, tabulates, or prints commands."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError, UserError, explain
from .best import second_step
from .local import Local
from .lock import locked
from .loop import Loop
from .plan import make_runs
from .read import read_sweep
from .record import FAILED, FINISHED, MISSING, Result, read_result
from .scores import check_kept, fill_in
from .slurm import Slurm, read_parameters, refuse_submitted
from .sweep import Run, Sweep
from .table import write_results


@dataclass(frozen=True)
class Request:
    """A sweep as the command line names it."""

    path: Path
    opts: Sequence[str] = ()  # KEY, VALUE, ... in place of those of the file's `opts`
    elsewhere: Sequence[Path] = ()  # results.csv of the same runs from other machines or days
    retry_failed: bool = False
    output: Path | None = None  # in place of the file's


@dataclass(frozen=True)
class Picture:
    """What is drawn of the last step's results."""

    path: Path  # a PNG file
    along: str | None = None  # an axis of numbers; None for the differences to the baseline


def read_all(request: Request, sweep: Sweep, runs: list[Run]) -> list[Result]:
    """What is known of each run, here and elsewhere."""
    results = [read_result(run, sweep.metrics) for run in runs]
    for path in request.elsewhere:
        results = fill_in(results, path, sweep.metrics)
    return results


def to_do(sweep: Sweep, results: list[Result], retry_failed: bool) -> list[int]:
    """Places in `results` of the runs to train."""
    again = (MISSING, FAILED) if retry_failed else (MISSING,)
    # A reused run is another sweep's: should its files be damaged, it is not ours to train.
    return [
        place
        for place, result in enumerate(results)
        if result.run.folder.parent == sweep.output and result.status in again
    ]


def steps(
    request: Request, picture: Picture | None = None, check: bool = True
) -> Iterator[tuple[Sweep, list[Run]]]:
    """The sweep with its runs; then its second step (`best`), as far as it is known by then. A
    picture that cannot be drawn is refused at once. `check` is that of `make_runs`."""
    sweep = read_sweep(request.path, list(request.opts))
    if request.output is not None:
        sweep = dataclasses.replace(sweep, output=request.output)
    if picture is not None:
        from .figures import check_picture

        check_picture(sweep, picture.along)
    while sweep is not None:
        runs = make_runs(sweep, check)
        yield sweep, runs
        sweep = second_step(sweep, read_all(request, sweep, runs))


def commands(request: Request) -> list[str]:
    """A line for a shell for each missing run, which does what the sweep would on any machine that
    sees these folders."""
    words = [sys.executable, "-m", "alwa_d2", "sweep", str(request.path.resolve()), *request.opts]
    words += [] if request.output is None else ["--output", str(request.output)]
    words += [word for path in request.elsewhere for word in ("--results", str(path))]
    there, lines = shlex.quote(os.getcwd()), []
    for sweep, runs in steps(request):
        results = read_all(request, sweep, runs)
        hashes = [runs[place].hash for place in to_do(sweep, results, request.retry_failed)]
        lines += [f"cd {there} && {shlex.join([*words, '--run', one])}" for one in hashes]
    return lines


def tabulate(request: Request, picture: Picture | None = None) -> int:
    """Writes the results of what is there, and draws them; returns the exit status. Nothing is
    trained, so the data sets need not be there."""
    statuses = []
    for sweep, runs in steps(request, picture, check=False):
        results = read_all(request, sweep, runs)
        check_kept(sweep, results)
        write_results(sweep, results)
        statuses.append(_say_where(sweep, results))
    draw(picture, sweep, results)
    return max(statuses)


def draw(picture: Picture | None, sweep: Sweep, results: list[Result]) -> None:
    """Writes the picture, if one is asked for."""
    if picture is None:
        return
    if sweep.best is not None:
        raise RunError(f"{sweep.path}: --figure: the first step has not ended, see results.md")
    from ..analysis.pictures import rasterise, save_png
    from .figures import draw_curves, draw_differences

    if picture.along is None:
        figure = draw_differences(sweep, results)
    else:
        figure = draw_curves(sweep, results, picture.along)
    save_png(lambda scale: rasterise(figure, scale), picture.path)
    print(f"wrote {picture.path}")


def train_one(request: Request, run_hash: str) -> int:
    """Does one run, unless it has finished, and writes no table; returns the exit status."""
    for sweep, runs in steps(request):
        if run_hash in [run.hash for run in runs]:
            return _train_one(request, sweep, runs, run_hash)
    raise UserError(f"--run: {request.path} has no run {run_hash}; was it changed since?")


def _train_one(request: Request, sweep: Sweep, runs: list[Run], run_hash: str) -> int:
    with locked(sweep.output, run_hash) as locks:
        results = read_all(request, sweep, runs)
        todo = to_do(sweep, results, retry_failed=True)
        todo = [place for place in todo if runs[place].hash == run_hash]
        refuse_submitted([results[place] for place in todo])
        stopped = _run(Loop(sweep, results, Local(sweep, 1, locks), table=False), todo)
    return _status([result for result in results if result.run.hash == run_hash], stopped)


def train_all(
    request: Request,
    jobs: int | None,
    slurm: Sequence[str] | None,
    picture: Picture | None = None,
) -> int:
    """
    Does all runs that are missing, and writes the results anew after each.

    Args:
        request: the sweep
        jobs: so many at a time; None is one on this machine, and all at once on Slurm
        slurm: what a job asks Slurm for, as KEY=VALUE; None to train on this machine
        picture: drawn when all has ended

    Returns:
        the exit status: 0 all finished, 1 a run failed, 128 + the signal that stopped the sweep
    """
    parameters = None if slurm is None else read_parameters(slurm)
    statuses = []
    for sweep, runs in steps(request, picture):
        cluster = None if parameters is None else Slurm(sweep, jobs, parameters)
        with locked(sweep.output, None) as locks:
            results = read_all(request, sweep, runs)
            todo = to_do(sweep, results, request.retry_failed)
            if cluster is None:
                refuse_submitted([results[place] for place in todo])
            check_kept(sweep, results)
            write_results(sweep, results)
            machine = cluster or Local(sweep, jobs or 1, locks)
            stopped = _run(Loop(sweep, results, machine, table=True), todo)
        statuses.append(_say_where(sweep, results, stopped))
        if stopped:
            return statuses[-1]
    draw(picture, sweep, results)
    return max(statuses)


def _run(loop: Loop, todo: list[int]) -> int:
    """Its :meth:`Loop.run`, which a full disk ends in the middle of the work."""
    try:
        return loop.run(todo)
    except BrokenPipeError:  # whoever reads what is printed has left
        raise
    except OSError as error:
        where = "" if error.filename else f"{loop.sweep.output}: "
        raise RunError(where + explain(error)) from error


def _status(results: list[Result], stopped: int = 0) -> int:
    failed = any(result.status not in (FINISHED, MISSING) for result in results)
    return 128 + stopped if stopped else int(failed)


def _say_where(sweep: Sweep, results: list[Result], stopped: int = 0) -> int:
    print(f"wrote {sweep.output / 'results.md'} and {sweep.output / 'results.csv'}")
    return _status(results, stopped)
