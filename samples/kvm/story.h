/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the samples have in common: they boot the guest, tell step by step what
 * happens, and check what can be proven. "NOT proven: ..." ends the program.
 */
#ifndef SAMPLES_KVM_STORY_H
#define SAMPLES_KVM_STORY_H

#include "guest.h"
#include "vmm.h"

#define MIB		0x100000ULL
#define DEFAULT_MIB	256
#define MIN_MIB		4
#define MAX_MIB		2048		/* the page tables end at 4 GiB */

/* Of guest memory, with what is below and behind the data. */
#define GUEST_MEMORY_SIZE(data_size) (GUEST_DATA + (data_size) + GUEST_PAGE_SIZE)

/* Steps are numbered from @first to @last. */
void story_begin(int first, int last);
void step(const char *what);

/* Another process tells the next one. */
void skip_step(void);

/* The size of the guest's data in bytes; 0 if @mib is out of range. */
__u64 parse_data_size(const char *mib);

/* Load the guest and make its vCPU ready. It finds its data at @data. */
struct guest_params *boot_guest(struct vmm *vmm, enum guest_role role,
				__u64 data, __u64 data_size);

/* Go on until the guest reports @expected; anything else ends the story. */
void run_until(struct vmm *vmm, const struct guest_params *params,
	       enum guest_event expected);

/* The same for an event that vmm_run() returned. */
void check_event(const struct vmm *vmm, const struct guest_params *params,
		 int event, enum guest_event expected);

/* One whole pass is to begin after this. It must bring a checksum of its own. */
void ask_for_last_pass(struct guest_params *params);

/* The host knows the pattern, so it can tell the checksum of the data. */
void check_checksum(const struct guest_params *params, __u64 data_size);

/* Pages of a guest_memfd cannot be swapped or reclaimed: they count here. */
__u64 read_unevictable(void);

/* The guest has written to @size bytes since that was @before. */
void check_memory_is_used(__u64 before, __u64 size);

__u64 now_ns(void);

#endif /* SAMPLES_KVM_STORY_H */
