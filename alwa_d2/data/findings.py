"""What readers and checks of data sets have found: counted by kind, the first few of each kept.

A reader that leaves an object out, or finds what it cannot use, adds a finding; where training must
not go on it is an error, where the data was probably not meant so a warning. Readers take

    load(..., findings: Findings | None = None)

With `findings` they add errors, and what they left out, and go on with the next file, so that all
are seen at once; without, the first error raises ValueError or FileNotFoundError with the finding's
text. What is left out on purpose (boxes of zero area, say) is told by `note_left_out` under the
set's registered name either way, so that training, evaluation and checks speak of the same objects.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from .._show import counted

ERROR = "error"  # training or evaluation would fail or be wrong
WARNING = "warning"  # probably not meant
KEPT = 3  # findings of each kind that are shown


@dataclass(frozen=True)
class Kind:
    """What findings have in common: `name` in the plural, such as "boxes of zero area", of which
    `counted` makes the singular, `severity` ERROR or WARNING, and `remedy`, what the user may do, a
    phrase that can follow a semicolon."""

    name: str
    severity: str
    remedy: str


# Kinds that readers and checks share; those of one place stand there.
MISSING_IMAGE = Kind("images missing", ERROR, "put the file there, or take its entry out")
MISSING_ANNOTATION = Kind(
    "annotation files missing", ERROR, "put the file there, or take the id out of the list"
)
BAD_ANNOTATION = Kind("annotations that cannot be read", ERROR, "correct the file")
UNKNOWN_CLASS = Kind(
    "objects of an unknown class", ERROR, 'correct the name, or add it to the entry\'s "classes"'
)
REVERSED = Kind("boxes reversed", WARNING, "left out; put the smaller coordinate first")
ZERO_AREA = Kind("boxes of zero area", WARNING, "left out; draw them again or delete them")


@dataclass(frozen=True)
class Finding:
    """One thing found: in which file, at which object ("" for the file as a whole), and what."""

    kind: Kind
    file: str
    object: str
    found: str

    @property
    def place(self) -> str:
        """Where, and what: the finding without its remedy."""
        where = f"{self.file}, {self.object}" if self.object else self.file
        return f"{where}: {self.found}"

    def __str__(self) -> str:
        return f"{self.place}; {self.kind.remedy}"


@dataclass
class Findings:
    """Findings by kind, in the order in which kinds came up: the number of all, the first few."""

    counts: dict[Kind, int] = field(default_factory=dict)
    first: dict[Kind, list[Finding]] = field(default_factory=dict)

    def add(self, kind: Kind, file: str, object: str, found: str) -> Finding:
        """Counts one finding, and keeps it if it is among the first of its kind."""
        finding = Finding(kind, file, object, found)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(kept := self.first.setdefault(kind, [])) < KEPT:
            kept.append(finding)
        return finding

    def update(self, other: "Findings") -> None:
        """Adds those of `other`, a worker's or another data set's."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            kept = self.first.setdefault(kind, [])
            kept.extend(other.first[kind][: KEPT - len(kept)])

    def number(self, severity: str) -> int:
        """How many there are of a severity."""
        return sum(count for kind, count in self.counts.items() if kind.severity == severity)

    def of(self, severity: str) -> Iterator[tuple[Kind, int, list[Finding]]]:
        """Each kind of a severity with its number and the first few findings."""
        for kind, count in self.counts.items():
            if kind.severity == severity:
                yield kind, count, self.first[kind]

    def summary(self) -> str:
        """One phrase: the number of each kind, with the first of it; or "nothing"."""
        parts = [
            f"{counted(count, kind.name)} (first: {self.first[kind][0].place})"
            for kind, count in self.counts.items()
        ]
        return ", ".join(parts) or "nothing"

    def verdict(self) -> str:
        """Such as "1 error, 0 warnings"."""
        return ", ".join(counted(self.number(each), f"{each}s") for each in (ERROR, WARNING))

    def page(self) -> str:
        """Lines for a terminal: errors first, under each kind its remedy and the first few."""
        lines = []
        for severity in (ERROR, WARNING):
            for kind, count, first in self.of(severity):
                lines.append(f"{severity.upper()}: {kind.name}: {count}")
                lines.append(f"  remedy: {kind.remedy}")
                lines += [f"    {each.place}" for each in first]
                if count > len(first):
                    lines.append(f"    ... and {count - len(first)} more")
        return "\n".join(lines)


_left_out: dict[str, Findings] = {}


def note_left_out(name: str, findings: Findings) -> None:
    """Remembers what the reader of the registered data set `name` left out when it last loaded."""
    _left_out[name] = findings


def left_out(name: str) -> Findings:
    """What was left out of a data set, nothing for one that has not been loaded."""
    return _left_out.get(name, Findings())
