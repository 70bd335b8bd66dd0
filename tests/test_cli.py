"""The command alwa-d2: help, mistakes in one line, exit statuses, what it leaves out."""

import argparse
import importlib
import os
import re
import subprocess
import sys
import warnings

import pytest
from conftest import REPO

from alwa_d2 import __version__
from alwa_d2.cli import env, main, quiet
from alwa_d2.errors import RunError, UserError, explain, user_errors


def run(*arguments, cwd=REPO, **more):
    """`python -m alwa_d2` in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": str(REPO), "COLUMNS": "80", **more}
    return subprocess.run(
        [sys.executable, "-m", "alwa_d2", *arguments],
        cwd=cwd, env=environ, capture_output=True, text=True,
    )  # fmt: skip


def commands():
    (action,) = main.make_parser()._subparsers._group_actions
    return action.choices


# Help


def test_without_a_command_it_prints_the_help(capsys):
    assert main.main([]) == 0
    text = capsys.readouterr().out
    for name in main.COMMANDS:
        assert re.search(rf"^    {name} ", text, re.M), name
    for status in ("  0 ", "  1 ", "  2 ", "  128+N "):
        assert f"\n{status}" in text


def test_help_needs_neither_torch_nor_detectron2():
    code = "import sys; import alwa_d2_command; from alwa_d2.cli.main import make_parser; "
    code += "make_parser().format_help(); print({'torch', 'detectron2'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
    imported = run("--help", PYTHONPROFILEIMPORTTIME="1").stderr
    assert "alwa_d2.cli.main" in imported and "detectron2" not in imported


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_fits_80_columns_and_says_something_of_each_option(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = commands()[name]
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert parser.description.strip()
    for action in parser._actions:
        assert action.help, action.dest


def test_same_options_have_the_same_words():
    """Of an option that several commands have; a default of its own may follow."""
    words = {}
    for name, parser in commands().items():
        for action in parser._actions:
            for option in action.option_strings:
                said = re.sub(r";? ?default: .*", "", action.help)
                words.setdefault(option, {}).setdefault(said, []).append(name)
    for option in ("--config-file", "--traceback", "--dataset", "--num-images"):
        assert len(words[option]) == 1, (option, words[option])


def test_the_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"alwa-d2 {__version__}\n"
    project = (REPO / "pyproject.toml").read_text()
    assert f'\nversion = "{__version__}"\n' in project
    module, function = re.search(r'^alwa-d2 = "(\S+):(\S+)"$', project, re.M).groups()
    assert getattr(importlib.import_module(module), function) is main.run_command


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(name in script for name in main.COMMANDS) and "--num-gpus" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


# Mistakes


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["trian"], "alwa-d2: COMMAND: invalid choice: 'trian'"),
        (["train"], "alwa-d2 train: the following arguments are required: --config-file"),
        (["train", "--config-file", "no.yaml"], "--config-file: expected the path or name of a"),
        (["train", "--num-gpus", "0"], "alwa-d2 train: --num-gpus: expected at least 1, got 0"),
        (["train", "--machine-rank", "-1"], "--machine-rank: expected 0 or more, got -1"),
        (["plot", "a", "--output", "a.pdf"], "--output: expected a name that ends in .png, got a"),
        (
            ["train", "--config-file", "retina_alwa.yaml", "SEED", "1", "--resume"],
            "alwa-d2 train: KEY VALUE: options stand before KEY VALUE pairs, got --resume behind",
        ),
    ],
)
def test_mistakes_in_the_arguments_are_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in error and error.count("\n") == 1 and " --help)" in error


@pytest.mark.parametrize(
    "options, words",
    [
        (["--num-machines", "2"], "--dist-url: expected tcp://HOST:PORT of the first machine"),
        (["--machine-rank", "1"], "--machine-rank: expected less than --num-machines 1, got 1"),
    ],
)
def test_machines_that_do_not_fit_together(options, words, capsys):
    assert main.main(["train", "--config-file", "retina_alwa.yaml", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"alwa-d2 train: {words}") and error.count("\n") == 1


@pytest.fixture
def failing(monkeypatch):
    """failing(error): the command env ends with this error."""

    def set_error(error):
        def run(args):
            raise error

        monkeypatch.setattr(env, "run", run)

    return set_error


@pytest.mark.parametrize(
    "error, line",
    [
        (UserError("KEY: expected 1,\n  got 2"), "KEY: expected 1, got 2"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), "a.json: No such file"),
        (ModuleNotFoundError("", name="PIL.Image"), "PIL is not installed; pip install pillow"),
        (ModuleNotFoundError("", name="detectron2.data"), "Detectron2 is not installed; README.md"),
    ],
)
def test_a_mistake_is_one_line_and_traceback_shows_the_rest(error, line, failing, capsys):
    failing(error)
    assert main.main(["env"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("alwa-d2 env: ") and line in text and text.count("\n") == 1
    assert main.main(["env", "--traceback"]) == 2
    both = capsys.readouterr().err
    assert both.startswith("Traceback") and both.endswith(text)


def test_a_run_that_had_begun_is_status_1(failing, capsys):
    failing(RunError("a.jpg: no image"))
    assert main.main(["env"]) == 1
    assert capsys.readouterr().err == "alwa-d2 env: a.jpg: no image\n"


@pytest.mark.parametrize(
    "content, line",
    [
        (
            "raise ImportError('_C.so: undefined symbol: x')",
            "Detectron2 is installed, but cannot be imported (ImportError: _C.so: undefined symbol: x)",
        ),
        ("1 / 0", "Detectron2 is installed, but cannot be imported (ZeroDivisionError: division"),
        ("raise OSError('libx.so: not found')", "Detectron2 is installed, but cannot be imported"),
        (
            "import broken_numbers",
            "the package broken_numbers is installed, but cannot be imported",
        ),
        ("import no_such_thing", "the package no_such_thing is not installed; pip install"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_in_one_line(content, line, tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text(content)
    (tmp_path / "broken_numbers.py").write_text("raise ValueError('numpy.dtype size changed')")
    words = ("train", "--config-file", "retina_alwa.yaml")
    done = run(*words, cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPO}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"alwa-d2 train: {line}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["env"], ["--help"], ["sweep", "--help"]])
def test_output_that_nobody_reads_is_no_error(words):
    """As of `alwa-d2 env | head -0`."""
    environ = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": ""}
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "alwa_d2", *words]
    try:
        done = subprocess.run(command, env=environ, stdout=writes, stderr=subprocess.PIPE)
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_log_that_nobody_reads_is_no_error():
    """As of `alwa-d2 train | head`: the training goes on, without a traceback for each line."""
    code = "import logging, sys, time; from alwa_d2.cli.quiet import silence; silence(); "
    code += "logging.basicConfig(stream=sys.stdout, level=20); "
    code += "[(logging.info('line %d', i), time.sleep(0.01)) for i in range(40)]; "
    code += "logging.info('%d %d', 1); print('done', file=sys.stderr)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        assert done.stdout.readline() == b"INFO:root:line 0\n"
        done.stdout.close()
        error = done.stderr.read().decode()
    assert done.returncode == 0 and error.endswith("done\n")
    assert error.count("Traceback") == 1 and "not enough arguments" in error  # of another kind


def test_other_errors_keep_their_traceback(failing):
    failing(ZeroDivisionError("a fault of ours"))
    with pytest.raises(ZeroDivisionError):
        main.main(["env"])


def test_ctrl_c_is_128_and_the_signal(failing, capsys):
    failing(KeyboardInterrupt())
    assert main.main(["env"]) == 130
    assert capsys.readouterr().err == "alwa-d2 env: interrupted\n"


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("KEY: expected a,\n\t got b"), "KEY: expected a, got b"),
        (KeyError("Non-existent config key: A"), "Non-existent config key: A"),
        (KeyError("loss"), "KeyError: loss"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("two words"), "RuntimeError: two words"),
        (PermissionError(13, "Permission denied", "/out"), "/out: Permission denied"),
    ],
)
def test_errors_of_any_type_are_explained_on_one_line(error, text):
    assert explain(error) == text
    for where in ("", "MODEL.WEIGHTS"):
        with pytest.raises(UserError) as caught, user_errors(where):
            raise error
        told, place, rest = str(caught.value).partition(" (test_cli.py, line ")
        assert told == (f"{where}: {text}" if where else text)
        # One word, or none, comes with the line of code.
        assert bool(place) == (text in ("KeyError: loss", "AssertionError"))
        assert not place or rest.endswith(": raise error)")
        assert caught.value.__cause__ is error


def test_where_is_said_once():
    for error in (UserError("KEY: expected 1, got 2"), ValueError("KEY: expected 1, got 2")):
        with pytest.raises(UserError, match="^KEY: expected 1, got 2$"), user_errors("KEY"):
            raise error


# What is left out


def test_importing_the_package_leaves_filters_as_they_are():
    code = "import warnings; before = list(warnings.filters); import alwa_d2.layers, os; "
    code += "from alwa_d2.cli import quiet; words = [m for m, c in quiet.NOISE]; "
    code += "ours = [f for f in warnings.filters if f[1] and any(w in f[1].pattern.replace('\\\\', '') for w in words)]; "
    code += "print(ours, os.environ.get('PYTHONWARNINGS'))"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=environ, capture_output=True, text=True
    )
    assert done.stdout == "[] None\n", done.stderr


NOISY = "`torch.jit.script` is deprecated. Please switch to `torch.compile` or `torch.export`."


def test_the_command_leaves_them_out_here_and_in_processes_it_starts(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error::ResourceWarning")
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        quiet.silence()
        warnings.warn(NOISY, FutureWarning, stacklevel=1)
        warnings.warn("something else", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something else"]
    code = f"import warnings; warnings.warn({NOISY!r}, FutureWarning); "
    code += "warnings.warn('something else', FutureWarning)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "something else" in done.stderr and "torch.jit" not in done.stderr
    assert "Invalid" not in done.stderr  # how Python tells of a filter that it cannot read
    before = os.environ["PYTHONWARNINGS"]
    quiet.silence()
    assert os.environ["PYTHONWARNINGS"] == before and before.endswith("error::ResourceWarning")


def test_filters_of_the_user_come_first(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "always::FutureWarning")
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        warnings.simplefilter("always", FutureWarning)
        quiet.silence()
        warnings.warn(NOISY, FutureWarning, stacklevel=1)
    assert len(seen) == 1
    code = f"import warnings; warnings.warn({NOISY!r}, FutureWarning)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch.jit" in done.stderr


def test_detectron2_is_imported_without_a_word(tmp_path):
    """As `train` and `show` do it; the mistake comes after the import."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    done = run("train", "--config-file", "retina_alwa.yaml", "NO.KEY", "1", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "alwa-d2 train: Non-existent key: NO.KEY; nearest: none\n"


