"""The package's own configs, found by name as in Detectron2's `model_zoo`."""

from pathlib import Path

from .errors import UserError


def _folder() -> Path:
    """Package data in an installed copy, the top folder in a checkout or an editable install."""
    here = Path(__file__).resolve().parent
    return next(path for path in (here / "configs", here.parent / "configs") if path.is_dir())


def list_configs() -> list[str]:
    """Names of all configs, such as "voc/retinanet_giou_R_50_FPN.yaml", sorted."""
    folder = _folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))


def get_config_file(name: str) -> str:
    """
    The path of one of the package's configs.

    Args:
        name: relative to `configs`, such as "retina_alwa.yaml"

    Raises:
        UserError: there is no such config; says which there are
    """
    if name not in list_configs():
        known = ", ".join(known for known in list_configs() if "Base-" not in known)
        raise UserError(f"expected the path or name of a config, got {name}; names are: {known}")
    return str(_folder() / name)


def find_config(name: str) -> str:
    """The path of a file that is there, or else of the package's config of that name.

    An address that Detectron2 can fetch, such as https://..., stays as it is.
    """
    if Path(name).is_file() or "://" in name:
        return name
    return get_config_file(name.removeprefix("configs/"))
