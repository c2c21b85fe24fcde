# SPDX-License-Identifier: BSD-3-Clause
# detour: `make help` tells the targets.  Objects and programs go to $(BUILD).
#
# A new .c file in a folder is picked up by itself; a new tests/unit/test_*.c
# becomes a test program.  Variants (asan, tsan) are this same Makefile with
# another BUILD and SANITIZE.

VERSION  := 0.1.0
PREFIX   ?= /usr/local
BUILD    ?= build
# One name for one folder, or its dependency files would name other objects.
override BUILD := $(patsubst $(CURDIR)/%,%,$(abspath $(BUILD)))
ifeq ($(origin CC),default) # make has one of its own
CC       := gcc
endif
SANITIZE ?=

# Warnings: all of them on, none switched off.  WERROR=1 (CI) makes them errors.
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wpointer-arith -Wvla
ifeq ($(WERROR),1)
WARNINGS += -Werror
endif
OPT      ?= -O2 -g
HARDEN   := -D_FORTIFY_SOURCE=2 -fstack-protector-strong
ifneq ($(SANITIZE),)
OPT      := -O1 -g -fno-omit-frame-pointer
HARDEN   := -fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined
endif

# Libraries by what uses them; pkg-config finds them.
DEPS_common  := inih jansson libnbd
DEPS_lun     := liburing libiscsi blkid libudev
DEPS_health  := libmicrohttpd gnutls jansson libcurl
DEPS_plugin  := nbdkit
DEPS_proxy   := openssl
DEPS_tests   := cmocka
DEPS_all     := $(sort $(DEPS_common) $(DEPS_lun) $(DEPS_health) \
                $(DEPS_plugin) $(DEPS_proxy))

# What tests and demonstrates installs what it lacks; it can do without some of
# it (tests are skipped then), but not without the libraries.
GOALS        := $(or $(MAKECMDGOALS),all)
INSTALLING   := check model model-large demo random soak fault lab asan tsan \
                check-valgrind bench
WITHOUT_DEPS := clean help format shellcheck deps
ifneq ($(filter $(INSTALLING),$(GOALS)),)
$(if $(filter 0,$(MAKELEVEL)),$(shell deploy/install-deps >&2))
endif
ifneq ($(filter bench,$(GOALS)),)
$(if $(filter 0,$(MAKELEVEL)),$(shell deploy/install-deps bench >&2))
endif
ifneq ($(filter-out $(WITHOUT_DEPS),$(GOALS)),)
ifneq ($(shell pkg-config --exists $(DEPS_all) $(DEPS_tests) 2>&1 || echo no),)
$(error libraries are missing: deploy/install-deps installs them)
endif
PKG_CFLAGS := $(shell pkg-config --cflags $(DEPS_all))
endif

pkg_libs = $(shell pkg-config --libs $(1))

CPPFLAGS += -I. -D_GNU_SOURCE -DDETOUR_VERSION='"$(VERSION)"' $(PKG_CFLAGS)
CFLAGS   += -std=gnu11 $(OPT) $(WARNINGS) $(HARDEN) -fPIC -pthread
LDFLAGS  += -pthread -Wl,--as-needed $(if $(SANITIZE),-fsanitize=$(SANITIZE),-Wl,-z,relro,-z,now)

src       = $(wildcard $(1)/*.c)
obj       = $(patsubst %.c,$(BUILD)/%.o,$(1))

# Programs are one file of their folder; the rest of the folder is a library,
# so that unit tests link the very same objects.
MAINS     := plugin/plugin.c proxy/main.c health/detourctl.c \
             health/detour-health.c
# RULES=1: programs for tests only, which leave rules out (common/rules.h) and
# die where they are told to (common/point.h).
SEAM      := $(if $(RULES),,common/rules.c common/point.c)
CPPFLAGS  += $(if $(RULES),-DDETOUR_RULES)
lib_src   = $(filter-out $(MAINS) $(SEAM),$(call src,$(1)))

LIBS      := $(foreach d,common lun health plugin proxy,$(BUILD)/lib$(d).a)
PLUGIN    := $(BUILD)/nbdkit-detour-plugin.so
PROXY     := $(BUILD)/detour-proxy
CTL       := $(BUILD)/detourctl
HEALTH    := $(BUILD)/detour-health
PROGRAMS  := $(PLUGIN) $(PROXY) $(CTL) $(HEALTH)
UNIT      := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/test_*.c))
LOADED    := tests/tools/liar.c tests/tools/holdwrites.c \
             tests/tools/slowclock.c tests/tools/steppedclock.c
TOOLS     := $(patsubst %.c,$(BUILD)/%,$(filter-out $(LOADED),\
             $(wildcard tests/tools/*.c))) $(patsubst %.c,$(BUILD)/%.so,$(LOADED))
BENCH     := $(BUILD)/tests/bench/nbdkit-bare-plugin.so \
             $(BUILD)/tests/bench/tls-stream
PODS      := $(wildcard */*.[158].pod)
PAGES     := $(patsubst %.pod,$(BUILD)/man/%,$(notdir $(PODS)))

