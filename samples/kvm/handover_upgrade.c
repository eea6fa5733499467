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
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "handover.h"
#include "story.h"
#include "successor.h"

#define STEPS		7
#define FIRST_OF_V2	4

/* The file descriptors that come with the offer. */
enum { FD_VM, FD_GMEM, FD_SHARED, NR_FDS };

/* The guest must not notice anything until its vCPU is stopped. */
static int prepare_v2(const struct runner *runner)
{
	const int fds[NR_FDS] = {
		[FD_VM] = runner->vmm.vm,
		[FD_GMEM] = runner->vmm.gmem,
		[FD_SHARED] = runner->vmm.shared_fd,
	};

	step("v1 starts v2, and sends it the fds of its VM and memory");
	return offer_guest(runner, UPGRADE_V2, fds, NR_FDS);
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
	int socket;

	story_begin(1, STEPS);
	step("v1 runs a guest, which fills its private memory and then counts");
	runner.params = start_counting_guest(&runner.vmm, data_size);
	start_runner(&runner);

	socket = prepare_v2(&runner);
	step("v1 stops its vCPU, saves its state and sends it to v2");
	hand_over_guest(&runner, socket);
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

/*
 * The move comes last of all that can fail. The messages are all that is
 * copied: the shared half is v1's very memory.
 */
static void take_over(struct runner *runner, int source,
		      struct handover *handover)
{
	__u64 received_at, restored_at, moved_at;

	received_at = now_ns();
	restore_state(&runner->vmm, &handover->state);
	restored_at = now_ns();
	vmm_move_from(&runner->vmm, source);
	moved_at = now_ns();
	runner->count = handover->count;
	start_runner(runner);

	step("v2 restores the state, moves the context and runs the guest");
	close(source);
	wait_for_next_count(runner);
	print_stop(runner, handover);
	print_stop_part("v1 saved and sent its state", handover->stopped_at,
			received_at);
	print_stop_part("v2 restored it", received_at, restored_at);
	print_stop_part("v2 moved the context", restored_at, moved_at);
	print_stop_part("v2 started a vCPU thread", moved_at,
			runner->started_at);
	print_copied(runner);
}

void upgrade_v2(int socket)
{
	static struct handover handover;
	static struct offer offer;
	static struct runner runner;
	__u64 unevictable = read_unevictable();
	int fds[NR_FDS];

	story_begin(FIRST_OF_V2, STEPS);
	receive_offer(socket, &offer, fds, NR_FDS);
	build_vm(&runner.vmm, &offer, fds);
	runner.params = runner.vmm.shared + GUEST_PARAMS;
	send_done(socket);

	receive_guest(socket, &handover);
	take_over(&runner, fds[FD_VM], &handover);
	send_done(socket);
	wait_for_exit(socket);
	skip_step();

	finish_guest(&runner, &handover, &offer, unevictable);
	printf("Proven: a new process took over the guest and its %llu MiB of private memory\n"
	       "        while it ran; nothing was lost, no memory was copied.\n",
	       offer.data_size / MIB);
}
