# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# From Python 3.13 on these two ask for versions of numpy that exclude each other. Only files of theirs are used, so
# there they are installed without what they ask for.
DEMO_WHEELS := nvidia-pytriton==0.7.0 magika==1.0.1
export PYTHON

.PHONY: help venv demo test e2e lint check format docs gpu-check bench guard clean

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# The stamp makes a second call free; a changed pyproject or lock installs again.
$(VENV)/.installed: pyproject.toml requirements.lock scripts/system-deps.sh
	scripts/system-deps.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements.lock -e '.[demo,docker,dev]'
	if ! $(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pytriton") is None)'; then $(PIP) --no-deps $(DEMO_WHEELS) && $(PIP) -c requirements.lock onnxruntime; fi
	touch $@

venv: $(VENV)/.installed  ## Make the virtual environment .venv with everything in it

demo: venv  ## Measure two real models on the embedded Triton; tables go to results/quickstart
	$(BIN)/python examples/quickstart/build_models.py results/quickstart/models
	$(BIN)/model-analyzer profile -f examples/quickstart/job.yaml

test: venv  ## Run every test, the ones on the real Triton and the real Docker engine included
	scripts/system-deps.sh --docker
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not kubernetes'

e2e: venv  ## Install the chart on a real Kubernetes (KUBECONFIG's, else a node of our own) and run every case there
	scripts/system-deps.sh --cluster
	$(BIN)/python -m tests.e2e.cluster run $(BIN)/python -m pytest -n 2 --dist loadgroup tests/e2e/on_cluster

lint: venv  ## Format, lint, types, import contracts, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.reference --check
	$(BIN)/python -m scripts.chart --check

check: lint  ## lint, and the fast tests
	$(BIN)/python -m pytest -q -m 'not triton and not docker and not kubernetes'

format: venv  ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: venv  ## Write the generated pages anew
	$(BIN)/python -m scripts.reference
	$(BIN)/python -m scripts.chart

gpu-check: venv  ## See real GPU telemetry, where there is an NVIDIA GPU
	$(BIN)/python -m pytest -q -rs tests/e2e/test_gpu.py

# PARTS="cost sweep": some of it; QUICK=1: only see that it works; ANYWAY=1: beside other load.
bench: venv  ## Measure beside perf_analyzer and Triton Model Analyzer (70 minutes); writes docs/benchmarks.md
	scripts/system-deps.sh --bench
	$(BIN)/python -m bench $(PARTS) $(if $(QUICK),--quick) $(if $(ANYWAY),--anyway)

guard: venv  ## Hold the statistics and the load generator's cost against their committed limits
	$(BIN)/python bench/statistics_bench.py --guard
	$(BIN)/python bench/client_guard.py

clean:  ## Remove the virtual environment and the results
	rm -rf $(VENV) results