.PHONY: all
all: $(PROGRAMS) $(PAGES)

define library
$$(BUILD)/lib$(1).a: $$(call obj,$$(call lib_src,$(1)))
	@rm -f $$@
	ar rcs $$@ $$^
endef
$(foreach d,common lun health plugin proxy,$(eval $(call library,$(d))))

# blockcheck's parts, apart from its options, for its unit tests too.
BLOCKCHECK := $(BUILD)/libblockcheck.a
$(BLOCKCHECK): $(call obj,$(call src,tests/blockcheck))
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# nodelete: nbdkit unmaps a plugin before it exits, and threads of ours that the
# kernel let go of late, or that only have their last steps to do, run its code.
$(PLUGIN): $(BUILD)/plugin/plugin.o $(BUILD)/libplugin.a $(BUILD)/libhealth.a \
	   $(BUILD)/liblun.a $(BUILD)/libcommon.a
	$(CC) -shared $(LDFLAGS) -Wl,-Bsymbolic -Wl,-z,nodelete -o $@ $^ \
	  $(call pkg_libs,libmicrohttpd $(DEPS_lun) $(DEPS_common))

$(PROXY): $(BUILD)/proxy/main.o $(BUILD)/libproxy.a $(BUILD)/libhealth.a \
	  $(BUILD)/liblun.a $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ \
	  $(call pkg_libs,$(DEPS_proxy) libmicrohttpd $(DEPS_lun) $(DEPS_common))

$(CTL): $(BUILD)/health/detourctl.o $(BUILD)/libhealth.a \
	$(BUILD)/liblun.a $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ \
	  $(call pkg_libs,$(DEPS_health) $(DEPS_lun) $(DEPS_common))

$(HEALTH): $(BUILD)/health/detour-health.o $(BUILD)/libhealth.a \
	   $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ \
	  $(call pkg_libs,$(DEPS_health) $(DEPS_common))

# The status page becomes part of it.
$(BUILD)/health/page.o: health/page.html

# A test names the functions it replaces as __wrap_NAME, itself or in a header
# that it has of tests/unit; the linker learns them from the source (only for
# calls across object files).
fixtures = $(shell sed -n 's|^\#include "\(tests/unit/.*\.h\)"|\1|p' $(1))
wraps = $(patsubst __wrap_%,-Wl$(comma)--wrap=%,$(sort \
	  $(shell grep -oh '__wrap_[a-z0-9_]*' $(1) $(call fixtures,$(1)))))
comma := ,

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(LIBS) $(BLOCKCHECK)
	$(CC) $(LDFLAGS) $(call wraps,tests/unit/$*.c) -o $@ $< \
	  -Wl,--start-group $(LIBS) $(BLOCKCHECK) -Wl,--end-group \
	  $(call pkg_libs,$(filter-out nbdkit,$(DEPS_all)) $(DEPS_tests))

$(BUILD)/tests/tools/%: $(BUILD)/tests/tools/%.o $(LIBS) $(BLOCKCHECK)
	$(CC) $(LDFLAGS) -o $@ $< \
	  -Wl,--start-group $(LIBS) $(BLOCKCHECK) -Wl,--end-group \
	  $(call pkg_libs,$(filter-out nbdkit,$(DEPS_all)))

$(BUILD)/tests/tools/%.so: $(BUILD)/tests/tools/%.o
	$(CC) -shared $(LDFLAGS) -o $@ $<

# Into programs that are not ours, or before a sanitizer of theirs: without one.
$(BUILD)/tests/tools/holdwrites.so $(BUILD)/tests/tools/slowclock.so \
$(BUILD)/tests/tools/steppedclock.so: \
	  $(BUILD)/tests/tools/%.so: tests/tools/%.c
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=gnu11 -O2 -g $(WARNINGS) -fPIC -pthread -shared \
	  -o $@ $< -ldl

