"""The compiled extension: what it was built for, and why it cannot be loaded where it cannot.

PyTorch's C++ interface changes from one minor version to the next. A library that was built for
another one may lack a symbol, or load and then crash. So it is compared first, by the file that
setup.py writes beside the library.
"""

import importlib
import json
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

NAME = f"{__package__}._C"
FOLDER = Path(__file__).parent
REMEDY = (
    "Install a wheel for the PyTorch in use, or build for it in the folder of alwa_d2's source: "
    "pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall . (or -e .)"
)


def load(folder: Path = FOLDER) -> str | None:
    """Loads the extension, which lies in `folder`; returns why not where it cannot be loaded."""
    import torch  # whose libraries the extension links against

    if NAME not in sys.modules:
        reason = misfit(torch.__version__, torch.version.cuda, folder)
        if reason:
            return reason
    try:
        importlib.import_module(NAME)
    except ImportError as error:
        return explain_import(error, folder)
    return None


def find_library(folder: Path = FOLDER) -> Path | None:
    """The library that this Python would load; None where there is none."""
    paths = (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_record(folder: Path = FOLDER) -> dict:
    """
    What the library was built for, empty where that is not known: "torch"; "cuda", None for CPU
    kernels only; "archs", the GPU architectures, or None; "compiler"; "python".
    """
    library = find_library(folder)
    try:
        record = json.loads(library.with_suffix(".json").read_text()) if library else {}
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def misfit(torch_version: str, torch_cuda: str | None, folder: Path = FOLDER) -> str | None:
    """
    What the library was built for that is not in use; None where nothing of that kind is known.

    Args:
        torch_version: of the PyTorch in use, such as "2.14.1+cu130"
        torch_cuda: the CUDA that it was built with, such as "13.0"; None without CUDA
        folder: where the library lies
    """
    record = read_record(folder)
    built, cuda = record.get("torch", torch_version), record.get("cuda")
    if built.split(".")[:2] != torch_version.split(".")[:2]:
        return f"it was built for PyTorch {built}, and PyTorch {torch_version} is in use"
    if cuda and cuda.split(".")[0] != (torch_cuda or "").split(".")[0]:
        used = f"CUDA {torch_cuda}" if torch_cuda else "no CUDA"
        return f"it was built for CUDA {cuda}, and the PyTorch in use has {used}"
    return None


def explain_import(error: ImportError, folder: Path = FOLDER) -> str:
    """Why the extension was not imported."""
    others = ", ".join(sorted(path.name for path in folder.glob("_C.*.so")))
    if isinstance(error, ModuleNotFoundError) and error.name == NAME:
        return f"it was built for another Python: {others}" if others else "it is not there"
    text = " ".join(str(error).split())
    if "undefined symbol" in text or "cannot open shared object file" in text:
        return f"{text} (as a rule it was built for another PyTorch)"
    return text
