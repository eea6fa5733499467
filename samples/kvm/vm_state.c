// SPDX-License-Identifier: GPL-2.0
/*
 * Saves and restores what KVM knows about a guest beside its memory.
 *
 * A real VMM has the state of its own devices to send too, and what this guest
 * does not use: KVM_GET_NESTED_STATE if it may run VMs, KVM_GET_PIT2 if KVM
 * emulates a timer chip, KVM_GET_XSAVE2 if its vector state exceeds 4096 bytes.
 */
#include <err.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vm_state.h"

#define PART(member, type) {						\
	.name = "KVM_GET_" #type " or KVM_SET_" #type,			\
	.offset = offsetof(struct vm_state, member),			\
	.get = KVM_GET_##type,						\
	.set = KVM_SET_##type,						\
}

struct part {
	const char *name;
	size_t offset;
	unsigned long get;
	unsigned long set;
};

/*
 * In the order to restore them in, and to save them: to ask for the first can
 * change the others. KVM_SET_SREGS2 says where the local APIC is and that it is
 * on, so that comes before the APIC's registers.
 */
static const struct part before_msrs[] = {
	PART(mp_state, MP_STATE),
	PART(sregs, SREGS2),
	PART(regs, REGS),
	PART(xcrs, XCRS),
	PART(xsave, XSAVE),
	PART(debugregs, DEBUGREGS),
	PART(lapic, LAPIC),
};

/* KVM_SET_REGS would forget an exception that is to be delivered. */
static const struct part events = PART(events, VCPU_EVENTS);

static void save_part(const struct vmm *vmm, struct vm_state *state,
		      const struct part *part)
{
	if (ioctl(vmm->vcpu, part->get, (void *)state + part->offset) < 0)
		err(1, "cannot save: %s", part->name);
}

static void restore_part(const struct vmm *vmm, struct vm_state *state,
			 const struct part *part)
{
	if (ioctl(vmm->vcpu, part->set, (void *)state + part->offset) < 0)
		err(1, "cannot restore: %s", part->name);
}

/* KVM_GET_MSR_INDEX_LIST: those that a guest can change, or read. */
static void list_msrs(const struct vmm *vmm, struct msr_state *msrs)
{
	struct {
		struct kvm_msr_list head;
		__u32 indices[MAX_MSRS];
	} list = { .head.nmsrs = MAX_MSRS };
	__u32 i;

	if (ioctl(vmm->kvm, KVM_GET_MSR_INDEX_LIST, &list))
		err(1, "KVM_GET_MSR_INDEX_LIST");
	memset(msrs, 0, sizeof(*msrs));
	msrs->head.nmsrs = list.head.nmsrs;
	for (i = 0; i < list.head.nmsrs; i++)
		msrs->entries[i].index = list.indices[i];
}

/* Both ioctls return how many MSRs they did, up to the first that failed. */
static void save_msrs(const struct vmm *vmm, struct msr_state *msrs)
{
	int done;

	list_msrs(vmm, msrs);
	done = ioctl(vmm->vcpu, KVM_GET_MSRS, msrs);
	if (done < 0)
		err(1, "KVM_GET_MSRS");
	if (done < (int)msrs->head.nmsrs)
		errx(1, "KVM_GET_MSRS cannot read MSR 0x%x",
		     msrs->entries[done].index);
}

static void restore_msrs(const struct vmm *vmm, struct msr_state *msrs)
{
	int done = ioctl(vmm->vcpu, KVM_SET_MSRS, msrs);

	if (done < 0)
		err(1, "KVM_SET_MSRS");
	if (done < (int)msrs->head.nmsrs)
		errx(1, "KVM_SET_MSRS cannot write 0x%llx to MSR 0x%x",
		     msrs->entries[done].data, msrs->entries[done].index);
}

/*
 * The guest's time stamp counter is the host's plus an offset. On the same host
 * the same offset makes it go on as if nothing had happened; its MSR alone
 * would take it back to where it was when it was read.
 */
static struct kvm_device_attr tsc_offset(struct vm_state *state)
{
	return (struct kvm_device_attr) {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (unsigned long)&state->tsc_offset,
	};
}

static void save_tsc_offset(const struct vmm *vmm, struct vm_state *state)
{
	struct kvm_device_attr attr = tsc_offset(state);

	if (ioctl(vmm->vcpu, KVM_GET_DEVICE_ATTR, &attr))
		err(1, "cannot save KVM_VCPU_TSC_OFFSET");
}

static void restore_tsc_offset(const struct vmm *vmm, struct vm_state *state)
{
	struct kvm_device_attr attr = tsc_offset(state);

	if (ioctl(vmm->vcpu, KVM_SET_DEVICE_ATTR, &attr))
		err(1, "cannot restore KVM_VCPU_TSC_OFFSET");
}

/* What all vCPUs have in common: interrupt controllers and the clock. */
static void save_devices(const struct vmm *vmm, struct vm_state *state)
{
	int i;

	for (i = 0; i < NR_IRQCHIPS; i++) {
		state->irqchips[i].chip_id = i;
		if (ioctl(vmm->vm, KVM_GET_IRQCHIP, &state->irqchips[i]))
			err(1, "KVM_GET_IRQCHIP %d", i);
	}
	if (ioctl(vmm->vm, KVM_GET_CLOCK, &state->clock))
		err(1, "KVM_GET_CLOCK");
}

/* With KVM_CLOCK_REALTIME, KVM adds the time that has passed since. */
static void restore_devices(const struct vmm *vmm, struct vm_state *state)
{
	int i;

	for (i = 0; i < NR_IRQCHIPS; i++) {
		if (ioctl(vmm->vm, KVM_SET_IRQCHIP, &state->irqchips[i]))
			err(1, "KVM_SET_IRQCHIP %d", i);
	}
	if (ioctl(vmm->vm, KVM_SET_CLOCK, &state->clock))
		err(1, "KVM_SET_CLOCK");
}

void save_cpuid(const struct vmm *vmm, struct cpuid_state *cpuid)
{
	cpuid->head.nent = MAX_CPUID;
	if (ioctl(vmm->vcpu, KVM_GET_CPUID2, cpuid))
		err(1, "KVM_GET_CPUID2");
}

/* Before anything else: KVM checks the rest against the vCPU's features. */
void restore_cpuid(const struct vmm *vmm, struct cpuid_state *cpuid)
{
	if (ioctl(vmm->vcpu, KVM_SET_CPUID2, cpuid))
		err(1, "KVM_SET_CPUID2");
}

void save_state(const struct vmm *vmm, struct vm_state *state)
{
	size_t i;

	for (i = 0; i < sizeof(before_msrs) / sizeof(*before_msrs); i++)
		save_part(vmm, state, &before_msrs[i]);
	save_msrs(vmm, &state->msrs);
	save_tsc_offset(vmm, state);
	save_part(vmm, state, &events);
	save_devices(vmm, state);
}

void restore_state(const struct vmm *vmm, struct vm_state *state)
{
	size_t i;

	restore_devices(vmm, state);
	for (i = 0; i < sizeof(before_msrs) / sizeof(*before_msrs); i++)
		restore_part(vmm, state, &before_msrs[i]);
	restore_msrs(vmm, &state->msrs);
	restore_tsc_offset(vmm, state);
	restore_part(vmm, state, &events);
}
