// SPDX-License-Identifier: GPL-2.0
/* One process takes a guest over from another: see successor.h. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handover.h"
#include "message.h"
#include "story.h"
#include "successor.h"

static void expect(bool received, const char *sender)
{
	if (!received)
		errx(1, "NOT proven: %s is gone", sender);
}

/* exec() gives v2 nothing but the socket: all else is closed, or not mapped. */
static int start_v2(const char *mode)
{
	int sockets[2];
	char number[16];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
		err(1, "socketpair");
	snprintf(number, sizeof(number), "%d", sockets[1]);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		if (fcntl(sockets[1], F_SETFD, 0))
			err(1, "cannot keep the socket open for v2");
		execl("/proc/self/exe", "vmm_handover", mode, number, NULL);
		err(1, "cannot execute /proc/self/exe: mount /proc");
	}
	close(sockets[1]);
	printf("      v1 is process %d, v2 is process %d\n", getpid(), pid);
	return sockets[0];
}

static void wait_until_done(int socket)
{
	char done;

	expect(receive_message(socket, &done, sizeof(done), NULL, 0), "v2");
}

int offer_guest(const struct runner *runner, const char *mode, const int *fds,
		int nr_fds)
{
	struct offer offer = { .data_size = runner->params->data_size };
	int socket = start_v2(mode);
	__u64 count = read_count(runner);

	save_cpuid(&runner->vmm, &offer.cpuid);
	send_message(socket, &offer, sizeof(offer), fds, nr_fds);
	wait_until_done(socket);
	wait_for_next_count(runner);
	printf("      meanwhile the guest ran in v1, it counted from %llu to %llu\n",
	       count, read_count(runner));
	return socket;
}

void hand_over_guest(struct runner *runner, int socket)
{
	struct handover handover = { 0 };

	stop_runner(runner, &handover);
	send_message(socket, &handover, sizeof(handover), NULL, 0);
	wait_until_done(socket);
}

void receive_offer(int socket, struct offer *offer, int *fds, int nr_fds)
{
	expect(receive_message(socket, offer, sizeof(*offer), fds, nr_fds),
	       "v1");
}

void receive_guest(int socket, struct handover *handover)
{
	expect(receive_message(socket, handover, sizeof(*handover), NULL, 0),
	       "v1");
}

void send_done(int socket)
{
	char done = 0;

	send_message(socket, &done, sizeof(done), NULL, 0);
}

/* Nobody sends anything more: the socket is closed when v1 is gone. */
void wait_for_exit(int socket)
{
	char done;

	if (receive_message(socket, &done, sizeof(done), NULL, 0))
		errx(1, "NOT proven: v1 does not exit");
}

static double ms(__u64 from, __u64 to)
{
	return (to - from) / 1e6;
}

void print_stop(const struct runner *runner, const struct handover *handover)
{
	printf("      the guest was stopped for     %6.2f ms, in which\n",
	       ms(handover->stopped_at, runner->started_at));
}

void print_stop_part(const char *what, __u64 from, __u64 to)
{
	printf("        %-27s %6.2f ms\n", what, ms(from, to));
}

void print_copied(const struct runner *runner)
{
	printf("      copied: %zu bytes of vCPU state and CPUID, 0 of %llu MiB of memory\n",
	       sizeof(struct handover) + sizeof(struct offer),
	       runner->vmm.size / MIB);
}

static void prove_continuity(struct runner *runner,
			     const struct handover *handover)
{
	finish_runner(runner);
	printf("      after %llu, the last count in v1, it counted from %llu to %llu in v2:\n"
	       "      none is missing, none came twice; its registers agree\n",
	       handover->count, handover->count + 1, runner->count);
}

void finish_guest(struct runner *runner, const struct handover *handover,
		  const struct offer *offer, __u64 unevictable)
{
	/* One whole pass over the data is left to the guest after v1's exit. */
	step("The guest goes on in v2");
	prove_continuity(runner, handover);
	check_checksum(runner->params, offer->data_size);
	check_no_copy(unevictable, offer->data_size);
	step("Destroy the VM");
	destroy_last_vm(&runner->vmm, offer->data_size);
}
