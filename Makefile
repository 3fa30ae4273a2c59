# `make run` and `make test` do all the set-up they need on a machine with Python 3.11 and make.
PYTHON ?= python3
# `make unit PYTHON=python3.12` makes an environment of its own, .venv-3.12, and leaves .venv alone.
VERSION := $(patsubst python%,%,$(notdir $(PYTHON)))
VENV := .venv$(if $(findstring .,$(VERSION)),-$(VERSION))
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes

# Tests wait more than they work, so more run at once than there are cores. Each process starts an OpenSearch of 1 GB
# as soon as a test of its needs one.
TEST_PROCESSES ?= 4
PYTEST := $(BIN)/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadgroup
# The tests start hundreds of processes of Forebay, which start twice as fast from bytecode. Empty lets it be written.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run check format docs unit test fuzz ratchet bench chaos soak lock clean

help: ## show what there is to do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(VENV)/.ready ## make the environment and install Forebay from the lock

setup-dev: $(VENV)/.ready-dev ## the same with everything the tests and checks need

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Forebay needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: requirements/run.lock requirements/build.lock pyproject.toml | $(VENV)/bin/pip
	$(PIP_INSTALL) -r requirements/run.lock -r requirements/build.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.ready-dev: requirements/test.lock $(VENV)/.ready
	$(PIP_INSTALL) -r requirements/test.lock
	touch $@

run: setup ## start the server on the embedded store and print a curl line that works
	@FOREBAY_BULK_INTERVAL_S=$${FOREBAY_BULK_INTERVAL_S:-1} $(BIN)/forebay serve

check: setup-dev ## format, lint, types, direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup-dev ## let the formatter and the linter mend what they can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: setup-dev ## fill the parts of docs/reference that come from the code
	$(BIN)/python docs/render.py

unit: setup-dev ## the tests that need no server
	$(PYTEST) tests/unit

test: check ## every check and every test, on real servers if they can be had
	$(PYTEST) --durations=20

# `make fuzz FUZZ="event-json zstd"` takes some decoders only; the bytes of a fault are left in .cache/fuzz.
FUZZ_S ?= 600
HARNESS := PYTHONPATH=tests:. $(BIN)/python -m fuzz.harness
fuzz: setup-dev ## let libFuzzer look for bytes that a decoder cannot bear, ten minutes each (Linux on x86-64)
	mkdir -p .cache/fuzz
	for decoder in $(or $(FUZZ),$$($(HARNESS))); do \
		$(HARNESS) $$decoder -max_total_time=$(FUZZ_S) -artifact_prefix=.cache/fuzz/$$decoder- -verbosity=0 || exit; \
	done

ratchet: setup-dev ## count the instructions of an event's way in and lower their record (needs valgrind)
	$(BIN)/python benchmarks/instructions.py --record

# `make bench BENCH="--before LABEL=/path/to/forebay"` compares with another version, too.
bench: setup-dev ## measure against other collectors and write docs/benchmarks.md (needs wrk; builds with Go and Cargo)
	$(BIN)/python benchmarks/run.py $(BENCH)

chaos: setup-dev ## run every fault against real processes and write docs/reliability.md (needs faketime, root)
	$(BIN)/python chaos/run.py

soak: setup-dev ## half an hour of load and faults at random; compare everything, watch memory and files (needs faketime)
	$(BIN)/python chaos/soak.py

lock: setup-dev ## renew the lock files: versions and hashes, no addresses
	$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements/run.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --group build -o requirements/build.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group test -c requirements/run.lock -o requirements/test.lock

clean: ## remove the environment and caches
	rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
