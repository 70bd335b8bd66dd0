"""Versions, and where things are; every line says what is wrong where something is."""

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import __version__
from ..errors import explain
from ..model_zoo import get_config_file

HELP = "print versions and where things are"
DESCRIPTION = """
What a report of a problem should hold: versions, folders, whether the compiled extension loads, and
the GPUs. Works with a broken installation too.
"""
PACKAGES = ("torchvision", "fvcore", "numpy")  # besides PyTorch and Detectron2


def add_arguments(parser):
    pass


def run(args) -> int:
    rows = list(facts())
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    return 0


def facts() -> Iterator[tuple[str, str]]:
    """(what, how it is), in the order in which they are printed."""
    yield "alwa_d2", __version__
    yield "Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield "PyTorch", attempt(torch_build)
    yield "Detectron2", attempt(detectron2_version)
    for name in PACKAGES:
        yield name, attempt(lambda name=name: importlib.metadata.version(name))
    yield "package", str(Path(__file__).parents[1])
    yield "extension", attempt(extension)
    yield "kernels", attempt(kernels)
    yield "configs", attempt(lambda: str(Path(get_config_file("retina_alwa.yaml")).parent))
    yield "data sets", datasets()
    yield "GPUs", attempt(gpus)


def attempt(fact: Callable[[], str]) -> str:
    """What `fact` returns, or why it cannot be told."""
    try:
        return fact()
    except ModuleNotFoundError as error:
        return f"not there: {error.name} is not installed"
    except Exception as error:  # of any type: what is broken here is not known
        return f"broken: {explain(error)}"


def torch_build() -> str:
    import torch

    return (
        f"{torch.__version__}, {torch.version.cuda and f'CUDA {torch.version.cuda}' or 'no CUDA'}"
    )


def detectron2_version() -> str:
    engine = importlib.import_module("detectron2.engine")  # not only the folder: that it works
    version = importlib.import_module("detectron2").__version__
    return f"{version}, in {Path(engine.__file__).parents[1]}"


def extension() -> str:
    import torch  # noqa: F401  (its libraries, which the extension needs)

    return str(importlib.import_module("alwa_d2._C").__file__)


def kernels() -> str:
    import torch

    importlib.import_module("alwa_d2._C")
    has = torch._C._dispatch_has_kernel_for_dispatch_key("alwa_d2::box_loss", "CUDA")
    return "CPU and CUDA" if has else "CPU only"


def datasets() -> str:
    folder = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).absolute()
    origin = "from" if "DETECTRON2_DATASETS" in os.environ else "default of"
    there = "" if folder.is_dir() else ", not there yet"
    return f"{folder} ({origin} DETECTRON2_DATASETS{there})"


def gpus() -> str:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return "; ".join(names) or "none"
