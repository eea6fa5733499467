// SPDX-License-Identifier: GPL-2.0
/*
 * What a move checks: if anything is not as it has to be, nothing changes.
 */
#include "gmem_move_util.h"

/*
 * What cannot be moved from, or to
 */

TEST_F(move, descriptor_must_be_a_vm)
{
	struct pair *p = &self->p;
	struct kvm_vm *dst = p->dst.g.vm;
	int memfd = memfd_create("not a VM", 0);

	EXPECT_EQ(EBADF, __gmem_move(dst, -1));
	EXPECT_EQ(EBADF, __gmem_move(dst, 1000));
	EXPECT_EQ(EBADF, __gmem_move(dst, memfd));
	EXPECT_EQ(EBADF, __gmem_move(dst, dst->kvm_fd));
	EXPECT_EQ(EBADF, __gmem_move(dst, p->src.g.vcpu->fd));
	EXPECT_EQ(EBADF, __gmem_move(dst, p->src.g.fd));
	EXPECT_ERRNO(EBADF, __vm_enable_cap(dst, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM,
					    BIT_ULL(32) | p->src.g.vm->fd));
	close(memfd);
	expect_model(&p->src);
	move(p);
	expect_model(&p->dst);
}

TEST_F(move, vm_does_not_move_to_itself)
{
	struct pair *p = &self->p;

	EXPECT_EQ(EINVAL, __gmem_move(p->dst.g.vm, p->dst.g.vm->fd));
	EXPECT_EQ(EINVAL, __gmem_move(p->src.g.vm, p->src.g.vm->fd));
	expect_model(&p->src);
	move(p);
	expect_model(&p->dst);
}

TEST_F(move, types_must_be_equal_and_software_protected)
{
	struct kvm_vm *a = vm_create_barebones(), *b = vm_create_barebones();
	struct kvm_vm *sw = create_third(&self->p);

	EXPECT_EQ(EINVAL, __gmem_move(a, b->fd));
	EXPECT_EQ(EINVAL, __gmem_move(a, sw->fd));
	EXPECT_EQ(EINVAL, __gmem_move(sw, a->fd));
	EXPECT_FALSE(gmem_vm_is_dead(a));
	EXPECT_FALSE(gmem_vm_is_dead(b));
	EXPECT_FALSE(gmem_vm_is_dead(sw));
	kvm_vm_free(a);
	kvm_vm_free(b);
}

TEST_F(move, dead_vm_is_no_source)
{
	struct pair *p = &self->p;
	struct end late;

	move(p);
	create_destination(&late, p->dst.g.fd, p->dst.fd2);
	EXPECT_EQ(EINVAL, __gmem_move(late.g.vm, p->src.g.vm->fd));

	/* A dead VM is no destination, be the source dead or not. */
	EXPECT_EQ(EIO, __gmem_move(p->src.g.vm, p->src.g.vm->fd));
	EXPECT_EQ(EIO, __gmem_move(p->src.g.vm, late.g.vm->fd));
	expect_model(&p->dst);
	gmem_move(late.g.vm, p->dst.g.vm);
	expect_model(&late);
	end_free(&late);
}

/*
 * Mismatches: each spoils what is a good pair, and is mended afterwards.
 */

static void unbind_in_destination(struct pair *p)
{
	unbind_last(&p->dst);
}

static void bind_in_destination(struct pair *p)
{
	bind_piece(&p->dst, LAST);
}

static void rebind_in_destination(struct pair *p)
{
	unbind_last(&p->dst);
	bind_piece(&p->dst, LAST);
}

/* Bind in the destination what is almost the last piece. */
static void bind_almost(struct pair *p, uint32_t flags, int64_t gpa_diff,
			int64_t size_diff, int fd, int64_t offset_diff)
{
	const struct piece *last = &pieces[LAST];

	unbind_last(&p->dst);
	gmem_set_slot(p->dst.g.vm, GMEM_SLOT + LAST, flags,
		      GMEM_GPA + last->offset + gpa_diff,
		      last->size + size_diff, p->dst.g.shared + last->offset,
		      fd, last->file_offset + offset_diff);
}

static void bind_at_other_gfn(struct pair *p)
{
	bind_almost(p, KVM_MEM_GUEST_MEMFD, PAGE_SIZE, 0, p->dst.fd2, 0);
}

static void bind_other_size(struct pair *p)
{
	bind_almost(p, KVM_MEM_GUEST_MEMFD, 0, -PAGE_SIZE, p->dst.fd2, 0);
}

static void bind_other_offset(struct pair *p)
{
	bind_almost(p, KVM_MEM_GUEST_MEMFD, 0, 0, p->dst.fd2, -PAGE_SIZE);
}

static void bind_other_file(struct pair *p)
{
	bind_almost(p, KVM_MEM_GUEST_MEMFD, 0, 0, p->dst.g.fd, 0);
}

static void bind_no_file(struct pair *p)
{
	bind_almost(p, 0, 0, 0, -1, 0);
}

static void bind_own_file(struct pair *p)
{
	p->link = vm_create_guest_memfd(p->dst.g.vm, TEST_SIZE, 0);
	bind_almost(p, KVM_MEM_GUEST_MEMFD, 0, 0, p->link, 0);
}

static void unbind_own_file(struct pair *p)
{
	rebind_in_destination(p);
	close_extra(&p->link);
}

static void bind_part_of_file(struct pair *p)
{
	gmem_set_slot(p->dst.g.vm, SPARE_SLOT, KVM_MEM_GUEST_MEMFD, SPARE_GPA,
		      PAGE_SIZE, p->dst.plain, p->dst.fd2, 0);
}

static void bind_part_of_file_for_plain_slot(struct pair *p)
{
	gmem_delete_slot(p->dst.g.vm, PLAIN_SLOT);
	gmem_set_slot(p->dst.g.vm, PLAIN_SLOT, KVM_MEM_GUEST_MEMFD, PLAIN_GPA,
		      PLAIN_SIZE, p->dst.plain, p->dst.fd2, 0);
}

static void add_slot(struct end *e)
{
	gmem_set_slot(e->g.vm, SPARE_SLOT, 0, SPARE_GPA, PAGE_SIZE, e->plain,
		      -1, 0);
}

static void add_slot_to_destination(struct pair *p)
{
	add_slot(&p->dst);
}

static void add_slot_to_source(struct pair *p)
{
	add_slot(&p->src);
}

static void del_slot_of_destination(struct pair *p)
{
	gmem_delete_slot(p->dst.g.vm, SPARE_SLOT);
}

static void del_slot_of_source(struct pair *p)
{
	gmem_delete_slot(p->src.g.vm, SPARE_SLOT);
}

static void log_dirty_pages(struct pair *p)
{
	set_plain_slot(&p->dst, KVM_MEM_LOG_DIRTY_PAGES);
}

static void log_no_dirty_pages(struct pair *p)
{
	set_plain_slot(&p->dst, 0);
}

static void make_slot_readonly(struct pair *p)
{
	gmem_delete_slot(p->dst.g.vm, PLAIN_SLOT);
	set_plain_slot(&p->dst, KVM_MEM_READONLY);
}

static void restore_plain_slot(struct pair *p)
{
	gmem_delete_slot(p->dst.g.vm, PLAIN_SLOT);
	set_plain_slot(&p->dst, 0);
}

static void set_attribute(struct pair *p)
{
	vm_mem_set_private(p->dst.g.vm, GMEM_GPA + TEST_SIZE - PAGE_SIZE,
			   PAGE_SIZE);
}

static void clear_attribute(struct pair *p)
{
	vm_mem_set_shared(p->dst.g.vm, GMEM_GPA + TEST_SIZE - PAGE_SIZE,
			  PAGE_SIZE);
}

