# Every command of the project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: venv
venv: .venv/installed ## install what the project's commands need, into .venv

.venv/installed: requirements.lock pyproject.toml converter_app/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || apt-get install -y --no-install-recommends python3-venv
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -q --require-hashes -r requirements.lock
	.venv/bin/pip install -q --no-deps --no-build-isolation -e converter_app
	@touch $@

# What the lab and the daemon's tests need from Debian, installed once.
.venv/packages: .venv/installed lab/machine.py
	@missing=$$(for package in $$(.venv/bin/python -m lab packages) redis-server chromium \
	  prometheus prometheus-alertmanager gpg gpg-agent; do \
	  dpkg -s $$package >/dev/null 2>&1 || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	  [ $$(id -u) = 0 ] || { echo "root is needed to install:" $$missing >&2; exit 1; }; \
	  echo "installing" $$missing; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing >.venv/apt.log 2>&1 || { tail .venv/apt.log; exit 1; }; \
	fi
	@touch $@

.PHONY: demo
demo: .venv/packages ## two hosts, a deploy, real photographs, and what they weigh as WebP
	python -m lab up
	pyinfra -y inventories/lab.py deploy.py
	python -m demo

.PHONY: down
down: .venv/installed ## stop the demo's hosts and remove them
	python -m lab down

.PHONY: adopt
adopt: .venv/installed ## move a live shop's pictures to the CDN host: INVENTORY=inventories/shop.py [BWLIMIT=8M]
	@test -n "$(INVENTORY)" || { echo "name the inventory: make adopt INVENTORY=inventories/shop.py" >&2; exit 2; }
	@python -m migration adopt $(INVENTORY) $(if $(BWLIMIT),--bandwidth $(BWLIMIT))

.PHONY: leave
leave: .venv/installed ## take the site off the CDN, all pictures local again: INVENTORY=... [BWLIMIT=8M]
	@test -n "$(INVENTORY)" || { echo "name the inventory: make leave INVENTORY=inventories/shop.py" >&2; exit 2; }
	@python -m migration leave $(INVENTORY) $(if $(BWLIMIT),--bandwidth $(BWLIMIT))

.PHONY: test
test: .venv/packages ## unit tests, then labs of both suites: deploy, deploy again, testinfra, e2e
	pytest tests/unit converter_app/tests tests/lab tests/testinfra tests/e2e --ignore tests/e2e/test_outages.py \
	  -m 'not long'

.PHONY: outages
outages: .venv/packages ## the faults between the hosts, in short: cuts of seconds, a few kills
	pytest tests/e2e/test_outages.py

.PHONY: alerts
alerts: .venv/packages ## each alert made to ring by a real fault, and to end by its repair: [SUITE=trixie]
	pytest tests/e2e/test_alerts.py --suite $(or $(SUITE),trixie)

.PHONY: bench
bench: .venv/packages ## the converter against its own encoding in a bare loop, cwebp and sharp: [CORPUS=dir]
	@command -v cwebp >/dev/null || apt-get install -y -qq --no-install-recommends webp
	python -m benchmarks.converter $(if $(CORPUS),--corpus $(CORPUS))

.PHONY: bench-http
bench-http: .venv/packages ## negotiation, cache and misses under load, on the lab that `make demo` left up
	@command -v wrk >/dev/null || apt-get install -y -qq --no-install-recommends wrk
	python -m benchmarks.http

.PHONY: screenshot
screenshot: .venv/packages ## the picture of the lab's gallery in the README
	python -m benchmarks.screenshot docs/gallery.png

.PHONY: faults
faults: .venv/packages ## the fault tables in full: 60 s cuts, 50 kills, 5,000 spooled files
	FAULTS=full pytest converter_app/tests/test_faults.py tests/e2e/test_outages.py

.PHONY: fuzz
fuzz: .venv/installed ## mutated pictures of every format through the image path: [SECONDS=300] [SEED=1]
	python converter_app/tools/fuzz.py --seconds $(or $(SECONDS),300) $(if $(SEED),--seed $(SEED))

.PHONY: bench-scan
bench-scan: .venv/packages ## scan and watch of a large tree: [FILES=1000000] [DIRECTORIES=100000] [KEEP=1]
	python -m benchmarks.scan --files $(or $(FILES),1000000) --directories $(or $(DIRECTORIES),100000) \
	  $(if $(KEEP),--keep)

.PHONY: soak
soak: .venv/packages ## half an hour of random faults, then both trees compared: [SEED=1] [SOAK=30]
	SOAK=$${SOAK:-30} pytest -s tests/e2e/test_soak.py --suite trixie

.PHONY: bench-sshfs
bench-sshfs: .venv/packages ## which sshfs options small files are fastest with
	python -m lab up
	pyinfra -y inventories/lab.py deploy.py
	python -m benchmarks.sshfs

.PHONY: bench-ansible
bench-ansible: .venv/packages ## this deploy against Ansible with the same state, nothing to do, on a fresh lab: [ROUNDS=5]
	python -m lab up
	pyinfra -y inventories/lab.py deploy.py
	python -m benchmarks.ansible --rounds $(or $(ROUNDS),5)

.PHONY: unit
unit: .venv/installed ## only the tests that need neither root nor a lab
	pytest tests/unit

.PHONY: lock
lock: ## renew the locks of this machine's and the hosts' packages (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra dev pyproject.toml converter_app/pyproject.toml --upgrade -o requirements.lock
	for python in 3.11.2 3.13.5; do uv pip compile --quiet --python-version $$python --no-header \
	  --python-platform x86_64-manylinux_2_28 --only-binary :all: --generate-hashes --upgrade \
	  converter_app/pyproject.toml -o converter_app/requirements-$${python%.*}.lock; done

.PHONY: lint
lint: venv ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy
