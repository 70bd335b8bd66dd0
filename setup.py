"""Builds alwa_d2._C, the loss kernels, against the PyTorch that will load them.

Switches, environment variables all, printed when set:

    FORCE_CUDA=1            build the CUDA kernels too, or stop and say what is missing
    ALWA_D2_CPU_ONLY=1      build the CPU kernels only
    ALWA_D2_SANITIZE=1      build with AddressSanitizer and UndefinedBehaviorSanitizer; what is
                            built loads only where these are preloaded, as by scripts/sanitize.sh
    CUDA_HOME               the CUDA toolkit's folder, looked at before the usual places
    TORCH_CUDA_ARCH_LIST    GPU architectures, such as "8.0;9.0+PTX"; without it those of the GPUs
                            in sight, and where there are none DEFAULT_ARCHS
    MAX_JOBS                files compiled at a time
    ALWA_D2_LOCAL_VERSION=1 end the version with what is built for, such as +pt214cu130, as
                            `make wheel` does

With neither of the first two, the CUDA kernels are built where PyTorch has CUDA and a toolkit of
the same major version is found. A GPU is not needed. Beside the library comes a file that says what
it was built for (alwa_d2/built.py reads it). To pack a source archive takes no PyTorch.
"""

import json
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
YES_OR_NO = ("FORCE_CUDA", "ALWA_D2_CPU_ONLY", "ALWA_D2_SANITIZE", "ALWA_D2_LOCAL_VERSION")
SWITCHES = (*YES_OR_NO, "CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS")
TOOLKIT_FILES = ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so")
# Known to every toolkit that PyTorch 2.4 and newer is built with. GPUs after the last one compile
# its PTX when they load the kernels.
DEFAULT_ARCHS = "8.0;9.0+PTX"
# NaN, infinity and denormals keep their meaning (no -ffast-math); errno and floating-point traps,
# which nobody reads, are given up, since they keep loops from being vectorised.
CXX_FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = ["-O3"]
# The first report ends the process. The flags follow CXX_FLAGS: lines and frames for the report,
# the standard library's own checks of indices, and an end to -fwrapv, which is among Python's flags
# and makes every overflow a defined one that is not reported. (-fstrict-overflow would end it too,
# but not in a file with #pragma GCC optimize.)
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
SANITIZE_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS"]
SANITIZE_FLAGS += ["-fno-wrapv", "-fno-wrapv-pointer", *SANITIZERS]
NO_TORCH = f"""\
alwa_d2: no PyTorch in {sys.prefix}; the kernels are built against the one that will run them.
Install it, then try again:
    pip install torch torchvision
If it is there, but hidden from the build by the installer, build without isolation:
    pip install 'setuptools<81' wheel ninja && pip install --no-build-isolation .
(uv and `python -m build` hide it; with uv: uv pip install --no-build-isolation --no-cache .)"""


def read_switches(environ):
    """(force CUDA, CPU only, sanitize, local version); values other than 1, 0 and empty, and the
    first two at once, are refused."""
    for name in YES_OR_NO:
        if environ.get(name, "") not in ("", "0", "1"):
            raise SystemExit(f"alwa_d2: {name} is 1 or 0, got {environ[name]!r}")
    force, cpu_only, sanitize, local = (environ.get(name) == "1" for name in YES_OR_NO)
    if force and cpu_only:
        raise SystemExit("alwa_d2: FORCE_CUDA=1 and ALWA_D2_CPU_ONLY=1 exclude each other")
    return force, cpu_only, sanitize, local


def import_torch():
    """The PyTorch of the environment that is installed into, in an isolated build too."""
    if find_spec("torch") is None:
        # An isolated build hides the environment's packages. They come back at the end of the
        # path, so that the build's own setuptools stays the one in use.
        user = [site.getusersitepackages()] if sys.prefix == sys.base_prefix else []
        for folder in site.getsitepackages() + user:
            site.addsitedir(folder)
    if find_spec("torch") is None:
        raise SystemExit(NO_TORCH)
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 4):
        raise SystemExit(f"alwa_d2: needs PyTorch 2.4 or newer, found {torch.__version__}")
    return torch


