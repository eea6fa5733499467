// SPDX-License-Identifier: GPL-2.0
/*
 * Linux 7's guest_memfd_test for each type of VM and each set of flags, with a
 * result for each: the program as a whole passes over flags that KVM does not
 * offer, and passes.
 */
#define main whole_program
#include "guest_memfd_test.c"
#undef main

#include "kselftest_harness.h"

FIXTURE(vm) {
	struct kvm_vm *vm;
	u64 flags;
};

FIXTURE_VARIANT(vm) {
	unsigned long type;
};

FIXTURE_VARIANT_ADD(vm, default) {
	.type = VM_TYPE_DEFAULT,
};

FIXTURE_VARIANT_ADD(vm, sw_protected) {
	.type = KVM_X86_SW_PROTECTED_VM,
};

FIXTURE_SETUP(vm)
{
	page_size = getpagesize();
	if (!(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(variant->type)))
		SKIP(return, "no VMs of this type");
	self->vm = vm_create_barebones_type(variant->type);
	self->flags = vm_check_cap(self->vm, KVM_CAP_GUEST_MEMFD_FLAGS);
}

FIXTURE_TEARDOWN(vm)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

TEST_F(vm, valid_flags)
{
	test_guest_memfd_flags(self->vm);
}

TEST_F(vm, without_flags)
{
	__test_guest_memfd(self->vm, 0);
}

TEST_F(vm, mmap)
{
	if (!(self->flags & GUEST_MEMFD_FLAG_MMAP))
		SKIP(return, "no GUEST_MEMFD_FLAG_MMAP");
	__test_guest_memfd(self->vm, GUEST_MEMFD_FLAG_MMAP);
}

TEST_F(vm, mmap_init_shared)
{
	if (!(self->flags & GUEST_MEMFD_FLAG_INIT_SHARED))
		SKIP(return, "no GUEST_MEMFD_FLAG_INIT_SHARED");
	__test_guest_memfd(self->vm, GUEST_MEMFD_FLAG_MMAP |
				     GUEST_MEMFD_FLAG_INIT_SHARED);
}

TEST(guest_and_host)
{
	page_size = getpagesize();
	if (!kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS))
		SKIP(return, "no flags");
	test_guest_memfd_guest();
}

TEST_HARNESS_MAIN
