"""Steps run one after the other within a time, each with a log, a verdict and a line."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# Of the time given, seconds kept for stopping what runs and writing the table.
RESERVE = 5
# Bytes that a log is cut to, its beginning and its end: small enough to send on.
LOG_LIMIT = 4 << 20


class Failed(Exception):
    """The step did not pass; the message is its line in the table."""


class LeftOut(Exception):
    """The step has nothing to do, and nobody expects it to; the message says what it lacks."""


@dataclass
class Step:
    """
    Attributes:
        name: one word, as `--only` takes it
        about: what it shows
        seconds: an estimate; it is not started with less time than that
        run: gives its line in the table, from a :class:`Check`; raises Failed or LeftOut
        log: name of the file its output goes to; several steps may share one
        needs: steps that run before it, and without which it cannot pass
        after: steps that run before it, and without which it may pass
    """

    name: str
    about: str
    seconds: float
    run: Callable
    log: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass
class Result:
    name: str
    verdict: str  # passed, failed, not run, left out
    seconds: float
    line: str


@dataclass
class Check:
    """
    Attributes:
        python: the Python that has PyTorch
        root: the tree; every command runs there
        work: folder for what is built and unpacked
        out: folder for the logs
        deadline: of time.monotonic()
        rehearse: there is no GPU, and nothing is launched
        environ: of the commands
        log: of the step that runs
    """

    python: str
    root: Path
    work: Path
    out: Path
    deadline: float
    rehearse: bool = False
    environ: dict = field(default_factory=lambda: dict(os.environ))
    log: Path | None = None

    def left(self):
        """Seconds that a step may take."""
        return self.deadline - RESERVE - time.monotonic()

    def execute(self, command, accept=(0,), **environ):
        """What a command printed; it goes to the log, too. Raises Failed with its last line."""
        with open(self.log, "a+") as log:
            print("$", *command, file=log, flush=True)
            start = log.tell()
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.root,
                env=self.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children are stopped with it
            )
            try:
                status = process.wait(max(self.left(), 0.1))
            except subprocess.TimeoutExpired:
                raise Failed("stopped, no time left") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            log.seek(start)
            output = log.read()
        if status not in accept:
            raise Failed(last_line(output) or f"exit status {status}")
        return output


def last_line(output):
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip(" =") if lines else ""


def with_needs(steps, names):
    """The steps of these names and those they need, in the table's order; all without names."""
    wanted = set(names or [step.name for step in steps])
    for step in reversed(steps):  # what a step needs stands before it
        if step.name in wanted:
            wanted.update(step.needs + step.after)
    return [step for step in steps if step.name in wanted]


def run_steps(steps, check):
    """A :class:`Result` for each step; one that fails stops only those that need it."""
    results = {}
    for step in steps:
        print(f"== {step.name}: {step.about}", flush=True)
        lacks = [name for name in step.needs if results[name].verdict in ("failed", "not run")]
        start = time.monotonic()
        if lacks:
            verdict, line = "not run", f"needs {lacks[0]}"
        elif check.left() < step.seconds:
            verdict, line = "not run", f"no time left (takes about {step.seconds:.0f} s)"
        else:
            verdict, line = attempt(step, check)
        seconds = time.monotonic() - start
        results[step.name] = Result(step.name, verdict, seconds, line)
        print(f"   {verdict}: {line}", flush=True)
        if verdict == "failed" and check.log.exists():
            print(*check.log.read_text(errors="replace").splitlines()[-20:], sep="\n", flush=True)
    return list(results.values())


def attempt(step, check):
    """(verdict, line) of a step that has the time it needs."""
    check.log = check.out / step.log
    try:
        return "passed", step.run(check)
    except Failed as failure:
        return "failed", str(failure)
    except LeftOut as lack:
        return "left out", str(lack)
    except Exception as error:  # a mistake in a step must not cost the other steps' results
        return "failed", f"{type(error).__name__}: {error}"


def table(results, head=""):
    """Text: a line a step, then how many passed."""
    width = max([len(result.name) for result in results], default=0)
    lines = [head] if head else []
    for result in results:
        line = result.line if len(result.line) <= 160 else result.line[:157] + "..."
        lines.append(f"{result.name:{width}}  {result.verdict:8} {result.seconds:7.1f} s  {line}")
    verdicts = [result.verdict for result in results]
    counts = [(verdicts.count(name), name) for name in ("passed", "failed", "not run", "left out")]
    lines.append(", ".join(f"{count} {name}" for count, name in counts if count))
    return "\n".join(lines) + "\n"


def gather_figures(folder):
    """What the steps left as JSON in a folder: name of the file -> content."""
    figures = {}
    for path in sorted(folder.glob("*.json")):
        try:
            figures[path.stem] = json.loads(path.read_text())
        except ValueError:
            figures[path.stem] = None  # the step was stopped while it wrote
    return figures


def cut_logs(folder, limit=LOG_LIMIT):
    """Takes the middle out of logs that are too long to be sent."""
    for path in folder.glob("*.log"):
        if path.stat().st_size > limit:
            content = path.read_bytes()
            half = limit // 2 - 100
            path.write_bytes(content[:half] + b"\n[... cut ...]\n" + content[-half:])
