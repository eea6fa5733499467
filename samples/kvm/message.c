// SPDX-License-Identifier: GPL-2.0
/* Messages with file descriptors (SCM_RIGHTS): see message.h. */
#include <err.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "message.h"

#define MAX_FDS	4

/* Ancillary data has an alignment of its own. */
union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(MAX_FDS * sizeof(int))];
};

void send_message(int socket, const void *data, size_t size, const int *fds,
		  int nr_fds)
{
	struct iovec iov = { (void *)data, size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	size_t fds_size = nr_fds * sizeof(int);
	union control control = { 0 };
	struct cmsghdr *header;

	if (nr_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(fds_size);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(fds_size);
		memcpy(CMSG_DATA(header), fds, fds_size);
	}
	if (sendmsg(socket, &message, MSG_NOSIGNAL) != (ssize_t)size)
		err(1, "cannot send a message of %zu bytes", size);
}

static void take_fds(struct msghdr *message, int *fds, int nr_fds)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	size_t fds_size = nr_fds * sizeof(int);

	if (!header || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(fds_size))
		errx(1, "a message came without its %d file descriptors",
		     nr_fds);
	memcpy(fds, CMSG_DATA(header), fds_size);
}

bool receive_message(int socket, void *data, size_t size, int *fds, int nr_fds)
{
	struct iovec iov = { data, size };
	union control control = { 0 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);

	if (received == 0 || (received < 0 && errno == ECONNRESET))
		return false;
	if (received < 0)
		err(1, "cannot receive a message");
	if ((size_t)received != size)
		errx(1, "a message has %zd bytes, not %zu", received, size);
	if (nr_fds)
		take_fds(&message, fds, nr_fds);
	return true;
}
