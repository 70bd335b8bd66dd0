"""Builds alwa_d2's library with the CUDA kernels, run on the host, in the place of the CPU's.

    python tests/cuda_on_host/build.py [plain] [races] [sanitize]

Objects are named by a hash of what they are made of, so that a file is compiled only when it, what
it includes or how it is compiled has changed.
"""

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rewrite import rewrite
from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
BUILD = REPO / "build" / "cuda_on_host"

FLAGS = ["-std=c++20", "-fPIC", "-O1", "-DNDEBUG", "-DALWA_D2_EMULATED=1", "-ffp-contract=off"]
# A kernel's access to a misaligned address is an error on the device: device.cpp is told of each.
ALIGNMENT = ["-fsanitize=alignment"]
# How kernels are compiled. The rest of the library is the plain one in each.
VARIANTS = {
    "plain": ALIGNMENT,
    "races": [*ALIGNMENT, "-fsanitize=thread", "-g1"],
    "sanitize": [
        *("-g1", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS", "-DCUDA_ON_HOST_SANITIZE=1"),
        *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
    ],
}
RUNTIMES = {"sanitize": ["-fsanitize=address,undefined"]}
EMULATOR = ("block.cpp", "block.h", "device.cpp", "fibre.cpp", "fibre.h", "log.cpp", "log.h")
EMULATOR += (
    "meeting.cpp",
    "meeting.h",
    "races.cpp",
    "races.h",
    "shared.cpp",
    "state.h",
    "tsan.cpp",
)
RACES = ("races.cpp", "tsan.cpp")  # of the variant of that name alone
PROBES = ("probe.cu", "probe.cuh", "probe_memory.cu")


def includes():
    folders = [HERE / "stubs", HERE, *cpp_extension.include_paths(), sysconfig.get_path("include")]
    return [f"-I{folder}" for folder in folders]


def digest(*parts):
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:16]


def run(command):
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"cuda_on_host: {' '.join(map(str, command))}\n{done.stderr[-6000:]}")


class Build:
    """A variant of the library, with a fault (faults.py) in one of its objects or with none."""

    def __init__(self, variant, fault=None):
        self.variant, self.fault = variant, fault
        self.compiler = os.environ.get("CXX", "g++")
        version = subprocess.run([self.compiler, "--version"], capture_output=True, text=True)
        self.toolchain = (version.stdout, torch.__version__, *includes())
        self.texts = {}
        for path in sorted((REPO / "csrc").rglob("*.*")):
            name = str(path.relative_to(REPO))
            self.texts[name] = rewrite(path.read_text(), name)

    def with_includes(self, name, seen):
        """The texts of a file and of all files of csrc that it includes."""
        seen[name] = self.texts[name]
        for included in re.findall(r'#include "([^"]+)"', self.texts[name]):
            for folder in (Path(name).parent, Path("csrc")):
                path = os.path.normpath(folder / included)
                if path in self.texts and path not in seen:
                    self.with_includes(path, seen)
        return seen

    def with_fault(self, name, texts):
        if self.fault is None or name != f"csrc/cuda/{self.fault.unit}":
            return texts
        file = f"csrc/cuda/{self.fault.file}"
        changed = self.fault.change((REPO / file).read_text())
        return texts | {file: rewrite(changed, file)}

    def header(self, flags):
        """The folder of device.h, precompiled for these flags."""
        flags = [flag for flag in flags if not flag.startswith("-DCUDA_ON_HOST")]
        parts = [(HERE / name).read_text() for name in ("device.h", "intrinsics.h")]
        folder = BUILD / "header" / digest(*parts, *flags, *self.toolchain)
        if not (folder / "device.h.gch").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "device.h").write_text(f'#include "{HERE / "device.h"}"\n')
            command = [self.compiler, *flags, *includes(), "-x", "c++-header", folder / "device.h"]
            run([*command, "-o", folder / "device.h.part"])
            (folder / "device.h.part").rename(folder / "device.h.gch")
        return folder

    def compile(self, source, flags, texts):
        """The object of a file in the folder that its hash names, with the texts it is made of."""
        header = self.header(flags)
        folder = BUILD / "objects" / digest(source, header, *flags, *texts, *texts.values())
        if (folder / "object.o").exists():
            return folder / "object.o"
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        command = [self.compiler, *flags, "-Winvalid-pch", "-include", header / "device.h"]
        command += [f"-I{folder / 'csrc'}", *includes(), "-x", "c++", "-c", folder / source]
        run([*command, "-o", folder / "object.part"])
        (folder / "object.part").rename(folder / "object.o")
        return folder / "object.o"

    def units(self):
        """(file, flags, texts) of every object of the library."""
        plain = [*FLAGS, *VARIANTS["plain"]]
        flags = [*FLAGS, *VARIANTS[self.variant]]
        for name in self.texts:
            if name.endswith(".cu"):
                yield name, flags, self.with_fault(name, self.with_includes(name, {}))
            elif name.endswith(".cpp") and not name.startswith("csrc/cpu/"):
                yield name, plain, self.with_includes(name, {})
        probes = {name: rewrite((HERE / name).read_text(), name) for name in PROBES}
        for name in ("probe.cu", "probe_memory.cu"):
            yield name, flags, probes
        headers = {name: (HERE / name).read_text() for name in EMULATOR if name.endswith(".h")}
        told = [flag for flag in flags if flag.startswith("-DCUDA_ON_HOST")]
        for name in EMULATOR:
            if name.endswith(".cpp") and (name not in RACES or self.variant == "races"):
                text = (HERE / name).read_text()
                yield name, [*plain, *told], headers | {name: text}

    def link(self, objects):
        """What only the CPU's own kernels define is never called here, and ends the process."""
        library = BUILD / self.variant / digest(*objects) / "_C.so"
        if library.exists():
            return library
        library.parent.mkdir(parents=True, exist_ok=True)
        torch_lib = Path(torch.__file__).parent / "lib"
        missing = symbols(objects, "--undefined-only") - symbols(objects, "--defined-only")
        never = [name for name in sorted(missing) if "alwa_d2" in name]
        command = [self.compiler, "-shared", "-Wl,-Bsymbolic", *RUNTIMES.get(self.variant, [])]
        command += [f"-Wl,--defsym={name}=cuda_on_host_never" for name in never]
        command += [*objects, "-o", library.with_suffix(".part")]
        command += [f"-L{torch_lib}", f"-Wl,-rpath,{torch_lib}"]
        run([*command, "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"])
        library.with_suffix(".part").rename(library)
        return library

    def library(self):
        """The path of what is built. Of a function in several objects the first one's is linked:
        the one with the fault."""
        faulty = f"csrc/cuda/{self.fault.unit}" if self.fault else ""
        units = sorted(self.units(), key=lambda unit: unit[0] != faulty)
        for flags in {tuple(unit[1]) for unit in units}:
            self.header(flags)
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count()))) as pool:
            objects = list(pool.map(lambda unit: self.compile(*unit), units))
        return self.link(objects)


def symbols(objects, kind):
    done = subprocess.run(["nm", kind, *map(str, objects)], capture_output=True, text=True)
    return {line.split()[-1] for line in done.stdout.splitlines() if line and line[-1] != ":"}


if __name__ == "__main__":
    for variant in sys.argv[1:] or ["plain"]:
        print(Build(variant).library())
