"""The file of a sweep, read and checked; docs/experiments.md describes it."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..model_zoo import find_config
from .sweep import Best, Cell, Labels, Settings, Sweep

METRICS = ["bbox/AP", "bbox/AP50", "bbox/AP75"]  # those of the paper
OURS = {"OUTPUT_DIR": "a run's folder follows from its settings", "SEED": "`seeds` has them"}
REQUIRED = ("config", "output", "grid", "seeds")
KEYS = (*REQUIRED, "opts", "reuse", "exclude", "include", "baseline", "metrics", "best")
Grid = dict[str, dict[str, Settings]]  # axis -> label -> what it sets


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML lets it pass and drops the first of them."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        for key in {key for key in keys if keys.count(key) > 1}:
            place = f"the key '{key}' is there twice"
            raise yaml.constructor.ConstructorError(None, None, place, node.start_mark)
        return super().construct_mapping(node, deep)


class _Reader:
    """Turns what the YAML file holds into checked values; an error names file and key."""

    def __init__(self, path: Path):
        self.path = path

    def fail(self, where: str, expected: str, got: Any):
        raise UserError(f"{self.path}: {where}: expected {expected}, got {got!r}")

    def mapping(self, where: str, value: Any, of: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(where, f"a mapping {of}", value)
        for key in value:
            # YAML reads 1:1 as the number 61, and so would give the label another name.
            if not isinstance(key, str) or not key:
                self.fail(where, "names that are texts (in quotes, if need be)", key)
        return value

    def listing(self, where: str, value: Any, of: str, fits: Callable[[Any], bool]) -> list:
        if not isinstance(value, list) or not all(map(fits, value)):
            self.fail(where, f"a list of {of}", value)
        return value

    def distinct(self, where: str, values: list) -> None:
        if not values or len(set(values)) < len(values):
            self.fail(where, "at least one, each of them once", values)

    def seeds(self, where: str, value: Any) -> list[int]:
        self.listing(where, value, "whole numbers from 0 on", lambda s: type(s) is int and s >= 0)
        self.distinct(where, value)
        return value

    def text(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            self.fail(where, "a text (in quotes, if need be)", value)
        return value

    def settings(self, where: str, value: Any) -> Settings:
        """KEY -> VALUE, written as they stand on a command line."""
        for key, item in self.mapping(where, value, "KEY: VALUE").items():
            if key in OURS:
                raise UserError(f"{self.path}: {where}: {key} can't be set, {OURS[key]}")
            if isinstance(item, dict) or item is None:
                self.fail(f"{where}.{key}", "a value (keys have dots: MODEL.ALWA.RULE)", item)
        return {k: v if isinstance(v, str) else repr(v) for k, v in value.items()}

    def labels(self, where: str, value: Any, known: dict[str, set[str] | None]) -> Labels:
        """Axis -> label; `known` has the labels that an axis may have, None for any."""
        for axis, label in self.mapping(where, value, "axis: label").items():
            if axis not in known:
                self.fail(where, f"an axis of the grid ({', '.join(known)})", axis)
            self.text(f"{where}.{axis}", label)
            if known[axis] is not None and label not in known[axis]:
                self.fail(f"{where}.{axis}", f"one of {', '.join(sorted(known[axis]))}", label)
        return value


def read_sweep(path: Path, opts: list[str]) -> Sweep:
    """
    The sweep of a YAML file.

    Args:
        path: the file
        opts: KEY, VALUE, ... that take the place of the file's `opts`

    Raises:
        UserError: names the file, the key, what was expected and what is there
    """
    reader = _Reader(path)
    content = _read_content(reader)
    try:
        config = Path(find_config(reader.text("config", content["config"])))
    except UserError as error:
        raise UserError(f"{path}: config: {error}") from error
    seeds = reader.seeds("seeds", content["seeds"])
    metrics = reader.listing(
        "metrics", content.get("metrics", METRICS), "names", lambda m: isinstance(m, str)
    )
    reuse = reader.listing(
        "reuse", content.get("reuse", []), "folders", lambda f: isinstance(f, str) and f
    )
    reader.distinct("metrics", metrics)
    cells = _read_cells(reader, content, opts)
    baseline = reader.labels("baseline", content.get("baseline", {}), _labels_of(cells))
    if not any(cell.labels.items() >= baseline.items() for cell in cells):
        reader.fail("baseline", "labels of one of the cells", baseline)
    output = Path(reader.text("output", content["output"]))
    reused = [Path(folder) for folder in reuse]
    best = _read_best(reader, content, cells, seeds)
    return Sweep(path, config, output, reused, cells, seeds, baseline, metrics, best)


def _read_best(
    reader: _Reader, content: dict[str, Any], cells: list[Cell], seeds: list[int]
) -> Best | None:
    value = content.get("best")
    if value is None:
        return None
    expected = "with of (a key that all cells set) and seeds"
    if reader.mapping("best", value, expected).keys() != {"of", "seeds"}:
        reader.fail("best", f"a mapping {expected}", value)
    if not content.get("baseline"):
        raise UserError(f"{reader.path}: baseline: expected one with best, got none")
    reader.text("best.of", value["of"])
    if not all(value["of"] in cell.settings for cell in cells):
        reader.fail("best.of", "a key that all cells set", value["of"])
    if set(reader.seeds("best.seeds", value["seeds"])) & set(seeds):
        reader.fail(
            "best.seeds", "other seeds than those that the choice is made by", value["seeds"]
        )
    return Best(value["of"], value["seeds"])


def _read_content(reader: _Reader) -> dict[str, Any]:
    """What the file holds, all required keys and no unknown ones."""
    path = reader.path
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected YAML; {error}") from error
    content = reader.mapping("the file", content, "with config, output, grid and seeds")
    for key in content:
        if key not in KEYS:
            reader.fail("the file", f"the keys {', '.join(KEYS)}", key)
    for key in REQUIRED:
        if key not in content:
            raise UserError(f"{path}: {key} is missing")
    return content


def _labels_of(cells: list[Cell]) -> dict[str, set[str]]:
    return {axis: {cell.labels[axis] for cell in cells} for axis in cells[0].labels}


def _read_cells(reader: _Reader, content: dict[str, Any], opts: list[str]) -> list[Cell]:
    """The grid's cells without the excluded ones, then the included ones."""
    if len(opts) % 2:
        raise UserError(f"KEY VALUE: expected pairs, got {' '.join(opts)}")
    given = reader.settings("KEY VALUE", dict(zip(opts[::2], opts[1::2])))
    common = {**reader.settings("opts", content.get("opts", {})), **given}
    grid = _read_grid(reader, content["grid"], given)
    known = {axis: set(labels) for axis, labels in grid.items()}
    is_mapping = {"of": "mappings", "fits": lambda item: isinstance(item, dict)}
    excluded = reader.listing("exclude", content.get("exclude", []), **is_mapping)
    products = [dict(zip(grid, labels)) for labels in itertools.product(*grid.values())]
    cells = [_make_cell(grid, common, labels, {}) for labels in products]
    for index, item in enumerate(excluded):
        labels = reader.labels(f"exclude[{index}]", item, known)
        if not labels:
            reader.fail(f"exclude[{index}]", "at least one axis: label", item)
        cells = [cell for cell in cells if not cell.labels.items() >= labels.items()]
    included = reader.listing("include", content.get("include", []), **is_mapping)
    for index, item in enumerate(included):
        where = f"include[{index}]"
        own = reader.settings(f"{where}.opts", item.get("opts", {}))
        rest = {axis: label for axis, label in item.items() if axis != "opts"}
        if own.keys() & given.keys():
            raise UserError(f"{reader.path}: {where} and the command line set the same keys")
        labels = reader.labels(where, rest, dict.fromkeys(grid))
        if set(labels) != set(grid):
            reader.fail(where, f"a label for each of {', '.join(grid)}", rest)
        cells.append(_make_cell(grid, common, labels, own))
    for cell in cells:
        if sum(cell.labels == other.labels for other in cells) > 1:
            raise UserError(f"{reader.path}: include: the cell '{cell.name}' is there already")
    if not cells:
        raise UserError(f"{reader.path}: exclude: expected a cell to be left, got none")
    return cells


