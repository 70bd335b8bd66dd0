#!/usr/bin/env bash
# Every check that needs a GPU, with a table of what passed at the end: builds the kernels for the
# GPU in sight, runs the CUDA tests, the small ones under compute-sanitizer too, and the benchmark.
#
#   tools/gpu_check.sh                      with .venv, or python3 where there is none
#   PYTHON=/opt/torch/bin/python tools/gpu_check.sh
#
# It works offline and installs nothing into PYTHON. What that lacks (Detectron2 and what it needs)
# can lie as wheels in the folder `wheels`, made where there is a network, for PYTHON's version:
#
#   pip wheel --no-deps -w wheels fvcore==... iopath==... yacs==...      (requirements.txt)
#   pip download --no-deps --only-binary=:all: --python-version 3.10 -d wheels \
#       --require-hashes -r requirements-detectron2.txt
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [ -z "$python" ]; then
    python=${VENV:-.venv}/bin/python
    [ -x "$python" ] || python=python3
fi
work=build/gpu-check
site=$PWD/$work/site
report=()
failed=0

if ! gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null); then
    echo "gpu-check: $python has no PyTorch that can use a GPU here; nothing was checked"
    exit 1
fi

# step NAME COMMAND...: runs it and notes how it went and how long it took.
step() {
    local name=$1 start=$SECONDS verdict=passed
    shift
    echo "== $name"
    if ! "$@"; then
        verdict=failed
        failed=1
    fi
    report+=("$(printf '%-28s %-7s %6d s' "$name" "$verdict" $((SECONDS - start)))")
    [ "$verdict" = passed ]
}

finish() {
    printf '\n%s, %s\n' "$gpu" "$("$python" -c 'import torch; print("PyTorch", torch.__version__)')"
    printf '%s\n' "${report[@]}"
    exit "$failed"
}

# Detectron2's wheel is tagged for CPython 3.10, and holds a stray package `tools`.
unpack_wheels() {
    local pip=("$python" -m pip install -q --no-index --no-deps --no-compile --target "$site")
    local other=() detectron2=() wheel
    for wheel in wheels/*.whl; do
        case $wheel in
        *detectron2*-cp310-none-any.whl) detectron2+=("$wheel") ;;
        *) other+=("$wheel") ;;
        esac
    done
    if [ ${#other[@]} -gt 0 ]; then "${pip[@]}" "${other[@]}" || return; fi
    if [ ${#detectron2[@]} -gt 0 ]; then
        "${pip[@]}" --only-binary=:all: --python-version 3.10 "${detectron2[@]}" || return
        rm -rf "$site"/tools "$site"/detectron2/_C.*.so
    fi
}

build() {
    FORCE_CUDA=1 "$python" setup.py build_ext --inplace >$work/build.log 2>&1 ||
        { tail -n 60 $work/build.log; return 1; }
    grep '^alwa_d2: ' $work/build.log
}

# The caching allocator would hide accesses past a tensor's end. Compiled graphs are left out: their
# kernels are not ours, and compiling takes minutes here.
sanitize() {
    local sanitizer
    sanitizer=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin command -v compute-sanitizer) ||
        { echo "compute-sanitizer was not found"; return 1; }
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$1" --error-exitcode 1 \
        --report-api-errors no "$python" -m pytest -q -k "cuda and not compile" -m "not slow" \
        tests/test_box_loss.py tests/test_dense_box_loss.py tests/test_focal_loss.py \
        tests/test_label_anchors.py
}

rm -rf "$work"
mkdir -p "$site"
export PYTHONPATH=$site:$PWD${PYTHONPATH:+:$PYTHONPATH}
if compgen -G 'wheels/*.whl' >/dev/null; then step "wheels" unpack_wheels || finish; fi
step "build" build || finish
step "tests" "$python" -m pytest -k cuda tests
step "memcheck" sanitize memcheck
step "racecheck" sanitize racecheck
bench="$python benchmarks/bench_losses.py --sizes small voc coco"
step "benchmark" $bench
step "benchmark, bfloat16" $bench --only focal --dtype bfloat16
step "training step" "$python" benchmarks/bench_step.py
finish