# Runs in a guest, so without a sanitizer.
$(BUILD)/tests/tools/guestload: tests/tools/guestload.c
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=gnu11 -O2 -g $(WARNINGS) -pthread -o $@ $<

$(BUILD)/tests/bench/nbdkit-%-plugin.so: $(BUILD)/tests/bench/%-plugin.o \
	  $(BUILD)/liblun.a $(BUILD)/libcommon.a
	$(CC) -shared $(LDFLAGS) -Wl,-Bsymbolic -o $@ $^ \
	  $(call pkg_libs,$(DEPS_lun) $(DEPS_common))

$(BUILD)/tests/bench/%: $(BUILD)/tests/bench/%.o $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ $(call pkg_libs,openssl $(DEPS_common))

$(BUILD)/man/%: %.pod
	@mkdir -p $(@D)
	pod2man --section=$(subst .,,$(suffix $*)) --name=$(basename $*) \
	  --center="detour" --release="$(VERSION)" $< $@
vpath %.pod plugin proxy health common deploy

.PHONY: tests
tests: all $(UNIT) $(TOOLS)

# TAP everywhere.  T=PATTERN runs the tests whose file name holds it.
# Minutes each: only in make fault, or by name.
LONG      = $(if $(T),,tests/fault/vm-restart.sh tests/fault/vm-partitions.sh \
	      tests/fault/many.sh)
