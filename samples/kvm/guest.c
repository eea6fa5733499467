// SPDX-License-Identifier: GPL-2.0
/*
 * The program inside the VM. It starts in 64-bit mode with identity page
 * tables, on bare virtual hardware: no interrupts, no library.
 *
 * It makes its data private, fills it and verifies it. Then, as its role says,
 * it leaves a message for the host in a page that it shares, or it counts while
 * it goes on verifying. In the role of a watcher it only reads. In a plain VM it
 * counts as well, in memory that is not private.
 */
#include <linux/kvm_para.h>

#include "guest.h"

#define CPUID_EBX_INTEL		0x756e6547	/* "Genu" */
#define MSR_KERNEL_GS_BASE	0xc0000102
#define APIC_LOGICAL_ID		0xfee000d0ULL
#define APIC_LOGICAL_ID_SHIFT	24
#define STEP_SIZE		0x100000ULL

/* What the VMM asked for, read once: the VMM could change it at any time. */
struct job {
	struct guest_params *params;
	__u64 seed;
	__u64 data;
	__u64 size;
	struct guest_ledger *ledger;	/* or the mailbox */
};

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

/* The data, and the page behind it. */
static void make_private(const struct job *job)
{
	convert(job->data, job->size + GUEST_PAGE_SIZE,
		KVM_MAP_GPA_RANGE_ENCRYPTED);
}

static void fill(const struct job *job, __u64 size)
{
	__u64 offset;

	for (offset = 0; offset < size; offset += sizeof(offset))
		*(__u64 *)(job->data + offset) =
			guest_pattern(job->seed, offset);
}

static __u64 verify_step(const struct job *job, __u64 offset, __u64 sum)
{
	__u64 end = offset + STEP_SIZE;

	for (; offset < end; offset += sizeof(offset)) {
		__u64 value = *(__u64 *)(job->data + offset);

		if (value != guest_pattern(job->seed, offset)) {
			job->params->bad_addr = job->data + offset;
			report_forever(GUEST_BAD_DATA);
		}
		sum = guest_checksum(sum, value);
	}
	__atomic_fetch_add(&job->params->progress, STEP_SIZE,
			   __ATOMIC_RELAXED);
	return sum;
}

static __u64 verify(const struct job *job)
{
	__u64 offset, sum = 0;

	for (offset = 0; offset < job->size; offset += STEP_SIZE)
		sum = verify_step(job, offset, sum);
	job->params->checksum = sum;
	return sum;
}

static void leave_message(char *mailbox)
{
	const char *from = GUEST_MESSAGE;

	while ((*mailbox++ = *from++))
		;
}

/* The pass that finds stop set when it begins is the last one, and complete. */
static void verify_until_stopped(const struct job *job)
{
	__u64 stop;

	do {
		stop = __atomic_load_n(&job->params->stop, __ATOMIC_ACQUIRE);
		verify(job);
		job->params->passes++;
	} while (!stop);
}

static void talk(const struct job *job)
{
	__u64 mailbox = job->data + job->size;

	/* The mailbox is filled too: sharing it must not disclose this. */
	make_private(job);
	fill(job, job->size + GUEST_PAGE_SIZE);
	verify(job);
	report(GUEST_VERIFIED);

	convert(mailbox, GUEST_PAGE_SIZE, KVM_MAP_GPA_RANGE_DECRYPTED);
	report(GUEST_MAILBOX_SHARED);
	leave_message((char *)mailbox);
	report(GUEST_MAILBOX_WRITTEN);

	verify_until_stopped(job);
	report_forever(GUEST_DONE);
}

static __u64 read_tsc(void)
{
	__u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (__u64)high << 32 | low;
}

static __u64 read_gs_msr(void)
{
	__u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(MSR_KERNEL_GS_BASE));
	return (__u64)high << 32 | low;
}

/*
 * Keep the count in private memory, and in one register of each kind that is
 * saved in a way of its own: the vector unit's (this program does not use it
 * otherwise), a debug register, an MSR, and the local APIC's logical ID, which
 * has 8 bits.
 */
