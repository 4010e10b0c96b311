# Every target sets up what it needs first (deploy/setup.py; milliseconds when there is nothing to do).
#   KANARY_VENV  the environment's folder (default: .venv)     PYTHON  the Python to make it from

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := $(or $(KANARY_VENV),$(CURDIR)/.venv)
BIN := $(VENV)/bin
# Lines of a recipe see the tools of the environment first; -P keeps the folder we are in out of sys.path.
RUN := PATH="$(BIN):$$PATH" exec
PY := $(RUN) "$(BIN)/python" -P

EXTRAS := pipelines,train,serve,sandbox
DEV = $(EXTRAS),drift,dev
# $(call SETUP,extras)
SETUP = @p="$(BIN)/python"; [ -x "$$p" ] || p=$${PYTHON:-python3}; \
	command -v "$$p" >/dev/null || { echo "setup: no $$p is on PATH: install Python 3.11 or 3.12" >&2; exit 1; }; \
	"$$p" -E -s -m deploy.setup --extras "$(1)"

# What `make submit` trains on; data and schema are paths here or URLs that the pipeline's steps can read.
NAME := breast-cancer
PROJECT := examples/breast_cancer
DATA := $(CURDIR)/build/data/breast_cancer.csv
SCHEMA := $(CURDIR)/build/data/schema.json
GATES := $(PROJECT)/gates.json
ARGS :=

.PHONY: help setup demo test check compile submit up down monitor bench screenshots images soak clean

help:
	@echo "Kanary: a PyTorch model from raw data to production traffic on Kubeflow. Start with: make demo"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## install what the other targets need into .venv (EXTRAS=train,sandbox,... for a choice)
	$(call SETUP,$(EXTRAS))

demo: ## the whole path on real data, here, with no cluster
	$(call SETUP,$(EXTRAS))
	@PYTHONPATH="$(CURDIR)/examples" $(PY) -m demo $(ARGS)

test: ## run the tests (ARGS="-k gate" for a choice)
	$(call SETUP,$(DEV))
	@$(PY) -m pytest -n logical --maxprocesses 8 --dist loadscope --no-loadscope-reorder $(ARGS)

check: ## format, lint, types and import contracts
	$(call SETUP,$(DEV))
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports

compile: ## compile the pipelines to build/pipelines
	$(call SETUP,$(EXTRAS))
	@$(PY) -m pipelines.compile --out build/pipelines $(ARGS)

submit: compile ## start a training run through kfp's own CLI (DATA=, SCHEMA=, GATES=, NAME= for your own)
ifeq ($(origin DATA),file)
	@$(PY) "$(PROJECT)/make_data.py" build/data
endif
	@PATH="$(BIN):$$PATH"; export KFP_ENDPOINT="$${KFP_ENDPOINT:-$$(kanary info --json | \
	  "$(BIN)/python" -I -c 'import json, sys; print(json.load(sys.stdin)["settings"]["kfp_endpoint"]["value"])')}"; \
	exec kfp run create -e "$(NAME)" -f build/pipelines/training.yaml \
	  name="$(NAME)" data_uri="$(DATA)" schema_uri="$(SCHEMA)" gates="$$(cat "$(GATES)")"

up: ## start the sandbox: Kubeflow's APIs on this machine
	$(call SETUP,$(EXTRAS))
	@$(RUN) kanary up $(ARGS)

down: ## stop the sandbox
	$(call SETUP,$(EXTRAS))
	@$(RUN) kanary down $(ARGS)

monitor: ## watch runs, canaries and drift in the terminal
	$(call SETUP,)
	@$(RUN) kanary monitor $(ARGS)

bench: ## measure against peers (ARGS="rollback" for a choice)
	$(call SETUP,$(EXTRAS))
	@set -- $(or $(ARGS),$(patsubst bench/%.py,%,$(shell grep -ls __main__ bench/*.py))); \
	[ $$# -gt 0 ] || echo "there are no benchmarks yet"; \
	for name; do PATH="$(BIN):$$PATH" PYTHONPATH="$(CURDIR)" "$(BIN)/python" -P -m "bench.$$name" || failed=1; done; [ -z "$$failed" ]

screenshots: ## draw the README's pictures anew, from the recording in docs/ (RECORDING=FILE for another)
	$(call SETUP,)
	@PYTHONPATH="$(CURDIR)" $(PY) docs/screenshots.py $(RECORDING)

images: ## build the container images (TARGETS="train serve" for a choice, PUSH=1, OPTIONS for the engine's build)
	@python3 -I deploy/images.py $(TARGETS) $(if $(PUSH),--push) --options '$(OPTIONS)'

soak: ## the long tests
	$(call SETUP,$(DEV))
	@$(PY) -m pytest -m soak --timeout 0 $(ARGS)

clean: ## remove what builds and checks left; .venv and .kanary stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
	@echo "kept: .venv (set-up) and .kanary (the sandbox's runs and models)"
