# `make demo` and `make test` are all a newcomer needs; both make .venv, install into it and build csrc/ (`make install`).

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard csrc/*.py csrc/*/*.h csrc/*/*.cpp)

PYTEST := OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2 $(BIN)/python -m pytest

.PHONY: install demo test test-all lint bench gpu-1 gpu-2 gpu-3 sanitize sanitize-all fuzz aarch64 toolkits timm clean

install: $(VENV)/.installed

# Once the environment is there: about 40 s on two cores.
demo: $(VENV)/.installed
	@echo; echo "== 1 of 5, a few seconds: which backends can run here"
	@$(BIN)/python -c "import fermt_kernels as fk; print(fk.backends())"
	@echo "== 2 of 5, about 10 s: parameters and FLOPs, by closed forms and by torch's counter (python -m benchmarks.flops)"
	@$(BIN)/python -m benchmarks.flops
	@echo "== 3 of 5, about 10 s: errors of every backend against float64 (python -m benchmarks.agreement)"
	@$(BIN)/python -m benchmarks.agreement
	@echo "== 4 of 5, about 20 s: a tracked frame beside PyTorch in float32 (python -m benchmarks.frame)"
	@$(BIN)/python -m benchmarks.frame --quick --only float32
	@echo "== 5 of 5, about 20 s: a real clip, tracked into demo/ (fermt track)"
	@mkdir -p demo
	@$(BIN)/fermt track examples/basketball.mp4 --box 372,108,125,240 --lost-below 0.3 --out demo/boxes.csv --video demo/basketball.mp4

# Two workers of two threads each, which do not spin while they wait.
test: $(VENV)/.installed
	@echo "== The fast lane of the tests: 7 to 12 minutes on two cores; make test-all runs the rest, too"
	$(PYTEST) -m "not slow" -n 2 --dist worksteal --require-backend cpp

test-all: $(VENV)/.installed
	@echo "== Every test: about half an hour on two cores"
	$(PYTEST) -n 2 --dist worksteal --require-backend cpp

lint: $(VENV)/.linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*/*.h csrc/*/*.cpp examples/*.cpp tests/support/*.cpp

bench: $(VENV)/.installed
	$(BIN)/python -m pytest benchmarks

# Three runs on a GPU, each under nine minutes and complete in itself, with the Python at hand: nothing is installed or
# built. Results go to $OUT or gpu-results/; docs/gpu.md has what each does. COMMIT names the commit where there is no git.
gpu-1: GPU_RUN := headline
gpu-2: GPU_RUN := checks
gpu-3: GPU_RUN := peers
gpu-1 gpu-2 gpu-3:
	PYTHONPATH=$(CURDIR) PYTHONUNBUFFERED=1 $(PYTHON) -m benchmarks.gpu $(GPU_RUN) --commit "$(COMMIT)"

# The library and a driver that runs every entry point, under AddressSanitizer and UndefinedBehaviorSanitizer: two
# instruction sets and some shapes, or all of both.
SHAPES ?= quick
SANITIZED_ISAS ?= generic,avx2
sanitize: $(VENV)/.installed
	@mkdir -p build
	FERMT_BUILD_ISAS=$(SANITIZED_ISAS) $(BIN)/python csrc/driver/build.py build/sanitize \
		-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
	build/sanitize $(SHAPES)

sanitize-all:
	$(MAKE) sanitize SHAPES=all SANITIZED_ISAS=

# Drawn inputs for FUZZ_SECONDS: the kernels on a library with AddressSanitizer, the file readers, the parsers.
FUZZ_SECONDS ?= 300
FUZZ := $(CURDIR)/build/fuzz
fuzz: $(VENV)/.installed
	@rm -rf $(FUZZ) && mkdir -p $(FUZZ)
	@cp -r fermt fermt_kernels tools $(FUZZ)
	FERMT_BUILD_ISAS=$(SANITIZED_ISAS) $(BIN)/python csrc/build_library.py $(FUZZ)/fermt_kernels/cpp \
		-g -O1 -fsanitize=address -fno-omit-frame-pointer
	cd $(FUZZ) && LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(FUZZ) \
		$(abspath $(BIN))/python -m tools.fuzz --seconds $(FUZZ_SECONDS)

# The rows of another architecture, and, where qemu-user is installed, the driver run on a CPU that has them all.
aarch64: $(VENV)/.installed
	@mkdir -p build
	CXX=aarch64-linux-gnu-g++ $(BIN)/python csrc/driver/build.py build/aarch64 -O2 -static
	@if command -v qemu-aarch64-static >/dev/null; then qemu-aarch64-static -cpu max build/aarch64 $(SHAPES); else echo "built, not run: no qemu-user-static"; fi

# The adapters under the toolkits that they are for, and GOT-10k's scores beside those of its toolkit. These are heavy, and
# VOT's is under the GPL, so they get an environment of their own. attributee 0.1.10, which the VOT toolkit needs, cannot be
# imported under Python 3.11 or newer.
toolkits:
	$(PYTHON) -m venv $(VENV)-toolkits
	$(VENV)-toolkits/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(VENV)-toolkits/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]' vot-toolkit got10k 'attributee!=0.1.10'
	$(VENV)-toolkits/bin/python -c "import got10k.experiments, trax, vot"
	OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2 $(VENV)-toolkits/bin/python -m pytest tests/test_adapters.py tests/test_adapter_vot.py \
		tests/test_scores_got10k.py

# fk.swap on every family of timm's models with attention, in an environment of its own. Without dependencies, because
# torchvision would bring another torch: the tests stand in for it.
timm:
	$(PYTHON) -m venv $(VENV)-timm
	$(VENV)-timm/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(VENV)-timm/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]' huggingface_hub pyyaml safetensors
	$(VENV)-timm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps timm
	OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2 $(VENV)-timm/bin/python -m pytest -q -rA --show-capture=no tests/test_timm.py

clean:
	rm -rf $(VENV) $(VENV)-toolkits $(VENV)-timm build dist demo *.egg-info
	rm -f .ninja_deps .ninja_log
	find fermt_kernels \( -name "*.so" -o -name fermt.h \) -delete

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { echo "Python has no venv module here. Debian, Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.linters: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
