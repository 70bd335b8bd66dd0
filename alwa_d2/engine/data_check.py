"""Data sets looked at before they are used: what would fail later ends the run now."""

import logging
import time

from detectron2.config import CfgNode

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
    more = f" ({errors} errors in all, told in the log)" if errors > 1 else ""
    raise UserError(
        f"{first}{more}; alwa-d2 check-data shows all, DATASETS.CHECK False goes on all the same"
    )


def _log(report: Report, seconds: float) -> None:
    findings: Findings = report.findings
    for kind, count, first in findings.of(WARNING):
        where = f"{first[0].file}, {first[0].object}" if first[0].object else first[0].file
        text = "%d %s; %s (first: %s: %s)"
        logger.warning(text, count, kind.name, kind.remedy, where, first[0].found)
    for kind, count, first in findings.of(ERROR):
        for each in first:
            logger.error("%s", each)
        if count > len(first):
            logger.error("... and %d more %s", count - len(first), kind.name)
    sets = {survey.name: survey for survey in (*report.training, *report.test)}
    parts = [f"{name} {s.images:,} images, {s.boxes:,} boxes" for name, s in sets.items()]
    logger.info(
        "Data sets looked at in %.1f s: %s; %d errors, %d warnings", seconds, "; ".join(parts),
        findings.number(ERROR), findings.number(WARNING),
    )  # fmt: skip
