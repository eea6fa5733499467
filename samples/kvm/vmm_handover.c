// SPDX-License-Identifier: GPL-2.0
/*
 * What a second VM can do with a guest's memory, without a copy:
 *
 *	vmm_handover [--upgrade | --crash | --share | --plain] [MiB]
 *
 * --upgrade (default): a new VMM process takes over a running guest.
 * --crash: the VMM is killed, and a new VM gets its guest's memory.
 * --share: two VMs use the same memory at once.
 * --plain: as --upgrade, for an ordinary guest, without private memory.
 *
 * The modes are in handover_upgrade.c, handover_crash.c, handover_share.c and
 * handover_plain.c, and what they share is here. Exit status 0: all was proven.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "handover.h"
#include "story.h"

struct guest_params *start_counting_guest(struct vmm *vmm, __u64 data_size)
{
	__u64 size = GUEST_MEMORY_SIZE(data_size);
	struct guest_params *params;

	vmm_create_vm(vmm);
	vmm_add_memory(vmm, size, vmm_create_gmem(vmm, size),
		       vmm_create_shared(size));
	params = boot_guest(vmm, GUEST_COUNTS, GUEST_DATA, data_size);
	run_until(vmm, params, GUEST_VERIFIED);
	check_checksum(params, data_size);
	return params;
}

int link_memory(const struct vmm *vmm, int gmem, __u64 flags)
{
	__u64 start = now_ns(), end;
	int linked;

	linked = vmm_link_gmem(vmm, gmem, flags);
	end = now_ns();
	printf("      KVM_LINK_GUEST_MEMFD: %.1f us\n", (end - start) / 1e3);
	return linked;
}

static __u64 to_mib(__u64 size)
{
	return (size + MIB / 2) / MIB;
}

/* The kernel counts for each CPU, and adds that up now and then. */
void check_no_copy(__u64 before, __u64 data_size)
{
	__u64 after = read_unevictable();

	if (before + MIB < data_size || after > before + MIB ||
	    before > after + MIB)
		errx(1, "NOT proven: Unevictable was %llu MiB, and is %llu MiB",
		     to_mib(before), to_mib(after));
	printf("      Unevictable in /proc/meminfo: %llu MiB, as before: nothing was copied\n",
	       to_mib(after));
}

static void check_eperm(const char *whose, const char *what, int result)
{
	if (!result || errno != EPERM)
		errx(1, "NOT proven: %s may %s memory (%s)", whose, what,
		     result ? strerror(errno) : "done");
}

void check_fallocate_refused(const char *whose, int gmem)
{
	check_eperm(whose, "allocate",
		    fallocate(gmem, FALLOC_FL_KEEP_SIZE, GUEST_DATA, MIB));
	check_eperm(whose, "free",
		    fallocate(gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      GUEST_DATA, MIB));
	printf("      fallocate() through %s: refused, %s\n", whose,
	       strerror(EPERM));
}

void destroy_last_vm(struct vmm *vmm, __u64 data_size)
{
	__u64 before = read_unevictable(), after;

	vmm_destroy(vmm);
	after = read_unevictable();
	if (after + data_size > before + MIB)
		errx(1, "NOT proven: the guest's memory was not given back");
	printf("      Unevictable in /proc/meminfo shrank by %llu MiB\n",
	       to_mib(before - after));
}

/* v1 starts v2 and exits: let v2 have this process as its new parent. */
static void run_two(void (*v1)(__u64 data_size), __u64 data_size)
{
	int status, failed = 0;
	pid_t pid;

	if (prctl(PR_SET_CHILD_SUBREAPER, 1))
		err(1, "PR_SET_CHILD_SUBREAPER");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		v1(data_size);
		exit(0);
	}
	while (wait(&status) > 0)
		failed |= status;
	if (failed)
		exit(1);
}

static void fail_usage(void)
{
	fprintf(stderr,
		"usage: vmm_handover [--upgrade | --crash | --share | --plain] [MiB]\n"
		"MiB of the guest's data: %d to %d, default %d\n",
		MIN_MIB, MAX_MIB, DEFAULT_MIB);
	exit(2);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 && argv[1][0] == '-' ? argv[1] : NULL;
	const char *mib = argv[mode ? 2 : 1];
	__u64 data_size = mib ? parse_data_size(mib) : DEFAULT_MIB * MIB;

	if (argc == 3 && !strcmp(argv[1], UPGRADE_V2))
		upgrade_v2(atoi(argv[2]));
	else if (argc == 3 && !strcmp(argv[1], PLAIN_V2))
		plain_v2(atoi(argv[2]));
	else if (argc > (mode ? 3 : 2) || !data_size)
		fail_usage();
	else if (!mode || !strcmp(mode, "--upgrade"))
		run_two(upgrade_v1, data_size);
	else if (!strcmp(mode, "--crash"))
		recover_from_crash(data_size);
	else if (!strcmp(mode, "--share"))
		share_memory(data_size);
	else if (!strcmp(mode, "--plain"))
		run_two(plain_v1, data_size);
	else
		fail_usage();
	return 0;
}
