// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_LINK_GUEST_MEMFD_SHARE: several VMs use the same pages at once, each where
 * it likes and with its own rights, and what is done to the memory through one
 * of them is seen by all.
 */
#include "gmem_link_util.h"

#define TEST_SIZE SZ_4M
#define HALF	  (TEST_SIZE / 2)
#define NR_PAGES  ((long)(TEST_SIZE / PAGE_SIZE))

#define SHARE	     KVM_LINK_GUEST_MEMFD_SHARE
#define READONLY     KVM_LINK_GUEST_MEMFD_READONLY
#define NO_FALLOCATE KVM_LINK_GUEST_MEMFD_NO_FALLOCATE

/* The VM that the memory was created for; its guest has filled the memory. */
FIXTURE(share)
{
	struct gmem_usage usage;
	struct gmem_vm owner;
};

FIXTURE_SETUP(share)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->owner, TEST_SIZE);
	gmem_guest_fill(&self->owner, 0, TEST_SIZE, 0x50);
}

FIXTURE_TEARDOWN(share)
{
	gmem_vm_free(&self->owner);
	gmem_usage_check(&self->usage);
}

/* Another VM that has all of the memory, private. */
static void create_sharer(struct gmem_vm *g, int fd, uint64_t rights)
{
	gmem_vm_create_linked(g, TEST_SIZE, fd, SHARE | rights);
	vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
}

/* What the public RFC's test shows: the second VM sees the first one's word. */
TEST_F(share, second_vm_sees_what_the_first_wrote)
{
	struct gmem_vm g;

	gmem_guest_fill(&self->owner, 0, 8, 0xdeadbeef);
	create_sharer(&g, self->owner.fd, 0);
	gmem_guest_expect(&g, 0, 8, 0xdeadbeef);
	gmem_guest_expect(&g, 8, TEST_SIZE - 8, 0x50);
	gmem_vm_free(&g);
}

TEST_F(share, writes_are_seen_by_all_three)
{
	struct gmem_vm vm[2], *all[] = { &self->owner, &vm[0], &vm[1] };
	long base;
	int i, j;

	create_sharer(&vm[0], self->owner.fd, 0);
	create_sharer(&vm[1], vm[0].fd, 0);
	base = gmem_file_pages();
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		gmem_guest_fill(all[i], i * PAGE_SIZE, TEST_SIZE / 2, 0x60 + i);
		for (j = 0; j < ARRAY_SIZE(all); j++)
			gmem_guest_expect(all[j], i * PAGE_SIZE, TEST_SIZE / 2,
					  0x60 + i);
	}
	/* All map the same pages. */
	EXPECT_TRUE(gmem_pages_are(base, 0));
	gmem_vm_free(&vm[0]);
	gmem_vm_free(&vm[1]);
}

TEST_F(share, new_pages_are_the_same_for_all)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;
	long base;

	create_sharer(&g, owner->fd, 0);
	gmem_punch(owner->fd, 0, TEST_SIZE);
	base = gmem_file_pages();
	EXPECT_EQ(0, __gmem_pre_fault(g.vcpu, GMEM_GPA, HALF, 0, NULL));
	EXPECT_EQ(0, __gmem_pre_fault(owner->vcpu, GMEM_GPA, HALF, 0, NULL));
	gmem_guest_fill(&g, HALF, HALF, 0x61);
	gmem_guest_expect(owner, 0, HALF, 0);
	gmem_guest_expect(owner, HALF, HALF, 0x61);
	EXPECT_TRUE(gmem_pages_are(base, NR_PAGES));
	gmem_vm_free(&g);
}

/* Each waits for the other's number in turn. */
#define NR_TURNS 40

static void guest_take_turns(uint64_t gpa, uint64_t parity)
{
	uint64_t *turn = (void *)gpa;
	uint64_t i;

	for (i = parity; i < NR_TURNS; i += 2) {
		while (READ_ONCE(*turn) != i)
			cpu_relax();
		WRITE_ONCE(*turn, i + 1);
	}
	GUEST_UCALL_NONE();
}

static void *take_odd_turns(void *arg)
{
	TEST_ASSERT_EQ(__gmem_guest_run(arg, guest_take_turns, GMEM_GPA, 1, 0,
					0), 0);
	return NULL;
}

