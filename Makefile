# Two commands for a newcomer: `make demo` and `make test`; `make help` lists all.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DATA ?= shop
BIN = .venv/bin
# What is found here need not be done again, by whichever checkout.
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mfn

.DEFAULT_GOAL := help
.PHONY: help demo study test check format soak lock set-up

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: set-up  ## one day, from raw logs to a report: DATA=shop (simulated) or DATA=movielens
ifeq ($(DATA),shop)
	@$(BIN)/python pipelines/daily.py --config conf/demo.yaml
else ifeq ($(DATA),movielens)
	@folder=$$($(BIN)/python scripts/fetch_data.py movielens) && \
		$(BIN)/python pipelines/daily.py --config conf/movielens.yaml --ingest.path "$$folder"
else
	@echo "make demo: expected DATA=shop or DATA=movielens, got DATA=$(DATA)"; exit 2
endif

study: set-up  ## which model wins where, and why: RETAIL=<folder of Online Retail>, QUICK=1 for minutes of it
	@folder=$$($(BIN)/python scripts/fetch_data.py movielens) && \
		$(BIN)/python -m study --movielens "$$folder" \
		$(if $(RETAIL),--retail "$(RETAIL)" \
			--glove "$$($(BIN)/python scripts/fetch_data.py glove)") $(if $(QUICK),--quick)

test: set-up check  ## lint, types and all tests
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: set-up  ## lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@MYPY_CACHE_DIR="$(CACHE)/mypy" $(BIN)/mypy

format: set-up  ## format, and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

soak: set-up  ## long loops, such as kills at random moments, that `make test` has no time for
	@$(BIN)/pytest -m soak

set-up:  ## .venv with pinned versions, wheels and Delta's jars; all others begin with it
	@test -n "$(PYTHON)" || { echo "set-up: Python 3.11 is needed, and there is no python3 on the PATH (Debian: apt-get install python3.11 python3.11-venv; elsewhere: pyenv install 3.11)"; exit 1; }
	@$(PYTHON) scripts/set_up.py

lock: set-up  ## pin what setup.py asks for, again, in requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --no-annotate --no-header --python-version 3.11 \
		--extra dev --extra horovod --no-emit-package horovod setup.py --output-file requirements.lock
