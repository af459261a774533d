# Two commands do all: `make demo` and `make test`. Neither needs root.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test smoke fuzz lint board data data-if-any zoo networks bench peers clean help

help:
	@echo "make demo    compile ShuffleNet for an ARM core, prove it on an emulated board, compare"
	@echo "make test    lint, types and all tests      make smoke   the quickest of them"
	@echo "make fuzz    files and peers that nobody should trust, ten minutes of new ones"
	@echo "make board   build the emulated board       make data    fetch Fashion-MNIST"
	@echo "make zoo     every network on every target: parity and shuffle kernels"
	@echo "make networks  57 networks of pytorchcv and timm, and odd programs: parity, hours, resumes"
	@echo "make bench   against ONNX Runtime, OpenVINO and four more: up to half an hour, resumes"
	@echo "make peers   beside five engines on an emulated core: an hour, resumes"
	@echo "make clean   remove what was built here (not the cache)"

# The virtual environment, made again when the pins change.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 14) else \
	  "Python %d.%d is not supported: run make PYTHON=python3.11" % v[:2])'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[test]'
	@touch $(READY)

board: $(READY)
	$(RUN) deploy/device.py build

data: $(READY)
	$(RUN) model/fetch_fashion.py

demo: $(READY) board
	$(RUN) compile/tune.py --target arm --standalone --json build/demo-tune.json
	$(RUN) deploy/run.py build/bundles/shufflenet-g3-x0.5-cortex-a72 --count
	$(RUN) deploy/compare.py --board raspberry-pi-4 --json build/demo-pi4.json --chart build/demo-pi4.png
	$(RUN) deploy/compare.py --target host --json build/demo-host.json --chart build/demo-host.png
	$(RUN) deploy/report.py build/bundles/shufflenet-g3-x0.5-cortex-a72 --board raspberry-pi-4 \
	  --output build/demo.html
	$(RUN) deploy/run.py build/bundles/shufflenet-g3-x0.5-cortex-a72 --standalone
	$(RUN) deploy/precisions.py --board raspberry-pi-5

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

smoke: $(READY)
	$(RUN) -m pytest -m smoke

# Checks, the emulated board and the data come at once: each keeps one core.
test: $(READY)
	$(MAKE) --no-print-directory --jobs=3 lint board data-if-any
	$(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

data-if-any: $(READY)
	-$(RUN) model/fetch_fashion.py

# Each round starts from another seed; the first that finds something ends it.
fuzz: $(READY)
	@end=$$(( $$(date +%s) + 60 * $${FUZZ_MINUTES:-10} )); while [ $$(date +%s) -lt $$end ]; do \
	  FUZZ_PROFILE=long $(RUN) -m pytest tests/fuzz --exitfirst || exit 1; done

zoo: $(READY) board
	mkdir -p build
	$(RUN) deploy/check_zoo.py --json build/zoo.json

# Packages of networks, only here: timm asks for torchvision, which no network needs.
$(VENV)/.networks: $(READY)
	$(RUN) -m pip install --quiet --editable '.[test,networks]'
	$(RUN) -m pip install --quiet --no-deps pytorchcv==0.0.74 timm==1.0.31
	@touch $@

networks: $(VENV)/.networks board
	mkdir -p build
	$(RUN) tests/networks/check_networks.py --targets host cortex-a72 --json build/networks.json --resume \
	  --table tests/networks/NETWORKS.md

# The engines that we are compared with: only here, for they are large.
$(VENV)/.bench: $(READY)
	$(RUN) -m pip install --quiet --editable '.[test,bench]'
	@touch $@

bench: $(VENV)/.bench
	$(RUN) deploy/bench.py

peers: $(VENV)/.bench board
	$(RUN) deploy/peers.py --board raspberry-pi-4 --json build/peers.json

clean:
	rm -rf build $(VENV)
