"""The steps of scripts/gpu_check.py, in its order: the cheapest and most telling first.

The seconds beside each are estimates, most of them of a run on an H200 with 16 cores.
"""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter

from gpu_run import Failed, LeftOut, Step, last_line

NEEDS_GPU = "needs a GPU"  # why tests/conftest.py skips
SIZES = ("small", "voc", "coco")
SMALL_TESTS = ("box_loss", "dense_box_loss", "focal_loss", "label_anchors", "loss_scales")
# Which of the wheels' packages a Python has, and their versions.
HAS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
# Every op has a kernel for CUDA, or one for any device, asked before the first launch.
HAS_KERNELS = """
import torch, alwa_d2.layers
ops = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("alwa_d2::")]
has_kernel = torch._C._dispatch_has_computed_kernel_for_dispatch_key
lacks = [op for op in ops if not has_kernel(op, "CUDA")]
print(f"{len(ops)} ops, without a CUDA kernel: {', '.join(lacks) or 'none'}")
raise SystemExit(bool(lacks) or not ops)
"""
# A compiler may bring libstdc++ only as a static library. A second copy of it in the extension,
# next to PyTorch's, crashes where a number is printed into an error message.
SHARED = "libstdc++.so.6"
LINK_SHARED = f"-Wl,--no-as-needed -l:{SHARED}"
SUFFIX = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"


def unpack_wheels(check):
    """Only what the Python lacks, so that nothing stands in front of its own packages."""
    wheels = {path.name.split("-")[0]: path for path in sorted(check.root.glob("wheels/*.whl"))}
    if not wheels:
        raise LeftOut("no wheels in the folder wheels; `make gpu-wheels` collects them")
    site = check.work / "site"
    shutil.rmtree(site, ignore_errors=True)
    asked = [check.python, "-c", HAS, "detectron2", *wheels]
    has = json.loads(last_line(check.execute(asked)))
    # Detectron2's model zoo imports pkg_resources, which setuptools 82 dropped.
    if int(has.get("setuptools", "0").split(".")[0]) > 80:
        del has["setuptools"]
    if "detectron2" in has:
        has["sal_detectron2"] = has["detectron2"]
    lacking = {name: wheel for name, wheel in wheels.items() if name not in has}
    pip = [check.python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    pip += ["--upgrade", "--disable-pip-version-check", "--target", site]
    detectron2 = lacking.pop("sal_detectron2", None)
    if lacking:
        check.execute(pip + list(lacking.values()))
    if detectron2:
        # Its wheel is tagged for CPython 3.10, for a compiled file that nothing here uses.
        check.execute([*pip, "--only-binary=:all:", "--python-version", "3.10", detectron2])
        shutil.rmtree(site / "tools")  # is in the wheel by mistake
        for path in site.glob("detectron2/_C.*.so"):
            path.unlink()
    return f"{len(lacking) + bool(detectron2)} of {len(wheels)} unpacked, the others are installed"


def build(check):
    command = [check.python, "setup.py", "build_ext", "--inplace"]
    output = check.execute(command, FORCE_CUDA="1")
    library = check.root / f"alwa_d2/_C{last_line(check.execute([check.python, '-c', SUFFIX]))}"
    if SHARED.encode() not in library.read_bytes():  # not among the libraries it needs
        library.unlink()
        flags = f"{check.environ.get('LDFLAGS', '')} {LINK_SHARED}".strip()
        check.execute(command, FORCE_CUDA="1", LDFLAGS=flags)
    archs = re.findall(r"GPU architectures ([^:]+):", output)
    kernels = last_line(check.execute([check.python, "-c", HAS_KERNELS]))
    return f"for {archs[0] if archs else 'unknown architectures'}; {kernels}"


def benchmark(check, script, *arguments, name=None):
    """(last line of a benchmark, what it wrote as JSON, None without a name)."""
    command = [check.python, f"benchmarks/{script}", *arguments]
    path = check.work / "figures" / f"{name}.json"
    line = last_line(check.execute(command + (["--json", path] if name else [])))
    return line, json.loads(path.read_text()) if name else None


def bandwidth(check):
    if check.rehearse:
        benchmark(check, "bench_gpu.py", "--copy", "--device", "cpu")
        return "the script runs on the CPU"
    return benchmark(check, "bench_gpu.py", "--copy", name="bandwidth")[0]


def losses(check):
    if check.rehearse:
        benchmark(check, "bench_gpu.py", "--sizes", "small", "--rounds", "1", "--device", "cpu")
        return "the script runs on the CPU"
    return benchmark(check, "bench_gpu.py", "--sizes", *SIZES, name="losses")[0]


def run_tests(check, files, *arguments, under=()):
    """Counts of a run of pytest on these files; in a rehearsal all must skip for one reason."""
    if not files:
        raise Failed("the test files were not found")
    report = check.work / "tests.xml"
    report.unlink(missing_ok=True)
    pytest = [check.python, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *arguments]
    pytest += ["--continue-on-collection-errors", f"--junitxml={report}", *files]
    check.execute([*under, *pytest])
    counts = Counter()
    for case in ET.parse(report).getroot().iter("testcase"):
        skip = case.find("skipped")
        counts["passed" if skip is None else skip.get("message")] += 1
    passed, skipped = counts.pop("passed", 0), counts.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common(3))
    if check.rehearse and (passed or set(counts) != {NEEDS_GPU}):
        raise Failed(f"expected all to skip with '{NEEDS_GPU}', got {passed} passed, {reasons}")
    if not check.rehearse and (passed == 0 or NEEDS_GPU in counts):
        raise Failed(f"{passed} passed, {skipped} skipped: {reasons}")
    return f"{passed} passed, {skipped} skipped" + (f": {reasons}" if reasons else "")


