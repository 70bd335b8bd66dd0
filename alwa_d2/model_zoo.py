"""The package's own configs, found by name as in Detectron2's `model_zoo`."""

from pathlib import Path

from .errors import UserError


def _folder() -> Path:
    """Package data in an installed copy, the top folder in a checkout or an editable install."""
    here = Path(__file__).resolve().parent
    return next(path for path in (here / "configs", here.parent / "configs") if path.is_dir())


def list_configs(pattern: str = "**/*.yaml") -> list[str]:
    """Names of all configs, such as "voc/retinanet_giou_R_50_FPN.yaml", sorted.

    Args:
        pattern: `"lazy/*.py"` for LazyConfigs
    """
    folder = _folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))


def get_config_file(name: str) -> str:
    """
    The path of one of the package's configs.

    Args:
        name: relative to `configs`, such as "retina_alwa.yaml"; or a LazyConfig's, such as
            "lazy/retinanet_alwa.py"

    Raises:
        UserError: there is no such config; says which there are
    """
    names = list_configs("lazy/*.py" if name.endswith(".py") else "**/*.yaml")
    if name not in names:
        known = ", ".join(known for known in names if "Base-" not in known)
        raise UserError(f"expected the path or name of a config, got {name}; names are: {known}")
    return str(_folder() / name)


def find_config(name: str) -> str:
    """The path of a file that is there, or else of the package's YAML config of that name.

    An address that Detectron2 can fetch, such as https://..., stays as it is.
    """
    if name.endswith(".py"):
        raise UserError(
            f"expected a YAML config, got {name}: a LazyConfig is for Detectron2's "
            "lazyconfig_train_net.py, or examples/train_lazy.py"
        )
    if Path(name).is_file() or "://" in name:
        return name
    return get_config_file(name.removeprefix("configs/"))
