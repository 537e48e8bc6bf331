# make          set up, then regenerate the report of the selected profile (PROFILE=NAME selects one)
# make test     set up, then the tests: units, and one run of profile smoke in a temporary clone
#
# Needs Python 3.11 to 3.13 (PYTHON=...), git and, for the first set-up, a network.

PYTHON ?= python3
PORT ?= 5000
WORKERS ?= 2
KILLS ?= 100
MINUTES ?= 0
BASE ?= cpu
ADVISORIES := https://pypi.org/pypi/pip/24.0/json

BIN := $(CURDIR)/.venv/bin
READY := .venv/.installed
# No telemetry. Stages are started as `python`, which must be that of the environment.
RUN := PATH="$(BIN):$$PATH" DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
SUPPORTED := (3, 11) <= sys.version_info[:2] <= (3, 13)
FAST := not slow and not gpu and not network
# The tests of the pipeline run one after another, as they share a run; the others beside them.
# One that hangs shows where, and ends.
TESTS := OMP_NUM_THREADS=1 python -m pytest --numprocesses $(WORKERS) --no-loadscope-reorder \
	--override-ini faulthandler_timeout=900 --override-ini faulthandler_exit_on_timeout=true

.PHONY: study setup test unit test-all soak audit lint ui container

study: $(READY)
ifdef PROFILE
	@$(RUN) python -m study use $(PROFILE)
endif
	@$(BIN)/python -c 'import json; json.load(open(".dvc/tmp/rwlock"))' 2>/dev/null || \
		rm -f .dvc/tmp/rwlock # A dvc that was killed in writing it would keep the next from starting.
	@$(RUN) dvc repro
	@echo "report: reports/$$(sed -n 's/^profile: *//p' params/study.yaml)/report.html"

setup: $(READY)

test: $(READY)
	@$(RUN) $(TESTS) -m "$(FAST)"

unit: $(READY)
	@$(RUN) $(TESTS) -m "$(FAST)" --ignore=tests/pipeline

# One after another: some are about time.
test-all: $(READY)
	@$(RUN) python -m pytest -m "not gpu and not network"

soak: $(READY)
	@$(RUN) python tests/faults/soak.py --kills $(KILLS) --minutes $(MINUTES)

# Known vulnerabilities of what the lock pins, by the index's advisories; a mirror may have none.
audit: $(READY)
	@if .venv/bin/python -c 'import json, urllib.request as u; \
		json.load(u.urlopen("$(ADVISORIES)", timeout=10))["vulnerabilities"]' 2>/dev/null; then \
		$(RUN) pip-audit --requirement requirements.lock --no-deps --disable-pip --strict \
			--progress-spinner off; \
	else echo "audit skipped: no advisories at $(ADVISORIES)"; fi

lint: $(READY)
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) pyright

ui: $(READY)
	@$(RUN) python -m study track
	@echo "open http://127.0.0.1:$(PORT) and choose Model training; docs/mlflow.md says more"
	@$(RUN) mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///mlflow.db

# BASE=cuda: an image for a GPU; the host needs NVIDIA's container toolkit.
container:
	docker build --target $(BASE) --tag eqvae-study:$(BASE) .

# Last line first to go and last to come: a set-up that was cut off is done again.
$(READY): requirements.lock pyproject.toml
	@rm -f $@
	@.venv/bin/python -c 'import sys, pip; sys.exit(not $(SUPPORTED))' 2>/dev/null || { \
		$(PYTHON) -c 'import sys; sys.exit(not $(SUPPORTED))' || { \
			echo "error: $(PYTHON) is not Python 3.11 to 3.13; give another: make PYTHON=..." >&2; \
			exit 2; }; \
		$(PYTHON) -m venv --clear .venv; }
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
