// SPDX-License-Identifier: GPL-2.0
/*
 * A running ordinary guest gets a new VMM, and its memory stays where it is.
 *
 * All of the guest's RAM is one guest_memfd, which its VMM maps: the VM needs no
 * private memory, and no special hardware. The new VMM (v2) links the memory
 * into a VM of its own beside the old one's, so both VMs have it:
 *
 *	v1's VM --- v1's view ---+
 *				 +--- the memory, one copy
 *	v2's VM --- v2's view ---+
 *
 * The two processes take turns as successor.h says. Nothing is moved or revoked:
 * until v2 runs the guest v1 could resume it, and only one of them may.
 */
#include <err.h>
#include <stdio.h>
#include <unistd.h>

#include "handover.h"
#include "story.h"
#include "successor.h"

#define STEPS		7
#define FIRST_OF_V2	4
#define WATCH_NS	10000000000ULL

/* The guest's program is loaded into the guest_memfd, by plain writes. */
static void start_plain_guest(struct runner *runner, __u64 data_size)
{
	__u64 size = GUEST_MEMORY_SIZE(data_size), before = read_unevictable();
	struct vmm *vmm = &runner->vmm;

	vmm_create_plain_vm(vmm);
	vmm_add_plain_memory(vmm, size, vmm_create_plain_gmem(vmm, size));
	runner->params = boot_guest(vmm, GUEST_COUNTS_PLAIN, GUEST_DATA,
				    data_size);
	run_until(vmm, runner->params, GUEST_VERIFIED);
	check_checksum(runner->params, data_size);
	check_memory_is_used(before, data_size);
}

/*
 * Another process runs the guest, which counts in its ledger. If this process
 * sees that in a mapping of its own, then both have the same memory.
 */
static void watch_guest(const struct vmm *vmm, __u64 data_size,
			const char *watcher, const char *runner)
{
	const struct guest_ledger *ledger = vmm->shared + GUEST_DATA +
					    data_size;
	__u64 first, last, deadline = now_ns() + WATCH_NS;

	first = __atomic_load_n(&ledger->count, __ATOMIC_RELAXED);
	do {
		usleep(100);
		last = __atomic_load_n(&ledger->count, __ATOMIC_RELAXED);
	} while (last == first && now_ns() < deadline);

	if (last <= first)
		errx(1, "NOT proven: %s does not see the guest count in %s",
		     watcher, runner);
	printf("      %s sees in its mapping how the guest counts in %s: from %llu to %llu\n",
	       watcher, runner, first, last);
}

void plain_v1(__u64 data_size)
{
	static struct runner runner;
	int socket;

	story_begin(1, STEPS);
	step("v1 runs an ordinary guest, whose RAM is a guest_memfd that v1 has mapped");
	start_plain_guest(&runner, data_size);
	start_runner(&runner);

	step("v1 starts v2, and sends it the fd of the memory");
	socket = offer_guest(&runner, PLAIN_V2, &runner.vmm.gmem, 1);

	step("v1 stops its vCPU, saves its state and sends it to v2");
	hand_over_guest(&runner, socket);
	skip_step();

	step("v1 exits");
	watch_guest(&runner.vmm, data_size, "v1", "v2");
}

/* All that takes time and needs no state of the vCPU, while the guest runs. */
static void build_vm(struct vmm *vmm, struct offer *offer, int gmem)
{
	int linked;

	vmm_create_plain_vm(vmm);
	linked = link_memory(vmm, gmem, KVM_LINK_GUEST_MEMFD_SHARE);
	close(gmem);
	vmm_add_plain_memory(vmm, GUEST_MEMORY_SIZE(offer->data_size), linked);
	vmm_add_vcpu(vmm);
	restore_cpuid(vmm, &offer->cpuid);
	watch_guest(vmm, offer->data_size, "v2", "v1");
}

/* v1 still has the memory, so a copy would be memory on top of that. */
static void take_over(struct runner *runner, struct handover *handover,
		      __u64 unevictable)
{
	__u64 received_at, restored_at;

	received_at = now_ns();
	restore_state(&runner->vmm, &handover->state);
	restored_at = now_ns();
	runner->count = handover->count;
	start_runner(runner);

	step("v2 restores the state and runs the guest");
	wait_for_next_count(runner);
	print_stop(runner, handover);
	print_stop_part("v1 saved and sent its state", handover->stopped_at,
			received_at);
	print_stop_part("v2 restored it", received_at, restored_at);
	print_stop_part("v2 started a vCPU thread", restored_at,
			runner->started_at);
	print_copied(runner);
	check_no_copy(unevictable, runner->params->data_size);
}

void plain_v2(int socket)
{
	static struct handover handover;
	static struct offer offer;
	static struct runner runner;
	__u64 unevictable = read_unevictable();
	int gmem;

	story_begin(FIRST_OF_V2, STEPS);
	receive_offer(socket, &offer, &gmem, 1);
	build_vm(&runner.vmm, &offer, gmem);
	runner.params = runner.vmm.shared + GUEST_PARAMS;
	send_done(socket);

	receive_guest(socket, &handover);
	take_over(&runner, &handover, unevictable);
	send_done(socket);
	wait_for_exit(socket);
	skip_step();

	finish_guest(&runner, &handover, &offer, unevictable);
	printf("Proven: a new process took over an ordinary guest and its %llu MiB of memory,\n"
	       "        which the host can map; nothing was lost, no memory was copied.\n",
	       offer.data_size / MIB);
}
