# Everything runs in .venv, which is made when missing; `make help` lists the commands.

PYTHON  ?= python3
WORKERS ?= 2
RUN     ?= runs/quick
MUTANTS ?= 10000
RUNS    ?= 100000
SOAK    ?= build/soak
ORTOOLS ?= 9.12 9.14 9.15

BENCH := scripts/benchmark.py

VENV      := .venv
BIN       := $(VENV)/bin
PIP       := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt
INSTALLED := $(VENV)/.installed
TOOLS     := $(VENV)/.tools

# One thread a process: sweeps and tests run one process a core.
export OMP_NUM_THREADS := 1
export WANDB_MODE := offline

.DEFAULT_GOAL := help
.PHONY: help demo doctor compare report readme bench train-demo fuzz fuzz-runs kills soak ortools docs test browser lint format compiled clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## one problem under three policies: table and picture
	$(BIN)/fate-gym demo

doctor: $(INSTALLED)  ## check the installation
	$(BIN)/fate-gym doctor

compare: $(INSTALLED)  ## compare the policies on suite quick and write the report
	$(BIN)/fate-gym evaluate experiment=main suite=quick name=quick
	$(BIN)/fate-gym report runs/quick

report: $(INSTALLED)  ## write the report of finished runs (RUN=runs/NAME)
	$(BIN)/fate-gym report $(RUN)

readme: $(TOOLS)  ## put finished runs and pictures into README.md and docs
	$(BIN)/python scripts/update_docs.py
	$(BIN)/python scripts/tutorial_notebook.py
	$(BIN)/fate-gym render policy=fate --problem 1 -o docs/images/episode.gif

bench: $(TOOLS)  ## measure the speed of simulator and planners
	$(BIN)/python $(BENCH)

train-demo: $(TOOLS)  ## train a small agent and compare it with planners
	$(BIN)/fate-gym train agent=bc_ppo curriculum=demo agent.learning.steps=262144 \
	  validation.every=32768 name=demo test=true

fuzz-runs: $(TOOLS)  ## damage a run directory in 2,500 ways
	$(BIN)/python -m tests.fuzz.run_directories 0 2500

kills: $(TOOLS)  ## kill sweeps, reports and trainings 100 times each
	$(BIN)/python -m tests.fuzz.kills 100

soak: export NUMBA_BOUNDSCHECK = 1  # an index beyond an array is an error, not another number
soak: $(TOOLS)  ## random problems under every policy (RUNS=100000; goes on from SOAK=build/soak)
	$(BIN)/python -m fate_gym.jit fate_gym policies
	$(BIN)/python -m tests.fuzz.soak $(SOAK) --runs $(RUNS)

ortools: $(TOOLS) compiled  ## the planners' recorded schedules with other OR-Tools (ORTOOLS="9.12 9.15")
	$(BIN)/python -m tests.golden.ortools $(ORTOOLS)

docs: $(TOOLS)  ## build the documentation site into build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: lint compiled browser  ## everything that CI checks
	$(BIN)/pytest -q -n $(WORKERS)

# Importers have mutants of their own beside their tests.
fuzz: $(TOOLS) compiled  ## read damaged input of every kind, an hour of it (MUTANTS=10000 a test)
	HYPOTHESIS_PROFILE=fuzz FUZZ_MUTANTS=$(MUTANTS) $(BIN)/pytest -q -n $(WORKERS) \
	  tests/fuzz tests/workloads/formats -k 'mutants or mutated or damaged or truncated or moved or swapped'

# Tests of the HTML report skip without a browser; CI runs as root and gets one.
browser:
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

lint: $(TOOLS)  ## formatting, style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TOOLS)  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compiled: $(TOOLS)  ## compile every kernel that has changed, ahead of its first use
	$(BIN)/python -m fate_gym.jit fate_gym policies

clean:  ## remove caches and builds; .venv and runs/ stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find conf fate_gym policies scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

# What a comparison needs.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

# What the project's own checks, benchmarks, documentation and trainings need on top.
$(TOOLS): $(INSTALLED)
	$(PIP) -e '.[bench,dev,docs,ray,rl,slurm,traces,tune,wandb]'
	@touch $@
