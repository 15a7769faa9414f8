# Each target installs what it needs first; `make setup` alone does only that.
PYTHON ?= python3
export PYTHON
export PATH := $(PATH):/usr/sbin:/sbin
BIN := .venv/bin
TESTS ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check bench bench-limits bench-quick faults fuzz vm install uninstall deb lock clean

help: ## this text
	@echo 'make TARGET, where TARGET is one of:'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## install what is missing: Debian packages (as root), .venv with pinned requirements, the wheel
	@tools/debian-packages
	@tools/environment

demo: setup ## watch a small network being learned (root; nothing of this machine's own network is touched)
	@$(BIN)/glacic lab

test: setup ## all tests, those in the virtual machine among them; TESTS="tests/lab -k vm" for some
	@$(BIN)/pytest $(TESTS)

lint: setup ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test ## the gate: format, lint, types, tests

bench bench-limits bench-quick: export PYTHONSAFEPATH = 1 # it is the wheel that is measured, not the source tree

bench: setup ## measure everything beside what people use today, into docs/benchmarks.md (root); ROWS="queue" for some
	@tools/bench-packages
	@$(BIN)/python bench/main.py $(if $(ROWS),--only $(ROWS))

bench-limits: setup ## the part of it that is about bandwidth limits: fails where a rate is out of bounds (root; half an hour)
	@$(BIN)/python bench/main.py --only limits limits-vm limits-idle --judge limits limits-vm

bench-quick: setup ## a minute's worth of it: fails where something has become twice as slow as it should be
	@$(BIN)/python bench/main.py --quick

fuzz: setup ## try inputs on whatever reads bytes from outside, SECONDS=60 for each target; TARGETS="hcl" for some
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements-fuzz.txt || \
	    echo 'atheris cannot be installed here: inputs are made by chance' >&2
	@$(BIN)/python fuzz/main.py --seconds $(or $(SECONDS),60) $(if $(RECORD),--record) $(TARGETS)

faults: export PYTHONSAFEPATH = 1

faults: setup ## break things, with packets going through: what is lost, into docs/reliability.md (root); ROWS="killed" for some
	@$(BIN)/python faults/main.py $(if $(ROWS),--only $(ROWS))

vm: setup ## fetch the virtual machine's kernel; with CMD="uname -a" run that in it
	@$(BIN)/python -P -m glacic.lab.vm -- $(CMD)

install: ## install below PREFIX (/usr/local), with its Python dependencies, for PYTHON; DESTDIR is honoured
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' tools/install

uninstall: ## remove what `make install` put there; configuration and what was learned stay
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' tools/install --remove

deb: ## build the Debian package, for this Debian's own Python
	@tools/debian-packages
	@tools/deb

lock: ## pin the Python requirements anew
	@tools/lock

clean: ## remove what was built here (the virtual machine's kernel stays in the user's cache folder)
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find glacic tests -name __pycache__ -type d -exec rm -rf {} +
