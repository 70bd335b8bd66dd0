"""Runs as jobs of Slurm, through submitit: how they are submitted, found again, and end.

A job trains its run as `local.py` does, and writes the same record. It does not need the sweep,
which only waits for the records and asks Slurm about jobs that leave none.
"""

import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._show import counted
from ..errors import UserError
from .local import OUTPUT, begin, cores, end, last_lines, train_command
from .record import MISSING, Result, ended_well, read_record, write_record
from .sweep import Run, Sweep

JOB = "slurm"  # folder in a run's: what submitit writes, with the job's log
SUBMITTED = "_submitted.pkl"  # submitit's name for what a job runs; the job's id is before it
# Seconds for a record to show on this machine after its job has ended: NFS looks for new files
# once a minute.
SETTLE = 60
# Exit statuses of a training that Slurm has ended: the job is preempted, cancelled, or takes too
# much memory or time (of which SIGUSR2 warns, as submitit asks for it).
BY_SLURM = {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGUSR2}
# submitit's parameters that this file sets, or that would start a run more than once in a job.
OURS = {"nodes", "ntasks_per_node", "srun_args", "stderr_to_stdout", "job_name"}
SWITCHES = {"true": True, "false": False}  # such as exclusive=true


def read_parameters(words: Sequence[str]) -> dict[str, Any]:
    """
    What a job asks Slurm for, from texts KEY=VALUE.

    Raises:
        UserError: a text without =, a key that can't be set, or no `time`
    """
    parameters: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise UserError(
                f"--slurm: expected KEY=VALUE, got {word}; settings of the config stand right "
                "behind SWEEP.yaml"
            )
        if key in OURS:
            raise UserError(f"--slurm: {key} can't be set, a run is one task of one job")
        is_number = value.isdecimal() and str(int(value)) == value  # not an account's 0123
        value = int(value) if is_number else SWITCHES.get(value, value)
        parameters[key] = [value] if key in ("setup", "teardown") else value
    # Without it submitit asks for five minutes, not for what the cluster gives.
    if type(parameters.get("time")) is not int:
        got = parameters.get("time", "none")
        raise UserError(f"--slurm: expected time=MINUTES, the most that a run may take, got {got}")
    return parameters


def make_executor(folder: Path, parameters: dict[str, Any]):
    """
    submitit's executor, which writes into `folder`.

    Raises:
        UserError: no submitit, no Slurm here, or a parameter that submitit does not know
    """
    try:
        import submitit
    except ImportError as error:
        needed = "needs submitit: pip install submitit"
        raise UserError(f"--cluster slurm: {needed}") from error
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**parameters)
        return executor
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"--cluster slurm: {error}") from error


def job_id(folder: Path) -> str | None:
    """The job that a run's folder was given to; None if it never was."""
    # submitit gives the file this name when Slurm has taken the job; without it a job does nothing.
    # So a sweep that is killed while it submits never starts a run twice.
    for path in (folder / JOB).glob(f"*{SUBMITTED}"):
        return path.name.removesuffix(SUBMITTED)
    return None


def refuse_submitted(results: Sequence[Result]) -> None:
    """Refuses to train here what may be at work, or queued, as a job of Slurm."""
    for result in results:
        given = job_id(result.run.folder)
        if result.status == MISSING and given is not None:
            raise UserError(
                f"{result.run.folder} was given to Slurm as job {given} and has not ended; go on "
                "with --cluster slurm, or remove the folder if there is no such job any more"
            )


def train(run: Run, command: list[str]) -> None:
    """What a job does: the run from its beginning, whatever an earlier attempt left."""
    if ended_well(run.folder):  # Slurm may requeue a job that has just done its work
        return
    for path in run.folder.iterdir():
        if path.name != JOB:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    training = begin(run, command, cores())
    try:
        status = training.process.wait()
        if status in BY_SLURM:  # no record: it knows why, and may begin the job again
            sys.exit(status)
        training.has_ended()
    finally:  # submitit raises where Slurm's signal says that the time is up
        end([training])


class SlurmJob:
    """A run that Slurm has been given."""

    def __init__(self, run: Run, job):
        self.run, self.job = run, job
        self.begun: float | None = None  # time.monotonic() when it was first seen at work
        self.gone: float | None = None  # and when Slurm first said that it has ended

    @property
    def seconds(self) -> float:
        """Since it began, as far as this sweep has seen; 0 while it is queued."""
        if self.begun is None and (self.run.folder / OUTPUT).exists():
            self.begun = time.monotonic()
        return 0.0 if self.begun is None else time.monotonic() - self.begun

    def has_ended(self) -> bool:
        """Whether it has; then its record is there, if Slurm ended it one that says so."""
        if read_record(self.run.folder) is not None:
            return True
        if not self.job.done():
            self.gone = None  # a job may be requeued
            return False
        self.gone = self.gone or time.monotonic()
        if time.monotonic() - self.gone < SETTLE:
            return False
        log = f"{self.run.folder / JOB}/{self.job.job_id}_0_log.out"
        reason = f"job {self.job.job_id} ended as {self.job.state} before its run did; see {log}"
        write_record(self.run, self.seconds, None, [*last_lines(self.run), reason])
        return True


class Slurm:
    """Trains runs as jobs of Slurm, at most `jobs` of them queued or running; None is all."""

    poll = 2.0  # seconds between two looks at the folders, which lie on a disk that many share

    def __init__(self, sweep: Sweep, jobs: int | None, parameters: dict[str, Any]):
        self.sweep, self.jobs = sweep, jobs or len(sweep.cells) * len(sweep.seeds)
        self.parameters = {**parameters, "stderr_to_stdout": True}
        if "cpus_per_task" in parameters:  # since Slurm 22.05 srun no longer asks sbatch's
            self.parameters["srun_args"] = [f"--cpus-per-task={parameters['cpus_per_task']}"]
        make_executor(sweep.output, self.parameters)  # refused now, not with the first run

    def find(self, run: Run) -> SlurmJob | None:
        """A run that an earlier sweep submitted, and that has not ended behind its back."""
        known = job_id(run.folder)
        if known is None:
            return None
        import submitit

        job = submitit.SlurmJob(run.folder / JOB, known)
        # In this order: it may end in between.
        is_lost = job.done() and read_record(run.folder) is None
        return None if is_lost else SlurmJob(run, job)

    def start(self, run: Run) -> tuple[SlurmJob, str]:
        """Submits a run, which is begun anew; and says so."""
        if run.folder.exists():
            shutil.rmtree(run.folder)
        run.folder.mkdir(parents=True)
        executor = make_executor(run.folder / JOB, {**self.parameters, "job_name": run.folder.name})
        try:
            job = executor.submit(train, run, train_command(self.sweep, run))
        except RuntimeError as error:  # what sbatch said
            raise UserError(f"--cluster slurm: {run.folder} was not taken: {error}") from error
        return SlurmJob(run, job), f"submitted job {job.job_id}: {run.folder}"

    def leave(self, running: Sequence[SlurmJob]) -> str:
        """When the sweep ends: the jobs go on."""
        if not running:
            return ""
        ids = " ".join(job.job.job_id for job in running)
        return (
            f"; {counted(len(running), 'jobs')} left to Slurm, and the same command waits for all "
            f"of them (scancel {ids} ends them)"
        )
