"""The environment in words: versions, places, what the extension was built for, processors, GPUs.

Nothing here raises: where a fact cannot be had, its row says why. No row needs another to be well.
"""

import ctypes
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import __version__, built
from .errors import explain
from .model_zoo import get_config_file

PACKAGES = ("torchvision", "fvcore", "numpy", "pillow", "setuptools")
# What a processor has that runs the kernels' versions for it (csrc/cpu/vectorize.h), best first, in
# the words of /proc/cpuinfo.
INSTRUCTION_SETS = {
    "AVX-512": {"avx512f"},
    "AVX2": {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
}


def facts() -> Iterator[tuple[str, str]]:
    """(what, how it is), in the order in which they are printed."""
    yield "alwa_d2", attempt(own_version)
    yield "package", str(Path(__file__).parent)
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", attempt(platform.platform)
    yield "PyTorch", attempt(torch_build)
    yield "Detectron2", attempt(detectron2_origin)
    for name in PACKAGES:
        yield name, attempt(lambda name=name: importlib.metadata.version(name))
    yield "extension", attempt(extension)
    yield "built for", attempt(built_for)
    yield "kernels", attempt(kernels)
    yield "CPU kernels", attempt(cpu_kernels)
    yield "threads", attempt(threads)
    yield "GPUs", attempt(gpus)
    yield "GPU driver", attempt(driver)
    yield "configs", attempt(lambda: str(Path(get_config_file("retina_alwa.yaml")).parent))
    yield "data sets", attempt(datasets)


def attempt(fact: Callable[[], str]) -> str:
    """What `fact` returns, or why it cannot be told."""
    try:
        return fact()
    except ModuleNotFoundError as error:
        return f"not there: {error.name} is not installed"
    except importlib.metadata.PackageNotFoundError as error:
        return f"not there: {error.name} is not installed"
    except (Exception, SystemExit) as error:  # of any type: what is broken here is not known
        return f"broken: {explain(error)}"


def own_version() -> str:
    try:
        installed = importlib.metadata.version("alwa_d2")
    except importlib.metadata.PackageNotFoundError:
        return f"{__version__}, not installed: found on the path"
    return __version__ if installed == __version__ else f"{__version__}, installed as {installed}"


def torch_build() -> str:
    import torch

    cuda = torch.version.cuda
    return f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'no CUDA'}"


def detectron2_origin() -> str:
    """Version, folder, and whether it is upstream's or a redistribution."""
    engine = importlib.import_module("detectron2.engine")  # not only the folder: that it works
    version = importlib.import_module("detectron2").__version__
    folder = Path(engine.__file__).parents[1]
    return f"{version}, in {folder}; {installed_as(folder)}"


def installed_as(folder: Path) -> str:
    """Which distribution a folder of Detectron2 comes from."""
    names = sorted(set(importlib.metadata.packages_distributions().get("detectron2", [])))
    if not names:
        return "found on the path, not installed"
    distribution = importlib.metadata.distribution(names[0])
    kind = "upstream" if names[0].lower() == "detectron2" else "redistribution"
    words = f"{kind} {names[0]} {distribution.version}{source_of(distribution)}"
    there = Path(str(distribution.locate_file("detectron2")))
    other = there.is_dir() and there.resolve() != folder.resolve()
    return f"found on the path before the installed {words}" if other else words


def source_of(distribution: importlib.metadata.Distribution) -> str:
    """ " of ADDRESS at COMMIT" of a distribution that was installed from a repository or folder."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return ""
    content = json.loads(text)
    commit = content.get("vcs_info", {}).get("commit_id")
    return f" of {content.get('url')}{f' at {commit}' if commit else ''}"


def extension() -> str:
    reason = built.load()
    if reason:
        return f"not loaded: {reason}"
    return str(sys.modules[built.NAME].__file__)


def built_for() -> str:
    if built.find_library() is None:
        return "no library"
    record = built.read_record()
    if not record:
        return "not known; built by an older setup.py"
    return "PyTorch {torch}, Python {python}, by {compiler}".format_map(record)


def kernels() -> str:
    """Of which devices; and the GPU architectures in the library."""
    if built.load():
        return "none"
    if not has_cuda_kernels():
        return "CPU only"
    archs = built.read_record().get("archs")
    return f"CPU and CUDA, for GPU architectures {archs or 'that are not known'}"


def has_cuda_kernels() -> bool:
    """Whether the extension that is loaded has them."""
    import torch

    return torch._C._dispatch_has_kernel_for_dispatch_key("alwa_d2::box_loss", "CUDA")


def cpu_kernels() -> str:
    """The version of the CPU kernels' loops that the loader picks, and PyTorch's own choice."""
    import torch

    return f"{instruction_set()}; PyTorch's own use {torch.backends.cpu.get_cpu_capability()}"


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    clang = "clang" in built.read_record().get("compiler", "")
    if platform.machine() != "x86_64" or clang or not cpuinfo.is_file():
        return "one version, for any processor of this kind"
    lines = cpuinfo.read_text(errors="replace").splitlines()
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return next((name for name, needs in INSTRUCTION_SETS.items() if needs <= flags), "baseline")


def threads() -> str:
    import torch

    variable = os.environ.get("OMP_NUM_THREADS")
    asked = f"OMP_NUM_THREADS={variable}" if variable else "OMP_NUM_THREADS is not set"
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    waiting = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    words = "; ".join([asked, *waiting])
    return f"{torch.get_num_threads()} of PyTorch, {allowed} processors may be used; {words}"


def gpus() -> str:
    import torch

    names = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        names.append(f"{torch.cuda.get_device_name(index)} (architecture {major}.{minor})")
    return "; ".join(names) or "none in sight"


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that NVIDIA's driver runs; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    failed = library.cuDriverGetVersion(ctypes.byref(version))
    return None if failed or not version.value else divmod(version.value // 10, 100)


def driver() -> str:
    cuda = driver_cuda()
    if cuda is None:
        return "none"
    file = Path("/sys/module/nvidia/version")
    version = f"{file.read_text().strip()}, " if file.is_file() else ""
    return f"{version}runs programs up to CUDA {cuda[0]}.{cuda[1]}"


def datasets() -> str:
    folder = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).absolute()
    origin = "from" if "DETECTRON2_DATASETS" in os.environ else "default of"
    there = "" if folder.is_dir() else ", not there yet"
    return f"{folder} ({origin} DETECTRON2_DATASETS{there})"