static void store_count(const struct job *job, __u64 count)
{
	__u32 low = count, high = count >> 32;

	asm volatile("movq %0, %%xmm0" : : "r"(count));
	asm volatile("mov %0, %%dr0" : : "r"(count));
	asm volatile("wrmsr" : : "a"(low), "d"(high), "c"(MSR_KERNEL_GS_BASE));
	__atomic_store_n((__u32 *)APIC_LOGICAL_ID,
			 low << APIC_LOGICAL_ID_SHIFT, __ATOMIC_RELAXED);
	__atomic_store_n(&job->ledger->count, count, __ATOMIC_RELAXED);
	job->ledger->tsc = read_tsc();
}

/* The VMM may have been replaced since the last count. Nothing may differ. */
static void check_count(const struct job *job, __u64 count)
{
	__u64 vector, debug;
	__u32 apic;

	asm volatile("movq %%xmm0, %0" : "=r"(vector));
	asm volatile("mov %%dr0, %0" : "=r"(debug));
	apic = __atomic_load_n((__u32 *)APIC_LOGICAL_ID, __ATOMIC_RELAXED);
	if (vector != count || debug != count || read_gs_msr() != count ||
	    apic != (__u32)count << APIC_LOGICAL_ID_SHIFT ||
	    job->ledger->count != count || job->ledger->tsc > read_tsc())
		report_forever(GUEST_BAD_COUNT);
}

/* One more for each step of a pass over the data. */
static __u64 count_pass(const struct job *job, __u64 count)
{
	__u64 offset, sum = 0;

	for (offset = 0; offset < job->size; offset += STEP_SIZE) {
		sum = verify_step(job, offset, sum);
		check_count(job, count);
		store_count(job, ++count);
		job->params->count = count;
		report(GUEST_COUNTED);
	}
	if (sum != job->ledger->checksum)
		report_forever(GUEST_BAD_DATA);
	job->params->checksum = sum;
	job->params->passes++;
	return count;
}

static void count_until_stopped(const struct job *job, __u64 count)
{
	__u64 stop;

	store_count(job, count);
	do {
		stop = __atomic_load_n(&job->params->stop, __ATOMIC_ACQUIRE);
		count = count_pass(job, count);
	} while (!stop);
}

static void count(const struct job *job)
{
	fill(job, job->size);
	job->ledger->checksum = verify(job);
	report(GUEST_VERIFIED);

	count_until_stopped(job, 0);
	report_forever(GUEST_DONE);
}

/* The data is another guest's, whose VM is gone: the VMM made it private. */
static void count_on(const struct job *job)
{
	verify(job);
	job->params->count = job->ledger->count;
	report(GUEST_VERIFIED);

	count_until_stopped(job, job->ledger->count);
	report_forever(GUEST_DONE);
}

/* Look at another guest's data while that guest counts; at last, try to write. */
static void watch(const struct job *job)
{
	verify(job);
	report(GUEST_VERIFIED);

	while (!__atomic_load_n(&job->params->stop, __ATOMIC_ACQUIRE)) {
		job->params->count = __atomic_load_n(&job->ledger->count,
						     __ATOMIC_RELAXED);
		report(GUEST_COUNTED);
	}
	__atomic_store_n((__u64 *)job->data, 0, __ATOMIC_RELAXED);
	report_forever(GUEST_WROTE);
}

void guest_main(struct guest_params *params)
{
	struct job job = {
		.params = params,
		.seed = params->seed,
		.data = params->data,
		.size = params->data_size,
		.ledger = (void *)(params->data + params->data_size),
	};

	/* None of them comes back. */
	switch (params->role) {
	case GUEST_TALKS:
		talk(&job);
		break;
	case GUEST_COUNTS:
		make_private(&job);
		count(&job);
		break;
	case GUEST_COUNTS_PLAIN:
		count(&job);
		break;
	case GUEST_COUNTS_ON:
		count_on(&job);
		break;
	case GUEST_WATCHES:
		watch(&job);
		break;
	}
}
