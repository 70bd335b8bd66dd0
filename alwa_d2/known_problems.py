"""What is known to break an installation, looked for in this one, each with its remedy."""

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import built, environment
from .errors import explain, pip_install

OLDEST_TORCH = (2, 4)
INSTALLING = "docs/installing.md"
# How Detectron2 calls them -> (module, package, a version before which no name was removed).
OTHERS = {"Image": ("PIL.Image", "pillow", "10"), "np": ("numpy", "numpy", "1.24")}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, with what to do about it; or, as a note, only to be known."""

    text: str
    remedy: str
    wrong: bool = True


def find_all() -> list[Finding]:
    """What all checks find. A check that fails is a finding too, and stops no other."""
    found = []
    for check in CHECKS:
        try:
            found += check()
        except (Exception, SystemExit) as error:  # of any type: what is broken is not known
            name = check.__name__.replace("_", " ")
            remedy = "tell us, with all that is printed here"
            found.append(Finding(f"the check of {name} failed: {explain(error)}", remedy))
    return found


def importing(name: str) -> Exception | None:
    """The error that importing a module ends with."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        return error
    return None


def pytorch() -> Iterator[Finding]:
    error = importing("torch")
    if error is not None:
        text = f"PyTorch cannot be imported: {explain(error)}"
        yield Finding(text, "pip install torch torchvision")
        return
    import torch

    if torch_version() < OLDEST_TORCH:
        yield Finding(f"PyTorch {torch.__version__} is too old", "install PyTorch 2.4 or newer")


def torch_version() -> tuple[int, int]:
    import torch

    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def dependencies() -> Iterator[Finding]:
    """Packages that alwa_d2 needs and that are not installed, as after `pip install --no-deps`."""
    try:
        listed = importlib.metadata.requires("alwa_d2") or []
    except importlib.metadata.PackageNotFoundError:  # used from its folder, without installing
        return
    for name in (re.match(r"[\w.-]+", line)[0] for line in listed if "extra ==" not in line):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(f"the package {name} is not installed", f"pip install {name}")


def torchvision() -> Iterator[Finding]:
    """It is compiled for one PyTorch, and pip does not always see to that."""
    if importing("torch") or importlib.util.find_spec("torchvision") is None:
        return
    error = importing("torchvision")
    if error is not None:
        major, minor = torch_version()
        # 0.19 goes with 2.4, and so on.
        remedy = f"pip install 'torchvision==0.{minor + 15}.*'" if major == 2 else "install its own"
        version = importlib.metadata.version("torchvision")
        yield Finding(f"torchvision {version} does not fit this PyTorch: {explain(error)}", remedy)


def extension() -> Iterator[Finding]:
    if importing("torch") is None:
        reason = built.load()
        if reason is not None:
            yield Finding(f"alwa_d2's extension is not loaded: {reason}", built.REMEDY)


def gpu() -> Iterator[Finding]:
    if importing("torch"):
        return
    import torch

    driver, cuda = environment.driver_cuda(), torch.version.cuda
    if driver and cuda is None:
        text = "there is a driver for NVIDIA's GPUs, but this PyTorch is built without CUDA"
        yield Finding(text, "to use the GPU, install a CUDA build of PyTorch", wrong=False)
    if driver and cuda and driver[0] < int(cuda.split(".")[0]):
        yield Finding(
            f"the GPU driver runs CUDA {driver[0]}.{driver[1]} at most, PyTorch is for CUDA {cuda}",
            f"update the driver, or install a PyTorch that is built for CUDA {driver[0]}",
        )
    if torch.cuda.device_count() and built.load() is None:
        yield from kernels_for_gpus()


def kernels_for_gpus() -> Iterator[Finding]:
    """Those GPUs in sight that the extension has no kernels for."""
    import torch

    remedy = f"with a CUDA toolkit at hand, build again with FORCE_CUDA=1 ({INSTALLING})"
    if not environment.has_cuda_kernels():
        yield Finding("there is a GPU, but alwa_d2 is built for CPUs only", remedy)
        return
    archs = built.read_record().get("archs")
    gpus = range(torch.cuda.device_count())
    for capability in sorted({torch.cuda.get_device_capability(gpu) for gpu in gpus}):
        if archs and not runs_on(capability, archs):
            name = "{}.{}".format(*capability)
            text = f"a GPU has architecture {name}, and alwa_d2's kernels are for {archs}"
            yield Finding(text, f"set TORCH_CUDA_ARCH_LIST={name} and build again ({INSTALLING})")