TEST_F(share, guests_talk_while_both_run)
{
	struct gmem_vm *owner = &self->owner;
	pthread_t thread;
	struct gmem_vm g;

	create_sharer(&g, owner->fd, 0);
	gmem_guest_fill(owner, 0, 8, 0);
	thread = gmem_thread(take_odd_turns, &g);
	ASSERT_EQ(0, __gmem_guest_run(owner, guest_take_turns, GMEM_GPA, 0, 0,
				      0));
	pthread_join(thread, NULL);
	gmem_guest_expect(&g, 0, 8, NR_TURNS);
	gmem_vm_free(&g);
}

/* The second VM has the pages in another order, and one of them elsewhere. */
TEST_F(share, each_vm_binds_where_it_likes)
{
	const uint64_t page = PAGE_SIZE, far_gpa = 2 * GMEM_GPA;
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;
	int i;

	for (i = 0; i < 8; i++)
		gmem_guest_fill(owner, i * page, page, 0x60 + i);

	gmem_vm_create_empty(&g, TEST_SIZE);
	g.fd = gmem_link(g.vm, owner->fd, SHARE);
	for (i = 0; i < 7; i++)
		gmem_set_slot(g.vm, GMEM_SLOT + i, KVM_MEM_GUEST_MEMFD,
			      GMEM_GPA + i * page, page, g.shared, g.fd,
			      (6 - i) * page);
	gmem_set_slot(g.vm, GMEM_SLOT + i, KVM_MEM_GUEST_MEMFD, far_gpa, page,
		      g.shared, g.fd, 7 * page);
	virt_map(g.vm, far_gpa, far_gpa, 1);
	vm_mem_set_private(g.vm, GMEM_GPA, TEST_SIZE);
	vm_mem_set_private(g.vm, far_gpa, page);

	for (i = 0; i < 7; i++)
		gmem_guest_expect(&g, i * page, page, 0x66 - i);
	gmem_guest_expect(&g, far_gpa - GMEM_GPA, page, 0x67);

	gmem_guest_fill(&g, 0, page, 0x76);
	gmem_guest_fill(&g, far_gpa - GMEM_GPA, page, 0x77);
	gmem_guest_expect(owner, 6 * page, page, 0x76);
	gmem_guest_expect(owner, 7 * page, page, 0x77);
	gmem_guest_expect(owner, 5 * page, page, 0x65);

	/* A hole reaches each gfn that the page is at. */
	gmem_punch(owner->fd, 6 * page, 2 * page);
	gmem_guest_expect(&g, 0, page, 0);
	gmem_guest_expect(&g, far_gpa - GMEM_GPA, page, 0);
	gmem_guest_expect(&g, page, page, 0x65);
	gmem_vm_free(&g);
}

/*
 * The death of sharers
 */

TEST_F(share, sharer_goes)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;

	create_sharer(&g, owner->fd, 0);
	gmem_guest_fill(&g, 0, HALF, 0x61);
	gmem_vm_free(&g);
	gmem_guest_expect(owner, 0, HALF, 0x61);
	gmem_guest_expect(owner, HALF, HALF, 0x50);
	gmem_guest_fill(owner, 0, TEST_SIZE, 0x62);

	/* There is room for another. */
	create_sharer(&g, owner->fd, 0);
	gmem_guest_expect(&g, 0, TEST_SIZE, 0x62);
	gmem_vm_free(&g);
}

TEST_F(share, owner_goes)
{
	struct gmem_vm a, b;

	create_sharer(&a, self->owner.fd, 0);
	create_sharer(&b, self->owner.fd, READONLY);
	gmem_guest_expect(&a, 0, TEST_SIZE, 0x50);
	gmem_vm_free(&self->owner);
	gmem_guest_expect(&a, 0, TEST_SIZE, 0x50);
	gmem_guest_fill(&a, 0, HALF, 0x61);
	gmem_guest_expect(&b, 0, HALF, 0x61);
	gmem_vm_close_fd(&a);
	gmem_vm_free(&a);
	gmem_guest_expect(&b, 0, HALF, 0x61);
	gmem_guest_expect(&b, HALF, HALF, 0x50);
	gmem_vm_free(&b);
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
}