def find_toolkit(environ, usual="/usr/local/cuda"):
    """(folder, version) of the first CUDA toolkit that is complete, or (None, None).

    An nvcc on the PATH may be a script that calls the real one, so its folder proves nothing.
    """
    places = [environ.get("CUDA_HOME"), environ.get("CUDA_PATH")]
    nvcc = shutil.which("nvcc", path=environ.get("PATH", ""))
    if nvcc:
        places += [Path(os.path.abspath(nvcc)).parents[1], Path(nvcc).resolve().parents[1]]
    for place in (Path(place) for place in [*places, usual] if place):
        if all((place / name).exists() for name in TOOLKIT_FILES):
            header = (place / "include" / "cuda_runtime_api.h").read_text(errors="replace")
            number = int(re.search(r"#define\s+CUDART_VERSION\s+(\d+)", header).group(1))
            return place, f"{number // 1000}.{number % 1000 // 10}"
    return None, None


def choose_cuda(force, cpu_only, torch_cuda, toolkit, toolkit_cuda):
    """(whether the CUDA kernels are built, why); versions are strings such as "13.0", or None."""
    if cpu_only:
        return False, "ALWA_D2_CPU_ONLY=1"
    if torch_cuda is None:
        lack, remedy = "PyTorch was built without CUDA", "install a CUDA build of PyTorch"
    elif toolkit is None:
        lack = f"no CUDA toolkit (a folder with {', '.join(TOOLKIT_FILES)}) was found"
        remedy = f"install CUDA toolkit {torch_cuda}, or set CUDA_HOME to its folder"
    elif toolkit_cuda.split(".")[0] != torch_cuda.split(".")[0]:
        lack = f"PyTorch was built with CUDA {torch_cuda}, and {toolkit} is CUDA {toolkit_cuda}"
        remedy = f"install CUDA toolkit {torch_cuda}, and set CUDA_HOME to its folder"
    else:
        return True, f"PyTorch has CUDA {torch_cuda}, and {toolkit} is CUDA {toolkit_cuda}"
    if force:
        raise SystemExit(f"alwa_d2: FORCE_CUDA=1, but {lack}: {remedy}")
    return False, lack


def choose_archs(environ, gpus):
    """(TORCH_CUDA_ARCH_LIST, empty for PyTorch's own choice; why), for this number of GPUs."""
    if environ.get("TORCH_CUDA_ARCH_LIST"):
        return environ["TORCH_CUDA_ARCH_LIST"], "from TORCH_CUDA_ARCH_LIST"
    if gpus:
        return "", "those of the GPUs in sight"
    return DEFAULT_ARCHS, "no GPU in sight; TORCH_CUDA_ARCH_LIST names others"


def plan(torch, environ, force, cpu_only):
    """Whether the CUDA kernels are built; prints it with the reason and prepares `environ`."""
    toolkit, version = find_toolkit(environ)
    with_cuda, why = choose_cuda(force, cpu_only, torch.version.cuda, toolkit, version)
    print(f"alwa_d2: {'CPU and CUDA' if with_cuda else 'CPU only'}: {why}")
    if with_cuda:
        archs, why = choose_archs(environ, torch.cuda.device_count())
        print(f"alwa_d2: GPU architectures {archs or 'native'}: {why}")
        environ.update(CUDA_HOME=str(toolkit), TORCH_CUDA_ARCH_LIST=archs)
    # ninja may lie beside this Python without the environment being activated.
    environ["PATH"] = environ.get("PATH", "") + os.pathsep + str(Path(sys.executable).parent)
    return with_cuda


def local_version(torch, with_cuda):
    """What follows the + of a wheel's version: "pt214cu130", or "pt214cpu" for CPU kernels only."""
    major, minor = torch.__version__.split(".")[:2]
    return f"pt{major}{minor}{'cu' + torch.version.cuda.replace('.', '') if with_cuda else 'cpu'}"


def tagging(local):
    """The egg_info command, from which all others have the version, with a local part."""
    from setuptools.command.egg_info import egg_info

    class TaggedVersion(egg_info):
        def finalize_options(self):
            self.tag_build = f"+{local}"  # here, since a source archive's setup.cfg sets it too
            super().finalize_options()

    return TaggedVersion


