"""The CUDA kernels' machine code is held to its numbers: speed, seen by no clock and no GPU.

Limits hold for nvcc 13.0 and gamma = 2; other compilers' figures are printed (pytest -rP). Kernels
in float64 are for checking gradients and may use float64, and call functions.
`python scripts/sass.py` prints the tables.
"""

import sys

import pytest
from conftest import REPO

sys.path.insert(0, str(REPO / "scripts"))
import sass_build
import sass_focal
import sass_model

NVCC = "13.0"
# Instructions a logit, for K = 80: the loop, and its share of labels, sums and addresses.
LIMIT = 38
SPECIAL = 3
WARPS = 32
OTHERS = ("dense_box_loss", "box_loss", "label_anchors")
# The first architecture is compiled where the built library lacks it; the others take minutes.
ARCHS = [pytest.param("sm_90"), pytest.param("sm_80", marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def nvcc_version():
    """Skips without the tools."""
    try:
        sass_build.find_cuobjdump()
        sass_build.demangle(["f"])
        return sass_build.find_nvcc()[1]
    except sass_build.Missing as lack:
        pytest.skip(str(lack))


@pytest.fixture
def check(nvcc_version):
    """check([what is wrong]): an assertion for NVCC, lines for other compilers."""

    def check(wrong):
        wrong = "\n".join(wrong)
        assert nvcc_version != NVCC or not wrong, wrong
        print(f"nvcc {nvcc_version}: {wrong or 'within the limits'}")

    return check


@pytest.fixture(params=ARCHS)
def arch(request):
    return request.param


@pytest.fixture
def focal_kernels(nvcc_version, arch):
    """Those of the focal loss, for gamma = 2."""
    kernels = sass_build.project_kernels(arch, "focal_loss")
    kernels = [kernel for kernel in kernels if sass_focal.is_focal(kernel)]
    return [kernel for kernel in kernels if sass_focal.gamma_is_two(kernel)]


# What is wrong with kernels: nothing, if all is well. Each takes a list of kernels, and yields text.


def main_loops(kernels):
    """(kernel, loop) of planes and rows, without float64."""
    for kernel in kernels:
        if sass_focal.element_size(kernel) < 8 and sass_focal.layout(kernel) != "strided":
            yield kernel, sass_focal.loops_over_logits(kernel)[0]


def too_many_instructions(kernels):
    for kernel, loop in main_loops(kernels):
        for classes in (80, 20, 3, 1):
            ranges = sass_focal.per_logit(loop, classes)
            text = f"{ranges[0]:.1f} to {ranges[1]:.1f}" if ranges else "by another kernel"
            print(f"{kernel.name}, K = {classes}: loop {loop.per_logit:.1f}, all {text}")
        least, _ = sass_focal.per_logit(loop, 80)
        if least > LIMIT:
            yield f"{kernel.name}: {least:.1f} instructions a logit, limit {LIMIT}"
        if loop.special_per_logit > SPECIAL:
            yield f"{kernel.name}: {loop.special_per_logit:.1f} MUFU a logit, limit {SPECIAL}"


def narrow_access(kernels):
    """In the main loop: its scalar twin is for planes that are not aligned."""
    for kernel, loop in main_loops(kernels):
        vector = sass_focal.VECTOR * sass_focal.element_size(kernel)
        for kind in ("LDG", "STG"):
            if set(loop.code.widths(kind)) != {vector}:
                yield f"{kernel.name}: {kind} of {loop.code.widths(kind)} (bytes: how many)"


def slow_instructions(kernels):
    for kernel in kernels:
        for loop in sass_focal.loops_over_logits(kernel):
            doubles, calls = loop.code.doubles, loop.code.count("CALL")
            if sass_focal.element_size(kernel) < 8 and doubles + calls > 0:
                yield f"{kernel.name}: {doubles} float64 instructions and {calls} calls over logits"


def idle_memory(kernels, arch):
    for gpu in (gpu for gpu in sass_model.GPUS if gpu.arch == arch):
        for kernel, loop in main_loops(kernels):
            warps = sass_model.resident_warps(gpu, kernel.registers, kernel.shared)
            flying = warps * sass_model.LANES * sass_focal.bytes_in_flight(loop.code)
            text = f"{kernel.name} on {gpu.name}: {warps} warps, {flying} bytes in flight"
            print(text)
            if warps < WARPS and flying < gpu.bytes_in_flight:
                yield f"{text}, of {gpu.bytes_in_flight:.0f} that keep memory busy"


def spills(kernels):
    """Stack, and loads and stores of local memory."""
    for kernel in kernels:
        moves = kernel.code.count("LDL", "STL")
        print(f"{kernel.name}: {kernel.registers} registers, {kernel.shared} bytes shared")
        if kernel.stack or kernel.local or moves:
            yield f"{kernel.name}: {kernel.stack} bytes of stack, {moves} local loads and stores"


# The focal loss


def test_all_layouts_are_there(focal_kernels):
    found = {(sass_focal.layout(k), sass_focal.element_size(k)) for k in focal_kernels}
    layouts = ("planes", "rows", "strided")
    assert found == {(name, size) for name in layouts for size in (8, 4, 2)}


def test_every_gradient_stored_has_its_exponential(focal_kernels):
    """Logits are counted by their exponentials; what is stored is counted apart."""
    for kernel, loop in main_loops(focal_kernels):
        stored = sum(n * width for width, n in loop.code.widths("STG").items())
        assert loop.logits == stored / sass_focal.element_size(kernel), kernel.name


def test_instructions_a_logit(focal_kernels, check):
    check(too_many_instructions(focal_kernels))


def test_whole_vectors_are_loaded_and_stored(focal_kernels, check):
    check(narrow_access(focal_kernels))


def test_no_float64_and_no_call_over_logits(focal_kernels, check):
    check(slow_instructions(focal_kernels))


def test_enough_is_on_its_way_from_memory(focal_kernels, check, arch):
    check(idle_memory(focal_kernels, arch))


def test_focal_kernels_keep_all_in_registers(focal_kernels, check):
    check(spills(focal_kernels))


# The others


@pytest.mark.long
@pytest.mark.parametrize("arch", sass_build.ARCHS)
def test_kernels_keep_all_in_registers(nvcc_version, check, arch):
    kernels = sass_build.project_kernels(arch, *OTHERS)
    assert kernels
    check(spills(kernels))


# Planted faults

FAULTS = """
// As little as the rules look at: not a focal loss.
template <bool gamma_is_two, typename T, typename scalar_t>
__global__ void focal_rows_kernel(const float4* x, float4* dx, T* sums, int n) {
  T sum = 0;
  for (int i = 0; i < n; ++i) {
    const float4 v = x[i * 256 + threadIdx.x];
    const float4 e = {exp2f(v.x), exp2f(v.y), exp2f(v.z), exp2f(v.w)};
    sum += e.x + e.y + e.z + e.w;
#ifdef SLOW
#pragma unroll
    for (int j = 0; j < 200; ++j) sum = sum * sum + T(1);
#endif
#ifdef NARROW
    dx[i * 256 + threadIdx.x].x = e.x;
#else
    dx[i * 256 + threadIdx.x] = e;
#endif
  }
  sums[threadIdx.x] = sum;
}
template __global__ void focal_rows_kernel<true, SUM, float>(const float4*, float4*, SUM*, int);

__global__ void many_registers(const float* x, float* y) {
  float values[48];
#pragma unroll
  for (int i = 0; i < 48; ++i) values[i] = x[i * 256 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 48; ++i) y[i * 256 + threadIdx.x] = values[i] * values[47 - i];
}
"""


@pytest.fixture
def compiled(nvcc_version, tmp_path):
    """compiled(flags) gives the kernels of FAULTS; they take a second."""

    def compiled(*flags):
        source = tmp_path / "faults.cu"
        source.write_text(FAULTS)
        flags = (*flags, *(("-DSUM=float",) if "-DSUM=double" not in flags else ()))
        kernels = sass_build.kernels(sass_build.compile_cubin(source, "sm_90", flags))
        return [k for k in kernels if sass_focal.is_focal(k)], kernels

    return compiled


def test_a_kernel_without_fault_passes(compiled):
    focal, kernels = compiled()
    assert len(focal) == 1 and len(kernels) == 2
    for rule in (too_many_instructions, narrow_access, slow_instructions):
        assert not list(rule(focal)), rule
    assert not list(idle_memory(focal, "sm_90")) and not list(spills(kernels))


@pytest.mark.parametrize(
    "flag, rule",
    [
        ("-DSUM=double", slow_instructions),
        ("-DNARROW", narrow_access),
        ("-DSLOW", too_many_instructions),
    ],
)
def test_a_fault_in_the_loop_is_seen(compiled, flag, rule):
    found = list(rule(compiled(flag)[0]))
    assert found and all(text.startswith("focal_rows_kernel<true, ") for text in found)


def test_a_spill_is_seen(compiled):
    (text,) = spills(compiled("-maxrregcount=24")[1])
    assert text.startswith("many_registers: ")


def test_few_warps_that_wait_for_little_are_seen(compiled):
    (kernel,), _ = compiled()
    kernel.registers = 255
    assert [text for text in idle_memory([kernel], "sm_90") if "8 warps" in text]
