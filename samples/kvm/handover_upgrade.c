// SPDX-License-Identifier: GPL-2.0
/*
 * A running guest gets a new VMM, and its memory stays where it is.
 *
 *	v1, runs the guest		v2, a new process image
 *
 *	starts v2
 *	sends an offer: the fds of VM
 *	and memory, CPUID	--->
 *					creates its VM, links the private
 *					memory, maps the shared, builds its
 *					memory slots and vCPU
 *			<---		"ready"
 *	stops its vCPU, saves its
 *	state, sends it		--->
 *					restores the state, moves the context
 *					from v1's VM, runs the guest
 *			<---		"moved"
 *	exits
 *
 * The guest stands still between v1's stop and v2's run. Whatever can fail is
 * done before the move: until then v1 could resume the guest. After it v1's VM
 * is dead, so all of its state must have been saved.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handover.h"
#include "message.h"
#include "story.h"
#include "vm_state.h"

#define STEPS		7
#define FIRST_OF_V2	4

/* The file descriptors that come with the offer. */
enum { FD_VM, FD_GMEM, FD_SHARED, NR_FDS };

struct offer {
	__u64 data_size;
	struct cpuid_state cpuid;
};

struct handover {
	__u64 stopped_at;
	__u64 count;		/* the last one that v1 was told */
	struct vm_state state;
};

/* When v2 was done with what. All times are CLOCK_MONOTONIC's. */
struct takeover {
	__u64 received_at;
	__u64 restored_at;
	__u64 moved_at;
};

/* A VMM with a thread for its vCPU. */
struct runner {
	struct vmm vmm;
	struct guest_params *params;
	pthread_t thread;
	__u64 count;		/* the last one that the guest reported */
	__u64 started_at;
	__u64 stopped_at;
};

/* The guest reports each number once, whoever its VMM is. */
static void follow_count(struct runner *runner)
{
	__u64 count = runner->params->count;

	if (count != runner->count + 1)
		errx(1, "NOT proven: the guest counted from %llu to %llu",
		     runner->count, count);
	__atomic_store_n(&runner->count, count, __ATOMIC_RELAXED);
}

static void *run_vcpu(void *arg)
{
	struct runner *runner = arg;
	int event;

	runner->started_at = now_ns();
	for (;;) {
		event = vmm_run(&runner->vmm);
		if (event == VMM_STOPPED || event == GUEST_DONE)
			break;
		check_event(&runner->vmm, runner->params, event, GUEST_COUNTED);
		follow_count(runner);
	}
	runner->stopped_at = now_ns();
	return NULL;
}

static void start_runner(struct runner *runner)
{
	errno = pthread_create(&runner->thread, NULL, run_vcpu, runner);
	if (errno)
		err(1, "pthread_create");
}

static __u64 read_count(const struct runner *runner)
{
	return __atomic_load_n(&runner->count, __ATOMIC_RELAXED);
}

static void wait_for_next_count(const struct runner *runner)
{
	__u64 count = read_count(runner);

	while (read_count(runner) == count)
		usleep(100);
}

/* So v2 says that it has done its part: "ready", and later "moved". */
static void send_done(int socket)
{
	char done = 0;

	send_message(socket, &done, sizeof(done), NULL, 0);
}

static void expect(bool received, const char *sender)
{
	if (!received)
		errx(1, "NOT proven: %s is gone", sender);
}

static void wait_until_done(int socket)
{
	char done;

	expect(receive_message(socket, &done, sizeof(done), NULL, 0), "v2");
}

/* Nobody sends anything more: the socket is closed when v1 is gone. */
static void wait_for_exit(int socket)
{
	char done;

	if (receive_message(socket, &done, sizeof(done), NULL, 0))
		errx(1, "NOT proven: v1 does not exit");
}

/* exec() gives v2 nothing but the socket: all else is closed, or not mapped. */
static int start_v2(void)
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
		execl("/proc/self/exe", "vmm_handover", UPGRADE_V2, number,
		      NULL);
		err(1, "cannot execute /proc/self/exe: mount /proc");
	}
	close(sockets[1]);
	printf("      v1 is process %d, v2 is process %d\n", getpid(), pid);
	return sockets[0];
}

static void send_offer(int socket, const struct vmm *vmm,
		       const struct offer *offer)
{
	int fds[NR_FDS] = {
		[FD_VM] = vmm->vm,
		[FD_GMEM] = vmm->gmem,
		[FD_SHARED] = vmm->shared_fd,
	};

	send_message(socket, offer, sizeof(*offer), fds, NR_FDS);
}

/* The guest must not notice anything until its vCPU is stopped. */
static int prepare_v2(const struct runner *runner, const struct offer *offer)
{
	__u64 count;
	int socket;

	step("v1 starts v2, and sends it the fds of its VM and memory");
	socket = start_v2();
	count = read_count(runner);
	send_offer(socket, &runner->vmm, offer);
	wait_until_done(socket);
	wait_for_next_count(runner);
	printf("      meanwhile the guest ran in v1, it counted from %llu to %llu\n",
	       count, read_count(runner));
	return socket;
}

static void stop_guest(struct runner *runner, int socket)
{
	struct handover handover = { 0 };

	step("v1 stops its vCPU, saves its state and sends it to v2");
	vmm_stop(&runner->vmm, runner->thread);
	pthread_join(runner->thread, NULL);

	save_state(&runner->vmm, &handover.state);
	handover.stopped_at = runner->stopped_at;
	handover.count = runner->count;
	send_message(socket, &handover, sizeof(handover), NULL, 0);
}

