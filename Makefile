# `make` alone lists what there is to do. Every target first brings .venv up to date by itself; it
# needs Python 3.11 or newer and nothing else.

# The Python that .venv is made with. Another one: make PYTHON=/path/to/python3.13 test
PYTHON ?= python3
# How many test processes run at once; each has a store of its own.
JOBS ?= auto
# What follows is given to pytest: make test ARGS='-k cancel -x'
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/bootstrap.json
# The rooms that exist by now; models/ and chaos/ join as soon as they do.
ROOMS := $(wildcard ddq models chaos tests tools)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Bootstrap looks at the content of its inputs, so a touched file costs a tenth of a second. It is
# asked every time when PYTHON is given, because that is an input which has no file.
ifneq ($(origin PYTHON),file)
$(READY): always
endif
$(READY): pyproject.toml requirements.lock tools/bootstrap.py $(wildcard ddq/__init__.py)
	@$(PYTHON) tools/bootstrap.py

.PHONY: always
always:

.PHONY: run
run: $(READY) ## start a server, a scheduler and an embedded store on 127.0.0.1:50051
	@$(BIN)/ddq dev

.PHONY: demo
demo: $(READY) ## watch producers, workers, retries, cancels and a killed worker; ends by itself
	@$(BIN)/ddq demo

.PHONY: test
test: $(READY) ## run the tests (those of e2e and bench have targets of their own)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

.PHONY: e2e
e2e: $(READY) ## run the end-to-end tests, which need Go and Node
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

.PHONY: bench
bench: $(READY) ## measure how late deliveries are
	@$(BIN)/python -m tests.bench.lateness $(ARGS)

.PHONY: fmt
fmt: $(READY) ## format the code and sort its imports
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format .

.PHONY: lint
lint: $(READY) ## check format, style, protos, imports, workflows and generated code
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m tools.gen --check

.PHONY: types
types: $(READY) ## check the types (mypy --strict)
	@$(BIN)/mypy $(ROOMS)

.PHONY: gen
gen: $(READY) ## generate ddq/v1 from proto/ddq/v1
	@$(BIN)/python -m tools.gen

.PHONY: lock
lock: $(READY) ## resolve the dependencies anew and write requirements.lock
	@$(BIN)/python -m tools.lock

.PHONY: clean
clean: ## remove everything that was made and can be made again
	@rm -rf $(VENV) .venv.lock .tools build dist .artifacts .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -not -path './.git/*' -exec rm -rf {} +
