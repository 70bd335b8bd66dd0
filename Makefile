# The targets below set .venv up first where it is missing or out of date.
#
#   make demo         trains configs/retina_alwa.yaml, evaluates it, and draws what came out
#   make test         the tests; PYTEST_ARGS="-k giou -x" and the like go to pytest; WORKERS=0 runs them in one
#                     process, for a debugger
#   make test-all     those that take long too: half an hour more
#   make lint         checks style, formatting and spelling of the files, and the types in Python
#   make format       puts the formatting right
#   make docs         the site of docs/, in build/docs; make docs-links asks the links that lead out of it
#   make bench        times the losses and a training step against their peers; minutes; BENCH_ARGS="--sizes coco
#                     --kept" and the like go to benchmarks/bench_losses.py
#   make env          only the environment
#   make wheel        a wheel for the PyTorch of .venv, into dist/; for another one with PYTHON=its python,
#                     which must have setuptools<81, wheel and ninja
#   make sdist        the source archive, into dist/
#   make test-install installs in throw-away environments and prints a table; an hour; needs a network;
#                     TEST_INSTALL_ARGS="--only wheel uv" and the like; docs/installing.md
#   make sanitize     the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer, the
#                     CUDA ones on the host; minutes; needs GCC; PYTEST_ARGS as above
#   make gpu-check    every check that needs a GPU; uses PYTHON as it is, installs nothing, needs no
#                     network; GPU_CHECK_ARGS="--only losses --budget 540" and the like; docs/gpu_check.md
#   make gpu-wheels   collects in wheels/ what a machine with only PyTorch lacks for gpu-check
#   make clean        removes what was built, keeps .venv
#
# PYTHON=python3.12 chooses the Python that makes .venv; more in scripts/setup_env.sh and setup.py.

VENV ?= .venv
export VENV

RUN := $(VENV)/bin/python
# A worker for each core, four at most. Each takes whole files, and has one thread.
WORKERS ?= auto
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile
# Written last, so that an interrupted set-up is not taken for a finished one.
PACKAGES := $(VENV)/.packages-ready
EXTENSION := $(VENV)/.extension-ready
LINTERS := $(VENV)/.linters-ready
DOCS := $(VENV)/.docs-ready
# Folders too: their time changes when a file comes or goes.
SOURCES := setup.py pyproject.toml $(shell find csrc -type d -o -name '*.h' -o -name '*.c*')

.PHONY: demo test test-all lint format docs docs-links bench env wheel sdist test-install sanitize
.PHONY: gpu-check gpu-wheels clean
.DELETE_ON_ERROR:

demo: $(EXTENSION)
	$(RUN) -m alwa_d2 demo

test: $(EXTENSION)
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-all: $(EXTENSION)
	$(PYTEST) $(PYTEST_ARGS)

lint: $(LINTERS)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	find csrc -name '*.h' -o -name '*.c*' | xargs $(VENV)/bin/clang-format --dry-run --Werror
	$(VENV)/bin/codespell
	$(RUN) -m mypy

format: $(LINTERS)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	find csrc -name '*.h' -o -name '*.c*' | xargs $(VENV)/bin/clang-format -i

docs: $(EXTENSION) $(DOCS)
	$(RUN) -W ignore -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "wrote build/docs/index.html"

docs-links: $(EXTENSION) $(DOCS)
	$(RUN) -W ignore -m sphinx -q -b linkcheck docs build/docs-links

bench: $(EXTENSION)
	$(RUN) benchmarks/bench_losses.py $(BENCH_ARGS)
	$(RUN) benchmarks/bench_step.py
	$(RUN) benchmarks/bench_weighters.py

env: $(EXTENSION)

# What an earlier build left below build/lib* would get into the wheel.
wheel: $(if $(PYTHON),,$(PACKAGES))
	rm -rf build/lib* build/bdist*
	ALWA_D2_LOCAL_VERSION=1 $(or $(PYTHON),$(RUN)) -m pip wheel -v --no-build-isolation --no-deps -w dist .

sdist: $(PACKAGES)
	$(RUN) setup.py -q sdist

test-install:
	$(if $(wildcard $(RUN)),$(RUN),python3) scripts/test_install.py $(TEST_INSTALL_ARGS)

sanitize: $(PACKAGES)
	PYTHON=$(RUN) scripts/sanitize.sh $(PYTEST_ARGS)
	$(RUN) tests/cuda_on_host/run.py sanitize $(PYTEST_ARGS)

gpu-check:
	python3 scripts/gpu_check.py $(GPU_CHECK_ARGS)

gpu-wheels:
	$(if $(wildcard $(RUN)),$(RUN),python3) scripts/gpu_wheels.py $(GPU_WHEELS_ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	rm -f alwa_d2/_C.*.so alwa_d2/_C.*.json $(EXTENSION)
	find alwa_d2 tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(PACKAGES): requirements.txt requirements-detectron2.txt scripts/setup_env.sh
	scripts/setup_env.sh packages
	touch $@

$(EXTENSION): $(PACKAGES) $(SOURCES)
	scripts/setup_env.sh extension
	touch $@

$(LINTERS): $(PACKAGES) requirements-dev.txt
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(DOCS): $(PACKAGES) requirements-docs.txt
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements-docs.txt
	touch $@
