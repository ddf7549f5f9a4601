# Two commands for a newcomer: `make demo` and `make test`; `make help` lists all.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DATA ?= shop
BIN = .venv/bin
# All checkouts share this folder: what one has downloaded or built, the others reuse.
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mfn

.DEFAULT_GOAL := help
.PHONY: help demo study test test-unit check format soak docs lock set-up

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: set-up  ## run one day, from raw logs to the report: DATA=shop (simulated) or DATA=movielens
ifeq ($(DATA),shop)
	@$(BIN)/python pipelines/daily.py --config conf/demo.yaml
else ifeq ($(DATA),movielens)
	@folder=$$($(BIN)/python scripts/fetch_data.py movielens) && \
		$(BIN)/python pipelines/daily.py --config conf/movielens.yaml --ingest.path "$$folder"
else
	@echo "make demo: expected DATA=shop or DATA=movielens, got DATA=$(DATA)"; exit 2
endif

study: set-up  ## compare all models on all data sets: RETAIL=<folder of Online Retail>, QUICK=1 for a run of minutes
	@folder=$$($(BIN)/python scripts/fetch_data.py movielens) && \
		$(BIN)/python -m study --movielens "$$folder" \
		$(if $(RETAIL),--retail "$(RETAIL)" \
			--glove "$$($(BIN)/python scripts/fetch_data.py glove)") $(if $(QUICK),--quick)

test: set-up check  ## run lint, type checks and all tests
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: set-up  ## run the tests without Spark and without processes; under 90 seconds
	@$(BIN)/pytest -m "not spark and not process and not soak" -n 2

check: set-up  ## run lint and type checks
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@MYPY_CACHE_DIR="$(CACHE)/mypy" $(BIN)/mypy

format: set-up  ## format the code and apply the automatic fixes of lint
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

soak: set-up  ## run the long tests that `make test` leaves out, such as kills at random moments
	@$(BIN)/pytest -m soak

docs: set-up  ## build the documentation site
	@$(BIN)/mkdocs build --strict

set-up:  ## make .venv with pinned packages, wheels and Delta's jars; every target runs it first
	@test -n "$(PYTHON)" || { echo "set-up: Python 3.11 is needed, but there is no python3 on the PATH. Install it (Debian: apt-get install python3.11 python3.11-dev python3.11-venv; elsewhere: pyenv install 3.11)"; exit 1; }
	@$(PYTHON) scripts/set_up.py

lock: set-up  ## write requirements.lock again: the newest versions that setup.py allows
	@$(BIN)/uv pip compile --quiet --upgrade --no-annotate --no-header --python-version 3.11 \
		--extra dev --extra horovod --no-emit-package horovod setup.py --output-file requirements.lock
