# Everything a newcomer needs, from a bare checkout. `make help` lists it.
PYTHON ?= python3
VENV ?= .venv
DATA ?=
OUT ?= gpu
ifeq ($(OS),Windows_NT)
BIN = $(VENV)/Scripts
else
BIN = $(VENV)/bin
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint notebooks docs book accept bench-gpu clean

help:            ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

demo: $(VENV)/demo.stamp   ## install and run `tinyseg demo`: trains on built-in pictures, writes one page
	$(BIN)/tinyseg demo

test: $(VENV)/test.stamp   ## install with the test extras and run the whole test suite
	$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp    ## ruff, its formatter and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(VENV)/test.stamp ## make notebooks/*.ipynb anew from their sources, notebooks/*.py
	$(BIN)/python -m notebooks sync

docs: $(VENV)/docs.stamp   ## the API reference, and the book's pages without outputs, in docs/_build/html
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

book: $(VENV)/docs.stamp   ## run the notebooks and make a book of them, in docs/_build/book
	$(BIN)/python -m notebooks run --out docs/_build/notebooks
	$(BIN)/python -m sphinx -W -q -b html -D notebooks=_build/notebooks docs docs/_build/book
	@echo "docs/_build/book/index.html"

accept: $(VENV)/test.stamp ## accuracy and speed goals on real pictures, and kill tests: make accept DATA=folder
	$(BIN)/python -m benchmarks.accept --data "$(DATA)"

bench-gpu: $(VENV)/test.stamp $(VENV)/cuda.stamp ## on a machine with a GPU: tests, sanitizer, times: make bench-gpu OUT=folder
	$(BIN)/python -m benchmarks gpu --out "$(OUT)"

clean:           ## remove the environment, caches and what the targets above wrote
	rm -rf $(VENV) build dist docs/_build docs/api docs/course .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else \
	    "tinyseg needs Python 3.10 or later; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/%.stamp: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[$*]"
	@touch $@
