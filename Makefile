# The habits of this project. `make demo` and `make test` set up what they need.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# With bytecode switched off every Dagster process compiles its sources again: 2.5 times slower.
unexport PYTHONDONTWRITEBYTECODE
export PERSONA_HOME ?= $(CURDIR)/.persona
export OMP_WAIT_POLICY := PASSIVE
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
# Of the benchmarks: what others import, what learns weights, or what asks for a home with a corpus in it.
NOT_ALONE := corpus_peers.py real_data.py tagger.py voices.py voices_speed.py

.PHONY: docs help setup demo demo-all ui chat test test-unsloth soak bench lint lock clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" scripts/setup.sh

setup: $(READY) ## virtual environment, packages and a Chromium

demo: $(READY) ## the main job, offline: scrape, clean, mix, train, evaluate
	@$(BIN)/persona demo

demo-all: $(READY) ## all three recipes, Version 1.0 beside 2.0
	@$(BIN)/persona demo persona_v2 persona_v1 capybara_qlora

ui: $(READY) ## Dagster's UI and daemon, on http://127.0.0.1:3000
	@$(BIN)/persona ui --port $${PORT:-3000}

chat: $(READY) ## talk to the newest adapter, on http://127.0.0.1:7860
	@$(BIN)/persona chat

test: $(READY) ## the test suite
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unsloth: $(READY) ## the Unsloth path on the CPU, in an environment of its own
	@scripts/make_unsloth_env.sh && PERSONA_SOAK=1 $(BIN)/python -m pytest persona_dagster_tests/training/test_unsloth.py

soak: $(READY) ## the full counts (hours)
	@PERSONA_SOAK=1 $(BIN)/python -m pytest -m soak

bench: demo ## the speed claims, as ratios against named peers; the chat answers with the adapter of the demo
	@failed=
	for script in $(filter-out $(addprefix benchmarks/,$(NOT_ALONE)), $(wildcard benchmarks/*.py)); do
		echo "== $$script"
		$(BIN)/python "$$script" || failed+=" $$script"
	done
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

lint: $(READY) ## ruff, types, definitions
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/dagster definitions validate -w workspace.yaml

docs: $(READY) ## the documentation as a site, in site/
	@$(BIN)/python scripts/reference.py
	[ -x .docsenv/bin/mkdocs ] || { $(PYTHON) -m venv .docsenv; .docsenv/bin/pip install -q mkdocs-material==9.8.2 mkdocs-static-i18n==1.3.1; }
	NO_MKDOCS_2_WARNING=1 .docsenv/bin/mkdocs build --strict

lock: ## write constraints.txt from .venv, and locks/ with hashes
	@{ grep "^#" constraints.txt; $(BIN)/python scripts/lock.py; } > .constraints.new && mv .constraints.new constraints.txt
	@$(BIN)/python scripts/lock_hashes.py

clean: ## remove what the demo made; the environment stays
	@rm -rf "$(PERSONA_HOME)"
