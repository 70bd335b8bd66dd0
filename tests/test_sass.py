"""The reader of machine code in scripts/, on listings written by hand; no toolkit is needed."""

import sys

import pytest
from conftest import REPO

sys.path.insert(0, str(REPO / "scripts"))
import sass_code
import sass_focal
import sass_model


def make_kernel(
    *lines,
    name="focal_rows_kernel<true, float, float>",
    usage="REG:32 STACK:0 SHARED:0 LOCAL:0",
):
    """A kernel of one instruction a line, at the addresses 0x0000, 0x0010, ..."""
    text = ["\t\tFunction : _k", '\t.headerflags\t@"EF_CUDA_SM90"']
    for i, line in enumerate(lines):
        text.append(f"        /*{16 * i:04x}*/      {line} ;   /* 0x000000000000794d */")
        text.append("                                       /* 0x000fea0003800000 */")
    resources = f" Function _k:\n  {usage} CONSTANT[0]:528"
    (kernel,) = sass_code.parse("\n".join(text), resources, lambda symbols: [name] * len(symbols))
    return kernel


def addresses(kernel, loop):
    return [hex(x.address) for x in kernel.instructions(loop)]


def test_instructions_are_read():
    kernel = make_kernel(
        "@!P0 LDG.E.EF.128 R8, desc[UR8][R10.64+0x10]",
        "@UP1 UIADD3 UR4, UR4, 0x1, URZ",
        "EXIT",
        usage="REG:46 STACK:80 SHARED:11264 LOCAL:8",
    )
    load, add, end = kernel.code
    assert (load.address, load.predicate, load.kind, load.width) == (0, "!P0", "LDG", 16)
    assert (add.address, add.predicate, add.opcode) == (16, "UP1", "UIADD3")
    assert (end.predicate, end.operands) == ("", "")
    usage = (kernel.registers, kernel.stack, kernel.shared, kernel.local)
    assert usage == (46, 80, 11264, 8)


@pytest.mark.parametrize(
    "opcode, width",
    [
        ("LDG.E.U16.CONSTANT", 2),
        ("STG.E", 4),
        ("LDG.E.64", 8),
        ("LDG.E.LTC128B.U8", 1),
        ("STG.E.128", 16),
    ],
)
def test_widths(opcode, width):
    assert sass_code.Instruction(0, "", opcode, "R0, [R2.64]").width == width


@pytest.mark.parametrize(
    "opcode, double",
    [
        ("DFMA", True),
        ("DSETP.GT.AND", True),
        ("F2F.F64.F32", True),
        ("MUFU.RCP64H", True),
        ("I2F.F64", True),
        ("FFMA", False),
        ("LDG.E.64", False),
        ("I2F.U64.RP", False),
        ("DEPBAR", False),
    ],
)
def test_what_is_float64(opcode, double):
    assert sass_code.Instruction(0, "", opcode, "R0, R2").is_double is double


@pytest.mark.parametrize(
    "demangled, name, arguments",
    [
        (
            "void alwa_d2::(anonymous namespace)::rows_kernel<c10::Half, float, true, false, (int)4>(long, float*)",
            "rows_kernel<Half, float, true, false, 4>",
            ["Half", "float", "true", "false", "4"],
        ),
        ("void f<a::G<float, int> >(a::G<float, int>)", "f<G<float, int> >", ["G<float, int>"]),
        ("alwa_d2::plain(int)", "plain", []),
    ],
)
def test_names(demangled, name, arguments):
    kernel = make_kernel("EXIT", name=demangled)
    assert (kernel.name, kernel.arguments) == (name, arguments)


# Loops

NESTED = [
    "MOV R0, RZ",  # 00
    "MOV R1, RZ",  # 10  outer loop from here
    "MUFU.EX2 R2, R3",  # 20  inner loop from here
    "MUFU.EX2 R4, R5",  # 30
    "@P0 BRA 0x20",  # 40
    "@P1 BRA 0x10",  # 50
    "EXIT",  # 60
    "BRA 0x70",  # 70  padding that nothing leads to
    "NOP",  # 80
]


def test_nested_loops():
    kernel = make_kernel(*NESTED)
    outer, inner = kernel.loops()
    assert addresses(kernel, outer) == ["0x10", "0x20", "0x30", "0x40", "0x50"]
    assert addresses(kernel, inner) == ["0x20", "0x30", "0x40"]
    assert addresses(kernel, kernel.reached)[-1] == "0x60"


