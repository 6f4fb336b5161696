# `make` alone lists what there is to do. Every target first brings .venv up to date by itself; it
# needs Python 3.11 or newer with its venv module (Debian: python3-venv), or uv.

# The Python that .venv is made with. Another one: make PYTHON=/path/to/python3.13 test
PYTHON ?= python3
# How many test processes run at once; each has a store of its own.
JOBS ?= auto
# Given to the program behind a target: make test ARGS='-k cancel -x'
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

# What is released; asked for by the targets of a release.
BRANCH ?=
VERSION ?= $(notdir $(BRANCH))
TAG ?=
# Where the links of release notes point to; empty keeps them relative.
BASE_URL ?=
# Where the image of a release goes: REGISTRY/OWNER/NAME.
IMAGE ?=
# The folder of a chaos run.
RUN ?=
# What `make nightly` draws its examples from; the same number draws the same ones.
SEED ?= $(shell date +%s)

.PHONY: help
help: ## list what there is to do every day
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: help-release
help-release: ## list single checks, and what a release is made of
	@awk -F ':.*#[+] ' '/^[a-z0-9-]+:.*#[+] / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Bootstrap looks at the content of its inputs, so a touched file costs a tenth of a second. When
# PYTHON is given it is asked every time, because that is an input which has no file; when it is not,
# the Python that .venv has is good enough, else a PYTHON that was given once would be undone.
ifeq ($(origin PYTHON),file)
KEEP_PYTHON := --keep-python
else
$(READY): always
endif
$(READY): pyproject.toml requirements.lock tools/bootstrap.py $(wildcard ddq/__init__.py)
	@$(PYTHON) tools/bootstrap.py $(KEEP_PYTHON)

.PHONY: always
always:

.PHONY: run
run: $(READY) ## start a server, a scheduler and an embedded store on 127.0.0.1:50051
	@$(BIN)/ddq dev

.PHONY: demo
demo: $(READY) ## watch producers, workers, retries, cancels and a killed worker; ends by itself
	@$(BIN)/ddq demo

.PHONY: test
test: $(READY) ## run the tests (those of e2e, bench and failover have targets of their own)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# Another server than the wheel's, for make test-store.
SERVER ?=

.PHONY: test-store
test-store: $(READY) ## run the tests of the store and a chaos run on SERVER=/path/to/redis-server
	@[ -x "$(SERVER)" ] || { echo "give SERVER=/path/to/valkey-server or redis-server" >&2; exit 2; }
	@$(SERVER) --version
	@STORE_SERVER=$(SERVER) $(BIN)/python -m pytest -n $(JOBS) tests/store tests/topology $(ARGS)
	@STORE_SERVER=$(SERVER) $(CHAOS) smoke --cluster process

.PHONY: nightly
nightly: $(READY) ## run the tests with many more examples, drawn from SEED
	@mkdir -p artifacts
	@echo "seed: $(SEED)" | tee artifacts/nightly.log
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n $(JOBS) --timeout 3600 \
		--hypothesis-profile=nightly --hypothesis-seed=$(SEED) $(ARGS) 2>&1 | tee -a artifacts/nightly.log

.PHONY: e2e
e2e: $(READY) ## run the end-to-end tests, which need Go, Node, Prometheus and Chromium with its driver
	@# Built before and not inside a test, whose time is limited.
	@tools/gotool.sh git-chglog >/dev/null
	@tools/gotool.sh grpcurl >/dev/null
	@tools/gotool.sh server >/dev/null
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

.PHONY: image
image: ## build the container images ddq:local and ddq-chaos:local (needs Docker)
	@tools/image.sh

.PHONY: image-publish
image-publish: #+ build and push IMAGE:VERSION; only release.yaml may
	@tools/publish_image.sh "$(IMAGE)" "$(VERSION)"

.PHONY: test-docker
test-docker: $(READY) image ## test the cluster in containers (needs Docker)
	@$(BIN)/python -m pytest tests/docker $(ARGS)

.PHONY: bugs
bugs: $(READY) ## seed every known mutation, one at a time, and see it caught (minutes)
	@$(BIN)/python -m tests.bugs $(ARGS)

.PHONY: counterexamples
counterexamples: $(READY) #+ print the shortest simulations that break a promise without the replication barrier
	@$(BIN)/python -m tests.stateful.counterexamples $(ARGS)

.PHONY: stories
stories:
	@echo "make stories is now called make counterexamples; the old name goes with the next release" >&2
	@$(MAKE) --no-print-directory counterexamples

.PHONY: barrier-model
barrier-model: $(READY) #+ search the model of the barrier: make barrier-model ARGS='paused isolated --without votes'
	@$(BIN)/python -m models.barrier $(ARGS)

