"""One line in the log about a data set that was read: what of it is used, what is not, and why."""

import logging
from collections.abc import Sequence

from .findings import Findings, note_left_out

logger = logging.getLogger(__name__)


def log_loaded(
    name: str, source: str, records: Sequence[dict], left: Findings, findings: Findings | None
) -> None:
    """Notes what was left out, also in `findings`; a warning if it is anything."""
    note_left_out(name, left)
    if findings is not None:
        findings.update(left)
    boxes = sum(len(record["annotations"]) for record in records)
    level = logging.WARNING if left.counts else logging.INFO
    logger.info("%s: %s", name, source)
    text = "%s: %d images, %d boxes; left out: %s"
    logger.log(level, text, name, len(records), boxes, reasons(left))


def reasons(left: Findings) -> str:
    """The numbers of each kind, with the first of it."""
    parts = []
    for kind, number in left.counts.items():
        first = left.first[kind][0]
        where = f"{first.file}, {first.object}" if first.object else first.file
        parts.append(f"{number} {kind.name} (first: {where}: {first.found})")
    return ", ".join(parts) or "nothing"
