"""Data sets looked at before they are used: what would fail later ends the run now."""

import logging
import time

from detectron2.config import CfgNode

from .._show import counted
from ..data.findings import ERROR, WARNING, Findings
from ..data.preflight import Report, check_data
from ..errors import UserError
from .main_process import on_main_process

logger = logging.getLogger(__name__)

_checked: set[tuple[bool, tuple[str, ...]]] = set()  # (for training?, names) of this process


def check_before_run(cfg: CfgNode, training: bool) -> None:
    """
    Looks at all data sets that a run will read, unless DATASETS.CHECK is False.

    Call it in every process: the main one looks and logs, and all of them get the verdict. A later
    call for the same sets does nothing.

    Args:
        cfg: a run's config
        training: whether DATASETS.TRAIN is read too, and not DATASETS.TEST alone

    Raises:
        UserError: in all processes, if training or evaluation would fail or be wrong
    """
    test = (False, tuple(cfg.DATASETS.TEST))
    sets = {test, (True, tuple(cfg.DATASETS.TRAIN))} if training else {test}
    if not cfg.DATASETS.CHECK or sets <= _checked:
        return
    on_main_process(lambda: _look(cfg, training))
    _checked.update(sets)


def _look(cfg: CfgNode, training: bool) -> None:
    """Logs what is found, and raises a UserError if the run must not go on."""
    start = time.perf_counter()
    report = check_data(cfg, training=training, progress=True)
    _log(report, time.perf_counter() - start)
    errors = report.findings.number(ERROR)
    if not errors:
        return
    first = next(report.findings.of(ERROR))[2][0]
    more = f" ({counted(errors, 'errors')} in all, told in the log)" if errors > 1 else ""
    raise UserError(
        f"{first}{more}; alwa-d2 check-data shows all, DATASETS.CHECK False goes on all the same"
    )


def _log(report: Report, seconds: float) -> None:
    findings: Findings = report.findings
    for kind, count, first in findings.of(WARNING):
        what = counted(count, kind.name)
        logger.warning("%s; %s (first: %s)", what, kind.remedy, first[0].place)
    for kind, count, first in findings.of(ERROR):
        for each in first:
            logger.error("%s", each)
        if count > len(first):
            logger.error("... and %s", counted(count - len(first), f"more {kind.name}"))
    sets = {survey.name: survey for survey in (*report.training, *report.test)}
    parts = [
        f"{name} {counted(s.images, 'images')}, {counted(s.boxes, 'boxes')}"
        for name, s in sets.items()
    ]
    logger.info(
        "Data sets looked at in %.1f s: %s; %s", seconds, "; ".join(parts), findings.verdict()
    )