.PHONY: branches
branches: $(READY) #+ list the branches that levels 2 and 3 never visit, each with the reason
	@$(BIN)/python -m tests.stateful.branches $(ARGS)

.PHONY: fuzz
fuzz: $(READY) ## send a million hostile requests to a server (20 minutes; ARGS='--requests 50000')
	@$(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: fuzz-decoders
fuzz-decoders: $(READY) ## feed what reads foreign bytes by coverage (atheris; ARGS='-runs=2000000')
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet 'atheris>=3'
	@$(BIN)/python -m tests.fuzz.guided $(ARGS)

.PHONY: bench
bench: $(READY) ## measure ddq and other queues side by side, three times (an hour; ARGS=--list)
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-quick
bench-quick: $(READY) ## the same with few systems and tasks, in under three minutes
	@$(BIN)/python -m tests.bench --quick $(ARGS)

.PHONY: bench-alone
bench-alone: $(READY) ## measure ddq alone: Go client, shards, durability, rates, overload, pending tasks
	@$(BIN)/python -m tests.bench --alone --out artifacts/bench-alone $(ARGS)

.PHONY: bench-overload
bench-overload: $(READY) ## measure two minutes of single calls at three times the sustained rate
	@$(BIN)/python -m tests.bench --alone --systems ddq --workloads overload-3-unary \
		--overload-s 120 --repetitions 1 --out artifacts/bench-overload $(ARGS)

.PHONY: profile
profile: $(READY) ## write flame graphs of a server, a client and a worker under load (needs py-spy)
	@$(BIN)/python -m tests.bench.profile $(ARGS)

.PHONY: bench-lateness
bench-lateness: $(READY) ## measure how late deliveries are
	@$(BIN)/python -m tests.bench.lateness $(ARGS)

.PHONY: bench-idle
bench-idle: $(READY) ## measure what a scheduler costs that has little to do
	@$(BIN)/python -m tests.bench.idle $(ARGS)

.PHONY: bench-scripts
bench-scripts: $(READY) ## measure what a script costs the store for each task
	@$(BIN)/python -m tests.bench.scripts $(ARGS)

.PHONY: bench-liveness
bench-liveness: $(READY) ## measure how late a task is while something else goes on
	@$(BIN)/python -m tests.bench.liveness $(ARGS)

# What is left empty is chosen by the program; it says what it chose.
SCENARIO ?=
DURATION ?=
RATE ?=
DURABILITY ?=
FSYNC ?=
CLUSTER ?=
RUN ?=
# SEED has a default of its own, for `make nightly`: here only one that was given counts.
CHAOS_SEED = $(if $(filter command environment,$(firstword $(origin SEED))),$(SEED))
CHAOS = $(BIN)/python -m chaos
CHAOS_FLAGS = $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(if $(RATE),--rate $(RATE)) \
	$(if $(CLUSTER),--cluster $(CLUSTER)) $(if $(DURABILITY),--durability $(DURABILITY)) \
	$(if $(FSYNC),--fsync) $(ARGS)

# Containers run what is built in, so it is built first: always the code of this folder. Without
# CLUSTER the program takes containers where an engine answers, and says what is missing where not.
# Local processes need Toxiproxy, which Go builds; without it some faults are not available.
.PHONY: chaos-image
chaos-image:
ifeq ($(CLUSTER),docker)
	@tools/image.sh chaos=ddq-chaos:local
else ifeq ($(CLUSTER),)
	@tools/image.sh --if-engine chaos=ddq-chaos:local || true
endif
ifneq ($(CLUSTER),docker)
	@tools/gotool.sh server >/dev/null || true
endif

.PHONY: chaos
chaos: $(READY) chaos-image ## run the core scenarios, or SCENARIO=, and judge them (under ten minutes)
	@$(CHAOS) $(if $(SCENARIO),run $(SCENARIO) $(if $(DURATION),--duration $(DURATION)),all) \
		$(CHAOS_FLAGS)

# The other commands of the harness by their names: make chaos-smoke, chaos-rolling, chaos-upgrade …
.PHONY: chaos-help
chaos-help: $(READY) ## list the commands behind make chaos-COMMAND, such as chaos-smoke
	@$(CHAOS) --help

# It needs neither an image nor a cluster.
.PHONY: chaos-check
chaos-check: $(READY)
	@$(CHAOS) check $(RUN) $(ARGS)

chaos-%: $(READY) chaos-image
	@$(CHAOS) $* $(RUN) $(if $(SCENARIO),--scenario $(SCENARIO)) $(CHAOS_FLAGS)

.PHONY: failover
failover: $(READY) ## fail the store and the processes over under traffic, and judge it (minutes)
	@$(BIN)/python -m pytest tests/failover $(ARGS)

.PHONY: durability-matrix
durability-matrix: $(READY) ## measure what each durability loses under each fault (hours; can be resumed)
	@$(CHAOS) durability-matrix $(ARGS)

# Names of 0.2.0, for one release; the current ones are reported.
.PHONY: sweep
sweep:
	@echo "make sweep is called make durability-matrix now" >&2
	@$(MAKE) --no-print-directory durability-matrix

failover-%:
	@echo "make $@ is called make chaos-$* now" >&2
	@$(MAKE) --no-print-directory chaos-$*

.PHONY: fmt
fmt: $(READY) ## format the code and sort its imports
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format .

.PHONY: lint
lint: lint-python lint-proto lint-workflows lint-documents ## run every check below that only reads

.PHONY: lint-python
lint-python: $(READY) #+ check format, style and which package imports which
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo >.import-linter.log || { cat .import-linter.log; exit 1; }
	@rm -f .import-linter.log

.PHONY: lint-proto
lint-proto: $(READY) #+ check the protos, that ddq/v1 is generated from them, that no client breaks
	@$(BIN)/buf lint proto
	@$(BIN)/python -m tools.gen --check
	@$(BIN)/python -m tools.proto_breaking

.PHONY: lint-workflows
lint-workflows: #+ check .github/workflows (needs Go)
	@tool=$$(tools/gotool.sh actionlint); "$$tool"

.PHONY: lint-documents
lint-documents: $(READY) #+ check the ADRs, their index, links, what is generated, and the words
	@$(BIN)/python -m tools.release_readiness --documents
	@$(BIN)/python -m tools.docs --check
	@$(BIN)/python -m tools.words

.PHONY: types
types: $(READY) ## check the types (mypy --strict)
	@$(BIN)/mypy $(ROOMS)

.PHONY: gen
gen: $(READY) ## generate ddq/v1 from proto/ddq/v1, and the tables of the documents from the code
	@$(BIN)/python -m tools.gen
	@$(BIN)/python -m tools.docs

.PHONY: lock
lock: $(READY) #+ resolve the dependencies and write requirements.lock
	@$(BIN)/python -m tools.lock

.PHONY: wheel
wheel: $(READY) #+ build the wheel and the sdist into dist/, install the wheel elsewhere, try it
	@$(BIN)/python -m tools.check_wheel

.PHONY: changelog
changelog: $(READY) #+ write VERSION's section of CHANGELOG.md from the commits (needs Go)
	@$(BIN)/python -m tools.changelog "$(VERSION)" $(ARGS)

.PHONY: changelog-check
changelog-check: $(READY) #+ check that CHANGELOG.md is what `make changelog` writes (needs Go)
	@$(BIN)/python -m tools.changelog "$(VERSION)" --check

.PHONY: changelog-preview
changelog-preview: $(READY) #+ write what the commits give into artifacts/ (needs Go)
	@mkdir -p artifacts
	@$(BIN)/python -m tools.changelog "$(VERSION)" --preview | tee artifacts/changelog-preview.md

.PHONY: release-readiness
release-readiness: $(READY) #+ the gate before a release: make release-readiness BRANCH=release/v0.2.0
	@$(BIN)/python -m tools.release_readiness --branch "$(BRANCH)"

.PHONY: release-notes
release-notes: $(READY) #+ print the notes of VERSION with its decisions
	@$(BIN)/python -m tools.release_notes "$(VERSION)" --base-url "$(BASE_URL)"

.PHONY: release-notes-file
release-notes-file: $(READY)
	@mkdir -p artifacts
	@$(BIN)/python -m tools.release_notes "$(VERSION)" --base-url "$(BASE_URL)" \
		>artifacts/release-notes.md

.PHONY: check-commits
check-commits: $(READY) #+ check that the commits since the last release are Conventional Commits
	@$(BIN)/python -m tools.check_commits $(ARGS)

.PHONY: check-pr-body
check-pr-body: $(READY) #+ check that the text on standard input names an ADR that exists
	@$(BIN)/python -m tools.check_pr_body

.PHONY: check-tag
check-tag: $(READY) #+ check TAG before it is published
	@$(BIN)/python -m tools.check_tag "$(TAG)"

.PHONY: publish
publish: $(READY) #+ upload dist/ to the package index; only release.yaml may
	@$(BIN)/uv publish --trusted-publishing always dist/*

.PHONY: clean
clean: ## remove everything that was made and can be made again
	@rm -rf $(VENV) .venv.lock .tools build dist artifacts .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -not -path './.git/*' -exec rm -rf {} +
