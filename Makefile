# Each target installs its tools into .venv first. Outside the project it writes only to the caches of pip, uv and the jars.
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE # hundreds of processes of the tests would compile the package anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MARK := $(VENV)/.installed
SAME := --constraints requirements/development.txt

.PHONY: help install lock demo test warm lint format bench bench-quick bench-rollup bench-verify bench-storage replay-check \
	recovery-check \
	chaos hostile fuzz clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv, locked like the rest, is quicker than pip. pip does it where uv fails, as with an index that only pip is told of.
$(MARK): pyproject.toml hatch_build.py pipeline/columns/core.zig requirements/development.txt requirements/install.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements/install.txt
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements/development.txt || \
		$(BIN)/python -m pip install --disable-pip-version-check --force-reinstall --require-hashes -r requirements/development.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(MARK) ## Install the package and all tools in .venv

lock: $(MARK) ## Lock the newest versions that pyproject.toml allows, with hashes
	for lock in 'worker pyproject.toml' 'development pyproject.toml --extra devstack --extra test' \
		'build --group build $(SAME)' 'install --group install $(SAME)' \
		'fuzz --group fuzz $(SAME)' 'peers benchmarks/requirements-peers.txt'; do \
		set -- $$lock; name=$$1; shift; $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes \
		--no-emit-index-url --python-version 3.11 --custom-compile-command 'make lock' "$$@" \
		--output-file requirements/$$name.txt || exit 1; done

demo: $(MARK) ## Run the whole pipeline on this machine, in about a minute
	$(BIN)/chimera demo

test: $(MARK) ## Run lint and all tests, on a real broker and a real ClickHouse
	$(MAKE) --jobs=2 --output-sync=target lint warm
	$(BIN)/chimera schemas check
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

# Makes beside lint's mypy, which takes one core, what each of pytest's processes would make for itself: the tests' bytecode.
warm: $(MARK)
	$(BIN)/python -m pipeline.devstack.aot_cache
	$(BIN)/pytest --collect-only --quiet --quiet >/dev/null

lint: $(MARK) ## Run ruff, mypy --strict and import-linter, which checks the layers of the packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(MARK) ## Format the code with ruff
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(MARK) ## Compare the worker with its peers and a Go yardstick, in under an hour; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks --write-docs

bench-quick: $(MARK) ## Try every part of the benchmark, small, in about eight minutes; its figures say little
	$(BIN)/python -m benchmarks --quick

bench-rollup: $(MARK) ## Check and measure session_stats: rows, cost, state, recovery; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.rollup --write-docs

bench-verify: $(MARK) ## Measure `chimera verify` over ten million rows: time, CPU, memory; five minutes
	$(BIN)/python -m benchmarks.verify

bench-storage: $(MARK) ## Measure bytes a row, insert cost and query times of the storage; writes docs/storage.md
	$(BIN)/python -m benchmarks.storage --write-docs

replay-check: $(MARK) ## Fill and rewrite a table under load and kills, and count its rows; ends with one JSON object
	PYTHONPATH=tests $(BIN)/python -m replaying

recovery-check: $(MARK) ## Recover to ten random moments beside live ingest, and compare with the log; ends with one JSON object
	PYTHONPATH=tests $(BIN)/python -m recovering

chaos: $(MARK) ## Kill, freeze and restart workers and servers under load; writes docs/reliability.md; 45 minutes
	PYTHONPATH=tests $(BIN)/python -m chaos --write-docs

hostile: $(MARK) ## Send hostile records through a real worker, compiled and with numpy alone; two minutes
	PYTHONPATH=tests $(BIN)/python -m hostile
	PYTHONPATH=tests $(BIN)/python -m hostile --numpy

fuzz: $(MARK) ## Fuzz records, registered schemas, texts and metadata, for five minutes each
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	set -e; for target in records schemas texts metadata; do PYTHONPATH=tests $(BIN)/python -m hostile.fuzz $$target; done

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
