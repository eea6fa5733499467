# SPDX-License-Identifier: GPL-2.0
#
# The sample VMMs, built into build/samples. "make demo" runs private_guest in a
# VM with this project's modules.

SAMPLES := build/samples
SAMPLE_HEADERS := $(wildcard samples/kvm/*.h) $(SAMPLES)/headers/installed
SAMPLE_CFLAGS := -O2 -Wall -Wextra -isystem $(SAMPLES)/headers/usr/include

# The guest runs on bare virtual hardware, at the address that guest.lds says.
GUEST_CFLAGS := $(SAMPLE_CFLAGS) -ffreestanding -fno-pic -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -ffunction-sections
GUEST_LDFLAGS := -nostdlib -static -no-pie -T samples/kvm/guest.lds \
	-Wl,--oformat=binary -Wl,--build-id=none

.PHONY: demo samples

samples: $(SAMPLES)/private_guest

demo: modules samples
	@vm/deps.sh vm
	@BASE=$(BASE) vm/run.sh --flavour $(FLAVOUR) -- $(SAMPLES)/private_guest

# The host's own <linux/kvm.h> may be older than the tree's.
$(SAMPLES)/headers/installed: $(wildcard include/uapi/linux/*.h patches/*) | tree
	@vm/deps.sh selftests
	@mkdir -p $(@D)
	@$(MAKE) -s -C $(TREE) O=$(abspath $(@D)) ARCH=x86 headers_install
	@touch $@

$(SAMPLES)/guest.bin: samples/kvm/guest.c samples/kvm/guest.lds $(SAMPLE_HEADERS)
	@echo "  CC      $@"
	@$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -o $@ $<

$(SAMPLES)/private_guest: samples/kvm/private_guest.c samples/kvm/vmm.c \
		samples/kvm/guest_image.S $(SAMPLES)/guest.bin $(SAMPLE_HEADERS)
	@echo "  CC      $@"
	@$(CC) $(SAMPLE_CFLAGS) -static -Wa,-I$(SAMPLES) -o $@ $(filter %.c %.S,$^)
