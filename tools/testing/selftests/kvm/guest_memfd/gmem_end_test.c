// SPDX-License-Identifier: GPL-2.0
/*
 * The ends of a VMM: whatever of a VM's descriptors it has closed, in whatever
 * order, with the guest running or not, and however the process ends then,
 * nothing is left.
 */
#include "gmem_util.h"

#define TEST_SIZE (16 * PAGE_SIZE)

enum part { PART_VM, PART_VCPU, PART_GMEM, PART_DUP, NR_PARTS };
enum end { END_EXIT, END_EXEC, END_KILL };

#define NR_ORDERS 24

/* A slow machine tries some orders, and others the next time. */
#define MAX_MS 6000

FIXTURE(end)
{
	struct gmem_usage usage;
};

FIXTURE_VARIANT(end)
{
	enum end end;
	bool running;
	bool delete_slot;
};

FIXTURE_VARIANT_ADD(end, exit) { END_EXIT, false, false };
FIXTURE_VARIANT_ADD(end, exit_slot_deleted) { END_EXIT, false, true };
FIXTURE_VARIANT_ADD(end, exit_guest_runs) { END_EXIT, true, false };
FIXTURE_VARIANT_ADD(end, exit_guest_runs_slot_deleted) { END_EXIT, true, true };
FIXTURE_VARIANT_ADD(end, exec) { END_EXEC, false, false };
FIXTURE_VARIANT_ADD(end, exec_slot_deleted) { END_EXEC, false, true };
FIXTURE_VARIANT_ADD(end, exec_guest_runs) { END_EXEC, true, false };
FIXTURE_VARIANT_ADD(end, exec_guest_runs_slot_deleted) { END_EXEC, true, true };
FIXTURE_VARIANT_ADD(end, kill) { END_KILL, false, false };
FIXTURE_VARIANT_ADD(end, kill_slot_deleted) { END_KILL, false, true };
FIXTURE_VARIANT_ADD(end, kill_guest_runs) { END_KILL, true, false };
FIXTURE_VARIANT_ADD(end, kill_guest_runs_slot_deleted) { END_KILL, true, true };

FIXTURE_SETUP(end)
{
	gmem_usage_get(&self->usage);
}

FIXTURE_TEARDOWN(end)
{
	gmem_usage_check(&self->usage);
}

/* The order with number @nr: each part's place is a digit. */
static void order_get(int nr, enum part *order)
{
	int i, j, pick, left[NR_PARTS] = { 0, 1, 2, 3 };

	for (i = 0; i < NR_PARTS; i++) {
		pick = nr % (NR_PARTS - i);
		nr /= NR_PARTS - i;
		order[i] = left[pick];
		for (j = pick; j < NR_PARTS - i - 1; j++)
			left[j] = left[j + 1];
	}
}

static uint64_t guest_rounds;

/* Memory without a slot is not to be touched: the guest is to go on. */
static void guest_write_for_ever(bool touch)
{
	uint64_t *p = (void *)GMEM_GPA;
	uint64_t i;

	for (i = 1; ; i++) {
		if (touch)
			WRITE_ONCE(p[i % (TEST_SIZE / sizeof(*p))], i);
		WRITE_ONCE(guest_rounds, i);
	}
}

static void *run_guest(void *arg)
{
	_vcpu_run(arg);
	return NULL;
}

/* Return once the guest has begun, and left its mark in the memory. */
static void start_guest(struct gmem_vm *g, bool delete_slot)
{
	uint64_t *rounds = addr_gva2hva(g->vm, (vm_vaddr_t)&guest_rounds);

	gmem_guest_start(g, guest_write_for_ever, !delete_slot, 0, 0, 0);
	gmem_thread(run_guest, g->vcpu);
	while (READ_ONCE(*rounds) < 2)
		usleep(100);
}

static void close_part(struct gmem_vm *g, enum part part, int copy)
{
	switch (part) {
	case PART_VM:
		close(g->vm->fd);
		break;
	case PART_VCPU:
		/* The mapping of kvm_run holds the vCPU, too. */
		munmap(g->vcpu->run, 3 * PAGE_SIZE);
		close(g->vcpu->fd);
		break;
	case PART_GMEM:
		gmem_vm_close_fd(g);
		break;
	default:
		close(copy);
		break;
	}
}

#define END_ENV "GMEM_END_TEST"

static void end_process(enum end end)
{
	switch (end) {
	case END_EXIT:
		_exit(0);
	case END_EXEC:
		setenv(END_ENV, "1", 1);
		execl("/proc/self/exe", "gmem_end_test", NULL);
		_exit(1);
	case END_KILL:
		kill(getpid(), SIGKILL);
		_exit(1);
	}
}

TEST_F(end, leaves_nothing)
{
	uint64_t begin = gmem_now_ms(), seed = gmem_now_us();
	int i, nr, round, nr_closed, copy, status;
	enum part order[NR_PARTS];
	struct gmem_vm g;
	pid_t pid;

	for (round = 0; round < NR_ORDERS && gmem_now_ms() < begin + MAX_MS;
	     round += variant->running ? 1 : 2) {
		nr = (seed + round) % NR_ORDERS;
		order_get(nr, order);
		/* Without a guest that runs, any number of them may be left. */
		nr_closed = variant->running ? NR_PARTS : nr % (NR_PARTS + 1);
		pid = gmem_fork();
		if (!pid) {
			gmem_vm_create(&g, TEST_SIZE);
			gmem_guest_fill(&g, 0, TEST_SIZE, 1);
			copy = dup(g.fd);
			if (variant->delete_slot)
				gmem_delete_slot(g.vm, GMEM_SLOT);
			if (variant->running)
				start_guest(&g, variant->delete_slot);
			for (i = 0; i < nr_closed; i++)
				close_part(&g, order[i], copy);
			end_process(variant->end);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(variant->end == END_KILL ? SIGKILL : 0, status);
		gmem_usage_check(&self->usage);
	}
}

int main(int argc, char *argv[])
{
	if (getenv(END_ENV))
		return 0;

	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
