/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The modes of vmm_handover. Each returns only when all was proven; those with a
 * v1 go on in another process, which comes in at v2.
 */
#ifndef SAMPLES_KVM_HANDOVER_H
#define SAMPLES_KVM_HANDOVER_H

#include <linux/types.h>

#include "vmm.h"

/* The argument, before the number of its socket, that makes a process v2. */
#define UPGRADE_V2	"--upgrade-v2"
#define PLAIN_V2	"--plain-v2"

void upgrade_v1(__u64 data_size);
void upgrade_v2(int socket);
void recover_from_crash(__u64 data_size);
void share_memory(__u64 data_size);
void plain_v1(__u64 data_size);
void plain_v2(int socket);

/* Boot a guest in new memory and let it fill that. */
struct guest_params *start_counting_guest(struct vmm *vmm, __u64 data_size);

/* KVM_LINK_GUEST_MEMFD, with a line that says how long it took. */
int link_memory(const struct vmm *vmm, int gmem, __u64 flags);

/* All data is in memory once: it was @before, nothing was copied since. */
void check_no_copy(__u64 before, __u64 data_size);

/* The owner of this view may not free memory, nor allocate any. */
void check_fallocate_refused(const char *whose, int gmem);

/* Destroy the VM: the memory goes with it. */
void destroy_last_vm(struct vmm *vmm, __u64 data_size);

#endif /* SAMPLES_KVM_HANDOVER_H */
