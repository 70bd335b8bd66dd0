"""One line in the log about a data set that was read: what of it is used, what is not, and why."""

import logging
from collections.abc import Sequence

from .._show import counted
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
    held = f"{counted(len(records), 'images')}, {counted(boxes, 'boxes')}"
    logger.log(level, "%s: %s; left out: %s", name, held, left.summary())
