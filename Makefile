# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHON

.PHONY: help venv demo test check format docs gpu-check bench clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# The stamp makes a second call free; a changed pyproject or lock installs again.
$(VENV)/.installed: pyproject.toml requirements.lock scripts/system-deps.sh
	scripts/system-deps.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[demo,docker,dev]'
	touch $@

venv: $(VENV)/.installed  ## Make the virtual environment .venv with everything in it

demo: venv  ## Measure two real models on the embedded Triton; tables go to results/quickstart
	$(BIN)/python examples/quickstart/build_models.py results/quickstart/models
	$(BIN)/model-analyzer profile -f examples/quickstart/job.yaml

test: venv  ## Run every test, the ones on the real Triton and the real Docker engine included
	scripts/system-deps.sh --docker
	$(BIN)/python -m pytest

check: venv  ## Format, lint, types, import contracts, generated docs, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.reference --check
	$(BIN)/python -m pytest -q -m 'not triton and not docker'

format: venv  ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: venv  ## Write the generated pages anew
	$(BIN)/python -m scripts.reference

gpu-check: venv  ## See real GPU telemetry, where there is an NVIDIA GPU
	$(BIN)/python -m pytest -q -rs tests/e2e/test_gpu.py

bench: venv  ## Start-up time, and the load generator's cost
	$(BIN)/python bench/startup.py

clean:  ## Remove the virtual environment and the results
	rm -rf $(VENV) results
