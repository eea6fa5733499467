// SPDX-License-Identifier: GPL-2.0
/*
 * What KVM reads and writes of its caller's memory: an ioctl's argument and not a
 * byte more, and of that only what is for the caller; and in kvm_run no more than
 * the exit's own fields.
 */
#include <sys/ioctl.h>

#include "gmem_link_util.h"

#define TEST_SIZE (16 * PAGE_SIZE)
#define CANARY	  0xa5

FIXTURE(args)
{
	struct gmem_usage usage;
	struct gmem_vm g;
	struct kvm_vm *other;
	void *page;		/* with one after it that cannot be touched */
};

FIXTURE_SETUP(args)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
	self->other = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	self->page = gmem_mmap(2 * PAGE_SIZE);
	ASSERT_EQ(0, mprotect(self->page + PAGE_SIZE, PAGE_SIZE, PROT_NONE));
}

FIXTURE_TEARDOWN(args)
{
	munmap(self->page, 2 * PAGE_SIZE);
	kvm_vm_free(self->other);
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/* The ioctls, each with an argument that is good once */

union arg {
	struct kvm_create_guest_memfd create;
	struct kvm_link_guest_memfd link;
	struct kvm_memory_attributes attributes;
	struct kvm_userspace_memory_region2 region;
	struct kvm_pre_fault_memory pre_fault;
};

FIXTURE_VARIANT(args)
{
	unsigned long cmd;
	void (*fill)(union arg *arg, struct gmem_vm *g);
};

/* Of the ioctls that Linux had before, reserved fields may be anything. */
static void fill_create(union arg *arg, struct gmem_vm *g)
{
	arg->create.size = TEST_SIZE;
	memset(arg->create.reserved, CANARY, sizeof(arg->create.reserved));
}

static void fill_link(union arg *arg, struct gmem_vm *g)
{
	arg->link.fd = g->fd;
	arg->link.flags = KVM_LINK_GUEST_MEMFD_SHARE;
}

static void fill_attributes(union arg *arg, struct gmem_vm *g)
{
	arg->attributes.address = GMEM_GPA;
	arg->attributes.size = TEST_SIZE;
	arg->attributes.attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE;
}

static void fill_region(union arg *arg, struct gmem_vm *g)
{
	arg->region.slot = GMEM_SLOT;
	arg->region.guest_phys_addr = 2 * GMEM_GPA;
	arg->region.memory_size = TEST_SIZE;
	arg->region.userspace_addr = (uintptr_t)g->shared;
	arg->region.pad1 = CANARY;
	memset(arg->region.pad2, CANARY, sizeof(arg->region.pad2));
}

static void fill_pre_fault(union arg *arg, struct gmem_vm *g)
{
	arg->pre_fault.gpa = GMEM_GPA;
	arg->pre_fault.size = TEST_SIZE;
	memset(arg->pre_fault.padding, CANARY, sizeof(arg->pre_fault.padding));
}

FIXTURE_VARIANT_ADD(args, create) { KVM_CREATE_GUEST_MEMFD, fill_create };
FIXTURE_VARIANT_ADD(args, link) { KVM_LINK_GUEST_MEMFD, fill_link };
FIXTURE_VARIANT_ADD(args, attributes) { KVM_SET_MEMORY_ATTRIBUTES, fill_attributes };
FIXTURE_VARIANT_ADD(args, region) { KVM_SET_USER_MEMORY_REGION2, fill_region };
FIXTURE_VARIANT_ADD(args, pre_fault) { KVM_PRE_FAULT_MEMORY, fill_pre_fault };

/* Returns 0 or the errno, and closes what comes of it. */
static int call(struct gmem_vm *g, struct kvm_vm *other, unsigned long cmd,
		void *arg)
{
	int r;

	/* One is a vCPU's.  The others are made on the VM that has nothing yet. */
	r = ioctl(cmd == KVM_PRE_FAULT_MEMORY ? g->vcpu->fd : other->fd, cmd,
		  arg);
	if (r < 0)
		return errno;
	if (cmd == KVM_CREATE_GUEST_MEMFD || cmd == KVM_LINK_GUEST_MEMFD)
		close(r);
	return 0;
}

TEST_F(args, argument_at_the_end_of_memory)
{
	void *arg = self->page + PAGE_SIZE - _IOC_SIZE(variant->cmd);

	variant->fill(arg, &self->g);
	EXPECT_EQ(0, call(&self->g, self->other, variant->cmd, arg));
}

/* The same, but the last byte of it is not there. */
TEST_F(args, argument_past_the_end_of_memory)
{
	void *arg = self->page + PAGE_SIZE - _IOC_SIZE(variant->cmd) + 1;
	union arg whole = {};
	long pages;

	variant->fill(&whole, &self->g);
	memcpy(arg, &whole, _IOC_SIZE(variant->cmd) - 1);
	pages = gmem_file_pages();
	EXPECT_EQ(EFAULT, call(&self->g, self->other, variant->cmd, arg));
	EXPECT_TRUE(gmem_pages_are(pages, 0));
}

/* What surrounds the argument stays, and so does the argument. */
TEST_F(args, nothing_is_written_beside_the_results)
{
	void *arg = self->page + PAGE_SIZE / 2;
	uint8_t copy[PAGE_SIZE];
	union arg *seen = (void *)(copy + PAGE_SIZE / 2);

	memset(self->page, CANARY, PAGE_SIZE);
	memset(arg, 0, _IOC_SIZE(variant->cmd));
	variant->fill(arg, &self->g);
	memcpy(copy, self->page, PAGE_SIZE);

	EXPECT_EQ(0, call(&self->g, self->other, variant->cmd, arg));
	if (variant->cmd == KVM_PRE_FAULT_MEMORY) {
		seen->pre_fault.gpa += TEST_SIZE;
		seen->pre_fault.size = 0;
	}
	EXPECT_EQ(0, memcmp(copy, self->page, PAGE_SIZE));
}

TEST_F(args, argument_that_can_only_be_read)
{
	bool has_results = variant->cmd == KVM_PRE_FAULT_MEMORY;

	variant->fill(self->page, &self->g);
	ASSERT_EQ(0, mprotect(self->page, PAGE_SIZE, PROT_READ));
	EXPECT_EQ(has_results ? EFAULT : 0,
		  call(&self->g, self->other, variant->cmd, self->page));
}

FIXTURE(exits)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(exits)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(exits)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

/* The details of an exit are in a union, which is larger than those of this. */
static void expect_exit_is_all_that_is_written(struct gmem_vm *g)
{
	struct kvm_run *run = g->vcpu->run;
	uint8_t *details = (void *)&run->memory_fault;
	size_t i;

	gmem_guest_start(g, gmem_guest_do_fill, GMEM_GPA, PAGE_SIZE, 1, 0);
	memset(details, CANARY, sizeof(run->padding));
	TEST_ASSERT_EQ(_vcpu_run(g->vcpu), -1);
	TEST_ASSERT_EQ(errno, EFAULT);
	gmem_expect_memory_fault(g, 0);
	for (i = sizeof(run->memory_fault); i < sizeof(run->padding); i++)
		TEST_ASSERT(details[i] == CANARY, "byte %lu of kvm_run: 0x%x", i,
			    details[i]);
}

TEST_F(exits, without_a_slot)
{
	gmem_delete_slot(self->g.vm, GMEM_SLOT);
	expect_exit_is_all_that_is_written(&self->g);
}

TEST_F(exits, with_a_view_that_is_pending)
{
	struct gmem_vm next;

	gmem_vm_create_linked(&next, TEST_SIZE, self->g.fd, 0);
	vm_mem_set_private(next.vm, GMEM_GPA, TEST_SIZE);
	expect_exit_is_all_that_is_written(&next);
	gmem_vm_free(&next);
}

TEST_F(exits, with_a_view_that_is_read_only)
{
	struct gmem_vm reader;

	gmem_vm_create_linked(&reader, TEST_SIZE, self->g.fd,
			      KVM_LINK_GUEST_MEMFD_SHARE |
			      KVM_LINK_GUEST_MEMFD_READONLY);
	vm_mem_set_private(reader.vm, GMEM_GPA, TEST_SIZE);
	expect_exit_is_all_that_is_written(&reader);
	gmem_vm_free(&reader);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY));
	return test_harness_run(argc, argv);
}