static void set_attribute_without_slot(struct pair *p)
{
	vm_mem_set_private(p->dst.g.vm, BIT_ULL(50), PAGE_SIZE);
}

static void clear_attribute_without_slot(struct pair *p)
{
	vm_mem_set_shared(p->dst.g.vm, BIT_ULL(50), PAGE_SIZE);
}

static void create_in_source(struct pair *p)
{
	p->fd = vm_create_guest_memfd(p->src.g.vm, TEST_SIZE, 0);
}

static void create_in_destination(struct pair *p)
{
	p->fd = vm_create_guest_memfd(p->dst.g.vm, TEST_SIZE, 0);
}

static void link_to_destination(struct pair *p)
{
	p->link = gmem_link(p->dst.g.vm, p->fd, 0);
}

static void link_to_third(struct pair *p)
{
	create_in_source(p);
	p->link = gmem_link(create_third(p), p->fd, 0);
}

static void link_to_destination_instead(struct pair *p)
{
	close_extra(&p->link);
	link_to_destination(p);
}

static void create_in_third(struct pair *p)
{
	p->fd = vm_create_guest_memfd(create_third(p), TEST_SIZE, 0);
}

static void link_to_destination_from_third(struct pair *p)
{
	create_in_third(p);
	link_to_destination(p);
}

static void link_to_source_from_third(struct pair *p)
{
	create_in_third(p);
	p->link = gmem_link(p->src.g.vm, p->fd, 0);
}

static void share_with_source_from_third(struct pair *p)
{
	create_in_third(p);
	p->link = gmem_link(p->src.g.vm, p->fd, KVM_LINK_GUEST_MEMFD_SHARE);
}

static void drop_extra(struct pair *p)
{
	close_extra(&p->link);
	close_extra(&p->fd);
}

/* Link the destination's second guest_memfd anew. */
static void relink(struct pair *p, uint64_t flags)
{
	unbind_last(&p->dst);
	close(p->dst.fd2);
	p->dst.fd2 = gmem_link(p->dst.g.vm, p->src.fd2, flags);
	bind_piece(&p->dst, LAST);
}

static void share_with_destination(struct pair *p)
{
	relink(p, KVM_LINK_GUEST_MEMFD_SHARE);
}

static void link_instead_of_share(struct pair *p)
{
	relink(p, 0);
}

/* A third VM has to come before the pending view does. */
static void share_with_third(struct pair *p)
{
	unbind_last(&p->dst);
	close(p->dst.fd2);
	p->link = gmem_link(create_third(p), p->src.fd2,
			    KVM_LINK_GUEST_MEMFD_SHARE);
	p->dst.fd2 = gmem_link(p->dst.g.vm, p->src.fd2, 0);
	bind_piece(&p->dst, LAST);
}

FIXTURE(mismatch)
{
	struct pair p;
};

FIXTURE_VARIANT(mismatch)
{
	void (*spoil)(struct pair *p);
	void (*mend)(struct pair *p);
};

FIXTURE_VARIANT_ADD(mismatch, missing_slot) {
	unbind_in_destination, bind_in_destination
};

FIXTURE_VARIANT_ADD(mismatch, extra_slot) {
	add_slot_to_destination, del_slot_of_destination
};

FIXTURE_VARIANT_ADD(mismatch, extra_slot_in_source) {
	add_slot_to_source, del_slot_of_source
};

FIXTURE_VARIANT_ADD(mismatch, extra_guest_memfd_slot) {
	bind_part_of_file, del_slot_of_destination
};

FIXTURE_VARIANT_ADD(mismatch, gfn) {
	bind_at_other_gfn, rebind_in_destination
};

FIXTURE_VARIANT_ADD(mismatch, size) {
	bind_other_size, rebind_in_destination
};

FIXTURE_VARIANT_ADD(mismatch, offset) {
	bind_other_offset, rebind_in_destination
};

