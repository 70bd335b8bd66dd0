"""The cases of test_install.py: how and into what alwa_d2 is installed, and what comes of it."""

from dataclasses import dataclass, field

BUILD_NEEDS = ("setuptools<81", "wheel", "ninja")
CPU_ONLY = {"ALWA_D2_CPU_ONLY": "1"}


@dataclass(frozen=True)
class Case:
    name: str
    what: str  # words for the table
    python: str = "3.11"
    torch: str = "2.14.1"
    installer: str = "pip"  # the newest; "pip==23.0.1", "uv"
    isolation: bool = False
    source: str = "folder"  # "editable", "archive", "wheel"
    environ: dict = field(default_factory=lambda: CPU_ONLY)  # CUDA_HOME, PATH: see Workshop.environ
    needs: tuple = BUILD_NEEDS  # in the environment before
    says: str = ""  # among the words of the installer
    refused: str = ""  # the words with which installing, or else the loss, is refused
    kernels: str = "CPU only"
    built_with: str = ""  # the wheel's PyTorch, where it is another one
    gigabytes: int = 0  # of memory, shared by MAX_JOBS processes; 0: no limit


CASES = (
    Case("pip23", "folder", installer="pip==23.0.1"),
    Case("pip23-isolated", "folder", installer="pip==23.0.1", isolation=True, needs=()),
    Case("pip", "folder"),
    Case("pip-isolated", "folder", isolation=True, needs=()),
    Case("editable", "folder, editable (-e)", source="editable"),
    Case("uv", "folder", installer="uv"),
    Case(
        "uv-isolated",
        "folder: the build does not see PyTorch",
        installer="uv",
        isolation=True,
        needs=(),
        refused="with uv: uv pip install --no-build-isolation",
    ),
    Case("wheel", "wheel, no compiler on the PATH", source="wheel", needs=()),
    Case("wheel-uv", "wheel, no compiler on the PATH", source="wheel", installer="uv", needs=()),
    Case(
        "wheel-elsewhere",
        "wheel that was made for PyTorch 2.14.1",
        torch="2.13.0+cpu",
        source="wheel",
        needs=(),
        built_with="2.14.1",
        refused="it was built for PyTorch 2.14.1",
    ),
    Case(
        "other-cuda",
        "folder, CUDA toolkit of another major version",
        environ={"CUDA_HOME": "OTHER"},
        says="CPU only: PyTorch was built with CUDA",
    ),
    Case(
        "other-cuda-forced",
        "the same with FORCE_CUDA=1",
        environ={"CUDA_HOME": "OTHER", "FORCE_CUDA": "1"},
        refused="FORCE_CUDA=1, but PyTorch was built with CUDA",
    ),
    Case(
        "cpu-torch",
        "folder, PyTorch without CUDA",
        torch="2.13.0+cpu",
        environ={},
        says="CPU only: PyTorch was built without CUDA",
    ),
    Case(
        "cpu-torch-forced",
        "the same with FORCE_CUDA=1",
        torch="2.13.0+cpu",
        environ={"FORCE_CUDA": "1"},
        refused="install a CUDA build of PyTorch",
    ),
    Case("py310-torch24", "folder", python="3.10", torch="2.4.1", installer="pip==23.0.1"),
    Case("py312-torch28", "folder", python="3.12", torch="2.8.0", isolation=True, needs=()),
    Case("py313", "folder", python="3.13", installer="uv"),
    Case(
        "archive",
        "source archive, 2 cores, MAX_JOBS=2, 4 GB",
        isolation=True,
        source="archive",
        environ=CPU_ONLY | {"MAX_JOBS": "2"},
        needs=(),
        gigabytes=4,
    ),
    Case(
        "nvcc",
        "folder, a script in nvcc's place, no GPU",
        environ={"PATH": "WRAPPER", "TORCH_CUDA_ARCH_LIST": "8.0", "FORCE_CUDA": "1"},
        kernels="CPU and CUDA",
    ),
    Case("py310", "folder", python="3.10", isolation=True, needs=()),
)
