# Every target sets up what it needs in .venv; a machine with Python 3.11 and make is enough.
#   make simulate ARGS="data=physionet2012 rounds=3 out=runs/first"
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install simulate experiments test test-deployment check bench mutants fuzz chaos bundle release matrix docs clean
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach p,python3.11 python3 python,$(shell $(p) -c \
  'import sys; sys.version_info[:2] == (3, 11) and print("$(p)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
ARGS ?=
# Runs a command where there is a loopback device and no other, if the system permits it.
ALONE := $(BIN)/python -m tests.end_to_end.alone
# Compiled while installing, where there is a C++ compiler.
KERNEL := hatch_build.py $(wildcard healthfm_core/kernels/ct_attention/cpu/*.cpp healthfm_core/kernels/ct_attention/cpu/*.h)

# No process of ours phones home, and nothing is installed while a run goes on.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
# What Python compiles is kept, whatever the environment says: else each of the suite's processes compiles PyTorch's
# sources anew, ten seconds.
export PYTHONDONTWRITEBYTECODE :=

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/installed-dev ## everything: the four packages, Ray, the tools of make test and make check

simulate: $(VENV)/installed-run ## a simulated federation and its report; ARGS="key=value ..." changes it
	@$(BIN)/healthfm-simulate $(ARGS)

experiments: $(VENV)/installed-run ## the cheap ones of simulations/experiments, tables written anew
	@$(BIN)/healthfm-experiment --cheap $(ARGS)

test: $(VENV)/installed-dev ## all tests, two processes; ARGS="tests/data -k store" narrows them
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 $(ARGS)

test-deployment: $(VENV)/installed-dev $(VENV)/mlflow-server/bin/mlflow ## the tutorial of a deployment with real processes, minutes; not part of `make test`
	OMP_NUM_THREADS=1 $(ALONE) $(BIN)/pytest -m deployment $(ARGS)

check: $(VENV)/installed-dev ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev ## the measured promises, one file of benchmarks/ each
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

mutants: $(VENV)/installed-dev ## changes of a module that no test notices; ARGS="healthfm_core/models tests/models" says which
	$(BIN)/python -m tests.mutants $(or $(ARGS),healthfm_core/training/curriculum.py tests/training/test_curriculum.py)

fuzz: $(VENV)/installed-dev ## changed messages to real apps, many; ARGS="--messages 100000 --seed 0"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.message_fuzz $(ARGS)

bundle: $(VENV)/installed-dev ## one file that installs it without a network; ARGS="--key ~/.ssh/KEY --extras database,labels"
	$(BIN)/python -m distribution.bundle $(ARGS)

release: $(VENV)/installed-dev ## what a signed tag is published as; ARGS="--key ~/.ssh/KEY"; docs/releasing.md
	$(BIN)/python -m distribution.release $(ARGS)

docs: $(VENV)/installed-dev ## the documentation site, in build/docs: no warning, no broken link, search without a network
	$(BIN)/sphinx-build -c docs -b html -q -W --keep-going . build/docs
	@echo "open build/docs/index.html"

matrix: $(VENV)/installed-dev ## the wheel in an empty environment of each Python that is here; ARGS="3.12 3.13"
	OMP_NUM_THREADS=1 $(BIN)/python -m distribution.matrix $(ARGS)

chaos: $(VENV)/installed-dev ## faults injected into a real study, docs/reliability.md written anew
	$(ALONE) $(BIN)/python -m tests.end_to_end.chaos $(ARGS)

clean: ## remove the virtual environment and every cache; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f healthfm_core/kernels/ct_attention/cpu/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "HealthFM needs Python 3.11; install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing or incomplete; install it (Debian: python3.11-venv)"; exit 1; }

$(VENV)/installed-run: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	@echo "Installing the runtime packages into $(VENV), a minute or two ..."
	@$(PIP) install --no-compile -c constraints.txt -e .
	@touch $@

# MLflow's server, for its test: the whole package wants another pyarrow than this project.
$(VENV)/mlflow-server/bin/mlflow: | $(VENV)/bin/python
	@$(VENV)/bin/python -m venv $(VENV)/mlflow-server
	@$(VENV)/mlflow-server/bin/python -m pip --disable-pip-version-check -q -q install mlflow==3.17.2

# What makes a bill of materials, in a place of its own: its check of addresses (rfc3987-syntax) costs every
# process that imports meds a second.
$(VENV)/cyclonedx/bin/cyclonedx-py: constraints.txt | $(VENV)/bin/python
	@$(VENV)/bin/python -m venv $(VENV)/cyclonedx
	@$(VENV)/cyclonedx/bin/python -m pip --disable-pip-version-check -q -q install --no-compile -c constraints.txt cyclonedx-bom
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt $(KERNEL) $(VENV)/cyclonedx/bin/cyclonedx-py | $(VENV)/bin/python
	@echo "Installing the runtime packages, Ray and the development tools into $(VENV), a minute or two ..."
	@$(PIP) install --no-compile -c constraints.txt -e '.[ray,labels,tune,database,sign-in,tracking-mlflow,tracking-tensorboard,tracking-wandb,docs,dev]'
	@touch $(VENV)/installed-run $@