TEST_F(share, memory_of_a_dead_vm)
{
	struct gmem_vm a, b;
	int fd = dup(self->owner.fd);

	gmem_vm_free(&self->owner);
	create_sharer(&a, fd, 0);
	create_sharer(&b, fd, READONLY);
	gmem_guest_fill(&a, 0, HALF, 0x61);
	gmem_guest_expect(&b, 0, HALF, 0x61);
	gmem_guest_expect(&b, HALF, HALF, 0x50);
	gmem_punch(fd, 0, TEST_SIZE);
	gmem_guest_expect(&a, 0, TEST_SIZE, 0);
	gmem_guest_expect(&b, 0, TEST_SIZE, 0);
	gmem_vm_free(&a);
	gmem_vm_free(&b);
	close(fd);
}

/*
 * Holes
 */

TEST_F(share, hole_is_seen_by_all_whoever_punches)
{
	struct gmem_vm vm[2], *all[] = { &self->owner, &vm[0], &vm[1] };
	int i, j;

	create_sharer(&vm[0], self->owner.fd, 0);
	create_sharer(&vm[1], self->owner.fd, 0);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		gmem_guest_fill(all[0], 0, TEST_SIZE, 0x60 + i);
		for (j = 0; j < ARRAY_SIZE(all); j++)
			gmem_guest_expect(all[j], 0, TEST_SIZE, 0x60 + i);

		gmem_punch(all[i]->fd, 0, HALF);
		for (j = 0; j < ARRAY_SIZE(all); j++) {
			gmem_guest_expect(all[j], 0, HALF, 0);
			gmem_guest_expect(all[j], HALF, HALF, 0x60 + i);
		}

		/* The new page is one for all, too. */
		gmem_guest_fill(all[(i + 1) % 3], 0, HALF, 0x70 + i);
		for (j = 0; j < ARRAY_SIZE(all); j++)
			gmem_guest_expect(all[j], 0, HALF, 0x70 + i);
	}
	gmem_vm_free(&vm[0]);
	gmem_vm_free(&vm[1]);
}

TEST_F(share, memory_is_freed_when_punched)
{
	struct gmem_vm g;
	long base;

	create_sharer(&g, self->owner.fd, READONLY);
	gmem_guest_expect(&g, 0, TEST_SIZE, 0x50);
	base = gmem_file_pages();
	gmem_punch(self->owner.fd, 0, TEST_SIZE);
	EXPECT_TRUE(gmem_pages_are(base, -NR_PAGES));
	gmem_vm_free(&g);
}

/*
 * Attributes
 */

TEST_F(share, attributes_are_each_vms_own)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;
	int i;

	gmem_vm_create_linked(&g, TEST_SIZE, owner->fd, SHARE);

	/* None is inherited: this VM has all of it shared. */
	gmem_guest_expect(&g, 0, TEST_SIZE, 0);
	gmem_guest_fill(&g, 0, TEST_SIZE, 0x5a);
	gmem_guest_expect(owner, 0, TEST_SIZE, 0x50);

	vm_mem_set_private(g.vm, GMEM_GPA, HALF);
	gmem_guest_expect(&g, 0, HALF, 0x50);
	gmem_guest_expect(&g, HALF, HALF, 0x5a);

	/* To and fro: neither unmaps what the other VM has of the page. */
	for (i = 0; i < 3; i++) {
		vm_mem_set_shared(owner->vm, GMEM_GPA, TEST_SIZE);
		gmem_guest_expect(owner, 0, TEST_SIZE, 0);
		gmem_guest_expect(&g, 0, HALF, 0x50 + i);
		gmem_guest_fill(&g, 0, HALF, 0x51 + i);
		vm_mem_set_private(owner->vm, GMEM_GPA, TEST_SIZE);
		gmem_guest_expect(owner, 0, HALF, 0x51 + i);
		gmem_guest_expect(owner, HALF, HALF, 0x50);
	}
	gmem_vm_free(&g);
}

/*
 * Rights
 */

