# SPDX-License-Identifier: GPL-2.0
#
# Targets that boot a VM: included by the top Makefile.

# Which tests (a regular expression), and on what.
T ?= .
KERNEL ?= stock
MODULES ?= $(if $(MODEL),model,ours)

.PHONY: shell test test-kvm test-7.2 bench-reclaim

shell:
	BASE=$(BASE) vm/run.sh --kernel $(KERNEL) --modules $(MODULES) --shell

test:
	BASE=$(BASE) vm/test.sh --kernel $(KERNEL) --modules $(MODULES) '$(T)'

test-kvm:
	BASE=$(BASE) vm/test-kvm.sh '$(T)'

test-7.2:
	BASE=$(BASE) vm/test-7.2.sh '$(T)'

bench-reclaim:
	BASE=$(BASE) vm/bench-reclaim.sh