def test_files(check, *stems):
    """Of these names, wherever they lie below tests/, but for an emulation's."""
    files = [path for stem in stems for path in check.root.glob(f"tests/**/test_{stem}.py")]
    files = [path.relative_to(check.root) for path in files]
    return sorted(path for path in files if "cuda_on_host" not in str(path))


def parity(check):
    """Tests that run on a GPU, but for those of `graphs`.

    Files that name no device are not even imported: they may need packages that are not here.
    """
    others = re.compile(r"test_build|test_cuda\b|test_gpu_check|test_no_host_reads")
    files = [path for path in test_files(check, "*") if not others.search(str(path))]
    word = re.compile(rf"\b(device|DEVICES|{NEEDS_GPU})\b")
    files = [path for path in files if word.search((check.root / path).read_text())]
    return run_tests(check, files, "-m", "gpu and not long")


def graphs(check):
    return run_tests(check, test_files(check, "cuda"))


def sanitize(tool):
    """Compiled graphs are left out: their kernels are not ours, and compiling takes minutes."""

    def run(check):
        files = test_files(check, *SMALL_TESTS)
        choice = ("-k", "not compile", "-m", "gpu and not slow and not long")
        if check.rehearse:
            return run_tests(check, files, *choice)
        home = check.environ.get("CUDA_HOME", "/usr/local/cuda")
        under = ["env", f"PATH={check.environ['PATH']}:{home}/bin", "compute-sanitizer"]
        under += ["--tool", tool, "--error-exitcode", "1", "--report-api-errors", "no"]
        # The caching allocator would hide accesses past a tensor's end.
        under.insert(1, "PYTORCH_NO_CUDA_MEMORY_CACHING=1")
        return run_tests(check, files, *choice, under=under)

    return run


def others_kernels(check):
    """apex's and mmcv's focal kernels, from folders that a user brings; see gpu_peers.py."""
    if not any(check.environ.get(name) for name in ("APEX_SOURCE", "MMCV_SOURCE")):
        raise LeftOut("set APEX_SOURCE, MMCV_SOURCE or both to folders with their sources")
    return last_line(check.execute([check.python, "scripts/gpu_peers.py", check.work / "peers"]))


def best_to_ours(rows):
    """Over the forms the least ratio of the best peer's GPU time to that of alwa_d2."""
    times = {}
    for row in rows:
        if row["gpu_ms"]:
            times.setdefault(row["form"], {})[row["peer"]] = row["gpu_ms"]
    ratios = []
    for of_form in times.values():  # there may be rows of ours besides the plain call
        best = min(ms for name, ms in of_form.items() if not name.startswith("alwa_d2"))
        ratios.append(best / of_form["alwa_d2"])
    return min(ratios)


def peers(check):
    if check.rehearse:
        rehearsal = ("--sizes", "small", "--rounds", "1", "--no-compile")
        benchmark(check, "bench_losses.py", *rehearsal)
        return "the script runs on the CPU"
    line = "focal, GPU time of the best peer / ours:"
    try:
        for size in SIZES[::-1]:
            for dtype in ("float32", "bfloat16"):
                choice = ("--sizes", size, "--forms", "flat", "nchw", "--only", "focal")
                choice += ("--dtype", dtype)
                name = f"peers-{size}-{dtype}"
                _, figures = benchmark(check, "bench_losses.py", *choice, name=name)
                line += f" {size} {dtype} {best_to_ours(figures['rows']):.2f}"
    except Failed as failure:  # compiling the peers takes long; what is there, is told
        raise Failed(f"{line}; then {failure}") from None
    return line


def training_step(check):
    if check.rehearse:
        benchmark(check, "bench_step.py", "--sizes", "small", "--rounds", "1")
        return "the script runs on the CPU"
    _, figures = benchmark(check, "bench_step.py", name="step")
    parts = [row for row in figures["rows"] if row["part"] in ("loss side", "whole step")]
    lines = [f"{x['size']} {x['part']} {x['ms']['alwa_d2']:.2f} ms" for x in parts]
    return "alwa_d2: " + ", ".join(lines)


WHEELS, BUILT = ("wheels",), ("build",)
STEPS = (
    Step("wheels", "what this Python lacks", 5, unpack_wheels, "build.log"),
    Step("build", "the extension, for the GPU in sight", 90, build, "build.log", (), WHEELS),
    Step("bandwidth", "PyTorch's copy of 256 MB", 15, bandwidth, "losses.log", (), WHEELS),
    Step("tests", "values and gradients on the GPU", 70, parity, "tests.log", BUILT),
    Step("graphs", "no waiting for the GPU, graph replay", 15, graphs, "tests.log", BUILT),
    Step("losses", "GPU time beside a copy", 20, losses, "losses.log", BUILT),
    Step("memcheck", "accesses out of bounds", 200, sanitize("memcheck"), "sanitizer.log", BUILT),
    Step("racecheck", "races in shared memory", 200, sanitize("racecheck"), "sanitizer.log", BUILT),
    Step("others", "apex's and mmcv's focal kernels", 60, others_kernels, "peers.log", (), WHEELS),
    Step("peers", "focal loss beside its peers", 150, peers, "peers.log", BUILT, ("others",)),
    Step("step", "a training step by part", 30, training_step, "peers.log", BUILT),
)
