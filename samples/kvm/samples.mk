# SPDX-License-Identifier: GPL-2.0
#
# The sample VMMs, built into build/samples. "make demo" runs them in VMs with
# this project's modules.

SAMPLES := build/samples
SAMPLE_HEADERS := $(wildcard samples/kvm/*.h) $(SAMPLES)/headers/installed
SAMPLE_CFLAGS := -O2 -Wall -Wextra -isystem $(SAMPLES)/headers/usr/include

# The guest runs on bare virtual hardware, at the address that guest.lds says.
GUEST_CFLAGS := $(SAMPLE_CFLAGS) -ffreestanding -fno-pic -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -ffunction-sections
GUEST_LDFLAGS := -nostdlib -static -no-pie -T samples/kvm/guest.lds \
	-Wl,--oformat=binary -Wl,--build-id=none

.PHONY: demo samples

samples: $(SAMPLES)/private_guest $(SAMPLES)/vmm_handover

# Each in a VM of its own, which must be clean after it.
define run_sample
@echo '$$ $(1)'
@BASE=$(BASE) vm/run.sh --flavour $(FLAVOUR) -- $(SAMPLES)/$(1)
endef

demo: modules samples
	@vm/deps.sh vm
	$(call run_sample,private_guest)
	$(call run_sample,vmm_handover)
	$(call run_sample,vmm_handover --crash)
	$(call run_sample,vmm_handover --share)
	$(call run_sample,vmm_handover --plain)

# The host's own <linux/kvm.h> may be older than the tree's.
$(SAMPLES)/headers/installed: $(wildcard include/uapi/linux/*.h patches/*) | tree
	@vm/deps.sh selftests
	@mkdir -p $(@D)
	@$(MAKE) -s -C $(TREE) O=$(abspath $(@D)) ARCH=x86 headers_install
	@touch $@

$(SAMPLES)/guest.bin: samples/kvm/guest.c samples/kvm/guest.lds $(SAMPLE_HEADERS)
	@echo "  CC      $@"
	@$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -o $@ $<

# What both have: the VMM's parts, and the guest.
SAMPLE_PARTS := samples/kvm/story.c samples/kvm/vmm.c \
	samples/kvm/guest_image.S $(SAMPLES)/guest.bin
HANDOVER_PARTS := $(wildcard samples/kvm/handover_*.c) \
	$(addprefix samples/kvm/,message.c runner.c successor.c vm_state.c)

$(SAMPLES)/vmm_handover: $(HANDOVER_PARTS)
$(SAMPLES)/private_guest $(SAMPLES)/vmm_handover: $(SAMPLES)/%: \
		samples/kvm/%.c $(SAMPLE_PARTS) $(SAMPLE_HEADERS)
	@echo "  CC      $@"
	@$(CC) $(SAMPLE_CFLAGS) -static -Wa,-I$(SAMPLES) -o $@ $(filter %.c %.S,$^)