/* The guest can read the page at @offset, but not write it. */
static void expect_read_only(struct gmem_vm *g, uint64_t offset, uint64_t val)
{
	gmem_guest_expect(g, offset, PAGE_SIZE, val);
	TEST_ASSERT_EQ(__gmem_guest_fill(g, offset, 8, ~val), EFAULT);
	gmem_expect_memory_fault(g, offset);
	gmem_guest_expect(g, offset, PAGE_SIZE, val);
}

TEST_F(share, read_only_guest_cannot_write)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;

	create_sharer(&g, owner->fd, READONLY);

	/* The first touch is a write, a read, a prefault. */
	EXPECT_EQ(EFAULT, __gmem_guest_fill(&g, 0, 8, 0xbad));
	gmem_expect_memory_fault(&g, 0);
	expect_read_only(&g, 0, 0x50);
	expect_read_only(&g, PAGE_SIZE, 0x50);
	EXPECT_EQ(0, __gmem_pre_fault(g.vcpu, GMEM_GPA, TEST_SIZE, 0, NULL));
	expect_read_only(&g, 2 * PAGE_SIZE, 0x50);
	expect_read_only(&g, TEST_SIZE - PAGE_SIZE, 0x50);

	gmem_guest_expect(owner, 0, TEST_SIZE, 0x50);
	gmem_vm_free(&g);
}

static void guest_or(uint64_t gpa, uint64_t val)
{
	asm volatile("lock orq %1, (%0)" :: "r" (gpa), "r" (val) : "memory");
	GUEST_UCALL_NONE();
}

TEST_F(share, read_only_guest_cannot_modify)
{
	struct gmem_vm g;

	create_sharer(&g, self->owner.fd, READONLY);
	gmem_guest_expect(&g, 0, PAGE_SIZE, 0x50);

	/* Even what would not change the memory is a write. */
	EXPECT_EQ(EFAULT, __gmem_guest_run(&g, guest_or, GMEM_GPA, 0, 0, 0));
	gmem_expect_memory_fault(&g, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_run(&g, guest_or, GMEM_GPA, 1, 0, 0));
	gmem_expect_memory_fault(&g, 0);
	gmem_guest_expect(&self->owner, 0, TEST_SIZE, 0x50);
	gmem_vm_free(&g);
}

TEST_F(share, read_only_guest_sees_the_writer)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;
	int i;

	create_sharer(&g, owner->fd, READONLY);
	for (i = 0; i < 3; i++) {
		expect_read_only(&g, 0, 0x50 + i);
		gmem_guest_fill(owner, 0, TEST_SIZE, 0x51 + i);
		expect_read_only(&g, 0, 0x51 + i);
		expect_read_only(&g, HALF, 0x51 + i);
	}

	/* A page that the reader touches first is a page of zeroes for both. */
	gmem_punch(owner->fd, 0, TEST_SIZE);
	expect_read_only(&g, 0, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_fill(&g, HALF, 8, 0xbad));
	gmem_guest_expect(owner, 0, TEST_SIZE, 0);
	gmem_guest_fill(owner, 0, TEST_SIZE, 0x61);
	expect_read_only(&g, 0, 0x61);
	gmem_vm_free(&g);
}

TEST_F(share, read_only_slot_has_a_writable_shared_half)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;

	create_sharer(&g, owner->fd, READONLY);
	vm_mem_set_shared(g.vm, GMEM_GPA, HALF);
	gmem_guest_fill(&g, 0, HALF, 0x5a);
	gmem_guest_expect(&g, 0, HALF, 0x5a);
	EXPECT_EQ(0x5a, *(uint64_t *)g.shared);
	expect_read_only(&g, HALF, 0x50);

	/* A write that was refused is made once the page is shared. */
	EXPECT_EQ(EFAULT, __gmem_guest_fill(&g, HALF, 8, 0x5b));
	vm_mem_set_shared(g.vm, GMEM_GPA, TEST_SIZE);
	ASSERT_EQ(0, __gmem_guest_end(&g));
	EXPECT_EQ(0x5b, *(uint64_t *)(g.shared + HALF));

	vm_mem_set_private(g.vm, GMEM_GPA, TEST_SIZE);
	expect_read_only(&g, 0, 0x50);
	expect_read_only(&g, HALF, 0x50);
	gmem_guest_expect(owner, 0, TEST_SIZE, 0x50);
	gmem_vm_free(&g);
}