FIXTURE_VARIANT_ADD(mismatch, memory) {
	bind_other_file, rebind_in_destination
};

FIXTURE_VARIANT_ADD(mismatch, slot_without_guest_memfd) {
	bind_no_file, rebind_in_destination
};

FIXTURE_VARIANT_ADD(mismatch, slot_with_guest_memfd) {
	bind_part_of_file_for_plain_slot, restore_plain_slot
};

FIXTURE_VARIANT_ADD(mismatch, dirty_log) {
	log_dirty_pages, log_no_dirty_pages
};

FIXTURE_VARIANT_ADD(mismatch, read_only_slot) {
	make_slot_readonly, restore_plain_slot
};

FIXTURE_VARIANT_ADD(mismatch, attributes) {
	set_attribute, clear_attribute
};

FIXTURE_VARIANT_ADD(mismatch, attributes_without_slot) {
	set_attribute_without_slot, clear_attribute_without_slot
};

FIXTURE_VARIANT_ADD(mismatch, own_memory_bound) {
	bind_own_file, unbind_own_file
};

FIXTURE_VARIANT_ADD(mismatch, own_memory) {
	create_in_destination, drop_extra
};

FIXTURE_VARIANT_ADD(mismatch, memory_is_shared) {
	share_with_destination, link_instead_of_share
};

FIXTURE_VARIANT_ADD(mismatch, memory_is_shared_with_third_vm) {
	share_with_third, drop_extra
};

FIXTURE_VARIANT_ADD(mismatch, source_has_more_memory) {
	create_in_source, link_to_destination
};

FIXTURE_VARIANT_ADD(mismatch, source_has_memory_linked_to_third_vm) {
	link_to_third, link_to_destination_instead
};

FIXTURE_VARIANT_ADD(mismatch, source_waits_for_third_vm) {
	link_to_source_from_third, drop_extra
};

FIXTURE_VARIANT_ADD(mismatch, source_shares_with_third_vm) {
	share_with_source_from_third, drop_extra
};

FIXTURE_VARIANT_ADD(mismatch, destination_waits_for_third_vm) {
	link_to_destination_from_third, drop_extra
};

FIXTURE_SETUP(mismatch)
{
	pair_create(&self->p);
}

FIXTURE_TEARDOWN(mismatch)
{
	pair_free(&self->p);
}

/* Memory can be used, given back and allocated, and attributes be changed. */
static void expect_source_works(struct end *src)
{
	gmem_punch(src->g.fd, pieces[0].file_offset, PAGE_SIZE);
	gmem_guest_expect(&src->g, 0, PAGE_SIZE, 0);
	gmem_guest_fill(&src->g, 0, 8, PRIVATE_WORD);
	TEST_ASSERT_EQ(__gmem_allocate(src->fd2, 0, PAGE_SIZE), 0);
	gmem_punch(src->fd2, 0, PAGE_SIZE);
	convert(src, 1, 2, false);
	convert(src, 1, 1, true);
	expect_model(src);
}

/* All but the last slot is what it was. */
static void expect_destination_works(struct end *dst)
{
	uint64_t *shared = dst->g.shared;

	expect_shared(dst, 0, PAGES_PER_HUGE);
	gmem_guest_fill(&dst->g, 8, 8, MARK);
	TEST_ASSERT_EQ(shared[1], MARK);
	TEST_ASSERT_EQ(__gmem_punch(dst->g.fd, 0, PAGE_SIZE), EPERM);
}

TEST_F(mismatch, harms_neither_and_can_be_mended)
{
	struct pair *p = &self->p;

	variant->spoil(p);
	ASSERT_EQ(EINVAL, __move(p));
	expect_source_works(&p->src);
	expect_destination_works(&p->dst);
	ASSERT_EQ(EINVAL, __move(p));
	variant->mend(p);
	move(p);
	expect_model(&p->dst);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	return test_harness_run(argc, argv);
}