def describe(torch, with_cuda, compiler):
    """What a library was built for; alwa_d2/built.py reads it."""
    words = [*shlex.split(compiler), "--version"]  # such as "ccache g++"
    done = subprocess.run(words, capture_output=True, text=True)
    # Without a list PyTorch takes those of the GPUs in sight, and the last one's PTX.
    gpus = range(torch.cuda.device_count())
    seen = sorted({torch.cuda.get_device_capability(gpu) for gpu in gpus})
    archs = os.environ.get("TORCH_CUDA_ARCH_LIST") or ";".join(map("{0[0]}.{0[1]}".format, seen))
    archs += "+PTX" * ("TORCH_CUDA_ARCH_LIST" not in os.environ)
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda if with_cuda else None,
        "archs": archs if with_cuda else None,
        "compiler": done.stdout.partition("\n")[0],
        "python": platform.python_version(),
    }


def extension(torch, with_cuda, sanitize):
    """(setuptools extension, the build_ext command for it)."""
    from torch.utils import cpp_extension  # reads CUDA_HOME when imported

    # at::parallel_for has threads only if compiled with OpenMP. Its runtime is not linked: PyTorch
    # brings the one that its thread settings act on. Code of other compilers wants other runtimes.
    compiler = cpp_extension.get_cxx_compiler()
    gcc = cpp_extension.check_compiler_is_gcc(compiler)
    print(f"alwa_d2: OpenMP {'on' if gcc else 'off: the compiler is not GCC'}")
    cxx_flags = CXX_FLAGS + ["-fopenmp"] * gcc + SANITIZE_FLAGS * sanitize
    make = cpp_extension.CUDAExtension if with_cuda else cpp_extension.CppExtension
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/**/*.*"))
    built = make(
        "alwa_d2._C",
        [file for file in files if file.endswith((".cpp", ".cu") if with_cuda else ".cpp")],
        include_dirs=[str(ROOT / "csrc")],
        depends=[file for file in files if file.endswith((".h", ".cuh"))],
        extra_compile_args={"cxx": cxx_flags, "nvcc": NVCC_FLAGS},
        extra_link_args=SANITIZERS * sanitize,
    )
    # Objects of another Python or PyTorch, or of another kind, are never taken for these.
    kind = f"{sys.implementation.cache_tag}-torch-{torch.__version__}-{'cuda' * with_cuda or 'cpu'}"
    kind += "-sanitize" * sanitize

    class BuildKernels(cpp_extension.BuildExtension):
        """Keeps the object files, so that building again compiles only what changed."""

        def finalize_options(self):
            super().finalize_options()
            self.build_temp = f"build/{kind}"
            # Without ninja, a library of another PyTorch that lies there would count as up to date.
            self.force = True

        def run(self):
            super().run()
            library = Path(self.get_ext_fullpath(built.name))
            record = json.dumps(describe(torch, with_cuda, compiler), indent=1)
            library.with_suffix(".json").write_text(record + "\n")

    return built, BuildKernels


def packages(find_packages):
    """What is installed; `configs` stays at the top, where people look, and becomes a part of the
    package (alwa_d2/model_zoo.py)."""
    folders = [path for path in (ROOT / "configs", *ROOT.glob("configs/*")) if path.is_dir()]
    configs = [".".join(("alwa_d2", *path.relative_to(ROOT).parts)) for path in sorted(folders)]
    return {
        "packages": [*find_packages(str(ROOT), include=["alwa_d2", "alwa_d2.*"]), *configs],
        "py_modules": ["alwa_d2_command"],
        "package_dir": {"alwa_d2.configs": "configs"},
        "package_data": {"alwa_d2": ["py.typed"], **dict.fromkeys(configs, ["*.yaml"])},
        "include_package_data": False,
    }


def main():
    # Before PyTorch, whose environment may hold another version.
    from setuptools import find_packages, setup

    os.chdir(ROOT)
    arguments = packages(find_packages)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if command in ("sdist", "egg_info"):  # nothing is compiled
        setup(**arguments)
        return
    for name in SWITCHES:
        if name in os.environ:
            print(f"alwa_d2: {name}={os.environ[name]}")
    force, cpu_only, sanitize, local = read_switches(os.environ)
    torch = import_torch()
    print(f"alwa_d2: building for PyTorch {torch.__version__}, Python {sys.version.split()[0]}")
    with_cuda = plan(torch, os.environ, force, cpu_only)
    built, build_ext = extension(torch, with_cuda, sanitize)
    commands = {"build_ext": build_ext}
    if local:
        commands["egg_info"] = tagging(local_version(torch, with_cuda))
    setup(ext_modules=[built], cmdclass=commands, **arguments)


if __name__ == "__main__":
    main()
