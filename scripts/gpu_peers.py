#!/usr/bin/env python3
"""Builds apex's and mmcv's focal kernels, for the benchmarks, from folders that a user brings.

    APEX_SOURCE=... MMCV_SOURCE=... python scripts/gpu_peers.py FOLDER

The two variables name checkouts of NVIDIA/apex and open-mmlab/mmcv; one will do. Into FOLDER, to be
put on PYTHONPATH, goes what benchmarks import: `apex.contrib.focal_loss.focal_loss` and `mmcv.ops`,
with nothing of these packages but the focal loss. None of their code is part of this project.
"""

import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APEX = "apex/contrib/csrc/focal_loss"
MMCV = "mmcv/ops/csrc"
# mmcv's own binding covers all its operations; this one only the launchers that are built here.
MMCV_BINDING = """\
#include <torch/extension.h>

using at::Tensor;

void SigmoidFocalLossForwardCUDAKernelLauncher(
    Tensor input, Tensor target, Tensor weight, Tensor output, const float gamma,
    const float alpha);
void SigmoidFocalLossBackwardCUDAKernelLauncher(
    Tensor input, Tensor target, Tensor weight, Tensor grad_input, const float gamma,
    const float alpha);

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("sigmoid_focal_loss_forward", &SigmoidFocalLossForwardCUDAKernelLauncher,
        py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("output"),
        py::arg("gamma"), py::arg("alpha"));
  m.def("sigmoid_focal_loss_backward", &SigmoidFocalLossBackwardCUDAKernelLauncher,
        py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("grad_input"),
        py::arg("gamma"), py::arg("alpha"));
}
"""
# What mmcv/ops/focal_loss.py asks for its compiled functions.
MMCV_LOADER = """\
def load_ext(name, functions):
    import mmcv_focal_cuda

    return mmcv_focal_cuda
"""


def use_toolkit():
    """The CUDA toolkit that setup.py finds; PyTorch would take the folder of any nvcc for one."""
    spec = importlib.util.spec_from_file_location("alwa_d2_setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    toolkit, _ = setup.find_toolkit(os.environ)
    if toolkit is not None:
        os.environ["CUDA_HOME"] = str(toolkit)
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)  # ninja may lie there


def headers_of_pip(toolkit):
    """Folders of PyTorch's own CUDA packages, for a toolkit without the libraries' headers."""
    import torch

    if (toolkit / "include" / "cusparse.h").exists():
        return []
    return [str(path) for path in Path(torch.__file__).parents[1].glob("nvidia/*/include")]


def compile_into(folder, name, sources, include=(), **options):
    from torch.utils import cpp_extension  # reads CUDA_HOME when imported

    include = [*map(str, include), *headers_of_pip(Path(cpp_extension.CUDA_HOME))]
    built = folder / f"{name}-build"
    built.mkdir(parents=True, exist_ok=True)
    cpp_extension.load(
        name,
        [str(source) for source in sources],
        extra_cflags=["-O3"],
        extra_include_paths=include,
        build_directory=str(built),
        is_python_module=False,  # only built here; who imports it loads it
        with_cuda=True,
        verbose=True,
        **options,
    )
    shutil.copy(built / f"{name}.so", folder)


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def build_apex(source, folder):
    """With the flags of apex's setup.py."""
    files = [source / APEX / name for name in ("focal_loss_cuda.cpp", "focal_loss_cuda_kernel.cu")]
    flags = ["-O3", "--use_fast_math", "--ftz=false"]
    compile_into(folder, "focal_loss_cuda", files, extra_cuda_cflags=flags)
    for package in ("apex", "apex/contrib", "apex/contrib/focal_loss"):
        write(folder / package / "__init__.py")
    shutil.copy(
        source / "apex/contrib/focal_loss/focal_loss.py", folder / "apex/contrib/focal_loss"
    )


def build_mmcv(source, folder):
    csrc = source / MMCV
    binding = folder / "mmcv_focal_cuda.cpp"
    write(binding, MMCV_BINDING)
    include = [csrc, csrc / "common", csrc / "common/cuda", csrc / "pytorch"]
    compile_into(
        folder,
        "mmcv_focal_cuda",
        [binding, csrc / "pytorch/cuda/focal_loss_cuda.cu"],
        include,
        extra_cuda_cflags=["-O3", "-DMMCV_WITH_CUDA"],
    )
    write(folder / "mmcv/__init__.py")
    write(folder / "mmcv/utils/__init__.py")
    write(folder / "mmcv/utils/ext_loader.py", MMCV_LOADER)
    write(folder / "mmcv/ops/__init__.py", "from .focal_loss import sigmoid_focal_loss\n")
    shutil.copy(source / "mmcv/ops/focal_loss.py", folder / "mmcv/ops")


# Variable -> function that builds, and module that benchmarks import.
BUILDERS = {
    "APEX_SOURCE": (build_apex, "apex.contrib.focal_loss.focal_loss"),
    "MMCV_SOURCE": (build_mmcv, "mmcv.ops"),
}


def main():
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    use_toolkit()
    words, failed = [], False
    sys.path.insert(0, str(folder))
    for variable, (make, module) in BUILDERS.items():
        name = variable.split("_")[0].lower()
        if not os.environ.get(variable):
            words.append(f"{name} left out, set {variable}")
            continue
        try:
            make(Path(os.environ[variable]).resolve(), folder)
            importlib.invalidate_caches()  # the folder was there before its files
            importlib.import_module(module)
            words.append(f"{name} built")
        except Exception as error:  # the other one may be built all the same
            failed = True
            print(f"{name}: {type(error).__name__}: {error}")
            words.append(f"{name} failed")
    print("; ".join(words))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