TEST_F(share, read_only_view_gains_nothing_by_being_the_last)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct gmem_vm g;
	int dead;

	create_sharer(&g, self->owner.fd, READONLY);
	gmem_vm_free(&self->owner);
	expect_read_only(&g, 0, 0x50);
	EXPECT_EQ(EPERM, __gmem_punch(g.fd, 0, PAGE_SIZE));
	EXPECT_EQ(EPERM, __gmem_allocate(g.fd, 0, PAGE_SIZE));
	EXPECT_LINK_ERRNO(EPERM, vm, g.fd, 0);

	/* Nor by being dead */
	dead = dup(g.fd);
	gmem_vm_free(&g);
	EXPECT_EQ(EPERM, __gmem_punch(dead, 0, PAGE_SIZE));
	EXPECT_LINK_ERRNO(EPERM, vm, dead, 0);
	EXPECT_LINK_ERRNO(EPERM, vm, dead, SHARE);
	create_sharer(&g, dead, READONLY);
	expect_read_only(&g, 0, 0x50);
	gmem_vm_free(&g);
	close(dead);
	kvm_vm_free(vm);
}

TEST_F(share, fallocate_needs_the_right)
{
	const uint64_t rights[] = {
		NO_FALLOCATE, READONLY, READONLY | NO_FALLOCATE,
	};
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm g;
	int i;

	for (i = 0; i < ARRAY_SIZE(rights); i++) {
		create_sharer(&g, owner->fd, rights[i]);
		EXPECT_EQ(EPERM, __gmem_punch(g.fd, 0, TEST_SIZE));
		EXPECT_EQ(EPERM, __gmem_allocate(g.fd, 0, TEST_SIZE));
		EXPECT_ERRNO(EOPNOTSUPP, fallocate(g.fd, 0, 0, PAGE_SIZE));
		EXPECT_EQ(EINVAL, __gmem_punch(g.fd, 1, PAGE_SIZE));
		EXPECT_EQ(EINVAL, __gmem_allocate(g.fd, 0, 1));
		gmem_guest_expect(&g, 0, TEST_SIZE, 0x50);
		gmem_vm_free(&g);
	}

	/* Writing is another right. */
	create_sharer(&g, owner->fd, NO_FALLOCATE);
	gmem_guest_fill(&g, 0, HALF, 0x61);
	gmem_guest_expect(owner, 0, HALF, 0x61);
	gmem_punch(owner->fd, 0, TEST_SIZE);
	gmem_guest_fill(&g, 0, HALF, 0x62);
	gmem_guest_expect(owner, 0, HALF, 0x62);
	gmem_vm_free(&g);

	create_sharer(&g, owner->fd, 0);
	gmem_punch(g.fd, 0, HALF);
	gmem_allocate(g.fd, 0, TEST_SIZE);
	gmem_guest_expect(owner, 0, TEST_SIZE, 0);
	gmem_vm_free(&g);
}

/* Which links a view with the given rights can be given. */
static const struct {
	uint64_t from, flags;
	int err;
} rights_matrix[] = {
	{ 0, 0, 0 },
	{ 0, SHARE, 0 },
	{ 0, SHARE | NO_FALLOCATE, 0 },
	{ 0, SHARE | READONLY, 0 },
	{ 0, SHARE | READONLY | NO_FALLOCATE, 0 },
	{ NO_FALLOCATE, 0, EPERM },
	{ NO_FALLOCATE, SHARE, EPERM },
	{ NO_FALLOCATE, SHARE | NO_FALLOCATE, 0 },
	{ NO_FALLOCATE, SHARE | READONLY, 0 },
	{ NO_FALLOCATE, SHARE | READONLY | NO_FALLOCATE, 0 },
	{ READONLY, 0, EPERM },
	{ READONLY, SHARE, EPERM },
	{ READONLY, SHARE | NO_FALLOCATE, EPERM },
	{ READONLY, SHARE | READONLY, 0 },
	{ READONLY, SHARE | READONLY | NO_FALLOCATE, 0 },
	{ READONLY | NO_FALLOCATE, 0, EPERM },
	{ READONLY | NO_FALLOCATE, SHARE, EPERM },
	{ READONLY | NO_FALLOCATE, SHARE | NO_FALLOCATE, EPERM },
	{ READONLY | NO_FALLOCATE, SHARE | READONLY, 0 },
	{ READONLY | NO_FALLOCATE, SHARE | READONLY | NO_FALLOCATE, 0 },
};