SCRIPTS   = $(sort $(wildcard tests/cli/*.sh tests/fault/*.sh tests/lab/*.sh \
	      tests/model/*.sh))
CHECKED   = $(foreach t,$(UNIT) $(filter-out %/lib.sh $(LONG),$(SCRIPTS)),\
	      $(if $(T),$(if $(findstring $(T),$(t)),$(t)),$(t)))
# The ghost tests show first that they find a ghost: without the rule.
GHOSTS    := $(wildcard tests/fault/ghost-*.sh)
SEAMED    := $(GHOSTS) tests/fault/drain-limit.sh tests/fault/restart-points.sh
.PHONY: rules ghosts
rules:
	$(MAKE) BUILD=$(BUILD)/rules RULES=1 all
ghosts: all rules $(TOOLS)
	BUILD=$(abspath $(BUILD)) SANITIZE=$(SANITIZE) TEST_TIMEOUT=7200 \
	  GHOST_ROUNDS=$(or $(GHOST_ROUNDS),50) \
	  prove --exec tests/run-one --timer $(PROVE_FLAGS) \
	  $(foreach t,$(GHOSTS),$(if $(T),$(if $(findstring $(T),$(t)),$(t)),$(t)))

.PHONY: check
check: all $(TOOLS) $(filter $(UNIT),$(CHECKED)) \
       $(if $(filter $(SEAMED),$(CHECKED)),rules)
	BUILD=$(abspath $(BUILD)) SANITIZE=$(SANITIZE) \
	  prove --exec tests/run-one --timer $(PROVE_FLAGS) $(CHECKED)

# Every fault scenario, in full, and a table, which docs/failures.md keeps; T=
# as for check.
FAULTS    = $(foreach t,$(sort $(wildcard tests/fault/*.sh)),\
	      $(if $(T),$(if $(findstring $(T),$(t)),$(t)),$(t)))
.PHONY: fault
fault: all $(TOOLS) $(if $(filter $(SEAMED),$(FAULTS)),rules)
	BUILD=$(abspath $(BUILD)) SANITIZE=$(SANITIZE) FAULT_ALL=1 \
	  TEST_TIMEOUT=3600 \
	  tests/run-faults $(if $(T),,-o docs/failures.md) $(FAULTS)

# A SAN and three hosts with the kernel's multipath, in guests; T="NAME..." runs
# these scenarios, LATE= how many late writes, LAB_SLOW= for a busy machine.
.PHONY: lab
lab: all rules $(TOOLS)
	BUILD=$(abspath $(BUILD)) SANITIZE=$(SANITIZE) LAB_DOCS=1 tests/lab/lab $(T)

.PHONY: model model-large
model:
	MODEL_FAULTS=3 bash tests/model/check.sh
model-large:
	bash tests/model/check.sh large

.PHONY: demo
demo: all $(TOOLS)
	BUILD=$(abspath $(BUILD)) tests/demo/demo

# Faults at random; SEED= repeats a choice, RANDOM_SECONDS= is how long.
# soak is the same by another name: T= is how long, in seconds.
.PHONY: random soak
soak: RANDOM_SECONDS = $(or $(T),600)
random soak: all $(TOOLS)
	BUILD=$(abspath $(BUILD)) SANITIZE=$(SANITIZE) \
	  RANDOM_SECONDS=$(or $(RANDOM_SECONDS),600) TEST_TIMEOUT=86400 \
	  prove --exec tests/run-one --timer --verbose tests/fault/random.sh

# B="NAME..." runs those whose name holds one of the words.
.PHONY: bench
bench: all $(TOOLS) $(BENCH)
	BUILD=$(abspath $(BUILD)) tests/bench/bench $(B)

.PHONY: asan tsan check-valgrind
asan:
	$(MAKE) BUILD=$(BUILD)/asan SANITIZE=address,undefined check
tsan:
	TSAN_OPTIONS="suppressions=$(CURDIR)/tests/lib/tsan.supp $(TSAN_OPTIONS)" \
	  $(MAKE) BUILD=$(BUILD)/tsan SANITIZE=thread check
check-valgrind: tests
	BUILD=$(abspath $(BUILD)) VALGRIND=1 \
	  prove --exec tests/run-one --timer $(PROVE_FLAGS) $(UNIT)

PLUGINDIR = $(DESTDIR)$(shell pkg-config --variable=plugindir nbdkit)
.PHONY: install
install: all
	install -D -m 755 $(PLUGIN) $(PLUGINDIR)/nbdkit-detour-plugin.so
	install -D -m 755 $(PROXY) $(DESTDIR)$(PREFIX)/sbin/detour-proxy
	install -D -m 755 $(HEALTH) $(DESTDIR)$(PREFIX)/sbin/detour-health
	install -D -m 755 $(CTL) $(DESTDIR)$(PREFIX)/sbin/detourctl
	install -D -m 755 deploy/detour-pki $(DESTDIR)$(PREFIX)/sbin/detour-pki
	install -D -m 644 deploy/completion/detourctl \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/detourctl
	for page in $(PAGES); do install -D -m 644 $$page \
	  $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
	deploy/install-units "$(DESTDIR)" "$(PREFIX)"

.PHONY: deps format shellcheck clean help
deps:
	deploy/install-deps
format:
	clang-format -i $(wildcard */*.[ch] tests/*/*.[ch])
shellcheck:
	shellcheck $(wildcard tests/*/*.sh tests/lab/*/*.sh) tests/run-one \
	  tests/lab/lab $(addprefix tests/lab/machine/,init start array paths ocfs2) \
	  tests/run-faults tests/lib/vm-init tests/demo/demo \
	  tests/bench/bench deploy/install-deps deploy/install-units \
	  deploy/detour-pki deploy/check_detour deploy/completion/detourctl .ci/run
clean:
	rm -rf $(BUILD)
help:
	@echo 'make            build plugin, proxy, detour-health, detourctl, man pages'
	@echo 'make demo       a SAN and three hosts in network namespaces: lose'
	@echo '                paths, a peer, a network, under a verifying load'
	@echo 'make check      all tests but the longest, which make fault has'
	@echo '                (T=WORD: those whose name holds WORD)'
	@echo 'make fault      every fault scenario in full, with real VMs; a table'
	@echo 'make lab        a SAN and three hosts with kernel multipath, in guests'
	@echo '                (T="NAME...", LATE=N, LAB_SLOW=N on a busy machine)'
	@echo 'make random     ten minutes of random faults (SEED=N, RANDOM_SECONDS=N)'
	@echo 'make soak       the same: T=SECONDS, SEED=N'
	@echo 'make model      the fencing rules, searched by Spin; model-large: more'
	@echo 'make ghosts     old writes that come out late, 50 rounds of each case'
	@echo 'make asan tsan  the same under the sanitizers'
	@echo 'make check-valgrind   unit tests under valgrind'
	@echo 'make bench      speed beside other servers (B=WORD: those whose name'
	@echo '                holds WORD), docs/performance.md; under 30 minutes'
	@echo 'make install    DESTDIR= PREFIX=/usr/local'
	@echo 'make deps       install what is missing, with apt or dnf'
	@echo 'make format shellcheck clean help'

-include $(shell find $(BUILD) -name '*.d' -type f 2>/dev/null)
.SECONDARY:
