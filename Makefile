# Every target sets up .venv first, once. Variables: PYTHON (the interpreter to set up with), PROFILE (smoke, quick, paper),
# TORCH_INDEX (an index of PyTorch's own CPU wheels, to do without the CUDA packages).

PYTHON ?= python3
PROFILE ?= quick
TORCH_INDEX ?=

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.set-up

ifeq ($(TORCH_INDEX),)
INSTALL := $(RUN) -m pip install --requirement requirements.lock
else
INSTALL := grep -vE '^(nvidia-[^m]|cuda-|triton)' requirements.lock > $(VENV)/cpu.lock && \
	$(RUN) -m pip install --extra-index-url $(TORCH_INDEX) --requirement $(VENV)/cpu.lock
endif

.DEFAULT_GOAL := help
.PHONY: help book test quick lab lint format bench set-up browser lock clean
.NOTPARALLEL:

help:  ## list the targets
	@echo "QuIDE: make TARGET, where TARGET is"
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/  \1\t\2/p' Makefile | expand -t 12

book: $(READY)  ## run the notebooks that changed (PROFILE=quick) and build the book: _build/html/index.html
	@$(RUN) -m quide.cli book --profile $(PROFILE)

test:  ## set up, check the style, run all tests, build the book and open it in a browser
	@PYTHON="$(PYTHON)" bash .ci/run

quick: $(READY)  ## the tests to run while working: the style, the floors, the library's small parts; under a minute
	@$(RUN) -m pytest --quiet --numprocesses 2 --dist loadfile -m quick

lab: $(READY)  ## open JupyterLab on the notebooks
	@$(RUN) -m jupyterlab notebooks

lint: $(READY)  ## check style and formatting
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

format: $(READY)  ## put imports and formatting right
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

bench: $(READY)  ## run the performance comparisons in benchmarks/
	@$(RUN) -m benchmarks
	@echo "The results: benchmarks/README.md"

set-up: $(READY)  ## make .venv from requirements.lock (the other targets do it by themselves)
	@echo "Set up: $(VENV)"

# The stamp is written last, so a set-up that was cut short is taken up again by the next call. What is there is never
# cleared: something may be running from it.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 2; }
	@echo "Setting up $(VENV) from requirements.lock (the first time, several GB and some minutes)"
	@rm -f $@
	@$(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(INSTALL)
	@$(RUN) -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

browser:  ## install Chromium, for the tests that open the book, where apt-get can
	@bash .ci/browser

lock: $(READY)  ## resolve pyproject.toml into requirements.lock and environment.yml (UPGRADE=1: to the newest versions)
	@$(PYTHON) -m venv _build/lock
	@_build/lock/bin/python -m pip install --quiet uv
	@_build/lock/bin/uv pip compile pyproject.toml --all-extras --group build --universal --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock
	@$(RUN) .ci/environment.py
	@echo "Written: requirements.lock, environment.yml"

clean:  ## remove what was built (the book, caches), but not .venv
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@echo "Removed: _build and the caches"