def test_a_block_out_of_line_that_jumps_back_is_no_loop():
    kernel = make_kernel("@P0 BRA 0x30", "FADD R0, R0, R1", "EXIT", "FADD R1, R1, R1", "BRA 0x10")
    assert kernel.loops() == []
    assert len(kernel.instructions(kernel.reached)) == 5


def test_a_block_out_of_line_belongs_to_the_loop_that_it_jumps_back_to():
    kernel = make_kernel("@P0 BRA 0x30", "@P1 BRA 0x0", "EXIT", "DADD R2, R2, R4", "BRA 0x10")
    (loop,) = kernel.loops()
    assert addresses(kernel, loop) == ["0x0", "0x10", "0x30", "0x40"]
    assert kernel.instructions(loop).doubles == 1


@pytest.mark.parametrize(
    "branch", ["BRA P1, 0x0", "@!P0 BRA P1, 0x0", "BRA.DIV UR4, 0x0", "@P2 BRA 0x0"]
)
def test_branches_with_a_condition_may_go_on(branch):
    kernel = make_kernel("FADD R0, R0, R1", branch, "EXIT")
    assert len(kernel.loops()) == 1 and len(kernel.reached) == 2


def test_called_functions_are_not_the_kernel():
    kernel = make_kernel("CALL.REL.NOINC 0x20", "EXIT", "DADD R2, R2, R4", "RET.REL.NODEC R20 0x0")
    assert kernel.instructions(kernel.reached).doubles == 0


def test_a_call_that_never_returns_is_a_jump():
    """As nvcc leaves loops for sm_80; without it the outer loop would not be seen."""
    kernel = make_kernel(
        "MOV R0, RZ",
        "MUFU.EX2 R2, R3",  # 10  both loops from here
        "@P0 CALL.REL.NOINC 0x40",
        "BRA 0x10",
        "@P1 CALL.REL.NOINC 0x60",  # 40
        "BRA 0x0",
        "EXIT",  # 60
    )
    outer, inner = kernel.loops()
    assert addresses(kernel, inner) == ["0x10", "0x20", "0x30"] and inner < outer
    assert kernel.code.count("CALL") == 0 and len(kernel.instructions(kernel.reached)) == 7


def test_a_loop_that_is_entered_in_its_middle():
    kernel = make_kernel(
        "@P0 BRA 0x20", "MUFU.EX2 R0, R0", "DADD R2, R2, R4", "@P1 BRA 0x10", "EXIT"
    )
    assert max(kernel.instructions(loop).doubles for loop in kernel.loops()) == 1


# Figures of a loop over logits


def test_loops_over_logits_hold_no_other_but_may_hold_small_ones():
    (loop,) = sass_focal.loops_over_logits(make_kernel(*NESTED))
    assert len(loop.code) == 3
    kernel = make_kernel(
        "MUFU.EX2 R2, R3", "FADD R0, R0, R1", "@P0 BRA 0x10", "@P1 BRA 0x0", "EXIT"
    )
    (loop,) = sass_focal.loops_over_logits(kernel)
    assert len(loop.code) == 4


def test_the_loop_with_most_logits_comes_first():
    tail = ["MUFU.EX2 R2, R3", "@P2 BRA 0x60"]
    kernel = make_kernel(*NESTED[:6], *tail, "EXIT")
    main, remainder = sass_focal.loops_over_logits(kernel)
    assert (main.logits, remainder.logits) == (2, 1)
    assert (main.per_logit, main.special_per_logit) == (1.5, 1)


def test_what_lies_around_the_loop():
    kernel = make_kernel(
        "MOV R0, RZ",
        "@P0 BRA 0x40",
        "MOV R1, RZ",
        "MOV R1, RZ",
        "MOV R1, RZ",  # 40  the loop over anchors
        "MUFU.EX2 R2, R3",  # 50  the loop over logits
        "@P1 BRA 0x50",
        "@P2 BRA 0x90",
        "FADD R0, R0, R1",  # seldom
        "@P3 BRA 0x40",  # 90
        "@P4 BRA 0xe0",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "FADD R0, R0, R1",
        "BRA 0xe0",
        "EXIT",  # e0
    )
    (loop,) = sass_focal.loops_over_logits(kernel)
    assert len(loop.code) == 2
    assert loop.around == (3, 4)
    assert loop.rest == (2 + 5, 4 + 5)
    # 80 classes on 32 lanes: three passes for each of 32 anchors.
    least, most = loop.with_anchor(80, share=32, passes=3)
    assert least == (7 + 32 * (3 + 3 * 2)) / 80 and most == (9 + 32 * (4 + 3 * 2)) / 80


