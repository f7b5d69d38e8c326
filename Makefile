# Every target sets up what it needs: a virtual environment in .venv, from nothing but Python 3.11 or newer.
PYTHON ?= python3
# On Linux pip's own choice of torch carries CUDA; where another build is wanted, name it: make setup TORCH=...
TORCH ?= torch==2.13.0
# How many processes `make test` spreads its tests over; each takes a core and about a gigabyte.
JOBS ?= 2
# A folder with real rows for `make bench`, in the hub's schema; procedural rows where there is none.
DATA ?= $(wildcard ../shared/data)
# The versions that `make setup` installs: those of this file, or with LOCK= the newest that pyproject.toml admits.
LOCK ?= constraints.txt
EXTRAS := reft,wandb,smollm2,optimizers,judge
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup lock demo real bench bench-gpu test test-latest test-slow test-mutants test-gpu test-network test-slurm check golden list clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## install the project and its tools into .venv

$(VENV)/.installed: pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "actshift needs Python 3.11 or newer, $(PYTHON) is older: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv "$(TORCH)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(if $(LOCK),--constraint $(LOCK)) \
		--editable '.[$(EXTRAS)]' --group dev
	@touch $@

lock: setup ## write constraints.txt anew: the versions that are installed now
	{ echo "# The versions that the tests passed with, written by \`make lock\`; \`make setup\` installs exactly these."; \
	  echo "# torch and what a platform adds to it are left to TORCH (see the Makefile)."; \
	  $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | grep -Ev '^(torch|triton|nvidia|cuda|uv|pip|setuptools)[-=@ ]|@ file' ; } > constraints.txt

test-latest: ## the tests with the newest versions that the requirements admit, in .venv-latest
	$(MAKE) test VENV=.venv-latest LOCK=

demo: setup ## Table 1 at small scale: plan, grid, selection, seeds, tables (minutes on two cores, offline)
	$(BIN)/actshift sweep demo

real: setup ## SST-2 with a real model of 135M parameters: four methods, three rates, three seeds (about an hour)
	$(BIN)/actshift sweep real $(if $(DATA),data.dir=$(DATA))

bench: setup ## times beside the released code, peft and pyreft (a quarter of an hour); see make bench ARGS=--help
	PYTHONPATH=scripts $(BIN)/python -m bench $(if $(DATA),--data $(DATA)) $(ARGS)

bench-gpu: setup ## the figures of one GPU, unattended, in eight minutes; see make bench-gpu ARGS=--help
	PYTHONPATH=scripts $(BIN)/python -m bench.unattended $(if $(DATA),--data $(DATA)) $(ARGS)

test: setup ## the tests that need no GPU, no network and no patience
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not network and not slurm"

test-slow: setup ## the long tests
	$(BIN)/python -m pytest -m slow

test-mutants: setup ## faults put into the code one at a time, which the tests must notice (a quarter of an hour)
	$(BIN)/python scripts/mutants.py $(ARGS)

test-gpu: setup ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

test-network: setup ## the tests that need the model hub
	$(BIN)/python -m pytest -m network

test-slurm: setup ## the tests on a SLURM node, where one answers
	$(BIN)/python -m pytest -m slurm

check: setup ## lint, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

golden: setup ## write the golden files anew; look at the diff before committing it
	-$(BIN)/python -m pytest tests/golden --force-regen --quiet
	git diff --stat -- tests/golden

list: setup ## what exists: models, methods, data sets, protocols, sweeps
	$(BIN)/actshift list

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
