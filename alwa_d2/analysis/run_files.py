"""What a run leaves in its folder, read and checked: `metrics.json` and `config.yaml`."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Values by iteration; where a resumed run wrote an iteration again, the later line wins.

    A line that was cut off, since the run was killed while it wrote, is left out with a warning. So
    is another training's, whose folder this was before.

    Raises:
        UserError: there is no such file, or it holds something else; says the line
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the folder of a finished run")
    lines = [(n, line) for n, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()]
    found: list[tuple[int, dict[str, float]]] = []  # line, its record
    for number, line in lines:
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            if found and number == lines[-1][0]:
                print(f"warning: {place}: cut off, left out", file=sys.stderr)
                break
            record = _after_a_cut(line, place, error)
        numbers = isinstance(record, dict) and {type(v) for v in record.values()} <= {int, float}
        if not numbers or type(record.get("iteration")) is not int:
            raise UserError(f"{place}: expected numbers by key, a whole 'iteration'")
        found.append((number, record))
    if not found:
        raise UserError(f"{path}: empty; expected one JSON object per line")
    records: dict[int, dict[str, float]] = {}
    for _, record in _last_training(path, found):
        records.setdefault(record["iteration"], {}).update(record)
    return records


def _last_training(path: Path, found: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
    """
    The lines of the last training. It begins where losses are logged of the very first logged
    iteration, or of one before: a resumed run goes on behind it. Lines of evaluations are written
    out of order, and tell nothing.
    """
    losses = [
        (place, number, record["iteration"])
        for place, (number, record) in enumerate(found)
        if any(key.startswith(("loss_", "total_loss")) for key in record)
    ]
    again = [entry for entry in losses[1:] if entry[2] <= losses[0][2]]
    if not again:
        return found
    place, number, _ = again[-1]
    print(
        f"warning: {path}, line {number}: a training begins anew; what stands before is left out",
        file=sys.stderr,
    )
    return found[place:]


def _after_a_cut(line: bytes, place: str, error: ValueError) -> Any:
    """The first line after a run was resumed, which stands behind the one that was cut off."""
    try:
        record = json.loads(line[line.rindex(b"{") :])
    except ValueError:
        raise UserError(f"{place}: not JSON ({error})") from error
    print(f"warning: {place}: begin cut off, left out", file=sys.stderr)
    return record


def read_config(path: Path) -> dict[str, Any]:
    """A run's settings by their dotted keys, as KEY VALUE pairs name them.

    Raises:
        UserError: the file holds something else
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # the latter: not UTF-8
        raise UserError(f"{path}: expected a run's config; not YAML ({error})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a run's config, got {type(tree).__name__}")
    return flatten(tree)


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value: {"A": {"B": 1}} is {"A.B": 1}."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