@pytest.mark.parametrize(
    "name, classes, share, passes",
    [
        ("planes", 80, 1, 20 * 4),  # a fourth of the classes at four positions
        ("planes", 3, 1, 4),
        ("rows", 80, 4, 20),  # 8 anchors for 32 threads, five vectors each
        ("rows", 20, 1, 20),
        ("rows", 84, 32 / 7, 20),
        ("rows", 640, 32, 20),
        ("strided", 80, 16, 5),
        ("strided", 3, 1, 3),
    ],
)
def test_what_an_anchor_takes(name, classes, share, passes):
    lines = ("MOV R0, RZ", "MUFU.EX2 R2, R3", "@P1 BRA 0x10", "EXIT")
    (loop,) = sass_focal.loops_over_logits(
        make_kernel(*lines, name=f"focal_{name}_kernel<true, float, float>")
    )
    assert (loop.around, loop.rest, loop.logits) == ((0, 0), (2, 2), 1)
    expected = (2 + share * passes * 2) / classes
    assert sass_focal.per_logit(loop, classes) == pytest.approx((expected, expected))


@pytest.mark.parametrize("classes", [3, 81, 644])
def test_rows_hold_whole_vectors_and_not_too_many(classes):
    (loop,) = sass_focal.loops_over_logits(make_kernel("MUFU.EX2 R2, R3", "EXIT"))
    assert sass_focal.per_logit(loop, classes) is None


def test_the_model_has_the_kernels_numbers():
    text = "".join(path.read_text() for path in (REPO / "csrc" / "cuda").glob("*.cuh"))
    assert f"int kVector = {sass_focal.VECTOR};" in text and "int kSlices = kVector;" in text
    assert sass_focal.SLICES == sass_focal.VECTOR
    assert f"int kRowAhead = {sass_focal.ROW_AHEAD};" in text


def test_unrolled_logits_lie_in_the_loop_over_anchors():
    kernel = make_kernel("MOV R0, RZ", "MUFU.EX2 R2, R3", "MUFU.EX2 R4, R5", "@P1 BRA 0x10", "EXIT")
    assert sass_focal.loops_over_logits(kernel)[0].logits == 2
    kernel = make_kernel("MUFU.EX2 R2, R3", "EXIT")
    (loop,) = sass_focal.loops_over_logits(kernel)
    assert (loop.logits, loop.around, loop.rest) == (1, (0, 0), (0, 0))


def test_bytes_in_flight():
    load, use = "LDG.E.128 R{}, desc[UR4][R2.64]", "FADD R0, R0, R{}"

    def most(*lines):
        return sass_focal.bytes_in_flight(make_kernel(*lines).code)

    assert most(load.format(4), use.format(4), load.format(8), use.format(8)) == 16
    assert most(load.format(4), load.format(8), use.format(5), use.format(11)) == 32
    # Asked for at the end of an iteration, used in the next: both loads are on their way.
    assert most(load.format(4), use.format(8), use.format(4), load.format(8)) == 32
    assert (
        most(load.format(4), "STG.E.128 desc[UR4][R2.64], R4", load.format(8), use.format(9)) == 16
    )


# GPUs


@pytest.mark.parametrize(
    "registers, shared, warps",
    [(32, 0, 64), (33, 0, 48), (46, 11264, 40), (64, 0, 32), (128, 0, 16), (32, 40960, 32)],
)
def test_resident_warps(registers, shared, warps):
    """As NVIDIA's occupancy calculator has them, for blocks of 256 threads."""
    a100 = next(gpu for gpu in sass_model.GPUS if gpu.name == "A100")
    # 164 KB of shared memory are four blocks of 40 + 1 KB.
    assert sass_model.resident_warps(a100, registers, shared) == warps


def test_blocks_are_as_large_as_the_model_says():
    text = "".join(path.read_text() for path in (REPO / "csrc" / "cuda").glob("*.cuh"))
    assert f"int kThreads = {sass_model.BLOCK};" in text


def test_predicted_times():
    gpu = sass_model.GPU("a GPU", "sm_90", 100, 1e9, 1e12, 128, 0)
    moved = sass_model.focal_bytes(anchors=1000, classes=80, element_size=4)
    assert moved == 1000 * (80 * 4 * 2 + 8 + 8)
    seconds, bound = sass_model.predicted_time(gpu, moved, (0, 0, 0), launches=2)
    assert bound == "memory" and seconds == pytest.approx(moved / 1e12 + 2 * sass_model.LAUNCH)
    seconds, bound = sass_model.predicted_time(gpu, 1e9, (128e9, 0, 32e9), launches=0)
    assert bound == "special" and seconds == pytest.approx(20e-3)