def runs_on(capability: tuple[int, int], archs: str) -> bool:
    """Whether kernels for these architectures, such as "8.0;9.0+PTX", run on a GPU."""
    for arch in re.split(r"[ ;]+", archs.strip()):
        number = re.match(r"(\d+)\.(\d+)", arch)
        if number is None:  # a name, such as Ampere
            return True
        made_for = int(number[1]), int(number[2])
        same_major = made_for[0] == capability[0] and made_for <= capability
        if same_major or (arch.endswith("+PTX") and made_for <= capability):
            return True
    return False


def pkg_resources() -> Iterator[Finding]:
    """Detectron2's model zoo imports it; setuptools 82 is without it."""
    folder = detectron2_folder()
    zoo = folder / "model_zoo" / "model_zoo.py" if folder else None
    if zoo is None or not zoo.is_file() or "pkg_resources" not in zoo.read_text(errors="replace"):
        return
    if importlib.util.find_spec("pkg_resources") is None:
        text = "Detectron2's model zoo imports pkg_resources, which newer setuptools do not have"
        yield Finding(text, "pip install 'setuptools<81'")


def detectron2_folder() -> Path | None:
    """Where it is, found without importing it."""
    spec = importlib.util.find_spec("detectron2")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def detectron2() -> Iterator[Finding]:
    """Parts of it that cannot be imported; those that other checks explain are left to them."""
    if detectron2_folder() is None:
        text = "Detectron2 is not installed; alwa_d2.layers and alwa_d2.weighting do without it"
        yield Finding(text, f"for training, install it: {INSTALLING}", wrong=False)
        return
    for name in ("detectron2.engine", "detectron2.evaluation", "detectron2.model_zoo"):
        error = importing(name)
        if error is None or getattr(error, "name", None) == "pkg_resources":
            continue
        remedy = f"install Detectron2 again: {INSTALLING}"
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing and not missing.startswith("detectron2"):
            remedy = pip_install(missing)
        yield Finding(f"Detectron2 is broken: importing {name}: {explain(error)}", remedy)
        return
    error = importing(f"{__package__}.modeling")
    if error is not None and getattr(error, "name", None) != "pkg_resources":
        text = f"alwa_d2's models do not fit this Detectron2: {explain(error)}"
        yield Finding(text, f"install a Detectron2 that is named in {INSTALLING}")


def removed_names() -> Iterator[Finding]:
    """Names that the installed Detectron2 uses, and the installed Pillow or NumPy has no more."""
    folder = detectron2_folder()
    if folder is None:
        return
    trees = {path: ast.parse(path.read_bytes()) for path in sorted(folder.rglob("*.py"))}
    for alias, (module, package, limit) in OTHERS.items():
        if importing(module):
            continue
        has = importlib.import_module(module)
        lacking = {}
        for path, tree in trees.items():
            for name in attributes_of(alias, module, tree):
                if not hasattr(has, name):
                    lacking.setdefault(name, path.relative_to(folder).as_posix())
        if lacking:
            uses = ", ".join(f"{alias}.{name} ({file})" for name, file in sorted(lacking.items()))
            version = importlib.metadata.version(package)
            yield Finding(
                f"Detectron2 uses names that {package} {version} does not have: {uses}",
                f"install a newer Detectron2 ({INSTALLING}), or pip install '{package}<{limit}'",
            )


def attributes_of(alias: str, module: str, tree: ast.Module) -> set[str]:
    """What a file takes of a module that it imports under this name."""
    nodes = list(ast.walk(tree))
    imported = {
        f"{getattr(node, 'module', None) or ''}.{name.name}".strip(".")
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    if module not in imported:
        return set()
    taken = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    return {name.split(".")[1] for name in taken if re.fullmatch(rf"{alias}\.\w+", name)}


def weights_only() -> Iterator[Finding]:
    if importing("torch") or importing("fvcore.common.checkpoint") or torch_version() < (2, 6):
        return
    from fvcore.common.checkpoint import Checkpointer

    if "weights_only" in inspect.getsource(Checkpointer):
        return
    yield Finding(
        "PyTorch 2.6 and newer read checkpoints with weights_only: a .pth file that holds more "
        "than tensors and plain values, as some older ones do, is refused",
        "for a file that you trust: read it with torch.load(path, weights_only=False), and save "
        'anew what is under "model"',
        wrong=False,
    )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    pytorch,
    dependencies,
    torchvision,
    extension,
    gpu,
    pkg_resources,
    detectron2,
    removed_names,
    weights_only,
)
