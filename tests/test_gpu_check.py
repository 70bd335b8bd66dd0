"""scripts/gpu_check.py and gpu_wheels.py, with tiny steps in the real ones' place."""

import importlib
import json
import os
import stat
import subprocess
import sys
import time

import pytest
import torch
from conftest import REPO

ABOUT = {"python": "3.12.1", "torch": "2.11.0", "cuda": "13.0", "capability": "sm_90"}


@pytest.fixture
def load(monkeypatch):
    """A script of scripts/ as a module; they import each other by name."""
    monkeypatch.syspath_prepend(REPO / "scripts")
    return importlib.import_module


@pytest.fixture
def gpu_check(load, monkeypatch):
    """The module, on a machine that says it has a GPU."""
    module = load("gpu_check")
    monkeypatch.setattr(module, "about_machine", lambda python: ABOUT | {"gpu": "Toy GPU"})
    monkeypatch.delenv("OUT", raising=False)
    return module


@pytest.fixture
def step(load):
    """step(name, code, ...): a step that runs a line of Python and gives its last line."""
    run = load("gpu_run")

    def make(name, code="print('fine')", seconds=0, log="all.log", needs=(), after=()):
        def execute(check):
            return run.last_line(check.execute([sys.executable, "-c", code]))

        return run.Step(name, f"shows {name}", seconds, execute, log, needs, after)

    return make


@pytest.fixture
def check(gpu_check, tmp_path):
    """check(steps, arguments): the exit status and name -> (verdict, line) of the table."""

    def run(steps, *arguments):
        out = tmp_path / "out"
        status = gpu_check.main([*arguments, "--out", str(out)], steps, tmp_path)
        names = [each.name for each in steps]
        text = (out / "summary.txt").read_text().replace("not run", "not-run")
        text = text.replace("left out", "left-out")
        rows = [line.split(maxsplit=4) for line in text.splitlines()]
        return status, {row[0]: (row[1], row[4]) for row in rows if row[0] in names}

    return run


def test_a_failing_step_does_not_stop_the_others(check, step, tmp_path):
    steps = [step("first"), step("second", "print('no such thing'); exit(3)"), step("third")]
    status, rows = check(steps)
    assert status == 1
    assert rows == {
        "first": ("passed", "fine"),
        "second": ("failed", "no such thing"),
        "third": ("passed", "fine"),
    }
    summary = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    assert summary[0] == "Toy GPU, sm_90; PyTorch 2.11.0, CUDA 13.0, Python 3.12.1"
    assert summary[-1] == "2 passed, 1 failed"


def test_a_mistake_in_a_step_does_not_stop_the_others(check, step, load):
    broken = load("gpu_run").Step("broken", "", 0, lambda check: 1 / 0, "all.log")
    status, rows = check([broken, step("next")])
    assert status == 1 and rows["next"][0] == "passed"
    assert rows["broken"] == ("failed", "ZeroDivisionError: division by zero")


def test_all_passed(check, step, tmp_path, capsys):
    status, _ = check([step("first"), step("second")])
    assert status == 0
    text = (tmp_path / "out" / "summary.txt").read_text()
    assert text.splitlines()[-1] == "2 passed" and text in capsys.readouterr().out


def test_what_needs_a_failed_step_is_not_run(check, step):
    steps = [
        step("wheels", "exit(1)"),
        step("build", "exit(1)", after=("wheels",)),
        step("tests", needs=("build",)),
        step("copy", after=("wheels",)),
    ]
    status, rows = check(steps)
    assert status == 1
    assert rows["build"] == ("failed", "exit status 1")
    assert rows["tests"] == ("not-run", "needs build")
    assert rows["copy"] == ("passed", "fine")


def test_left_out_is_no_failure(check, load):
    run = load("gpu_run")

    def lacks(check):
        raise run.LeftOut("set SOMETHING")

    status, rows = check([run.Step("others", "", 0, lacks, "all.log")])
    assert status == 0 and rows["others"] == ("left-out", "set SOMETHING")


