/* SPDX-License-Identifier: GPL-2.0 */
/*
 * v1, the process that runs a guest, and v2, the one that takes it over: how v2
 * is started, what they send each other, and what is to be shown of it.
 *
 *	v1					v2
 *
 *	offer_guest()		offer --->	receive_offer()
 *				<---		send_done(): "ready"
 *	hand_over_guest()	state --->	receive_guest()
 *				<---		send_done(): "the guest runs"
 *	exits			     --->	wait_for_exit()
 */
#ifndef SAMPLES_KVM_SUCCESSOR_H
#define SAMPLES_KVM_SUCCESSOR_H

#include <linux/types.h>

#include "runner.h"

/* What v2 can prepare with while the guest runs; file descriptors go with it. */
struct offer {
	__u64 data_size;
	struct cpuid_state cpuid;
};

/*
 * Start v2, which is this program with the argument @mode, and wait until it is
 * ready. The guest must not notice. Returns the socket that leads to v2.
 */
int offer_guest(const struct runner *runner, const char *mode, const int *fds,
		int nr_fds);

/* Stop the guest, send its state, and wait until the guest runs in v2. */
void hand_over_guest(struct runner *runner, int socket);

/* v2's side. */
void receive_offer(int socket, struct offer *offer, int *fds, int nr_fds);
void receive_guest(int socket, struct handover *handover);
void send_done(int socket);
void wait_for_exit(int socket);

/* How long the guest stood still, and what for, part by part. */
void print_stop(const struct runner *runner, const struct handover *handover);
void print_stop_part(const char *what, __u64 from, __u64 to);
void print_copied(const struct runner *runner);

/*
 * v1 is gone. The guest does one whole pass over its data in v2, and finds all
 * of it, with no more memory in use than the @unevictable that read_unevictable()
 * gave before. Then its VM goes, too.
 */
void finish_guest(struct runner *runner, const struct handover *handover,
		  const struct offer *offer, __u64 unevictable);

#endif /* SAMPLES_KVM_SUCCESSOR_H */
