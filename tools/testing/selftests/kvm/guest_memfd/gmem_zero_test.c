// SPDX-License-Identifier: GPL-2.0
/*
 * Private memory is zero before the guest first sees it, also on a machine
 * whose free memory is full of somebody's data.
 */
#include "gmem_util.h"

#define TEST_SIZE SZ_4M

FIXTURE(zero)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(zero)
{
	gmem_pollute_free_memory();
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(zero)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

TEST_F(zero, touched)
{
	gmem_guest_expect(&self->g, 0, TEST_SIZE, 0);
}

TEST_F(zero, allocated)
{
	gmem_allocate(self->g.fd, 0, TEST_SIZE);
	gmem_guest_expect(&self->g, 0, TEST_SIZE, 0);
}

TEST_F(zero, pre_faulted)
{
	struct kvm_pre_fault_memory range = {
		.gpa = GMEM_GPA,
		.size = TEST_SIZE,
	};

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY));
	while (range.size)
		vcpu_ioctl(self->g.vcpu, KVM_PRE_FAULT_MEMORY, &range);
	gmem_guest_expect(&self->g, 0, TEST_SIZE, 0);
}

TEST_F(zero, punched)
{
	struct gmem_vm *g = &self->g;

	gmem_guest_fill(g, 0, TEST_SIZE, 0xbad);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_pollute_free_memory();
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
}

TEST_F(zero, converted_and_punched)
{
	struct gmem_vm *g = &self->g;

	gmem_guest_fill(g, 0, TEST_SIZE, 0xbad);
	vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_guest_fill(g, 0, TEST_SIZE, 0xbad);
	vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
}

TEST_F(zero, new_file_in_an_old_slot)
{
	struct gmem_vm *g = &self->g;

	gmem_guest_fill(g, 0, TEST_SIZE, 0xbad);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_vm_close_fd(g);
	g->fd = vm_create_guest_memfd(g->vm, TEST_SIZE, 0);
	gmem_vm_bind(g);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
}

TEST_F(zero, memory_of_another_vm)
{
	struct gmem_vm other;

	gmem_guest_fill(&self->g, 0, TEST_SIZE, 0xbad);
	gmem_vm_create(&other, TEST_SIZE);
	gmem_guest_expect(&other, 0, TEST_SIZE, 0);
	gmem_punch(self->g.fd, 0, TEST_SIZE);
	gmem_guest_expect(&other, 0, TEST_SIZE, 0);
	gmem_punch(other.fd, 0, TEST_SIZE);
	gmem_guest_expect(&other, 0, TEST_SIZE, 0);
	gmem_vm_free(&other);
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	/* Where the allocator clears pages itself, nothing here could fail. */
	__TEST_REQUIRE(gmem_booted_with("init_on_alloc=0"),
		       "boot with init_on_alloc=0");
	return test_harness_run(argc, argv);
}
