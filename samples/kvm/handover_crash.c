// SPDX-License-Identifier: GPL-2.0
/*
 * A VMM is killed, its guest's memory stays.
 *
 * The supervisor (this process) has a descriptor of the VMM's guest_memfd, and
 * nothing else: no state of the vCPU, no shared memory. So the guest's program
 * starts anew. It finds its data where it was, and goes on counting from there.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "handover.h"
#include "message.h"
#include "story.h"

#define STEPS		5
#define COUNT_TO_CRASH	20
#define MORE_US		10000

/* The VMM tells its supervisor of each count until it is killed. */
static void run_until_killed(int socket, __u64 data_size)
{
	struct guest_params *params;
	__u64 count = 0;
	struct vmm vmm;

	params = start_counting_guest(&vmm, data_size);
	send_message(socket, &count, sizeof(count), &vmm.gmem, 1);
	for (;;) {
		run_until(&vmm, params, GUEST_COUNTED);
		count = params->count;
		send_message(socket, &count, sizeof(count), NULL, 0);
	}
}

static pid_t start_vmm(int *supervisor, __u64 data_size)
{
	int sockets[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
		err(1, "socketpair");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		close(sockets[0]);
		run_until_killed(sockets[1], data_size);
	}
	close(sockets[1]);
	*supervisor = sockets[0];
	return pid;
}

/* Returns the memory, which comes with the VMM's first message. */
static int wait_until_filled(int socket)
{
	__u64 count;
	int gmem;

	if (!receive_message(socket, &count, sizeof(count), &gmem, 1))
		errx(1, "NOT proven: the VMM ended before its time");
	printf("      the supervisor has received the fd of the guest_memfd\n");
	return gmem;
}

/*
 * SIGKILL, so the VMM cannot do anything about it, and at any point of its work:
 * it runs on while nobody listens. Its VM is gone when waitpid() returns.
 * Returns the last count that the VMM sent.
 */
static __u64 crash(pid_t pid, int socket)
{
	__u64 count, last = 0;
	int status;

	while (last < COUNT_TO_CRASH &&
	       receive_message(socket, &last, sizeof(last), NULL, 0))
		;
	usleep(MORE_US);
	if (kill(pid, SIGKILL) || waitpid(pid, &status, 0) < 0)
		err(1, "cannot kill the VMM");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		errx(1, "NOT proven: the VMM ended before its time");
	while (receive_message(socket, &count, sizeof(count), NULL, 0))
		last = count;
	printf("      its guest's last count was %llu\n", last);
	return last;
}

/*
 * The old view's VM is gone, so the new one is active at once. Which pages were
 * private is not in the memory: the supervisor must know.
 */
static struct guest_params *rebuild(struct vmm *vmm, int gmem, __u64 data_size)
{
	__u64 size = GUEST_MEMORY_SIZE(data_size);

	vmm_create_vm(vmm);
	vmm_add_memory(vmm, size, link_memory(vmm, gmem, 0),
		       vmm_create_shared(size));
	vmm_mark_private(vmm, GUEST_DATA, data_size + GUEST_PAGE_SIZE);
	close(gmem);
	return boot_guest(vmm, GUEST_COUNTS_ON, GUEST_DATA, data_size);
}

/* The guest counts in memory before it says so, and may not have said it. */
static void check_found_count(__u64 found, __u64 last)
{
	if (found != last && found != last + 1)
		errx(1, "NOT proven: the guest found the count %llu, not %llu",
		     found, last);
	printf("      it found the count %llu in its memory\n", found);
}

/* The new VM has all rights: the guest writes. */
static void count_on(struct vmm *vmm, struct guest_params *params)
{
	__u64 count = params->count, found = count;

	ask_for_last_pass(params);
	while (count - found < params->data_size / MIB) {
		run_until(vmm, params, GUEST_COUNTED);
		if (params->count != ++count)
			errx(1, "NOT proven: the guest counted %llu, not %llu",
			     params->count, count);
	}
	run_until(vmm, params, GUEST_DONE);
	printf("      it counted on to %llu\n", count);
}

void recover_from_crash(__u64 data_size)
{
	struct guest_params *params;
	__u64 last, unevictable;
	int socket, gmem;
	struct vmm vmm;
	pid_t pid;

	story_begin(1, STEPS);
	step("A VMM runs a guest, which fills its private memory and then counts");
	pid = start_vmm(&socket, data_size);
	gmem = wait_until_filled(socket);

	step("The VMM is killed while its guest runs");
	unevictable = read_unevictable();
	last = crash(pid, socket);
	check_no_copy(unevictable, data_size);

	step("The supervisor gives the memory to a new VM");
	params = rebuild(&vmm, gmem, data_size);

	step("The guest starts anew, and finds its data");
	run_until(&vmm, params, GUEST_VERIFIED);
	check_checksum(params, data_size);
	check_found_count(params->count, last);
	count_on(&vmm, params);
	check_checksum(params, data_size);
	check_no_copy(unevictable, data_size);

	step("Destroy the VM");
	destroy_last_vm(&vmm, data_size);
	printf("Proven: %llu MiB of private memory outlived a VMM that was killed;\n"
	       "        a new VM found all of it, and its memory was not copied.\n",
	       data_size / MIB);
}
