# Two commands set up a fresh machine: `make run` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin
TESTS ?= tests
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help run test check bench engines-test gpu-results clean

help:  ## what can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.venv/.installed: requirements.txt backend/requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -r backend/requirements.txt -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

.venv/.dev-installed: .venv/.installed requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

run: .venv/.installed  ## the leaderboard with an embedded worker, at http://127.0.0.1:7860
	$(BIN)/python app.py

test: .venv/.dev-installed  ## every test, a real browser and a real model included
	@./tests/install-browser
	$(BIN)/python -m pytest $(TESTS)

check: .venv/.dev-installed  ## style and types; fast, before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed  ## our published speeds, each against its rival in the same run; takes long, wants a quiet machine
	$(BIN)/python benchmarks/accounting_latency.py
	$(BIN)/python benchmarks/load_client.py
	$(BIN)/python -m benchmarks.overhead

engines-test: .venv/.dev-installed  ## real engines on a processor, installed once into .cache/engines; takes long
	@mkdir -p .cache/engines
	for install in tests/engines/install-*; do PYTHON=$(PYTHON) nice "$$install" .cache/engines || exit 1; done
	$(BIN)/python -m pytest tests/engines --timeout 1200

gpu-results: .venv/.installed  ## on a machine with a GPU, vLLM and ncu: models of real size with random weights into eval-results, predicted bytes against DRAM counters (ARGS="--only ..." for both, PROFILE_ARGS, DRAM_ARGS)
	$(BIN)/python -m benchmarks.gpu_results $(ARGS) $(PROFILE_ARGS) --plan
	$(BIN)/python -m benchmarks.dram_bytes $(ARGS) $(DRAM_ARGS) --plan
	@failed=0; $(BIN)/python -m benchmarks.gpu_results $(ARGS) $(PROFILE_ARGS) || failed=1; \
	$(BIN)/python -m benchmarks.dram_bytes $(ARGS) $(DRAM_ARGS) || failed=1; exit $$failed

clean:  ## remove the environment and local state; stores stay
	rm -rf .venv data build dist