def _make_cell(grid: Grid, common: Settings, labels: Labels, own: Settings) -> Cell:
    """The cell of these labels; one that the grid does not have (of `include`) sets nothing."""
    ordered = {axis: labels[axis] for axis in grid}
    settings = dict(common)
    for axis, label in ordered.items():
        settings |= grid[axis].get(label, {})
    return Cell(ordered, settings | own)


def _read_grid(reader: _Reader, value: Any, given: Settings) -> Grid:
    """Axis -> label -> settings. What an axis sets, no other axis and no command line may set."""
    grid, owner = {}, {key: "the command line" for key in given}
    for axis, labels in reader.mapping("grid", value, "of axes").items():
        where = f"grid.{axis}"
        if axis == "opts":
            reader.fail("grid", "another name for an axis (`include` has `opts` of its own)", axis)
        labels = reader.mapping(where, labels, "label: settings")
        grid[axis] = {label: reader.settings(f"{where}.{label}", labels[label]) for label in labels}
        if not labels:
            reader.fail(where, "at least one label", labels)
        for key in {key for settings in grid[axis].values() for key in settings}:
            if key in owner:
                raise UserError(f"{reader.path}: {where} sets {key}, and so does {owner[key]}")
            owner[key] = where
    if not grid:
        reader.fail("grid", "at least one axis", value)
    return grid