def test_only_runs_a_step_and_what_it_needs(check, step):
    steps = [
        step("wheels"),
        step("build", after=("wheels",)),
        step("tests", needs=("build",)),
        step("losses", needs=("build",)),
    ]
    _, rows = check(steps, "--only", "losses")
    assert list(rows) == ["wheels", "build", "losses"]


def test_an_unknown_step_is_refused_naming_the_choices(gpu_check, step, capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["--only", "third"], [step("first"), step("second")])
    message = capsys.readouterr().err
    assert "'third'" in message and "first" in message and "second" in message


def test_no_time_left(check, step):
    """A step whose estimate exceeds what is left is not started; a cheaper one after it is."""
    steps = [step("long", seconds=60), step("short", seconds=1)]
    status, rows = check(steps, "--budget", "30")
    assert status == 1
    assert rows["long"] == ("not-run", "no time left (takes about 60 s)")
    assert rows["short"][0] == "passed"


def test_a_step_is_stopped_with_its_children_when_the_time_is_over(check, step, tmp_path):
    child = "import time; time.sleep(4); open('late', 'w')"
    code = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    _, rows = check([step("slow", code), step("next", seconds=1)], "--budget", "7")
    assert rows["slow"] == ("failed", "stopped, no time left")
    assert rows["next"][0] == "not-run"
    assert time.monotonic() - start < 7  # the reserve is for the table
    time.sleep(4)
    assert not (tmp_path / "late").exists()
    assert "begun" in (tmp_path / "out" / "all.log").read_text()


@pytest.mark.parametrize("budget", ["0", "-1", "nan"])
def test_a_budget_is_a_positive_number(gpu_check, capsys, budget):
    with pytest.raises(SystemExit):
        gpu_check.main(["--budget", budget], [])
    assert f"positive number of seconds, got {budget}" in capsys.readouterr().err


