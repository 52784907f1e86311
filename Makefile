.DEFAULT_GOAL := help
.PHONY: help setup jars demo test lint types docs test-plain test-spark test-keras test-torch \
	test-s3 test-azure test-thorough format clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# `mlflow run --env-manager local` runs the first python on PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Else each of the tests' processes would compile this package anew.
unexport PYTHONDONTWRITEBYTECODE
UV := $(shell grep '^uv==' requirements.txt)
LANE := python -m pytest --durations=25 -m
# A Spark session's commits are one thread of its JVM: two sessions use two cores. A file's tests
# stay together, as they share what is costly to make, in the order of tests/conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

help: ## Show this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.made ## Make .venv with all packages (again only when the requirements changed)

.venv/.made: requirements.txt requirements-dev.txt
	@echo "Installing the packages into .venv (about 9 GB with the CUDA builds, some minutes) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@touch $@

STORE ?= s3
jars: setup ## Fetch the jars of Spark, which the first use fetches else; STORE=s3, gs or abfss
	PYTHONPATH=src python -c 'from mlproject.integrations import spark_session as s; s.fetch_jars("$(STORE)")'

demo: setup ## Run the whole life cycle on drawn images (about three minutes)
	mlflow run . --env-manager local

test: setup lint types docs test-plain test-spark test-keras test-torch ## Lint, types, docs, and the tests

lint: setup ## Check style
	ruff check .
	ruff format --check .

types: setup ## Check types
	mypy

docs: setup ## Build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# A lane is a process: TensorFlow and torch never share one (docs/decisions/0002).
test-plain: setup ## Tests that need no Java
	$(LANE) "not spark and not keras and not torch" $(TWO)

test-spark: setup ## Tests with Spark, and of whole verbs
	PYTHONPATH=src python -m tests.support.class_archive
	$(LANE) "spark and not keras and not torch" $(TWO)

test-keras: setup ## Tests with TensorFlow
	$(LANE) keras $(TWO)

test-torch: setup ## Tests with torch
	$(LANE) torch $(TWO)

# An independent server of the protocol, built from source once. Its version is pinned here.
.venv/bin/versitygw:
	CGO_ENABLED=0 GOBIN=$(CURDIR)/.venv/bin go install -ldflags '-s -w' \
		github.com/versity/versitygw/cmd/versitygw@v1.8.0

test-s3: setup .venv/bin/versitygw ## Tests of S3 against a second server, versitygw (needs Go)
	TEST_S3_SERVER=$(CURDIR)/.venv/bin/versitygw python -m pytest -m s3 $(TWO)

# Microsoft's server that stands in for Azure. Its version is pinned here.
AZURITE := .venv/azurite/node_modules/.bin/azurite-blob
$(AZURITE):
	npm install --silent --prefix .venv/azurite azurite@3.35.0

test-azure: setup $(AZURITE) ## Tests of images and lakes in Azure against Azurite (needs Node.js)
	TEST_THOROUGH=1 TEST_AZURITE=$(CURDIR)/$(AZURITE) python -m pytest tests/storage/test_clouds.py \
		tests/lake/test_tables_in_clouds.py tests/end_to_end/test_commands_on_object_storage.py

test-thorough: ## As `test`, with rare faults, each example as it stands, and more repetitions
	TEST_THOROUGH=1 $(MAKE) test

format: setup ## Format the code
	ruff check --fix .
	ruff format .

clean: ## Remove what the demo wrote
	rm -rf lake drawn_images mlruns mlflow.db report.html spark-warehouse site
