# weft: make all | check | asan | tsan | fuzz | bench | lint | format | install | help
#
# V=release|debug|asan|tsan|fuzz chooses a tree under build/; ARCH=arm64 cross-builds beside it.

V       ?= release
ARCH    ?= $(shell uname -m | sed 's/aarch64/arm64/;s/amd64/x86_64/')
HOST    := $(shell uname -m | sed 's/aarch64/arm64/;s/amd64/x86_64/')
PREFIX  ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
SYSTEMD_UNIT_DIR ?= $(PREFIX)/lib/systemd/system
CFLAGS  ?=
LDFLAGS ?=
WERROR  ?= $(if $(CI),-Werror)

ifneq ($(ARCH),$(HOST))
CROSS_arm64 := aarch64-linux-gnu-
CROSS   ?= $(CROSS_$(ARCH))
# No -L: the loader must be of the same libc as the arm64 packages the program is linked with; the one
# of the cross compiler is older, and threads hang.
# OpenBLAS starts its threads when it is loaded, which hangs under qemu-user.
QEMU    ?= qemu-aarch64-static -E OPENBLAS_NUM_THREADS=1
B       := build/$(ARCH)-$(V)
else
B       := build/$(V)
endif
ifeq ($(origin CC),default)
CC      := $(if $(filter fuzz,$(V)),clang,$(CROSS)gcc)
endif

VERSION := 0.1.0

# What every file is built with: floating point exactly as written (ARCHITECTURE.md, "One answer").
WEFT_CFLAGS := -std=c11 -D_GNU_SOURCE -I. -I$(B) -DWEFT_VERSION='"$(VERSION)"' \
	-ffp-contract=off -fno-fast-math -fno-strict-aliasing -fno-common -pthread -MMD -MP
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wvla -Wundef -Wformat=2 -Wconversion -Wno-sign-conversion $(WERROR)

V_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
V_debug   := -O0 -g3
V_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
V_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
V_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all
VFLAGS    := $(V_$(V))
ifeq ($(VFLAGS),)
$(error V=$(V): expected release, debug, asan, tsan or fuzz)
endif

LIBS := -Wl,--as-needed -luv -lnng -lprotobuf-c -lopenblas -lyaml -ljansson -lpcre2-8 -lm -pthread
# Tests that let allocations of our objects fail define __wrap_malloc and so on.
WRAP_test_yaml := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
WRAP_test_grammar := $(WRAP_test_yaml)
TEST_LIBS := -lcheck -lsubunit -lrt -lm -pthread

# Instruction sets: only these files get -m flags; the table chooses at run time.
ISA_x86_64 := kernels/avx2.c kernels/avx512.c kernels/avx512vnni.c
ISA_arm64  := kernels/neon.c kernels/dotprod.c kernels/i8mm.c
ISA_ALL    := $(ISA_x86_64) $(ISA_arm64)
# gcc would compute all products of a block before it adds any, and spill: twice slower with 16 registers.
IN_ORDER := $(if $(findstring clang,$(CC)),,-fno-tree-ter -fno-tree-reassoc)
FLAGS_kernels/avx2.c   := -mavx2 -mfma -mf16c $(IN_ORDER)
FLAGS_kernels/avx512.c := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
FLAGS_kernels/dotprod.c := -march=armv8.2-a+dotprod
FLAGS_kernels/i8mm.c := -march=armv8.2-a+dotprod+i8mm
FLAGS_kernels/avx512vnni.c := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c
FLAGS_kernels/avx512.c += $(IN_ORDER)
# What the same instructions reach at best, for bench_kernels.
PEAK := $(patsubst kernels/%,tests/peak/%,$(ISA_$(ARCH))) tests/peak/generic.c tests/peak/list_$(ARCH).c
$(foreach f,$(ISA_ALL),$(eval FLAGS_tests/peak/$(notdir $(f)) := $(FLAGS_$(f))))

