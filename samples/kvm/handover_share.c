// SPDX-License-Identifier: GPL-2.0
/*
 * Two VMs use the same private memory at once: one writes, the other may only
 * read, and has it at another guest physical address.
 *
 * This process runs them in turn, so it can tell what the reader must see.
 */
#include <err.h>
#include <stdio.h>
#include <unistd.h>

#include "handover.h"
#include "story.h"

#define STEPS		6
#define LOOKS		16

/* Where the reader has the data: far from where the writer has it. */
#define READER_DATA	0x60000000ULL

/*
 * The reader's program lies in memory of its own. The window begins where the
 * writer's data begins in the guest_memfd.
 */
static struct guest_params *create_reader(struct vmm *vmm, int *window,
					  int gmem, __u64 data_size)
{
	vmm_create_vm(vmm);
	vmm_add_memory(vmm, GUEST_DATA, vmm_create_gmem(vmm, GUEST_DATA),
		       vmm_create_shared(GUEST_DATA));
	*window = link_memory(vmm, gmem, KVM_LINK_GUEST_MEMFD_SHARE |
					 KVM_LINK_GUEST_MEMFD_READONLY);
	vmm_add_window(vmm, READER_DATA, data_size + GUEST_PAGE_SIZE, *window,
		       GUEST_DATA);
	return boot_guest(vmm, GUEST_WATCHES, READER_DATA, data_size);
}

static void verify_all(struct vmm *reader, struct guest_params *params,
		       __u64 data_size)
{
	__u64 unevictable = read_unevictable();

	run_until(reader, params, GUEST_VERIFIED);
	printf("      the reader has the data at 0x%llx, the writer at 0x%llx\n",
	       READER_DATA, GUEST_DATA);
	check_checksum(params, data_size);
	check_no_copy(unevictable, data_size);
}

/* Each count is in memory, and both guests have that mapped. */
static void watch_live(struct vmm *writer, struct guest_params *written,
		       struct vmm *reader, struct guest_params *seen)
{
	int i;

	for (i = 0; i < LOOKS; i++) {
		run_until(writer, written, GUEST_COUNTED);
		run_until(reader, seen, GUEST_COUNTED);
		if (seen->count != written->count)
			errx(1, "NOT proven: the writer counted %llu, the reader sees %llu",
			     written->count, seen->count);
	}
	printf("      %d times the writer counted, and the reader saw each count at once\n",
	       LOOKS);
}

/* KVM_RUN fails with EFAULT, and does so however often the reader tries. */
static void try_to_write(struct vmm *reader, struct guest_params *params)
{
	const struct kvm_run *run = reader->run;
	int i, event;

	params->stop = 1;
	for (i = 0; i < 2; i++) {
		event = vmm_run(reader);
		if (event != VMM_MEMORY_LOST ||
		    run->memory_fault.gpa != READER_DATA)
			errx(1, "NOT proven: the reader could write (event %d)",
			     event);
	}
	printf("      KVM_EXIT_MEMORY_FAULT at 0x%llx, and again when it tries again\n",
	       run->memory_fault.gpa);
}

/* A whole pass over all data, and the writer's count goes on as well. */
static void finish_writer(struct vmm *writer, struct guest_params *params)
{
	int event;

	ask_for_last_pass(params);
	do {
		event = vmm_run(writer);
		if (event != GUEST_DONE)
			check_event(writer, params, event, GUEST_COUNTED);
	} while (event != GUEST_DONE);
	printf("      it verified all of it again, and counted to %llu\n",
	       params->count);
}

void share_memory(__u64 data_size)
{
	struct guest_params *written, *seen;
	struct vmm writer, reader;
	int window;

	story_begin(1, STEPS);
	step("A guest, the writer, fills its private memory");
	written = start_counting_guest(&writer, data_size);

	step("Another VM, the reader, links the memory and reads all of it");
	seen = create_reader(&reader, &window, writer.gmem, data_size);
	verify_all(&reader, seen, data_size);

	step("The reader watches the writer");
	watch_live(&writer, written, &reader, seen);

	step("The reader tries to write, and to change the file");
	try_to_write(&reader, seen);
	check_fallocate_refused("the reader's fd", window);

	step("The writer's data is what it was");
	finish_writer(&writer, written);
	check_checksum(written, data_size);

	step("Destroy both VMs");
	close(window);
	vmm_destroy(&reader);
	destroy_last_vm(&writer, data_size);
	printf("Proven: two VMs used the same %llu MiB of private memory, without a copy;\n"
	       "        one saw what the other wrote at once, and could change nothing.\n",
	       data_size / MIB);
}
