// SPDX-License-Identifier: GPL-2.0
/* What the samples tell, and how they check it: see story.h. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "story.h"

#define SEED	0x5eed5eed5eed5eedULL

static int this_step, last_step;

void story_begin(int first, int last)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	this_step = first;
	last_step = last;
}

void step(const char *what)
{
	printf("[%d/%d] %s\n", this_step++, last_step, what);
}

void skip_step(void)
{
	this_step++;
}

__u64 parse_data_size(const char *mib)
{
	char *end;
	unsigned long size = strtoul(mib, &end, 10);

	if (*end || size < MIN_MIB || size > MAX_MIB)
		return 0;
	return size * MIB;
}

/*
 * The guest is loaded into shared memory, since the host cannot write to private
 * memory either. In a plain VM all memory is shared.
 */
struct guest_params *boot_guest(struct vmm *vmm, enum guest_role role,
				__u64 data, __u64 data_size)
{
	struct guest_params params = {
		.role = role,
		.seed = SEED,
		.data = data,
		.data_size = data_size,
	};

	vmm_load(vmm, GUEST_CODE, guest_image, guest_image_end - guest_image);
	vmm_load(vmm, GUEST_PARAMS, &params, sizeof(params));
	vmm_add_vcpu(vmm);
	vmm_boot(vmm, GUEST_CODE, GUEST_STACK_TOP, GUEST_PARAMS);
	return vmm->shared + GUEST_PARAMS;
}

static void fail_memory_lost(const struct vmm *vmm)
{
	printf("      KVM_EXIT_MEMORY_FAULT: no memory behind the guest's page at 0x%llx\n",
	       vmm->run->memory_fault.gpa);
	if (vmm->gmem < 0)
		errx(1, "NOT proven: the guest lost its memory when the host closed the fd.\n"
		     "This KVM's memory slots do not keep it: load this project's modules.");
	errx(1, "NOT proven: the guest lost its memory");
}

void check_event(const struct vmm *vmm, const struct guest_params *params,
		 int event, enum guest_event expected)
{
	if (event == VMM_MEMORY_LOST)
		fail_memory_lost(vmm);
	if (event == GUEST_BAD_DATA)
		errx(1, "NOT proven: the guest found a wrong value at 0x%llx",
		     params->bad_addr);
	if (event == GUEST_BAD_COUNT)
		errx(1, "NOT proven: the guest's copies of its count %llu differ",
		     params->count);
	if (event == GUEST_CANNOT_CONVERT)
		errx(1, "NOT proven: the guest could not convert its memory");
	if (event != (int)expected)
		errx(1, "NOT proven: the guest reported event %d, not %d",
		     event, expected);
}

void run_until(struct vmm *vmm, const struct guest_params *params,
	       enum guest_event expected)
{
	check_event(vmm, params, vmm_run(vmm), expected);
}

void ask_for_last_pass(struct guest_params *params)
{
	params->checksum = 0;
	__atomic_store_n(&params->stop, 1, __ATOMIC_RELEASE);
}

static __u64 expected_checksum(__u64 size)
{
	__u64 offset, sum = 0;

	for (offset = 0; offset < size; offset += sizeof(offset))
		sum = guest_checksum(sum, guest_pattern(SEED, offset));
	return sum;
}

void check_checksum(const struct guest_params *params, __u64 data_size)
{
	__u64 expected = expected_checksum(data_size);

	if (params->checksum != expected)
		errx(1, "NOT proven: the guest's checksum is %016llx, not %016llx",
		     params->checksum, expected);
	printf("      checksum %016llx, as the host computes it from the seed\n",
	       expected);
}

__u64 read_unevictable(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	__u64 kib = 0;
	char line[128];

	if (!file)
		err(1, "cannot open /proc/meminfo: mount /proc");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Unevictable: %llu kB", &kib) == 1)
			break;
	}
	fclose(file);
	return kib * 1024;
}

void check_memory_is_used(__u64 before, __u64 size)
{
	__u64 grown = read_unevictable() - before;

	printf("      Unevictable in /proc/meminfo grew by %llu MiB\n",
	       (grown + MIB / 2) / MIB);
	if (grown + MIB < size)
		errx(1, "NOT proven: the guest's data is not in the guest_memfd");
}

__u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}
