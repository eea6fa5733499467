# SPDX-License-Identifier: GPL-2.0
#
# guest_memfd for Linux 6.12: builds everything under build/. The recipes are
# thin: each script that they call does what is needed since the last time.

# Knobs; BASE is base.mk's.
FLAVOUR ?= cloud-amd64
CONFIG ?= debug
JOBS ?= $(shell nproc)
MODEL ?=

include base.mk

export LC_ALL := C

# What the other makefiles rely on.
TREE = build/tree/$(BASE)
ORIGIN = build/base/$(BASE)
HEADERS = build/host/$(ABI)-$(1)/usr/src/linux-headers-$(ABI)-$(1)
KO_DIR = build/modules/$(ABI)-$(FLAVOUR)

# A software RMP that watches who owns which page: for tests only.
MODEL_OPTION = --set CONFIG_KVM_GMEM_TEST=y

define HELP
Try it
  make demo            run a guest whose memory its host cannot read, and give it
                       a new VMM while it runs
  make test            run our tests in VMs; T=PATTERN runs some,
                       KERNEL=debug on a kernel with KASAN and lockdep,
                       SMALL=1 without huge folios
  make fuzz MINUTES=N  random calls in random order, compared with a model, for
                       N minutes with new seeds; KERNEL=debug as above
  make stress MINUTES=N
                       the races of the tests, with delays in the kernel, for N
                       minutes; KERNEL=debug, or kcsan to find data races
  make test-kvm        compare upstream's KVM selftests on our modules and on
                       the unmodified ones
  make test-7.2        compare Linux 7's own tests of guest_memfd on its kernel,
                       on the unmodified modules and on ours
  make test-full       all of that and more, in some hours, with a table;
                       STAGES="NAME..." runs some
  make coverage        run the tests on a kernel with gcov, and print how much
                       of guest_memfd they execute
  make bench           what operations on a guest's memory cost, in instructions,
                       compared with the unmodified modules and other memory;
                       make bench-plot draws it
  make bench-reclaim   what it costs to give memory back, in instructions
  make shell           a shell in the VM
Build
  make modules         kvm.ko, kvm-amd.ko, kvm-intel.ko for a stock Debian kernel
  make modules-base    the same from the unmodified source
  make kernel          a kernel of our own: CONFIG=debug, kcsan, coverage or
                       kernel (plain)
  make selftests       KVM selftests, ours and upstream's
  make tree            the patched source
Maintain
  make check           shellcheck, checkpatch, sparse, W=1
  make check-configs   compile KVM with other configurations
  make check-uapi      compare the headers that we add with those of Linux 7
  make drift           what upstream changed in the files that we patch
  make refresh         rewrite the patches for another point release
  make patch           everything as a series for git am, in build/patch
  make install         put the modules on this machine, for its running kernel
  make uninstall       go back to its own
  make clean           remove what was built; distclean: downloads as well
Knobs
  BASE=6.12.x          point release; default: the newest that apt offers
                       (tested: $(TESTED))
  FLAVOUR=NAME         cloud-amd64 (default) or amd64, which has SEV-SNP
  JOBS=N               parallel jobs; default: one for each processor
  MODEL=1              modules with the ownership model, only for tests
endef

.DELETE_ON_ERROR:
.PHONY: help tree origin host modules modules-base kernel kernel-7 selftests \
	check check-configs check-uapi test-full drift refresh patch install uninstall clean distclean

help:
	$(info $(HELP))
	@:

-include vm/vm.mk
-include samples/kvm/samples.mk

tree:
	@vm/deps.sh modules
	@vm/prepare.sh $(BASE)

origin:
	@vm/deps.sh modules
	@base/debs.sh source $(BASE)

host:
	@vm/deps.sh modules
	@base/debs.sh host $(BASE) $(FLAVOUR)

modules: tree host
	@modules/build.sh $(if $(MODEL),$(MODEL_OPTION)) $(TREE) \
		$(call HEADERS,$(FLAVOUR)) $(KO_DIR)/$(if $(MODEL),model,ours) -j$(JOBS)

modules-base: origin host
	@modules/build.sh $(ORIGIN) $(call HEADERS,$(FLAVOUR)) $(KO_DIR)/base -j$(JOBS)

kernel: tree
	@vm/deps.sh kernel
	@configs/kernel.sh $(TREE) build/kernel/$(BASE)-$(CONFIG) configs/kernel.config \
		$(filter-out configs/kernel.config,configs/$(CONFIG).config) -- -j$(JOBS)

# Linux 7 as it is, for vm/test-7.2.sh.
kernel-7:
	@vm/deps.sh kernel
	@configs/kernel-7.sh -j$(JOBS)

selftests: tree origin
	@vm/deps.sh selftests
	@modules/selftests.sh $(TREE) build/selftests-obj/ours \
		build/selftests/ours -j$(JOBS)
	@modules/selftests.sh $(ORIGIN) build/selftests-obj/base \
		build/selftests/base -j$(JOBS)

# The generic flavour has the most of our code live: SNP's hooks as well.
check: tree
	@vm/deps.sh modules check
	@base/debs.sh host $(BASE) amd64
	@.ci/check $(TREE) $(call HEADERS,amd64) build/check

check-uapi: tree origin
	@vm/deps.sh kernel
	@base/uapi.sh $(TREE) $(ORIGIN)

test-full:
	@.ci/run --full $(STAGES)

check-configs: tree
	@vm/deps.sh kernel
	@configs/variants.sh $(TREE) build/kernel/$(BASE)-variants -j$(JOBS)

drift:
	@base/drift.sh $(BASE)

refresh:
	@base/refresh.sh $(BASE)

patch:
	@base/export.sh $(BASE) build/patch

# A host gets what its kernel needs, and no model, whatever else was asked for.
install: BASE = $(or $(filter 6.12.%,$(firstword $(subst +, ,$(shell uname -r)))), \
	$(error install: boot a 6.12 kernel of Debian's first: $(shell uname -r) runs))
install: FLAVOUR = $(patsubst $(ABI)-%,%,$(shell uname -r))
install: override MODEL =
install: modules
	@modules/install.sh $(ABI)-$(FLAVOUR) $(KO_DIR)/ours

uninstall:
	@modules/install.sh --remove

clean:
	rm -rf $(filter-out build/debs,$(wildcard build/*))

distclean:
	rm -rf build
