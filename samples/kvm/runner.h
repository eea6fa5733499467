/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VMM with a thread for its vCPU, while the guest counts.
 */
#ifndef SAMPLES_KVM_RUNNER_H
#define SAMPLES_KVM_RUNNER_H

#include <pthread.h>

#include "guest.h"
#include "vm_state.h"
#include "vmm.h"

struct runner {
	struct vmm vmm;
	struct guest_params *params;
	pthread_t thread;
	__u64 count;		/* the last one that the guest reported */
	__u64 started_at;
	__u64 stopped_at;
};

/* What the next runner of the guest must be told. */
struct handover {
	__u64 stopped_at;	/* all times are CLOCK_MONOTONIC's */
	__u64 count;
	struct vm_state state;
};

/* runner->count is where the guest goes on from. */
void start_runner(struct runner *runner);

__u64 read_count(const struct runner *runner);
void wait_for_next_count(const struct runner *runner);

/* The vCPU does not run any more; @handover is all that is to know about it. */
void stop_runner(struct runner *runner, struct handover *handover);

/* Let the guest do one whole pass over its data, and end. */
void finish_runner(struct runner *runner);

#endif /* SAMPLES_KVM_RUNNER_H */
