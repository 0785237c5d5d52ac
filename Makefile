# feedsvc. Needs Python 3.11 to 3.13 and nothing else; `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where it is set, each of the hundreds of processes that tests start would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE
# Twice the cores here, for most tests wait. In the order of collection, for that ends with the unit
# tests: xdist's own puts files of few tests last, and these take minutes.
TEST_WORKERS ?= 4
PYTEST = $(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# Another PostgreSQL than the wheel's 18: make test POSTGRES_BIN=/usr/lib/postgresql/15/bin
ifdef POSTGRES_BIN
export FEEDSVC_POSTGRES_BIN := $(POSTGRES_BIN)
endif

NATIVE := setup.py $(wildcard streams/encoder/native/*.[ch])

.PHONY: help run test test-redis test-pythons matrix soak lint format fuzz bench bench-peers wheels lock docs clean
.DEFAULT_GOAL := run

# Print this list.
help:
	@awk '/^# /{text = text (text ? " " : "") substr($$0, 3); next} \
		/^[a-z-]+:/{split($$0, name, ":"); if (text) printf "make %-12s %s\n", name[1], text} \
		{text = ""}' Makefile

# The service on an embedded PostgreSQL and Valkey with data: ARGS="--rows 1000000" for more of it.
run: $(VENV)/demo.stamp
	@exec $(BIN)/feedsvc demo $(ARGS)

# Every test but the soak; ARGS=tests/unit for some of them.
test: $(VENV)/test.stamp
	$(PYTEST) -m "not soak" $(ARGS)

# Every test without a Redis, and on each kind of Redis; the first failure ends it.
test-redis: $(VENV)/test.stamp
	for kind in none redis valkey cluster; do \
		echo "on: $$kind"; \
		$(PYTEST) -m "not soak" --redis=$$kind $(ARGS) || exit 1; \
	done

ORDER_TESTS := tests/unit/test_answer_order.py tests/integration/web/test_pipelining.py tests/integration/web/test_shortcut.py
# Tests of the event loop's order, on each supported Python on PATH.
test-pythons:
	for python in python3.11 python3.12 python3.13; do \
		command -v $$python >/dev/null || { echo "skipped: there is no $$python on PATH"; continue; }; \
		$(MAKE) VENV=.venv-$$python PYTHON=$$python test ARGS="$(ORDER_TESTS)" || exit 1; \
	done

# The tests in each supported environment, a cell each; CELLS="no-redis fuzz" for some of them.
matrix:
	.ci/matrix $(CELLS)

# Tests that take minutes (FEEDSVC_SOAK_SECONDS=180: three of live feeds, not 20), and all examples of those that are drawn at random.
soak: $(VENV)/test.stamp
	FEEDSVC_TEST_DRAWN=whole $(BIN)/pytest -m "soak or drawn" $(ARGS)

MIGRATIONS := feedsvc/backends/postgres/migrations/*/versions/*.sql
# Format, lint, types, import contracts, migrations.
lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/squawk $$(grep -lx -e '-- concurrently' $(MIGRATIONS))
	$(BIN)/squawk --assume-in-transaction $$(grep -Lx -e '-- concurrently' $(MIGRATIONS))

# Format, and make the linter's own corrections.
format: $(VENV)/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Fuzz the native encoder for ten minutes under sanitizers; ARGS="--seconds 60" for one.
fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzzing.run $(ARGS)

# Speed and memory beside psql and a rival, as ratios from one run.
bench: $(VENV)/test.stamp
	$(BIN)/python -m tests.performance.bench $(ARGS)

# The same beside FastAPI with asyncpg, fastify with pg-query-stream, aiohttp-sse and Node's http.
bench-peers: $(VENV)/test.stamp
	$(BIN)/python -m tests.performance.bench --peers $(ARGS)

# Build a wheel for this kind of machine and every Python from 3.11 on.
wheels: $(VENV)/build.stamp
	FEEDSVC_NATIVE=required $(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation -w dist .

# Each release and its files' hashes, as PyPI lists them now; what is locked and still in pyproject's
# ranges stays. ARGS="--upgrade-package aiohttp" raises one, ARGS=--upgrade all. The other locks
# have the releases of development's, and uv, which writes them, its own.
COMPILE = $(BIN)/uv pip compile --quiet --no-config --python $(BIN)/python --universal --python-version 3.11 \
	--default-index https://pypi.org/simple --no-emit-index-url --no-emit-find-links --generate-hashes \
	--custom-compile-command "make lock" $(ARGS)
REQUIRED_TO_BUILD := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
# Write the locks anew.
lock: $(VENV)/lock.stamp
	$(COMPILE) pyproject.toml --extra demo --extra tracing --extra test --extra lint --extra bench -o locks/development.txt
	$(COMPILE) pyproject.toml --extra demo -c locks/development.txt -o locks/demo.txt
	$(COMPILE) pyproject.toml -c locks/development.txt -o locks/service.txt
	$(BIN)/python -c '$(REQUIRED_TO_BUILD)' | $(COMPILE) - -o locks/build.txt
	$(COMPILE) locks/uv.in -o locks/uv.txt

# Write docs/settings.md from the settings' own descriptions.
docs: $(VENV)/test.stamp
	$(BIN)/python -m docs.settings_reference > docs/settings.md

# Remove everything that make has made.
clean:
	rm -rf $(VENV) build dist *.egg-info streams/encoder/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "feedsvc needs Python 3.11 to 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The locked releases alone, by hash, and then the project with nothing of its own choice.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes
PROJECT := $(INSTALL) --no-deps --no-build-isolation -e .

$(VENV)/build.stamp: locks/build.txt | $(VENV)/bin/python
	@$(LOCKED) -r locks/build.txt
	@touch $@

$(VENV)/demo.stamp: pyproject.toml locks/demo.txt $(NATIVE) $(VENV)/build.stamp
	@echo "installing into $(VENV) (once)"
	@$(LOCKED) -r locks/demo.txt
	@$(PROJECT)
	@touch $@

$(VENV)/test.stamp: pyproject.toml locks/development.txt $(NATIVE) $(VENV)/build.stamp
	$(LOCKED) -r locks/development.txt
	$(PROJECT)
	@touch $(VENV)/demo.stamp $@

$(VENV)/lock.stamp: locks/uv.txt | $(VENV)/bin/python
	$(LOCKED) -r locks/uv.txt
	@touch $@
