# Two commands for a newcomer: `make demo` and `make test`. CONTRIBUTING.md has the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DATA ?= shop
BIN = .venv/bin

.PHONY: demo test check format soak lock set-up

# One day of the pipeline, from raw logs to a report: DATA=shop (simulated) or DATA=movielens.
demo: set-up
	@$(BIN)/python scripts/demo.py $(DATA)

# Lint, types and all tests.
test: set-up check
	@$(BIN)/pytest

check: set-up
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: set-up
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Loops that draw many more cases than `make test` has time for.
soak: set-up
	@HYPOTHESIS_PROFILE=soak $(BIN)/pytest -m soak

set-up:
	@test -n "$(PYTHON)" || { echo "set-up: Python 3.11 is needed, and there is no python3 on the PATH (Debian: apt-get install python3.11 python3.11-venv; elsewhere: pyenv install 3.11)"; exit 1; }
	@$(PYTHON) scripts/set_up.py

# Pin what setup.py asks for, again.
lock: set-up
	@$(BIN)/uv pip compile --quiet --upgrade --no-annotate --no-header --python-version 3.11 \
		--extra dev --extra horovod --no-emit-package horovod setup.py --output-file requirements.lock
