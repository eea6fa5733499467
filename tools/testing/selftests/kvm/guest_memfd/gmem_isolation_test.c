// SPDX-License-Identifier: GPL-2.0
/*
 * Guests that know nothing of each other find nothing of each other: pages go
 * from one VM to the next all the time, in one process and between processes, and
 * each guest finds in its memory what it wrote itself, or zeroes.
 */
#include "gmem_util.h"

#define NR_PAGES  256
#define TEST_SIZE (NR_PAGES * PAGE_SIZE)
#define NR_VMS	  2	/* in each process */
#define NR_PROCS  3

FIXTURE(isolation)
{
	struct gmem_usage usage;
};

FIXTURE_SETUP(isolation)
{
	gmem_usage_get(&self->usage);
}

FIXTURE_TEARDOWN(isolation)
{
	gmem_usage_check(&self->usage);
}

/*
 * In the guest: every word of its memory holds its own tag, or 0 where a hole
 * was punched.  Write the tag everywhere.
 */

static uint64_t holes;

static void guest_check_and_write(uint64_t tag)
{
	uint64_t *p = (void *)GMEM_GPA, *end = (void *)(GMEM_GPA + TEST_SIZE);

	holes = 0;
	for (; p < end; p++) {
		uint64_t val = READ_ONCE(*p);

		__GUEST_ASSERT(!val || val == tag,
			       "guest 0x%lx sees 0x%lx", tag, val);
		holes += !val;
		WRITE_ONCE(*p, tag);
	}
	GUEST_UCALL_NONE();
}

struct churn {
	struct gmem_vm g;
	uint64_t tag;
	struct guest_random_state rng;
};

static void churn_create(struct churn *c, uint64_t tag)
{
	gmem_vm_create(&c->g, TEST_SIZE);
	c->tag = tag;
	c->rng = new_guest_random_state(tag);
}

/* Let the guest look, and give a part of its memory back. */
static void churn_once(struct churn *c)
{
	uint64_t start = guest_random_u32(&c->rng) % NR_PAGES;
	uint64_t nr = 1 + guest_random_u32(&c->rng) % (NR_PAGES - start);

	TEST_ASSERT_EQ(__gmem_guest_run(&c->g, guest_check_and_write, c->tag, 0,
					0, 0), 0);
	gmem_punch(c->g.fd, start * PAGE_SIZE, nr * PAGE_SIZE);
	if (guest_random_bool(&c->rng))
		gmem_allocate(c->g.fd, start * PAGE_SIZE, nr * PAGE_SIZE);
}

/* As a VM that is gone and one that comes */
static void churn_renew(struct churn *c)
{
	gmem_vm_free(&c->g);
	churn_create(c, c->tag + 1);
}

static void churn_in_process(uint64_t tag)
{
	uint64_t start = gmem_now_ms(), seen = 0;
	struct churn vms[NR_VMS];
	int i, round = 0;

	for (i = 0; i < NR_VMS; i++)
		churn_create(&vms[i], tag + (i << 16));
	while (gmem_race_goes_on(start, round, 32)) {
		for (i = 0; i < NR_VMS; i++) {
			churn_once(&vms[i]);
			sync_global_from_guest(vms[i].g.vm, holes);
			seen += holes;
		}
		if (!(++round % 8))
			churn_renew(&vms[round / 8 % NR_VMS]);
	}
	TEST_ASSERT(seen || round < 10, "no guest came across a hole");
	for (i = 0; i < NR_VMS; i++)
		gmem_vm_free(&vms[i].g);
}

TEST_F(isolation, pages_change_hands_without_their_contents)
{
	pid_t pids[NR_PROCS];
	int i;

	for (i = 0; i < NR_PROCS; i++) {
		pids[i] = gmem_fork();
		if (!pids[i]) {
			churn_in_process((i + 0x1ull) << 32);
			_exit(0);
		}
	}
	for (i = 0; i < NR_PROCS; i++)
		gmem_wait_ok(pids[i]);
}

/* No ioctl of a VM works in a process that did not make it. */
TEST_F(isolation, vm_is_of_no_use_to_another_process)
{
	struct gmem_vm g;
	pid_t pid;

	gmem_vm_create(&g, TEST_SIZE);
	gmem_guest_fill(&g, 0, TEST_SIZE, 0x1111);
	pid = gmem_fork();
	if (!pid) {
		struct kvm_userspace_memory_region2 region = {
			.slot = GMEM_SLOT,
		};
		struct kvm_memory_attributes attr = {
			.address = GMEM_GPA,
			.size = TEST_SIZE,
		};
		struct kvm_regs regs;

		TEST_ASSERT(__vcpu_run(g.vcpu) < 0 && errno == EIO, "KVM_RUN");
		TEST_ASSERT(__vcpu_ioctl(g.vcpu, KVM_GET_REGS, &regs) < 0 &&
			    errno == EIO, "KVM_GET_REGS");
		TEST_ASSERT(__vm_ioctl(g.vm, KVM_SET_USER_MEMORY_REGION2,
				       &region) < 0 && errno == EIO,
			    "KVM_SET_USER_MEMORY_REGION2");
		TEST_ASSERT(__vm_ioctl(g.vm, KVM_SET_MEMORY_ATTRIBUTES,
				       &attr) < 0 && errno == EIO,
			    "KVM_SET_MEMORY_ATTRIBUTES");
		TEST_ASSERT(__vm_create_guest_memfd(g.vm, TEST_SIZE, 0) < 0 &&
			    errno == EIO, "KVM_CREATE_GUEST_MEMFD");
		TEST_ASSERT_EQ(__gmem_pre_fault(g.vcpu, GMEM_GPA, TEST_SIZE, 0,
						NULL), EIO);
		_exit(0);
	}
	gmem_wait_ok(pid);
	gmem_guest_expect(&g, 0, TEST_SIZE, 0x1111);
	gmem_vm_free(&g);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	/* Where the allocator clears pages itself, nothing here could fail. */
	__TEST_REQUIRE(gmem_booted_with("init_on_alloc=0"),
		       "boot with init_on_alloc=0");
	return test_harness_run(argc, argv);
}