def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    """A Python without PyTorch stands for a machine without a GPU."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    result = subprocess.run(
        [sys.executable, str(REPO / "scripts" / "gpu_check.py")],
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and result.stderr == ""
    assert result.stdout.count("\n") == 1 and "can use a GPU" in result.stdout


def test_a_rehearsal_needs_no_gpu(gpu_check, check, step, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "about_machine", lambda python: ABOUT | {"gpu": None})
    code = "import os; print(os.environ['TORCH_CUDA_ARCH_LIST'])"
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert check([step("build", code)], "--rehearse") == (0, {"build": ("passed", "9.0")})
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["rehearsed"] is True


def test_real_steps_leave_at_most_eight_small_files(load):
    steps = load("gpu_steps").STEPS
    assert len({step.log for step in steps} | {"summary.txt", "figures.json"}) <= 8
    assert all(step.log.endswith(".log") for step in steps)
    names = [step.name for step in steps]
    for at, one in enumerate(steps):  # what a step needs stands before it
        assert set(one.needs + one.after) <= set(names[:at]), one.name


def test_figures_are_gathered_and_old_ones_removed(check, step, tmp_path):
    leave = (
        "import json; json.dump([1], open('build/gpu-check/figures/{}.json', 'w')); print('left')"
    )
    check([step("first", leave.format("one")), step("second", log="other.log")])
    check([step("first", leave.format("two")), step("second", log="other.log")])
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["two"] == [1] and "one" not in figures
    assert figures["machine"]["gpu"] == "Toy GPU"
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["all.log", "figures.json", "other.log", "summary.txt"]


def test_long_logs_lose_their_middle(load, tmp_path):
    log = tmp_path / "tests.log"
    log.write_text("first\n" + "x" * 10000 + "\nlast\n")
    load("gpu_run").cut_logs(tmp_path, limit=1000)
    text = log.read_text()
    assert len(text) <= 1000 and text.startswith("first\n") and text.endswith("last\n")


# Steps


class Recorder:
    """Stands for a Check: keeps commands, answers with what a test gives it."""

    def __init__(self, root, rehearse, report):
        self.root, self.work, self.rehearse, self.report = root, root, rehearse, report
        self.python, self.environ, self.commands = "python", {"PATH": "/bin"}, []

    def execute(self, command, **environ):
        self.commands.append([str(word) for word in command])
        (self.root / "tests.xml").write_text(self.report)
        return ""


def report(passed=0, **skipped):
    cases = ["<testcase/>"] * passed
    for reason, count in skipped.items():
        cases += [f'<testcase><skipped message="{reason.replace("_", " ")}"/></testcase>'] * count
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


@pytest.mark.parametrize(
    "rehearse, results, expected",
    [
        (True, report(needs_a_GPU=3), "0 passed, 3 skipped: 3 needs a GPU"),
        (True, report(passed=1, needs_a_GPU=3), None),
        (True, report(needs_a_GPU=3, needs_Detectron2=1), None),
        (True, report(), None),
        (False, report(passed=2, needs_Detectron2=1), "2 passed, 1 skipped: 1 needs Detectron2"),
        (False, report(needs_Detectron2=1), None),
        (False, report(passed=2, needs_a_GPU=1), None),
    ],
)
def test_results_of_the_tests(load, tmp_path, rehearse, results, expected):
    steps, run = load("gpu_steps"), load("gpu_run")
    check = Recorder(tmp_path, rehearse, results)
    if expected:
        assert steps.run_tests(check, ["test_a.py"]) == expected
    else:
        with pytest.raises(run.Failed):
            steps.run_tests(check, ["test_a.py"])


def test_parity_takes_files_with_a_device_and_no_emulation(load, tmp_path):
    for name, text in {
        "test_loss.py": "def test(device): ...",
        "deep/test_more.py": "DEVICES",
        "test_plots.py": "import matplotlib",
        "test_cuda.py": "cuda",
        "test_cuda_on_host.py": "device",
        "cuda_on_host/test_kernels.py": "device",
        "test_build.py": "cuda",
    }.items():
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    check = Recorder(tmp_path, True, report(needs_a_GPU=1))
    load("gpu_steps").parity(check)
    files = [word for word in check.commands[0] if word.endswith(".py")]
    assert sorted(files) == ["tests/deep/test_more.py", "tests/test_loss.py"]


@pytest.mark.parametrize("own", ["", "-L/opt/lib"])
@pytest.mark.parametrize("libraries", ["libc10.so", "libc10.so\0libstdc++.so.6"])
def test_a_library_with_a_libstdcxx_of_its_own_is_linked_anew(load, tmp_path, libraries, own):
    suffix = ".cpython-312-x86_64-linux-gnu.so"
    built, other = (tmp_path / f"alwa_d2/_C{name}" for name in (suffix, ".cpython-310.so"))
    built.parent.mkdir()
    other.write_text("of another Python")
    flags = []

    class Compiler(Recorder):
        def execute(self, command, **environ):
            if "setup.py" in command:
                flags.append(environ.get("LDFLAGS"))
                built.write_text("\0libm.so.6\0" + (libraries if not flags[-1] else flags[-1]))
            return suffix if "sysconfig" in command[-1] else "13 ops, without a CUDA kernel: none"

    compiler = Compiler(tmp_path, False, None)
    compiler.environ["LDFLAGS"] = own
    load("gpu_steps").build(compiler)
    shared = f"{own} -Wl,--no-as-needed -l:libstdc++.so.6".strip()
    assert flags == ([None] if "stdc++" in libraries else [None, shared])
    assert other.exists()


def test_a_built_library_has_all_cuda_kernels_or_none(load):
    """The question that the step `build` ends with, put to this library. _refuse_derivative, which
    runs nothing, has one kernel for all devices."""
    code = load("gpu_steps").HAS_KERNELS
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    count, _, lacking = done.stdout.strip().partition(" ops, without a CUDA kernel: ")
    import alwa_d2.layers  # noqa: F401 (for the op)

    if torch._C._dispatch_has_kernel_for_dispatch_key("alwa_d2::box_loss", "CUDA"):
        assert (done.returncode, lacking) == (0, "none"), done.stdout
    else:
        assert done.returncode == 1 and len(lacking.split(", ")) == int(count) - 1


def test_real_files_are_found(load):
    steps = load("gpu_steps")
    found = [path.name for path in steps.test_files(Recorder(REPO, True, ""), *steps.SMALL_TESTS)]
    assert found == sorted(f"test_{stem}.py" for stem in steps.SMALL_TESTS)


def test_the_best_peer_is_compared_form_by_form(load):
    def row(form, peer, gpu_ms):
        return {"form": form, "peer": peer, "gpu_ms": gpu_ms}

    rows = [row("flat", "alwa_d2", 1.0), row("flat", "a", 5.0), row("flat", "b", 3.0)]
    rows += [row("nchw", "alwa_d2", 2.0), row("nchw", "a", 4.0), row("nchw", "copy", None)]
    rows += [row("nchw", "alwa_d2, divided outside", 2.5)]
    assert load("gpu_steps").best_to_ours(rows) == 2.0


# The benchmark of these steps


@pytest.fixture
def bench_gpu(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    return importlib.import_module("bench_gpu")


def test_losses_beside_a_copy(bench_gpu, tmp_path, capsys):
    file = tmp_path / "losses.json"
    choice = ["--sizes", "small", "--rounds", "1", "--dtypes", "float32", "--kinds", "giou"]
    bench_gpu.main([*choice, "--device", "cpu", "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    cases = [(row["case"], row["form"]) for row in rows]
    assert cases == [(case, form) for form in ("flat", "nchw") for case in ("focal", "giou")]
    for row in rows:
        assert row["us"] > 0 and row["to_copy"] == pytest.approx(row["us"] / row["copy_us"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"small: focal / copy: float32 flat {rows[0]['to_copy']:.2f}, nchw ")


def test_a_copy_reads_and_writes(bench_gpu):
    figures = bench_gpu.bench_copy("cpu", size=4000, rounds=1)
    assert figures["bytes_moved"] == 8000 and figures["gb_per_s"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs no GPU")
def test_without_a_gpu_nothing_is_timed(bench_gpu):
    with pytest.raises(SystemExit, match="needs a GPU"):
        bench_gpu.main(["--copy"])


# Wheels


def test_pins_are_those_of_requirements_txt(load):
    wheels = load("gpu_wheels")
    text = (REPO / "requirements.txt").read_text()
    old, new = (wheels.wanted(text, python, "2.11") for python in ("3.10", "3.12"))
    assert new["torchvision"] == "0.26.*" and f"\nfvcore=={new['fvcore']}\n" in text
    assert f'hypothesis=={new["hypothesis"]}; python_version >= "3.11"' in text
    assert old["hypothesis"] != new["hypothesis"]
    assert "torch" not in new and "opencv-python-headless" not in new  # there, and too large


def test_an_unknown_marker_is_refused(load):
    with pytest.raises(SystemExit, match="expected python_version .*, got sys_platform"):
        load("gpu_wheels").read_pins("numpy==1.0; sys_platform == 'linux'", "3.12")


def test_too_many_bytes_are_told(load, tmp_path, capsys):
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"x" * 1000)
    report = load("gpu_wheels").report
    assert report(tmp_path, tree=1000, limit=2000) == 0
    assert report(tmp_path, tree=1001, limit=2000) == 1
    assert "expected at most" in capsys.readouterr().out


def test_wheels_are_never_part_of_the_repository():
    assert "/wheels/" in (REPO / ".gitignore").read_text().splitlines()


def test_scripts_stay_small():
    for path in (REPO / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path.name


def test_scripts_can_be_run():
    for name in ("gpu_check.py", "gpu_peers.py", "gpu_wheels.py"):
        assert (REPO / "scripts" / name).stat().st_mode & stat.S_IXUSR, name
