// SPDX-License-Identifier: GPL-2.0
/*
 * The program inside the VM. It starts in 64-bit mode with identity page
 * tables, on bare virtual hardware: no interrupts, no library.
 *
 * It makes its data private, fills it, verifies it, leaves a message for the
 * host in a page that it shares, and goes on verifying until it is told to
 * stop.
 */
#include <linux/kvm_para.h>

#include "guest.h"

#define CPUID_EBX_INTEL		0x756e6547	/* "Genu" */
#define PROGRESS_STEP		0x100000ULL

/* End the VM's time slice with an event: KVM_EXIT_IO for the VMM. */
static void report(enum guest_event event)
{
	asm volatile("outl %0, %1" : : "a"(event), "Nd"((__u16)GUEST_PORT)
		     : "memory");
}

static void report_forever(enum guest_event event)
{
	for (;;)
		report(event);
}

/* Intel and AMD have each their own instruction for a call to KVM. */
static long hypercall(__u64 nr, __u64 a0, __u64 a1, __u64 a2)
{
	__u32 eax = 0, ebx, ecx = 0, edx;
	long ret;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (ebx == CPUID_EBX_INTEL)
		asm volatile("vmcall" : "=a"(ret)
			     : "a"(nr), "b"(a0), "c"(a1), "d"(a2) : "memory");
	else
		asm volatile("vmmcall" : "=a"(ret)
			     : "a"(nr), "b"(a0), "c"(a1), "d"(a2) : "memory");
	return ret;
}

/*
 * Ask the VMM to make memory private (encrypted, in the hypercall's words) or
 * shared. Whatever the memory held is gone afterwards.
 */
static void convert(__u64 addr, __u64 size, __u64 state)
{
	if (hypercall(KVM_HC_MAP_GPA_RANGE, addr, size / GUEST_PAGE_SIZE,
		      state | KVM_MAP_GPA_RANGE_PAGE_SZ_4K))
		report_forever(GUEST_CANNOT_CONVERT);
}

static void fill(__u64 seed, __u64 start, __u64 end)
{
	__u64 addr;

	for (addr = start; addr < end; addr += sizeof(addr))
		*(__u64 *)addr = guest_pattern(seed, addr);
}

static __u64 verify_step(struct guest_params *params, __u64 seed, __u64 addr,
			 __u64 sum)
{
	__u64 end = addr + PROGRESS_STEP;

	for (; addr < end; addr += sizeof(addr)) {
		__u64 value = *(__u64 *)addr;

		if (value != guest_pattern(seed, addr)) {
			params->bad_addr = addr;
			report_forever(GUEST_BAD_DATA);
		}
		sum = guest_checksum(sum, value);
	}
	return sum;
}

static void verify(struct guest_params *params, __u64 seed, __u64 size)
{
	__u64 done, sum = 0;

	for (done = 0; done < size; done += PROGRESS_STEP) {
		sum = verify_step(params, seed, GUEST_DATA + done, sum);
		__atomic_fetch_add(&params->progress, PROGRESS_STEP,
				   __ATOMIC_RELAXED);
	}
	params->checksum = sum;
}

static void leave_message(__u64 mailbox)
{
	const char *from = GUEST_MESSAGE;
	char *to = (char *)mailbox;

	while ((*to++ = *from++))
		;
}

/* The pass that finds stop set when it begins is the last one, and complete. */
static void verify_until_stopped(struct guest_params *params, __u64 seed,
				 __u64 size)
{
	__u64 stop;

	do {
		stop = __atomic_load_n(&params->stop, __ATOMIC_ACQUIRE);
		verify(params, seed, size);
		params->passes++;
	} while (!stop);
}

void guest_main(struct guest_params *params)
{
	__u64 seed = params->seed, size = params->data_size;
	__u64 mailbox = GUEST_DATA + size;

	/* The mailbox is filled too: sharing it must not disclose this. */
	convert(GUEST_DATA, size + GUEST_PAGE_SIZE,
		KVM_MAP_GPA_RANGE_ENCRYPTED);
	fill(seed, GUEST_DATA, mailbox + GUEST_PAGE_SIZE);
	verify(params, seed, size);
	report(GUEST_FILLED);

	convert(mailbox, GUEST_PAGE_SIZE, KVM_MAP_GPA_RANGE_DECRYPTED);
	report(GUEST_MAILBOX_SHARED);
	leave_message(mailbox);
	report(GUEST_MAILBOX_WRITTEN);

	verify_until_stopped(params, seed, size);
	report_forever(GUEST_DONE);
}
