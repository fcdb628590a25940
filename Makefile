# Two commands for everybody: `make demo` runs the main job, `make test` the tests. `make help` lists the others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := CMakeLists.txt $(wildcard kernels/*.def kernels/*/*.c kernels/*/*.h kernels/*/*.cpp)
EXTRAS := torch,onnx,nir,demo,bench,test,dev
TEST_WORKERS ?= 2

.PHONY: help install demo test test-slow test-boards test-emulators bench bench-results lint types format-check sanitize clean

help:
	@echo "make demo       train, prune, compile, verify, measure and export two networks (runs/demo/report.html)"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that need minutes or real data (SPARSECIRC_DATA)"
	@echo "make bench      sparse kernels beside every peer that is installed; make bench-results keeps and publishes all"
	@echo "make test-neon  the kernels for 64-bit Arm, cross-compiled and emulated"
	@echo "make test-boards  exported C on emulated Cortex-M boards, 64-bit Arm and RISC-V"
	@echo "make lint types format-check sanitize   what CI checks besides"
	@echo "make test-emulators  exported networks in simulators of other hands, each in an environment of its own"
	@echo "make install    create $(VENV) and build the kernels;  make clean removes what was built"

install: $(STAMP)

# Debian's python3 comes without ensurepip unless python3-venv is installed; its pip can then fill the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "sparsecirc needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=python3.11 ..." >&2; exit 2; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
	  || { echo "no C++ compiler found: apt-get install build-essential python3-dev" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV)/bin/python install -q pip; }

$(STAMP): $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(BIN)/python -m pip install -q -c constraints.txt 'torch==2.13.0'
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/sparsecirc demo -o runs/demo --force

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) -m 'not slow'

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Everything that README.md and docs/benchmarks.md show of this machine, measured again and written there.
bench-results: $(STAMP)
	$(BIN)/python -m benchmarks --results
	$(BIN)/python -m benchmarks --results --isa avx2 --case gru_unstructured --case gru_unstructured_int16 \
	  --case gru_block8
	$(BIN)/python -m benchmarks.sweeps --results
	$(BIN)/python -m benchmarks.publish

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format-check: $(STAMP)
	$(BIN)/clang-format --dry-run -Werror $(wildcard kernels/*/*.c kernels/*/*.h kernels/*/*.cpp \
	  sparsecirc/export/onnx/library/*.[ch] export/*/*.[ch] export/boards/apps/*.[ch])

# The C tests of the kernels under address and undefined-behaviour sanitizers.
sanitize: $(STAMP)
	$(BIN)/cmake -S . -B build/sanitize -DSPARSECIRC_BUILD_TESTS=ON -DSPARSECIRC_SANITIZE=ON >/dev/null
	$(BIN)/cmake --build build/sanitize
	build/sanitize/sc_test
	build/sanitize/sc_test_training
	build/sanitize/sc_fuzz
	$(BIN)/python -m pytest -q -m slow tests/export/test_onnx_packed.py tests/export/test_onnx_custom.py -k sanitizers
	@if [ -x build/sanitize/sc_test_first_avx512 ]; then \
	  for format in lookup16 lookup8 dense16 dense8; do build/sanitize/sc_test_first_avx512 $$format || exit 1; done; fi

# The C tests and the packers against kernels for 64-bit Arm, in an emulator; once more, where it differs, without the
# instructions that early processors lack.
test-neon: $(STAMP)
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null \
	  || { echo "make test-neon needs: apt-get install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user" >&2; exit 2; }
	$(BIN)/cmake -S . -B build/neon -DSPARSECIRC_BUILD_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake >/dev/null
	$(BIN)/cmake --build build/neon
	$(BIN)/ctest --test-dir build/neon --output-on-failure -j $(TEST_WORKERS)
	qemu-aarch64 -cpu cortex-a72 build/neon/sc_test dense8
	$(BIN)/python -m pytest -m slow tests/test_neon.py

# Simulators and trainers that do not fit beside each other: an environment each, from pinned requirements. `peers` and
# `avalanche` lie over the project's own, whose torch they use. Lava needs Python 3.10, and nengo-loihi one up to 3.12:
# make test-emulators EMULATORS="peers avalanche brian2 pynn xylosim nengo_loihi lava" PYTHON310=/path/to/python3.10
EMULATORS ?= peers avalanche brian2 pynn xylosim nengo_loihi
PYTHON310 ?= python3.10
EMULATOR_STAMPS := $(EMULATORS:%=.emulators/%/.installed)

.emulators/%/.installed: tests/emulators/requirements/%.txt | $(STAMP)
	@echo "environment for $*"
	@rm -rf .emulators/$* && mkdir -p .emulators
	@case $* in \
	  lava) $(PYTHON310) -m venv .emulators/lava || { echo "lava needs Python 3.10: set PYTHON310" >&2; exit 2; };; \
	  *) $(PYTHON) -m venv .emulators/$*;; esac
	@case $* in peers|avalanche) $(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' \
	  % sysconfig.get_paths()['purelib'])" > "$$(.emulators/$*/bin/python -c \
	  "import sysconfig; print(sysconfig.get_paths()['purelib'])")/project.pth";; esac
	.emulators/$*/bin/python -m pip install -q $(if $(filter peers avalanche,$*),-c constraints.txt) -r $<
	@touch $@

test-emulators: $(STAMP) $(EMULATOR_STAMPS)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) -m slow tests/emulators
	set -e; if [ -e .emulators/peers/.installed ]; then .emulators/peers/bin/python -m pytest -m slow \
	  tests/export/test_nir_peers.py tests/emulators/test_neurobench.py; \
	  .emulators/peers/bin/python -m pytest -n $(TEST_WORKERS) tests/continual/test_hooks.py tests/export/test_onnx_consumers.py \
	  tests/test_bench.py; fi
	if [ -e .emulators/avalanche/.installed ]; then .emulators/avalanche/bin/python -m pytest -m slow \
	  tests/continual/test_avalanche.py; fi

# Exported C on emulated Cortex-M boards and, in user-mode emulators, on 64-bit Arm and RISC-V.
test-boards: $(STAMP)
	@command -v arm-none-eabi-gcc >/dev/null && command -v qemu-system-arm >/dev/null \
	  || { echo "make test-boards needs: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" >&2; exit 2; }
	$(BIN)/python -m pytest -m slow tests/export/test_c_boards.py tests/export/test_c_apps.py

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks $(STAMP)