# Registration


@pytest.mark.parametrize("line", ["import alwa_d2", "import alwa_d2_command, alwa_d2.engine"])
def test_models_and_data_sets_are_registered(line):
    """By the package, as it always was; in the command by its engine."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    code = f"{line}\nfrom detectron2.modeling import META_ARCH_REGISTRY as models\n"
    code += "from detectron2.data import DatasetCatalog as sets\n"
    code += "print('AlwaRetinaNet' in models, 'shapes_train' in sets)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == "True True\n", done.stderr


@pytest.mark.parametrize(
    "words, argv, expected",
    [
        (["python", "-X", "dev", "-m", "alwa_d2", "env"], ["-m", "env"], True),
        (["python", "-m", "alwa_d2.other"], ["-m"], False),
        (["python", "-m", "users_package", "alwa_d2"], ["-m", "alwa_d2"], False),
        (["python", "-m", "alwa_d2"], ["/alwa_d2/__main__.py"], False),
        (["python", "train.py"], ["train.py"], False),
        (["python"], [""], False),
    ],
)
def test_only_the_command_registers_later(words, argv, expected, monkeypatch):
    import alwa_d2

    monkeypatch.delitem(sys.modules, "alwa_d2_command", raising=False)
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(sys, "argv", argv)
    assert alwa_d2._in_command() is expected


# Options


def test_config_arguments_take_names_and_all_that_follows():
    from alwa_d2.cli.options import add_config_arguments

    parser = argparse.ArgumentParser()
    add_config_arguments(parser, default="retina_alwa.yaml")
    path = str(REPO / "configs" / "retina_alwa.yaml")
    assert vars(parser.parse_args([])) == {"config_file": path, "opts": []}
    given = ["--config-file", "voc/faster_rcnn_R_50_FPN.yaml", "SOLVER.BASE_LR", "-1e-3"]
    args = parser.parse_args(given)
    assert args.config_file == str(REPO / "configs" / "voc" / "faster_rcnn_R_50_FPN.yaml")
    assert args.opts == ["SOLVER.BASE_LR", "-1e-3"]


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_wait_asleep_unless_the_user_says_how(given, expected):
    """Said before PyTorch is loaded, which reads it then."""
    code = (
        "import os, sys, alwa_d2_command\n"
        "assert alwa_d2_command.run_command(['plot', 'no_such_folder']) == 2\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    early = "import sys, alwa_d2_command; assert 'torch' not in sys.modules"
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | given
    for program in (early, code):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, cwd=REPO, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(expected)]


def test_a_name_that_is_no_text_is_printed():
    """Of a file from an archive in another encoding, where the terminal takes nothing but UTF-8."""
    code = (
        "import sys, alwa_d2.cli.main as cli\n"
        "cli.main = lambda arguments: print('n\\udce9.jpg') or 0\n"
        "sys.exit(cli.run_command())\n"
    )
    env = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "n\\udce9.jpg\n"), done.stderr
