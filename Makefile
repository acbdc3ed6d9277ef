# make run: the main job.  make federation: the same across organisations, on this machine; Flower gets an environment of
# its own, .venv-flower.  make test: the tests.  make bench: the cost of encryption and of simulation against
# other ways to do it, about 40 minutes.
# All of them install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run federation test check bench clean

run: .venv/.installed
	$(BIN)/python run.py $(ARGS)

federation: .venv/.installed
	$(BIN)/python -m hyperlock.sites demo $(ARGS)

test: .venv/.installed
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python -m benchmarks aggregation $(ARGS)
	$(BIN)/python -m benchmarks simulation
	$(BIN)/python -m benchmarks simulation --model cnn --clients 20 --repeats 2

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv .venv-flower .pytest_cache .mypy_cache .ruff_cache .hypothesis