TEST_F(share, link_has_no_more_rights_than_its_source)
{
	struct kvm_vm *a = vm_create_barebones();
	struct kvm_vm *b = vm_create_barebones();
	int i, from, link;

	for (i = 0; i < ARRAY_SIZE(rights_matrix); i++) {
		from = gmem_link(a, self->owner.fd,
				 SHARE | rights_matrix[i].from);
		EXPECT_EQ(rights_matrix[i].err,
			  __gmem_link(b, from, rights_matrix[i].flags, &link))
			TH_LOG("line %d of the matrix", i);
		if (link >= 0)
			close(link);
		close(from);
	}
	kvm_vm_free(a);
	kvm_vm_free(b);
}

TEST_F(share, rights_come_before_busy_and_after_one_view)
{
	struct kvm_vm *a = vm_create_barebones();
	struct kvm_vm *b = vm_create_barebones();
	struct kvm_vm *c = vm_create_barebones();
	int from = gmem_link(a, self->owner.fd, SHARE | READONLY);
	int pending = gmem_link(b, self->owner.fd, 0);

	EXPECT_LINK_ERRNO(EINVAL, a, from, 0);
	EXPECT_LINK_ERRNO(EPERM, c, from, 0);
	EXPECT_LINK_ERRNO(EBUSY, c, from, SHARE | READONLY);
	close(pending);
	close(from);
	kvm_vm_free(a);
	kvm_vm_free(b);
	kvm_vm_free(c);
}

TEST_F(share, rights_hold_along_a_chain)
{
	struct gmem_vm a, b, c;

	create_sharer(&a, self->owner.fd, NO_FALLOCATE);
	create_sharer(&b, a.fd, NO_FALLOCATE);
	create_sharer(&c, b.fd, READONLY);
	gmem_guest_fill(&b, 0, HALF, 0x61);
	expect_read_only(&c, 0, 0x61);
	EXPECT_EQ(EPERM, __gmem_punch(b.fd, 0, PAGE_SIZE));
	EXPECT_EQ(EPERM, __gmem_punch(c.fd, 0, PAGE_SIZE));
	gmem_vm_free(&a);
	gmem_vm_free(&b);
	expect_read_only(&c, HALF, 0x50);
	gmem_vm_free(&c);
}

/*
 * Handover
 */

TEST_F(share, move_needs_the_memory_for_itself)
{
	struct gmem_vm *owner = &self->owner;
	struct gmem_vm reader, dst;

	create_sharer(&reader, owner->fd, READONLY);
	gmem_vm_create_linked(&dst, TEST_SIZE, owner->fd, 0);
	EXPECT_EQ(EINVAL, __gmem_move(dst.vm, owner->vm->fd));

	/* Nobody has lost anything. */
	gmem_guest_fill(owner, 0, TEST_SIZE, 0x61);
	expect_read_only(&reader, 0, 0x61);
	gmem_vm_free(&reader);
	gmem_move(dst.vm, owner->vm);
	gmem_guest_expect(&dst, 0, TEST_SIZE, 0x61);

	/* The new owner can share. */
	create_sharer(&reader, dst.fd, READONLY);
	expect_read_only(&reader, 0, 0x61);
	gmem_vm_free(&reader);
	gmem_vm_free(&dst);
}

TEST_F(share, move_needs_a_pending_view)
{
	struct gmem_vm dst;

	gmem_vm_create_linked(&dst, TEST_SIZE, self->owner.fd, SHARE);
	EXPECT_EQ(EINVAL, __gmem_move(dst.vm, self->owner.vm->fd));
	gmem_guest_expect(&self->owner, 0, TEST_SIZE, 0x50);
	gmem_vm_free(&dst);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	return test_harness_run(argc, argv);
}