/* Nothing that v1 still holds can do harm to the guest, or keeps it alive. */
static void leave_guest_to_v2(const struct vmm *vmm)
{
	struct kvm_regs regs;

	step("v1's VM is dead, and v1 exits");
	if (!ioctl(vmm->vcpu, KVM_GET_REGS, &regs) || errno != EIO)
		errx(1, "NOT proven: v1's vCPU still answers");
	printf("      KVM_GET_REGS of v1's vCPU: refused, %s\n", strerror(EIO));
	check_fallocate_refused("v1's fd", vmm->gmem);
}

void upgrade_v1(__u64 data_size)
{
	static struct runner runner;
	struct offer offer = { .data_size = data_size };
	int socket;

	story_begin(1, STEPS);
	step("v1 runs a guest, which fills its private memory and then counts");
	runner.params = start_counting_guest(&runner.vmm, data_size);
	save_cpuid(&runner.vmm, &offer.cpuid);
	start_runner(&runner);

	socket = prepare_v2(&runner, &offer);
	stop_guest(&runner, socket);
	wait_until_done(socket);
	skip_step();
	leave_guest_to_v2(&runner.vmm);
}

/* All that takes time and needs no state of the vCPU, while the guest runs. */
static void build_vm(struct vmm *vmm, struct offer *offer, const int *fds)
{
	int gmem;

	vmm_create_vm(vmm);
	gmem = link_memory(vmm, fds[FD_GMEM], 0);
	close(fds[FD_GMEM]);
	vmm_add_memory(vmm, GUEST_MEMORY_SIZE(offer->data_size), gmem,
		       fds[FD_SHARED]);
	vmm_add_vcpu(vmm);
	restore_cpuid(vmm, &offer->cpuid);
	check_fallocate_refused("v2's fd, which waits for the move", gmem);
}

static double ms(__u64 from, __u64 to)
{
	return (to - from) / 1e6;
}

/* The messages are all that was copied. The shared half is v1's very memory. */
static void print_handover(const struct runner *runner,
			   const struct handover *handover,
			   const struct takeover *takeover)
{
	printf("      the guest was stopped for     %6.2f ms, in which\n"
	       "        v1 saved and sent its state %6.2f ms\n"
	       "        v2 restored it              %6.2f ms\n"
	       "        v2 moved the context        %6.2f ms\n"
	       "        v2 started a vCPU thread    %6.2f ms\n",
	       ms(handover->stopped_at, runner->started_at),
	       ms(handover->stopped_at, takeover->received_at),
	       ms(takeover->received_at, takeover->restored_at),
	       ms(takeover->restored_at, takeover->moved_at),
	       ms(takeover->moved_at, runner->started_at));
	printf("      copied: %zu bytes of vCPU state and CPUID, 0 of %llu MiB of memory\n",
	       sizeof(*handover) + sizeof(struct offer),
	       runner->vmm.size / MIB);
}

/* The move comes last of all that can fail. */
static void take_over(struct runner *runner, int source,
		      struct handover *handover)
{
	struct takeover takeover;

	takeover.received_at = now_ns();
	restore_state(&runner->vmm, &handover->state);
	takeover.restored_at = now_ns();
	vmm_move_from(&runner->vmm, source);
	takeover.moved_at = now_ns();
	runner->count = handover->count;
	start_runner(runner);

	step("v2 restores the state, moves the context and runs the guest");
	close(source);
	wait_for_next_count(runner);
	print_handover(runner, handover, &takeover);
}

/* One whole pass over the data is left to the guest after v1's exit. */
static void prove_continuity(struct runner *runner, __u64 handover_count)
{
	step("The guest goes on in v2");
	ask_for_last_pass(runner->params);
	pthread_join(runner->thread, NULL);
	printf("      after %llu, the last count in v1, it counted from %llu to %llu in v2:\n"
	       "      none is missing, none came twice; its registers agree\n",
	       handover_count, handover_count + 1, runner->count);
}

void upgrade_v2(int socket)
{
	static struct handover handover;
	static struct offer offer;
	static struct runner runner;
	__u64 unevictable = read_unevictable();
	int fds[NR_FDS];

	story_begin(FIRST_OF_V2, STEPS);
	expect(receive_message(socket, &offer, sizeof(offer), fds, NR_FDS),
	       "v1");
	build_vm(&runner.vmm, &offer, fds);
	runner.params = runner.vmm.shared + GUEST_PARAMS;
	send_done(socket);

	expect(receive_message(socket, &handover, sizeof(handover), NULL, 0),
	       "v1");
	take_over(&runner, fds[FD_VM], &handover);
	send_done(socket);
	wait_for_exit(socket);
	skip_step();

	prove_continuity(&runner, handover.count);
	check_checksum(runner.params, offer.data_size);
	check_no_copy(unevictable, offer.data_size);
	step("Destroy the VM");
	destroy_last_vm(&runner.vmm, offer.data_size);
	printf("Proven: a new process took over the guest and its %llu MiB of private memory\n"
	       "        while it ran; nothing was lost, no memory was copied.\n",
	       offer.data_size / MIB);
}
