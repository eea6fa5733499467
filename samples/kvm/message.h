/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Messages between processes on one machine, with file descriptors: the
 * receiver gets its own descriptors of the same files. The socket is of type
 * SOCK_SEQPACKET, which keeps each message in one piece.
 */
#ifndef SAMPLES_KVM_MESSAGE_H
#define SAMPLES_KVM_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

void send_message(int socket, const void *data, size_t size, const int *fds,
		  int nr_fds);

/* False: the other side is gone, or has closed its end. */
bool receive_message(int socket, void *data, size_t size, int *fds, int nr_fds);

#endif /* SAMPLES_KVM_MESSAGE_H */
