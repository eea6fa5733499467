# SPDX-License-Identifier: GPL-2.0
#
# Targets that boot a VM: included by the top Makefile.

# Which tests (a regular expression), and on what.
T ?= .
KERNEL ?= stock
MODULES ?= $(if $(MODEL),model,ours)

# How long to fuzz, or to race.
MINUTES ?= 10

# Of the guest's memory, in MiB.
export SIZES ?= 64 1024

.PHONY: shell test stress fuzz test-kvm test-7.2 coverage bench bench-plot bench-reclaim

shell:
	BASE=$(BASE) vm/run.sh --kernel $(KERNEL) --modules $(MODULES) --shell

test:
	BASE=$(BASE) vm/test.sh --kernel $(KERNEL) --modules $(MODULES) \
		$(if $(SMALL),--small) '$(T)'

stress:
	BASE=$(BASE) vm/stress.sh --kernel $(KERNEL) '$(T)' $(MINUTES)

# The limit leaves time to make a failure short.
fuzz: selftests $(if $(filter debug,$(KERNEL)),kernel,modules)
	BASE=$(BASE) vm/run.sh --kernel $(KERNEL) --modules $(MODULES) --mem 1024 \
		--timeout $$(($(MINUTES) * 60 + 300)) --log fuzz -- \
		build/selftests/ours/gmem_fuzz_test --fresh --seconds $$(($(MINUTES) * 60))

test-kvm:
	BASE=$(BASE) vm/test-kvm.sh '$(T)'

test-7.2:
	BASE=$(BASE) vm/test-7.2.sh '$(T)'

coverage:
	BASE=$(BASE) vm/coverage.sh '$(T)'

bench:
	BASE=$(BASE) JOBS=$(JOBS) vm/bench.sh

# What make bench has measured last.
bench-plot:
	@vm/deps.sh plot
	vm/bench-plot.py build/bench/bench.json \
		Documentation/virt/kvm/guest_memfd-bench

bench-reclaim:
	BASE=$(BASE) vm/bench-reclaim.sh
