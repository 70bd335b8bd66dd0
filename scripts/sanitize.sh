#!/usr/bin/env bash
# Builds the CPU kernels with AddressSanitizer and UndefinedBehaviorSanitizer, and runs their tests.
# The first report of either ends the run with an error. The ordinary build stays as it is.
#
# All versions of the loops that cpu/vectorize.h makes have the checks; as always, the ones that run
# are those for the processor at hand.
#
#   scripts/sanitize.sh -k giou -x            with .venv, or python3 where there is none; what follows
#                                           goes to pytest
#   PYTHON=/opt/torch/bin/python CXX=g++-13 scripts/sanitize.sh
#
# PYTHON needs what the tests need; nothing is installed into it. CXX has to be a GCC.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [ -z "$python" ]; then
    python=${VENV:-.venv}/bin/python
    [ -x "$python" ] || python=python3
fi
folder=build/sanitize
log=build/sanitize.log

# Those that call the kernels in this process, where they are the ones with the checks. The tests of
# train_net.py, of several processes and of the commands start others, which find the ordinary build;
# those of resuming, mixed precision and bad input train what test_retinanet.py and test_rcnn.py do.
tests=(
    tests/test_benchmarks.py tests/test_box_loss.py tests/test_dense_box_loss.py
    tests/test_fcos.py tests/test_focal_loss.py tests/test_gradient_ahead.py
    tests/test_label_anchors.py tests/test_rcnn.py tests/test_retinanet.py
)

say() { echo "sanitize: $*"; }

fail() {
    echo "sanitize: $*" >&2
    exit 1
}

# Python itself is built without AddressSanitizer, whose library has to be there before all others;
# and the C++ library with it, which it asks for what throws exceptions before PyTorch brings it.
preloaded() {
    local name path paths=()
    for name in libasan.so libstdc++.so.6; do
        path=$("${CXX:-c++}" -print-file-name="$name")
        [ -e "$path" ] || fail "${CXX:-c++} has no $name; set CXX to a GCC that has its sanitizers"
        paths+=("$path")
    done
    (IFS=: && echo "${paths[*]}")
}

build() {
    # Files of the package that are gone, or a library built by hand, would stay.
    rm -rf "$folder"
    mkdir -p build
    ALWA_D2_SANITIZE=1 ALWA_D2_CPU_ONLY=1 FORCE_CUDA=0 "$python" setup.py build --build-lib "$folder" \
        >"$log" 2>&1 || { tail -n 60 "$log" >&2; fail "the kernels could not be built, see $log"; }
    grep '^alwa_d2: ' "$log"
}

# The package comes from the folder just built, not from where the ordinary build lies, and the
# kernels that the tests will call are those with the checks.
run_tests='
import sys
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
sys.path[0] = str(folder)
import pytest
import torch

import alwa_d2._C

loaded = Path(alwa_d2._C.__file__).resolve()
if folder not in loaded.parents:
    sys.exit(f"sanitize: Python loads {loaded}, not what was built in {folder}")
if not all(name in loaded.read_bytes() for name in (b"__asan_report", b"__ubsan_handle")):
    sys.exit(f"sanitize: {loaded} was built without the sanitizers")
sys.exit(pytest.main(sys.argv[2:]))
'

paths=$(preloaded)
say "building the kernels (log: $log)"
build
# No search for leaks: CPython and PyTorch leave memory to the end of the process on purpose.
# SIGABRT makes pytest say which test it was. Its own capture of output would swallow the report,
# and for a GPU, where there is one, there are no kernels here.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1
log=build/sanitize-tests.log
CUDA_VISIBLE_DEVICES='' LD_PRELOAD=$paths "$python" -c "$run_tests" "$folder" \
    -q --capture=sys -k "not cuda" "$@" "${tests[@]}" 2>&1 | tee "$log"
say "no report in what ran: $(tail -n 1 "$log")"
