#!/usr/bin/env bash
# Sets .venv up for `make`: the pinned packages, Detectron2, and alwa_d2 itself.
#
#   scripts/setup_env.sh packages     the environment, from requirements*.txt
#   scripts/setup_env.sh extension    alwa_d2, editable, with its extension built
#
# PYTHON=python3.12     makes the environment with another Python than python3
# VENV=folder           makes it elsewhere than in .venv
# SYSTEM_TORCH=1        uses the PyTorch and torchvision that PYTHON already has
#
# setup.py's switches (FORCE_CUDA, ALWA_D2_CPU_ONLY, TORCH_CUDA_ARCH_LIST, ...) work here too. An
# environment that this script made and could not finish is made anew; one of your own is completed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=$venv/bin/python
made_here=$venv/.made-by-setup_env
unfinished=$venv/.unfinished
site_packages='import sysconfig; print(sysconfig.get_path("purelib"))'
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "setup: $*"; }

fail() {
    echo "setup: $*" >&2
    exit 1
}

# Not --system-site-packages: PYTHON may be that of an environment, which this would look past.
share_torch() {
    local folder
    folder=$("$1" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])') ||
        fail "SYSTEM_TORCH=1, but $1 has no PyTorch"
    echo "$folder" >"$("$python" -c "$site_packages")/shared-torch.pth"
    say "using the PyTorch in $folder"
}

make_venv() {
    local base=${PYTHON:-python3}
    command -v "$base" >/dev/null || fail "no $base; set PYTHON to a Python 3.10 to 3.13"
    "$base" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
        fail "needs Python 3.10 to 3.13, $base is $("$base" --version); set PYTHON to another"
    if [ -e "$unfinished" ]; then
        say "$venv was left half-made, starting anew"
        rm -rf "$venv"
    fi
    if ! "$python" -c '' 2>/dev/null; then
        say "making $venv with $("$base" --version)"
        "$base" -m venv "$venv"
        touch "$made_here"
    fi
    if [ -e "$made_here" ]; then touch "$unfinished"; fi
    if [ -n "${SYSTEM_TORCH:-}" ]; then share_torch "$base"; fi
}

install_packages() {
    say "installing the packages of requirements.txt (several GB with PyTorch's CUDA libraries)"
    local list=$venv/requirements.txt
    if [ -n "${SYSTEM_TORCH:-}" ]; then
        grep -vE '^torch(vision)?==' requirements.txt >"$list"
    else
        cp requirements.txt "$list"
    fi
    "$python" -m pip install -q -r "$list"
}

# The wheel's tag names CPython 3.10 because of one compiled file, built for an old PyTorch, that
# nothing here uses. The wheel goes to a folder of its own first, and only Detectron2 from there to
# site-packages: neither that file, nor the package `tools` that the wheel holds by mistake.
install_detectron2() {
    if "$python" -W ignore -c 'import detectron2' 2>/dev/null; then
        say "Detectron2 is there: $("$python" -W ignore -c 'import detectron2; print(detectron2.__file__)')"
        return
    fi
    say "installing the Detectron2 of requirements-detectron2.txt"
    local unpacked=$venv/detectron2-wheel
    rm -rf "$unpacked"
    "$python" -m pip install -q --require-hashes --no-deps --only-binary=:all: \
        --python-version 3.10 --target "$unpacked" -r requirements-detectron2.txt
    rm -rf "$unpacked"/tools "$unpacked"/detectron2/_C.*.so
    sed -i -e '/^tools\//d' -e '/^detectron2\/_C\./d' "$unpacked"/*.dist-info/RECORD
    mv "$unpacked"/detectron2 "$unpacked"/*.dist-info "$("$python" -c "$site_packages")"
    rm -rf "$unpacked"
    "$python" -W ignore -c 'import detectron2.engine, detectron2.model_zoo' ||
        fail "Detectron2 was installed, but can't be imported"
}

build_extension() {
    local log=build/install.log
    mkdir -p build
    # Without a GPU the CUDA kernels can only be compiled, so one architecture will do. Its PTX
    # runs on newer GPUs as well.
    if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ] &&
        ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        export TORCH_CUDA_ARCH_LIST=8.0+PTX
    fi
    say "building alwa_d2 (log: $log)"
    if ! "$python" -m pip install -v --no-build-isolation --no-deps -e . >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        fail "alwa_d2 could not be built, see $log"
    fi
    sed -n 's/^ *\(alwa_d2: \)/\1/p' "$log" | awk '!seen[$0]++'
}

case ${1:-} in
packages)
    make_venv
    install_packages
    install_detectron2
    rm -f "$unfinished"
    ;;
extension) build_extension ;;
*) fail "needs one argument, packages or extension, got '${*}'" ;;
esac
