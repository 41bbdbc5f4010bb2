# Every command of the project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where another environment is active, pyinfra would warn of it in each output.
unexport VIRTUAL_ENV

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Installs packages of Debian; says which, and of a failure the end of what apt said.
apt-install = [ $$(id -u) = 0 ] || { echo "root is needed to install:" $(1) >&2; exit 1; }; \
	echo "installing" $(1); log=$$(mktemp); \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $(1); } >$$log 2>&1 || { tail $$log >&2; rm $$log; exit 1; }; \
	rm $$log

.PHONY: venv
venv: .venv/installed ## install what the project's commands need, into .venv

.venv/installed: requirements.lock pyproject.toml $(wildcard *_app/pyproject.toml) web_kit/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call apt-install,python3-venv); }
	@echo "installing what requirements.lock names into .venv: a minute or two"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -q --require-hashes -r requirements.lock
	.venv/bin/pip install -q --no-deps --no-build-isolation -e . -e converter_app -e web_kit -e console_app
	@touch $@

# Installs those of the packages $(1) that are missing.
define debian-packages
	@missing=$$(for package in $(1); do \
	  [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || echo $$package; done); \
	if [ -n "$$missing" ]; then $(call apt-install,$$missing); fi
	@touch $@
endef

# What the lab needs from Debian, and nothing that would start a service here.
.venv/lab: .venv/installed dev/lab/machine.py
	$(call debian-packages,$$(.venv/bin/python -m dev.lab packages))

# What the tests need besides; a browser of that name need not be Debian's.
.venv/packages: .venv/lab
	$(call debian-packages,redis-server restic prometheus prometheus-alertmanager gpg gpg-agent wrk \
	  $$(command -v chromium >/dev/null || echo chromium))

.PHONY: demo
demo: .venv/lab ## two hosts, a deploy, real photographs, and what they weigh as WebP
	python -m dev.lab up
	pyinfra -y inventories/lab.py deploy.py
	python -m dev.demo

.PHONY: down
down: .venv/installed ## stop the demo's hosts and remove them
	python -m dev.lab down

RUN_TESTS = python -m tests.run $(if $(SUITE),--suite $(SUITE)) $(if $(ONLY),--only $(ONLY)) \
  $(if $(JOBS),--jobs $(JOBS)) $(if $(REPORTS),--reports $(REPORTS))

.PHONY: test test-all
test: .venv/packages ## what to run before a push: [SUITE=one of Debian] [ONLY="stages"] [JOBS=3] [REPORTS=dir]
	@$(RUN_TESTS)

test-all: .venv/packages .venv/audit/installed ## all tests, of both suites: edges, rollouts, outages, each alert; hours: [as test]
	@$(RUN_TESTS) --all

.PHONY: edges
edges: .venv/packages ## edges and a balancer: drained, killed, cut off under load, no request lost: [SUITE=trixie]
	pytest tests/edges tests/testinfra -m edges --suite $(or $(SUITE),trixie)

# On top of what is there: the pins that both locks have are the same.
.venv/molecule: .venv/installed requirements-molecule.lock
	.venv/bin/pip install -q --require-hashes -r requirements-molecule.lock
	@touch $@

.PHONY: molecule
molecule: .venv/lab .venv/molecule ## bare hosts, deploy, deploy again, checks of each role, by molecule: [SUITE=trixie]
	MOLECULE_SUITE=$(or $(SUITE),trixie) molecule test

.PHONY: upgrade-test
upgrade-test: .venv/lab .venv/molecule ## a shop of the previous release gets this one while visitors come: [PREVIOUS=ref] [SUITE=trixie]
	@PREVIOUS=$(PREVIOUS) python -m tests.upgrade previous
	PREVIOUS=$(PREVIOUS) MOLECULE_SUITE=$(or $(SUITE),trixie) molecule test -s upgrade

.PHONY: outages
outages: .venv/packages ## the faults between the hosts, in short: cuts of seconds, a few kills
	pytest tests/e2e/test_outages.py

.PHONY: alerts
alerts: .venv/packages ## each alert made to ring by a real fault, and to end by its repair: [SUITE=trixie]
	pytest tests/e2e/test_alerts.py --suite $(or $(SUITE),trixie)

.PHONY: rollout-test
rollout-test: .venv/packages ## rolling updates of five hosts under load, killed at each step: [SUITE=trixie]
	pytest tests/rollout --suite $(or $(SUITE),trixie)

# Programs of their own: what they need doesn't go together with the project's. Lynis isn't installed: its package has
# a timer, by which it would look at this machine daily.
.venv/audit/installed: .venv/installed requirements-audit.lock
	$(PYTHON) -m venv --clear .venv/audit
	.venv/audit/bin/pip install -q --require-hashes -r requirements-audit.lock
	cd .venv/audit && { apt-get download -qq lynis || { apt-get update -qq && apt-get download -qq lynis; }; }
	cd .venv/audit && dpkg-deb -x lynis_*.deb lynis && rm lynis_*.deb
	@touch $@

.PHONY: audit
audit: .venv/lab .venv/audit/installed ## what known tools say of the lab that `make demo` left up, as figures: [SBOM=dir]
	@python -m dev.audit $(if $(SBOM),--sbom $(SBOM))

.PHONY: bench
bench: .venv/packages ## the converter against its own encoding in a bare loop, cwebp and sharp: [CORPUS=dir]
	@command -v cwebp >/dev/null || { $(call apt-install,webp); }
	python -m dev.bench.converter $(if $(CORPUS),--corpus $(CORPUS))

.PHONY: bench-http
bench-http: .venv/packages ## negotiation, cache and misses under load, on the lab that `make demo` left up
	@command -v wrk >/dev/null || { $(call apt-install,wrk); }
	python -m dev.bench.http

.PHONY: bench-drift
bench-drift: .venv/packages ## what a drift check costs, with up to 200 hosts: [HOSTS="2 25 50 100 200"]
	python -m dev.bench.drift $(if $(HOSTS),--hosts $(HOSTS))

.PHONY: screenshot
screenshot: .venv/packages ## the picture of the lab's gallery in the README
	python -m dev.bench.screenshot docs/gallery.png

.PHONY: faults
faults: .venv/packages ## the fault tables in full: 60 s cuts, 50 kills, 5,000 spooled files
	FAULTS=full pytest converter_app/tests/test_faults.py tests/e2e/test_outages.py

.PHONY: oracle
oracle: .venv/packages ## seeded schedules of faults on a converter: nothing lost, nobody gets another picture: [SEED=1] [COUNT=1000] [JOBS=2]
	python -m tests.oracle --seed $(or $(SEED),1) --count $(or $(COUNT),1000) --jobs $(or $(JOBS),2)

.PHONY: fuzz
fuzz: .venv/installed ## mutated pictures of every format through the image path: [SECONDS=300] [SEED=1]
	python -m dev.fuzz --seconds $(or $(SECONDS),300) $(if $(SEED),--seed $(SEED))

.PHONY: bench-scan
bench-scan: .venv/packages ## scan and watch of a large tree: [FILES=1000000] [DIRECTORIES=100000] [KEEP=1]
	python -m dev.bench.scan --files $(or $(FILES),1000000) --directories $(or $(DIRECTORIES),100000) \
	  $(if $(KEEP),--keep)

.PHONY: soak
soak: .venv/packages ## half an hour of random faults, then both trees compared: [SEED=1] [SOAK=30]
	SOAK=$${SOAK:-30} pytest -s tests/e2e/test_soak.py --suite trixie

.PHONY: bench-sshfs
bench-sshfs: .venv/lab ## which sshfs options small files are fastest with
	python -m dev.lab up
	pyinfra -y inventories/lab.py deploy.py
	python -m dev.bench.sshfs

.PHONY: bench-ansible
bench-ansible: .venv/packages ## this deploy against Ansible with the same state, nothing to do, on a fresh lab: [ROUNDS=5]
	python -m dev.lab up
	pyinfra -y inventories/lab.py deploy.py
	python -m dev.bench.ansible --rounds $(or $(ROUNDS),5)

.PHONY: unit
unit: .venv/installed ## only the tests that need neither root nor a lab
	pytest tests/unit

.PHONY: lock
lock: ## renew the locks of this machine's and the hosts' packages (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra dev pyproject.toml $(wildcard *_app/pyproject.toml) web_kit/pyproject.toml --upgrade -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra molecule pyproject.toml --constraint requirements.lock --upgrade -o requirements-molecule.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --group audit --upgrade -o requirements-audit.lock
	for python in 3.11.2 3.13.5; do uv pip compile --quiet --python-version $$python --no-header \
	  --python-platform x86_64-manylinux_2_28 --only-binary :all: --generate-hashes --upgrade \
	  converter_app/pyproject.toml -o converter_app/requirements-$${python%.*}.lock; done

.PHONY: lint
lint: venv ## ruff, mypy, and what checks YAML and the workflow file
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet --no-progress .github/workflows
	shellcheck .ci/run
