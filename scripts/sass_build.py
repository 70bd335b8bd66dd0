"""Kernels of the CUDA files, compiled for one architecture at a time and disassembled.

Nothing here needs a GPU: nvcc of a toolkit, found as setup.py finds it, and cuobjdump of the
toolkit, of NVIDIA's Python packages or of Triton, which comes with PyTorch.
"""

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import sass_code

REPO = Path(__file__).resolve().parents[1]
CACHE = REPO / "build" / "sass"
ARCHS = ("sm_80", "sm_90")
# Where Python packages keep cuobjdump, below the folder of packages.
PACKAGES = ("nvidia/cu13/bin", "nvidia/cuda_cuobjdump/bin", "triton/backends/nvidia/bin")


class Missing(Exception):
    """A tool is not there; the message says which."""


def setup_py():
    """setup.py as a module; its main() is not run."""
    spec = importlib.util.spec_from_file_location("alwa_d2_setup", REPO / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_nvcc():
    """(nvcc, version), such as "13.0"."""
    toolkit, version = setup_py().find_toolkit(os.environ)
    if toolkit is None:
        raise Missing("needs a CUDA toolkit: setup.py says where it is looked for")
    return toolkit / "bin" / "nvcc", version


def find_cuobjdump():
    """cuobjdump; nvdisasm, which it calls, lies beside it."""
    toolkit, _ = setup_py().find_toolkit(os.environ)
    folders = [toolkit / "bin"] if toolkit else []
    folders += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    folders += [Path(sysconfig.get_paths()["purelib"]) / name for name in PACKAGES]
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("cuobjdump", "nvdisasm")):
            return folder / "cuobjdump"
    raise Missing("needs cuobjdump and nvdisasm, of the toolkit or of NVIDIA's Python packages")


def flags():
    """What nvcc gets: as from setup.py and PyTorch, but for the architecture."""
    from torch.utils import cpp_extension

    # BuildExtension adds these two, and the standard, to what setup.py says.
    result = [*cpp_extension.COMMON_NVCC_FLAGS, *setup_py().NVCC_FLAGS, "-std=c++20"]
    # Without the toolkit's folder, which nvcc knows.
    result += [f"-isystem={folder}" for folder in cpp_extension.include_paths()]
    return [*result, f"-isystem={sysconfig.get_paths()['include']}", f"-I{REPO / 'csrc'}"]


def key(source, command):
    """Changes with the command, the file, and every file of csrc, any of which it may include."""
    digest = hashlib.sha256("\n".join(str(x) for x in command).encode())
    for path in [Path(source), *sorted((REPO / "csrc").rglob("*.*"))]:
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def compile_cubin(source, arch, extra=()):
    """The .cubin of a .cu file; kept in build/sass until something that it depends on changes."""
    nvcc, version = find_nvcc()
    command = [nvcc, "-cubin", f"-arch={arch}", *flags(), *extra]
    file = CACHE / f"{Path(source).stem}-{arch}-{key(source, [version, *command])}.cubin"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", unfinished, source], check=True)
        unfinished.replace(file)
    return file


def kernels(file, *only):
    """[sass_code.Kernel] of a .cubin, or of a library with `only`: "-arch", "sm_90"."""
    cuobjdump = find_cuobjdump()
    path = os.pathsep.join([str(cuobjdump.parent), os.environ.get("PATH", "")])

    def printed(option):
        done = subprocess.run(
            [cuobjdump, option, *only, file],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return sass_code.parse(printed("-sass"), printed("-res-usage"), demangle)


def built_library():
    """alwa_d2._C where it is newer than all of its sources, else None."""
    sources = [REPO / "setup.py", *(REPO / "csrc").rglob("*.*")]
    newest = max(path.stat().st_mtime for path in sources)
    files = (REPO / "alwa_d2").glob("_C.*.so")
    return next((file for file in files if file.stat().st_mtime > newest), None)


@functools.cache
def project_kernels(arch, *stems):
    """[sass_code.Kernel] of csrc/cuda/<stem>.cu; where the built library has some for `arch`, all
    of its kernels, since they do not say which file they are of."""
    library = built_library()
    found = kernels(library, "-arch", arch) if library else []
    for stem in () if found else stems:
        found += kernels(compile_cubin(REPO / "csrc" / "cuda" / f"{stem}.cu", arch))
    return found


def demangle(names):
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if tool is None:
        raise Missing("needs c++filt or cu++filt, which turn symbols into names")
    lines = "\n".join(names)
    done = subprocess.run([tool], input=lines, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
