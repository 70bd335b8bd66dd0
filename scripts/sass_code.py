"""Kernels as `cuobjdump -sass` and `-res-usage` print them: instructions, loops, what is in them.

Loops are found in the graph of branches and not by looking for branches to lower addresses alone:
nvcc also puts seldom used blocks behind the rest of a kernel, and they too jump back.
"""

import re
from dataclasses import dataclass, field, replace

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
RESOURCES = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
DOUBLES = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "DMMA")
WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str  # such as "!P0"; empty if it is always executed
    opcode: str  # with its suffixes, such as "LDG.E.128"
    operands: str

    @property
    def kind(self):
        return self.opcode.split(".")[0]

    @property
    def width(self):
        """Bytes that a load or store moves in each thread."""
        return next((WIDTHS[s] for s in self.opcode.split(".") if s in WIDTHS), 4)

    @property
    def is_double(self):
        """Whether it computes in float64, or converts from or to it."""
        suffixes = self.opcode.split(".")[1:]
        return self.kind in DOUBLES or bool({"F64", "RCP64H", "RSQ64H"} & set(suffixes))

    @property
    def may_go_on(self):
        """Whether the next instruction may be executed after it."""
        if self.kind in ("EXIT", "BRA"):
            # A branch can also hang on operands: BRA P1, 0x40 or BRA.DIV UR4, 0x40.
            return bool(self.predicate) or "," in self.operands
        return self.kind not in ("RET", "BRX", "JMX")

    @property
    def target(self):
        """Address that a branch or a call leads to, None for other instructions."""
        found = re.search(r"0x([0-9a-f]+)$", self.operands)
        return int(found[1], 16) if found and self.kind in ("BRA", "CALL") else None


class Code(list):
    """Instructions in the order of their addresses."""

    def count(self, *kinds):
        return sum(x.kind in kinds for x in self)

    def of(self, *kinds):
        return Code(x for x in self if x.kind in kinds)

    @property
    def exponentials(self):
        """MUFU.EX2: for gamma = 2 exactly one a logit."""
        return sum(x.opcode.startswith("MUFU.EX2") for x in self)

    @property
    def doubles(self):
        return sum(x.is_double for x in self)

    def widths(self, kind):
        """{bytes: how many}, of loads (LDG) or stores (STG)."""
        widths = [x.width for x in self.of(kind)]
        return {width: widths.count(width) for width in sorted(set(widths), reverse=True)}


@dataclass
class Kernel:
    symbol: str  # mangled
    name: str  # as in the source, without namespaces and arguments
    code: Code
    registers: int = 0
    stack: int = 0  # bytes a thread, spilled registers among them
    shared: int = 0  # bytes a block, static
    local: int = 0  # bytes a thread
    blocks: list = field(init=False)  # of instructions
    after: list = field(init=False)  # for each block, those that may follow it
    reached: set = field(init=False)  # blocks that are not a called function's, nor padding

    def __post_init__(self):
        self.code = calls_that_are_jumps(self.code)
        self.blocks, self.after = basic_blocks(self.code)
        self.reached = reach(self.after, 0)

    @property
    def arguments(self):
        """Those of its template, as strings: ["float", "float", "true", "true"]."""
        _, opened, rest = self.name.partition("<")
        parts = re.findall(r"(?:[^,<>]|<[^<>]*>)+", rest[:-1]) if opened else []
        return [part.strip() for part in parts]

    def instructions(self, blocks):
        return Code(x for i in sorted(blocks) for x in self.blocks[i])

    def loops(self):
        """[set of blocks] of each loop; those with the same first block are one."""
        before = reverse(self.after)
        loops = {}
        for tail, head in retreating_edges(self.after):
            body = reach(self.after, head) & (reach(before, tail, without=head) | {head})
            loops[head] = loops.get(head, set()) | body
        return [loops[head] for head in sorted(loops)]


def calls_that_are_jumps(code):
    """The code with BRA.CALL for calls whose target never returns.

    For sm_80, nvcc leaves a loop with @P0 CALL.REL.NOINC to what follows it; functions that are
    called end with RET.
    """
    blocks, after = basic_blocks(code)
    number = {block[0].address: i for i, block in enumerate(blocks)}

    def is_jump(x):
        if x.kind != "CALL" or x.target not in number:
            return False
        return all(blocks[i][-1].kind != "RET" for i in reach(after, number[x.target]))

    return Code(replace(x, opcode="BRA.CALL") if is_jump(x) else x for x in code)


def basic_blocks(code):
    """(blocks, which may follow each); what is called does not follow."""
    places = {x.address: i for i, x in enumerate(code)}
    starts = {0} | {places[x.target] for x in code if x.target in places}
    starts |= {i + 1 for i, x in enumerate(code) if x.target is not None or not x.may_go_on}
    starts = sorted(i for i in starts if i < len(code))
    blocks = [code[a:b] for a, b in zip(starts, [*starts[1:], len(code)])]
    number = {block[0].address: i for i, block in enumerate(blocks)}
    after = []
    for i, block in enumerate(blocks):
        last = block[-1]
        follow = {number[last.target]} if last.kind == "BRA" and last.target in number else set()
        if last.may_go_on and i + 1 < len(blocks):
            follow.add(i + 1)
        after.append(follow)
    return blocks, after


def reverse(after):
    before = [set() for _ in after]
    for i, follow in enumerate(after):
        for j in follow:
            before[j].add(i)
    return before


def reach(after, start, without=None):
    """What can be reached from `start`, itself too, without passing through `without`."""
    found, waiting = {start}, [start]
    while waiting:
        i = waiting.pop()
        new = set() if i == without else after[i] - found
        found |= new
        waiting += new
    return found


def retreating_edges(after):
    """(from, to) where `to` is on the way to `from`: in compiled loops their jump back."""
    edges, seen, path = [], {0}, [(0, iter(sorted(after[0])))]
    on_path = {0}
    while path:
        i, follow = path[-1]
        j = next(follow, None)
        if j is None:
            path.pop()
            on_path.discard(i)
        elif j in on_path:
            edges.append((i, j))
        elif j not in seen:
            seen.add(j)
            on_path.add(j)
            path.append((j, iter(sorted(after[j]))))
    return edges


def parse(listing, resources, demangle):
    """Kernels in what `cuobjdump -sass` and `cuobjdump -res-usage` printed of one architecture.

    Args:
        demangle: a function from mangled names to names, lists both
    """
    usage = {m[1]: [int(x) for x in m.groups()[1:]] for m in RESOURCES.finditer(resources)}
    symbols, codes = [], []
    for line in listing.splitlines():
        start = re.match(r"\s+Function : (\S+)", line)
        if start:
            symbols.append(start[1])
            codes.append(Code())
        found = INSTRUCTION.match(line)
        if found and codes:
            address, predicate, opcode, operands = found.groups()
            codes[-1].append(Instruction(int(address, 16), predicate or "", opcode, operands))
    names = [short_name(name) for name in demangle(symbols)]
    return [
        Kernel(symbol, name, code, *usage.get(symbol, ()))
        for symbol, name, code in zip(symbols, names, codes)
        if code
    ]


def short_name(name):
    """`void a::(anonymous namespace)::f<c10::Half, (int)2>(long)` -> `f<Half, 2>`."""
    name = re.sub(r"\(anonymous namespace\)::|<unnamed>::|\((?:int|bool|long)\)", "", name)
    name = re.sub(r"\b\w+::", "", name.removeprefix("void "))
    depth = 0
    for i, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            return name[:i]
    return name
