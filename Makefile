# feedsvc: `make run` shows it, `make test` proves it. Needs Python 3.11 to 3.13 and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_WORKERS ?= 2
# Another PostgreSQL than the wheel's 18: make test POSTGRES_BIN=/usr/lib/postgresql/15/bin
ifdef POSTGRES_BIN
export FEEDSVC_POSTGRES_BIN := $(POSTGRES_BIN)
endif

.PHONY: run test soak lint format bench clean
.DEFAULT_GOAL := run

run: $(VENV)/demo.stamp
	@exec $(BIN)/feedsvc demo $(ARGS)

test: $(VENV)/test.stamp
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile -m "not soak" $(ARGS)

soak: $(VENV)/test.stamp
	$(BIN)/pytest -m soak $(ARGS)

lint: $(VENV)/lint.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/lint.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/bench.stamp
	$(BIN)/python -m tests.performance.bench $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "feedsvc needs Python 3.11 to 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test]'
	@touch $@ $(VENV)/demo.stamp

$(VENV)/lint.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test,lint,bench]'
	@touch $@ $(VENV)/demo.stamp $(VENV)/test.stamp

$(VENV)/bench.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test,bench]'
	@touch $@ $(VENV)/demo.stamp $(VENV)/test.stamp