KERNELS := $(filter-out $(ISA_ALL) kernels/cpu_%.c,$(wildcard kernels/*.c)) $(ISA_$(ARCH)) kernels/cpu_$(ARCH).c
BASE    := $(wildcard base/*.c)
PROTO   := $(wildcard proto/*.c)
PART    := $(wildcard partitioner/*.c)
DAEMON  := $(filter-out daemon/main.c,$(wildcard daemon/*.c))
COORD   := $(filter-out coordinator/main.c,$(wildcard coordinator/*.c))
obj      = $(patsubst %.c,$(B)/%.o,$(1))

PB_OBJ  := $(if $(wildcard proto/weft.proto),$(B)/proto/weft.pb-c.o)
LIB_OBJ := $(call obj,$(KERNELS) $(BASE) $(PROTO) $(PART) $(DAEMON) $(COORD)) $(PB_OBJ)

TEST_SRC := $(wildcard tests/test_*.c)
TEST_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_SRC))
TEST_LIB := $(call obj,$(PEAK) $(filter-out $(TEST_SRC) $(wildcard tests/bench_*.c tests/fuzz_*.c tests/tool_*.c),$(wildcard tests/*.c)))
# A fuzzer is a program in the tree V=fuzz; elsewhere test_corpus calls them all, each under its own name.
FUZZ_SRC := $(wildcard tests/fuzz_*.c)
FUZZ_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(FUZZ_SRC))
ifneq ($(V),fuzz)
$(foreach f,$(FUZZ_SRC),$(eval FLAGS_$(f) := -DLLVMFuzzerTestOneInput=weft_$(basename $(notdir $(f)))))
OBJ_test_corpus := $(call obj,$(FUZZ_SRC))
endif
BENCH_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bench_*.c))
TOOL_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/tool_*.c))

PROGRAMS := $(if $(wildcard daemon/main.c),$(B)/weftd) $(if $(wildcard coordinator/main.c),$(B)/weft)

Q := $(if $(VERBOSE),,@)
say = $(if $(VERBOSE),,@printf '  %-6s %s\n' '$(1)' '$(2)';)

all: $(PROGRAMS) ## build weft and weftd

$(B)/weftd: $(B)/daemon/main.o $(B)/libweft.a
	$(call say,LD,$@)$(CC) $(VFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/weft: $(B)/coordinator/main.o $(B)/libweft.a
	$(call say,LD,$@)$(CC) $(VFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/libweft.a: $(LIB_OBJ)
	$(call say,AR,$@)rm -f $@ && $(CROSS)ar rcs $@ $(LIB_OBJ)

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(WEFT_CFLAGS) $(WARN) $(VFLAGS) $(FLAGS_$<) $(CFLAGS) -c -o $@ $<

# protobuf-c: generated code is built without our warnings.
$(B)/proto/weft.pb-c.c $(B)/proto/weft.pb-c.h &: proto/weft.proto
	@mkdir -p $(@D)
	$(call say,PROTO,$<)protoc-c --c_out=$(B) $<
$(B)/proto/weft.pb-c.o: $(B)/proto/weft.pb-c.c
	$(call say,CC,$<)$(CC) $(WEFT_CFLAGS) $(VFLAGS) $(CFLAGS) -c -o $@ $<
$(call obj,$(PROTO) $(DAEMON) $(COORD) daemon/main.c coordinator/main.c $(wildcard tests/*.c)): | $(if $(PB_OBJ),$(B)/proto/weft.pb-c.h)

$(B)/tests/fuzz_%: $(B)/tests/fuzz_%.o $(TEST_LIB) $(B)/libweft.a
	$(call say,LD,$@)$(CC) $(VFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LIBS) $(TEST_LIBS)
$(B)/tests/test_corpus: $(OBJ_test_corpus)
$(B)/tests/%: $(B)/tests/%.o $(TEST_LIB) $(B)/libweft.a
	$(call say,LD,$@)$(CC) $(VFLAGS) $(LDFLAGS) $(WRAP_$(@F)) -o $@ $< $(OBJ_$(@F)) $(TEST_LIB) $(B)/libweft.a $(LIBS) $(TEST_LIBS)

$(B)/tests/test_tool_model: | $(B)/tests/tool_model
$(B)/tests/test_tool_golden: | $(B)/tests/tool_golden
$(B)/tests/test_bench_kernels: | $(B)/tests/bench_kernels

tests: all $(TEST_BIN) $(TOOL_BIN) ## build the tests without running them
check: tests ## run the whole suite of this tree
	$(Q)WEFT_QEMU='$(QEMU)' tests/run $(B)
asan tsan: ## the suite under AddressSanitizer + UBSan, or ThreadSanitizer
	$(Q)$(MAKE) --no-print-directory V=$@ check

fuzzers: $(FUZZ_BIN)
fuzz: ## run each fuzzer for FUZZ_SECONDS (60)
	$(Q)scripts/fuzz

ARGS_bench_kernels := -o build/bench.csv
bench: all $(BENCH_BIN) ## run the benchmarks (the machine should be otherwise idle); build/bench.csv has the kernels
	$(Q)$(foreach b,$(BENCH_BIN),echo "== $b" && \
		WEFT_SOURCE_DIR=$$PWD WEFT_BUILD_DIR=$$PWD/$(B) $b $(ARGS_$(notdir $b)) &&) true

install: all ## install below DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SYSCONFDIR)/weft \
		$(DESTDIR)$(SYSTEMD_UNIT_DIR) $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/doc/weft $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 755 $(B)/weft $(B)/weftd $(DESTDIR)$(PREFIX)/bin/
	install -m 644 docs/weft.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 docs/weft-cluster.yaml.5 $(DESTDIR)$(PREFIX)/share/man/man5/
	install -m 644 docs/weftd.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -m 644 configs/cluster.yaml configs/weftd.yaml README.md CHANGELOG.md \
		$(DESTDIR)$(PREFIX)/share/doc/weft/
	[ -e $(DESTDIR)$(SYSCONFDIR)/weft/weftd.yaml ] || \
		install -m 644 configs/weftd.yaml $(DESTDIR)$(SYSCONFDIR)/weft/weftd.yaml
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|;s|/etc/weft|$(SYSCONFDIR)/weft|' configs/systemd/weftd.service \
		> $(DESTDIR)$(SYSTEMD_UNIT_DIR)/weftd.service
	chmod 644 $(DESTDIR)$(SYSTEMD_UNIT_DIR)/weftd.service
	$(B)/weft completion > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/weft
uninstall: ## remove what install put there, but not the settings
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/weft bin/weftd share/man/man1/weft.1 \
		share/man/man5/weft-cluster.yaml.5 share/man/man8/weftd.8 share/bash-completion/completions/weft) \
		$(DESTDIR)$(SYSTEMD_UNIT_DIR)/weftd.service
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/weft

format: ## lay out the code
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h')
lint: ## format, arrows, headers, clang-tidy, cppcheck
	$(Q)scripts/lint

print-qemu:
	@echo $(QEMU)

clean: ## remove build/
	rm -rf build
help: ## this list
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: '{printf "  %-12s %s\n", $$1, $$2}'


.PHONY: print-qemu all tests check fuzz fuzzers bench install uninstall asan tsan format lint clean help
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
