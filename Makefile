# Each target does all of its own set-up; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo docs test lint format opencv5 clean system system-test

# The first that runs and is in range: a name can be there and not run (a pyenv shim of a version that isn't chosen).
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(IN_RANGE)' >/dev/null 2>&1 && { echo $$name; break; }; done)
endif
BIN := .venv/bin
JOBS ?= $(shell nproc)
INSTALLED := .venv/installed

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(INSTALLED) ## .venv with the project and the exact versions of constraints.txt (PIP_ARGS: more for pip)

demo: $(INSTALLED) ## prune the built-in net: ana, prune, finetune, export, a table and pictures in demo/
	@$(BIN)/yoloprune demo -o demo --force

docs: $(INSTALLED) ## the docs as a site: docs/_build/index.html
	@$(BIN)/sphinx-build -q -W --keep-going docs docs/_build

# A process for each core, of one thread, is faster than one process of all threads: most networks here are tiny.
test: system-test lint ## lint, then all tests (JOBS: processes; PYTEST_ARGS: more for pytest)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

lint: $(INSTALLED) ## formatter (check only), linter and type checker
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(INSTALLED) ## let ruff format and fix the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

opencv5: .opencv5/bin/python ## OpenCV 5 in .opencv5, a Python of its own: some tests run .onnx files there

clean: ## remove what the other targets made
	rm -rf .venv .opencv5 demo build docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find yoloprune tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

system:
	@PYTHON='$(PYTHON)' tools/setup_system.sh

system-test: system
	@tools/setup_system.sh test

.opencv5/bin/python: | $(INSTALLED)
	@rm -rf .opencv5.new && $(BIN)/python -m venv .opencv5.new
	@.opencv5.new/bin/python -m pip install -q --disable-pip-version-check --no-deps 'opencv-python>=5' numpy
	@rm -rf .opencv5 && mv .opencv5.new .opencv5

# A failed or interrupted set-up leaves no stamp, so the next one starts from nothing.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt | system
	@test ! -d .venv -o -e $@ || rm -rf .venv
	@test -x $(BIN)/python || { echo "making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv; }
	@rm -f $@
	@echo "installing the packages of constraints.txt into .venv (PyTorch is large; this takes minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_ARGS) setuptools
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_ARGS) \
		--no-build-isolation -e '.[docs,test]'
	@touch $@
