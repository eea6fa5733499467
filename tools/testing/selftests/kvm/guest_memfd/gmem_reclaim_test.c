// SPDX-License-Identifier: GPL-2.0
/*
 * Each way that a guest's page can go: the ownership model sees it assigned,
 * reclaimed and freed, once each and in that order, neither later nor earlier
 * than the page leaves its file, and nothing is left.
 */
#include "gmem_model_util.h"
#include "gmem_poison_util.h"

/* More than a run of reclaimed pages can hold; the rest is never touched. */
#define NR	  600
#define TEST_SIZE (1024 * PAGE_SIZE)
#define HALF	  (NR / 2)

/*
 * How a guest gets its pages
 */

static void give_by_writing(struct gmem_vm *g)
{
	gmem_write_pages(g, 0, NR);
}

static void give_by_prefault(struct gmem_vm *g)
{
	gmem_prefault_pages(g, 0, NR);
}

static void give_by_populating(struct gmem_vm *g)
{
	void *src = gmem_create_source(NR);

	gmem_populate(g, 0, NR, src);
	munmap(src, NR * PAGE_SIZE);
}

static void create_vm_with_pages(struct gmem_vm *g,
				 void (*give)(struct gmem_vm *g))
{
	gmem_vm_create(g, TEST_SIZE);
	give(g);
	ASSERT_MODEL(NR, .assigned = NR);
}

static void expect_owner(bool gone, long pages)
{
	struct gmem_owner owner = gmem_find_owner(gone);

	TEST_ASSERT(owner.pages == pages, "the owner has %ld pages, not %ld",
		    owner.pages, pages);
}

/* All pages that were ever given are gone, each exactly once. */
#define ASSERT_GONE(...)						\
	ASSERT_MODEL(0, .assigned = NR, .reclaimed = NR, .freed = NR,	\
		     ##__VA_ARGS__)

FIXTURE(way)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_VARIANT(way)
{
	void (*give)(struct gmem_vm *g);
	bool zero;	/* nobody wrote to the pages */
};

FIXTURE_VARIANT_ADD(way, written)
{
	.give = give_by_writing,
};

FIXTURE_VARIANT_ADD(way, prefaulted)
{
	.give = give_by_prefault,
	.zero = true,
};

FIXTURE_VARIANT_ADD(way, populated)
{
	.give = give_by_populating,
};

FIXTURE_SETUP(way)
{
	gmem_usage_get(&self->usage);
	gmem_model_begin();
	create_vm_with_pages(&self->g, variant->give);
	expect_owner(false, NR);
}

FIXTURE_TEARDOWN(way)
{
	gmem_vm_free(&self->g);
	gmem_model_end();
	gmem_usage_check(&self->usage);
}

/*
 * Holes
 */

TEST_F(way, hole)
{
	struct gmem_vm *g = &self->g;

	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_GONE();
	expect_owner(false, 0);
	gmem_vm_free(g);
	ASSERT_GONE();
}

TEST_F(way, holes_of_all_sizes)
{
	static const int bounds[] = { 0, 1, 3, 64, 65, 500, 599, 1024 };
	struct gmem_vm *g = &self->g;
	int pass, i, start, end;
	long gone = 0;

	for (pass = 0; pass < 2; pass++) {
		for (i = pass; i < ARRAY_SIZE(bounds) - 1; i += 2) {
			start = bounds[i];
			end = bounds[i + 1];
			gmem_punch(g->fd, start * PAGE_SIZE,
				   (end - start) * PAGE_SIZE);
			gone += min(end, NR) - start;
			ASSERT_MODEL(NR - gone, .assigned = NR,
				     .reclaimed = gone, .freed = gone);
		}
	}
	ASSERT_GONE();
}

TEST_F(way, hole_is_filled_again)
{
	struct gmem_vm *g = &self->g;

	gmem_punch(g->fd, 0, HALF * PAGE_SIZE);
	ASSERT_MODEL(NR - HALF, .assigned = NR, .reclaimed = HALF,
		     .freed = HALF);
	gmem_check_pages(g, 0, HALF, true);
	gmem_check_pages(g, HALF, NR - HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR + HALF, .reclaimed = HALF,
		     .freed = HALF);
	gmem_vm_free(g);
	ASSERT_MODEL(0, .assigned = NR + HALF, .reclaimed = NR + HALF,
		     .freed = NR + HALF);
}

TEST_F(way, hole_where_no_slot_is)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_GONE();
}

/* What the guest does with its memory until it is told to stop */
static bool guest_stop;

static void guest_use_memory(void)
{
	while (!READ_ONCE(guest_stop))
		gmem_guest_touch_pages(0, NR);
	GUEST_UCALL_NONE();
}

static void *run_guest(void *arg)
{
	TEST_ASSERT_EQ(__gmem_guest_run(arg, guest_use_memory, 0, 0, 0, 0), 0);
	return NULL;
}

static void stop_guest(struct gmem_vm *g, pthread_t thread)
{
	WRITE_ONCE(*(bool *)addr_gva2hva(g->vm, (vm_vaddr_t)&guest_stop), true);
	pthread_join(thread, NULL);
}

TEST_F(way, hole_under_a_running_guest)
{
	struct gmem_vm *g = &self->g;
	struct gmem_transitions t;
	uint64_t end = gmem_now_ms() + 1000;
	pthread_t thread = gmem_thread(run_guest, g);
	long page = 0;

	/* A slow guest needs longer to come across a hole. */
	while (gmem_now_ms() < end || gmem_transition("assigned") < 2 * NR) {
		gmem_punch(g->fd, page * PAGE_SIZE, 50 * PAGE_SIZE);
		page = (page + 50) % NR;
	}
	stop_guest(g, thread);

	gmem_punch(g->fd, 0, TEST_SIZE);
	gmem_model_settle(0);
	t = gmem_get_transitions();
	ASSERT_MODEL(0, .assigned = t.assigned, .reclaimed = t.assigned,
		     .freed = t.assigned);
}

/*
 * The end of the file, or of the VM
 */

TEST_F(way, slot_then_descriptor)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_vm_close_fd(g);
	ASSERT_GONE();
	expect_owner(false, 0);
}

TEST_F(way, descriptor_then_slot)
{
	struct gmem_vm *g = &self->g;

	gmem_vm_close_fd(g);
	gmem_check_pages(g, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	ASSERT_GONE();
	expect_owner(false, 0);
}

TEST_F(way, descriptor_then_vm)
{
	gmem_vm_close_fd(&self->g);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_vm_free(&self->g);
	ASSERT_GONE();
	EXPECT_EQ(0, gmem_count_owners());
}

TEST_F(way, vm_then_descriptor)
{
	int fd = gmem_vm_free_keep_fd(&self->g);

	ASSERT_MODEL(NR, .assigned = NR);
	expect_owner(true, NR);
	close(fd);
	ASSERT_GONE();
	EXPECT_EQ(0, gmem_count_owners());
}

TEST_F(way, vm_then_hole)
{
	int fd = gmem_vm_free_keep_fd(&self->g);

	gmem_punch(fd, 0, HALF * PAGE_SIZE);
	ASSERT_MODEL(NR - HALF, .assigned = NR, .reclaimed = HALF,
		     .freed = HALF);
	expect_owner(true, NR - HALF);
	gmem_punch(fd, 0, TEST_SIZE);
	ASSERT_GONE();
	EXPECT_EQ(0, gmem_count_owners());

	/* A page that no VM has used is not for the model. */
	gmem_allocate(fd, 0, TEST_SIZE);
	close(fd);
	ASSERT_GONE();
}

TEST_F(way, two_descriptors)
{
	struct gmem_vm *g = &self->g;
	int copy = dup(g->fd);

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_vm_close_fd(g);
	ASSERT_MODEL(NR, .assigned = NR);
	close(copy);
	ASSERT_GONE();
}

/* Memory is the guest's, be it private or not at the moment. */
TEST_F(way, conversion_is_none)
{
	struct gmem_vm *g = &self->g;

	vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
	gmem_check_pages(g, 0, NR, true);
	ASSERT_MODEL(NR, .assigned = NR);
	vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
	gmem_check_pages(g, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_vm_free(g);
	ASSERT_GONE();
}

TEST_F(way, slot_made_again)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_vm_bind(g);
	gmem_check_pages(g, 0, HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .rebound = HALF);
	gmem_vm_free(g);
	ASSERT_GONE(.rebound = HALF);
}

/* The guest finds its pages one page further up. */
TEST_F(way, slot_made_at_another_gfn)
{
	struct gmem_vm *g = &self->g;
	uint64_t i;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD,
		      GMEM_GPA + PAGE_SIZE, TEST_SIZE - PAGE_SIZE, g->shared,
		      g->fd, 0);
	ASSERT_MODEL(NR, .assigned = NR);
	for (i = 0; i < 10; i++)
		gmem_guest_expect(g, (i + 1) * PAGE_SIZE, 8,
				  variant->zero ? 0 : GMEM_WORD + i);
	ASSERT_MODEL(NR, .assigned = NR, .rebound = 10);

	/* Once more changes nothing. */
	for (i = 0; i < 10; i++)
		gmem_guest_expect(g, (i + 1) * PAGE_SIZE, 8,
				  variant->zero ? 0 : GMEM_WORD + i);
	ASSERT_MODEL(NR, .assigned = NR, .rebound = 10);
	gmem_vm_free(g);
	ASSERT_GONE(.rebound = 10);
}

/*
 * Links and moves
 */

TEST_F(way, inherited_by_a_link)
{
	struct gmem_vm heir;

	gmem_vm_create_other(&heir, &self->g, 0);
	gmem_vm_free(&self->g);
	ASSERT_MODEL(NR, .assigned = NR);
	expect_owner(true, NR);

	gmem_check_pages(&heir, 0, HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .inherited = HALF);
	expect_owner(true, NR - HALF);
	expect_owner(false, HALF);

	gmem_check_pages(&heir, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .inherited = NR);
	EXPECT_EQ(1, gmem_count_owners());
	expect_owner(false, NR);

	gmem_vm_free(&heir);
	ASSERT_GONE(.inherited = NR);
}

TEST_F(way, inherited_by_halves)
{
	struct gmem_vm heir;

	gmem_vm_create_other(&heir, &self->g, 0);
	gmem_vm_free(&self->g);
	gmem_check_pages(&heir, 0, HALF, variant->zero);
	gmem_vm_free(&heir);
	ASSERT_GONE(.inherited = HALF);
	EXPECT_EQ(0, gmem_count_owners());
}

TEST_F(way, inherited_from_a_dead_vm)
{
	struct gmem_vm heir;
	int fd = gmem_vm_free_keep_fd(&self->g);

	gmem_vm_create_linked(&heir, TEST_SIZE, fd, 0);
	vm_mem_set_private(heir.vm, GMEM_GPA, TEST_SIZE);
	close(fd);
	gmem_check_pages(&heir, 0, HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .inherited = HALF);
	gmem_punch(heir.fd, 0, TEST_SIZE);
	ASSERT_GONE(.inherited = HALF);
	gmem_vm_free(&heir);
}

/* The first VM lives, but has left the memory to the other. */
TEST_F(way, inherited_from_a_living_vm)
{
	struct gmem_vm *g = &self->g, heir;

	gmem_vm_create_other(&heir, g, 0);
	gmem_vm_close_fd(g);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_check_pages(&heir, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .inherited = NR);
	gmem_vm_free(&heir);
	ASSERT_GONE(.inherited = NR);
	expect_owner(false, 0);
}

/* Three VMs, one after the other */
TEST_F(way, inherited_twice)
{
	struct gmem_vm second, third;

	gmem_vm_create_other(&second, &self->g, 0);
	gmem_vm_free(&self->g);
	gmem_check_pages(&second, 0, NR, variant->zero);
	gmem_vm_create_other(&third, &second, 0);
	gmem_vm_free(&second);
	gmem_check_pages(&third, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .inherited = 2 * NR);
	gmem_vm_free(&third);
	ASSERT_GONE(.inherited = 2 * NR);
}

TEST_F(way, shared)
{
	struct gmem_vm *g = &self->g, other;

	gmem_vm_create_other(&other, g, KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_check_pages(&other, 0, HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .shared = HALF);

	gmem_punch(other.fd, 0, TEST_SIZE);
	ASSERT_GONE(.shared = HALF);
	gmem_vm_free(&other);
}

TEST_F(way, shared_by_a_vm_that_goes_first)
{
	struct gmem_vm *g = &self->g, other;

	gmem_vm_create_other(&other, g, KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_check_pages(&other, 0, HALF, variant->zero);
	gmem_vm_free(&other);
	ASSERT_MODEL(NR, .assigned = NR, .shared = HALF);
	gmem_check_pages(g, 0, NR, variant->zero);
	gmem_vm_free(g);
	ASSERT_GONE(.shared = HALF);
}

/* The sharer goes on with what it maps. */
TEST_F(way, shared_by_a_vm_that_goes_last)
{
	struct gmem_vm *g = &self->g, other;

	gmem_vm_create_other(&other, g, KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_check_pages(&other, 0, HALF, variant->zero);
	gmem_vm_free(g);
	gmem_check_pages(&other, 0, HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .shared = HALF);
	gmem_check_pages(&other, HALF, NR - HALF, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .shared = HALF,
		     .inherited = NR - HALF);
	gmem_vm_free(&other);
	ASSERT_GONE(.shared = HALF, .inherited = NR - HALF);
}

TEST_F(way, moved_then_hole)
{
	struct gmem_vm *g = &self->g, dst;
	struct gmem_owner before, after;

	before = gmem_find_owner(false);
	gmem_vm_create_linked(&dst, TEST_SIZE, g->fd, 0);
	gmem_move(dst.vm, g->vm);
	ASSERT_MODEL(NR, .assigned = NR, .moved = 1);
	after = gmem_find_owner(false);
	EXPECT_EQ(before.number, after.number);
	EXPECT_EQ(NR, after.pages);

	/* The death of the old VM changes nothing. */
	gmem_check_pages(&dst, 0, HALF, variant->zero);
	gmem_vm_free(g);
	gmem_check_pages(&dst, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR, .moved = 1);
	EXPECT_EQ(1, gmem_count_owners());
	after = gmem_find_owner(false);
	EXPECT_EQ(before.number, after.number);
	EXPECT_EQ(NR, after.pages);

	gmem_punch(dst.fd, 0, TEST_SIZE);
	ASSERT_GONE(.moved = 1);
	expect_owner(false, 0);
	gmem_vm_free(&dst);
}

TEST_F(way, moved_then_vm)
{
	struct gmem_vm *g = &self->g, dst;
	int fd;

	gmem_vm_create_linked(&dst, TEST_SIZE, g->fd, 0);
	gmem_move(dst.vm, g->vm);
	gmem_vm_free(g);
	fd = gmem_vm_free_keep_fd(&dst);
	ASSERT_MODEL(NR, .assigned = NR, .moved = 1);
	expect_owner(true, NR);
	close(fd);
	ASSERT_GONE(.moved = 1);
}

/* Neither VM is left when the last descriptor, the old one, is closed. */
TEST_F(way, moved_then_old_descriptor)
{
	struct gmem_vm *g = &self->g, dst;
	int fd = dup(g->fd);

	gmem_vm_create_linked(&dst, TEST_SIZE, g->fd, 0);
	gmem_move(dst.vm, g->vm);
	gmem_vm_free(&dst);
	gmem_vm_free(g);
	ASSERT_MODEL(NR, .assigned = NR, .moved = 1);
	close(fd);
	ASSERT_GONE(.moved = 1);
}

TEST_F(way, moved_three_times)
{
	struct gmem_vm at = self->g, next;
	int i, number = gmem_find_owner(false).number;

	self->g.vm = NULL;
	for (i = 0; i < 3; i++) {
		gmem_vm_create_linked(&next, TEST_SIZE, at.fd, 0);
		gmem_move(next.vm, at.vm);
		gmem_check_pages(&next, 0, HALF, variant->zero);
		gmem_vm_free(&at);
		at = next;
	}
	ASSERT_MODEL(NR, .assigned = NR, .moved = 3);
	EXPECT_EQ(number, gmem_find_owner(false).number);
	gmem_vm_free(&at);
	ASSERT_GONE(.moved = 3);
}

/* A destination that was an owner before becomes another one. */
TEST_F(way, moved_to_an_owner)
{
	struct gmem_vm *g = &self->g, dst;
	int number = gmem_find_owner(false).number;

	gmem_vm_create(&dst, TEST_SIZE);
	gmem_check_pages(&dst, 0, 1, true);
	ASSERT_MODEL(NR + 1, .assigned = NR + 1);
	EXPECT_EQ(2, gmem_count_owners());
	gmem_delete_slot(dst.vm, GMEM_SLOT);
	gmem_vm_close_fd(&dst);
	vm_mem_set_shared(dst.vm, GMEM_GPA, TEST_SIZE);

	dst.fd = gmem_link(dst.vm, g->fd, 0);
	gmem_vm_bind(&dst);
	gmem_move(dst.vm, g->vm);
	gmem_vm_free(g);
	gmem_check_pages(&dst, 0, NR, variant->zero);
	ASSERT_MODEL(NR, .assigned = NR + 1, .reclaimed = 1, .freed = 1,
		     .moved = 1);
	/* The other one goes with its last page. */
	EXPECT_EQ(1, gmem_count_owners());
	EXPECT_EQ(number, gmem_find_owner(false).number);
	gmem_vm_free(&dst);
	ASSERT_MODEL(0, .assigned = NR + 1, .reclaimed = NR + 1,
		     .freed = NR + 1, .moved = 1);
}

/* A destination may have left memory of its own to a third VM. */
TEST_F(way, moved_to_a_vm_that_gave_memory_away)
{
	struct gmem_vm *g = &self->g, dst, third;
	int number = gmem_find_owner(false).number;

	gmem_vm_create(&dst, TEST_SIZE);
	gmem_write_pages(&dst, 0, 2);
	gmem_vm_create_other(&third, &dst, 0);
	gmem_delete_slot(dst.vm, GMEM_SLOT);
	gmem_vm_close_fd(&dst);
	gmem_check_pages(&third, 0, 1, false);
	ASSERT_MODEL(NR + 2, .assigned = NR + 2, .inherited = 1);

	vm_mem_set_shared(dst.vm, GMEM_GPA, TEST_SIZE);
	dst.fd = gmem_link(dst.vm, g->fd, 0);
	gmem_vm_bind(&dst);
	gmem_move(dst.vm, g->vm);
	gmem_check_pages(&dst, 0, NR, variant->zero);
	gmem_check_pages(&third, 0, 2, false);
	ASSERT_MODEL(NR + 2, .assigned = NR + 2, .inherited = 2, .moved = 1);
	gmem_vm_free(&third);
	gmem_vm_free(g);
	EXPECT_EQ(number, gmem_find_owner(false).number);
	gmem_vm_free(&dst);
	ASSERT_MODEL(0, .assigned = NR + 2, .reclaimed = NR + 2,
		     .freed = NR + 2, .inherited = 2, .moved = 1);
}

/*
 * Memory that is tied to its VM, as with SNP
 */

FIXTURE(tied)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_VARIANT(tied)
{
	void (*give)(struct gmem_vm *g);
};

FIXTURE_VARIANT_ADD(tied, written)
{
	.give = give_by_writing,
};

FIXTURE_VARIANT_ADD(tied, populated)
{
	.give = give_by_populating,
};

FIXTURE_SETUP(tied)
{
	gmem_usage_get(&self->usage);
	gmem_model_begin();
	gmem_model_write("tied", "Y");
	create_vm_with_pages(&self->g, variant->give);
}

FIXTURE_TEARDOWN(tied)
{
	gmem_vm_free(&self->g);
	gmem_model_end();
	gmem_usage_check(&self->usage);
}

TEST_F(tied, goes_with_the_vm)
{
	int fd = gmem_vm_free_keep_fd(&self->g);

	ASSERT_GONE();
	EXPECT_EQ(0, gmem_count_owners());

	/* The descriptor names memory that is empty. */
	EXPECT_TRUE(gmem_pages_are(self->usage.pages, 0));
	gmem_allocate(fd, 0, TEST_SIZE);
	gmem_punch(fd, 0, HALF * PAGE_SIZE);
	close(fd);
	ASSERT_GONE();
}

TEST_F(tied, goes_with_the_descriptor)
{
	struct gmem_vm *g = &self->g;

	gmem_delete_slot(g->vm, GMEM_SLOT);
	ASSERT_MODEL(NR, .assigned = NR);
	gmem_vm_close_fd(g);
	ASSERT_GONE();
	expect_owner(false, 0);
}

TEST_F(tied, goes_with_the_hole)
{
	struct gmem_vm *g = &self->g;

	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_GONE();
	expect_owner(false, 0);
}

TEST_F(tied, is_not_shared)
{
	struct gmem_vm *g = &self->g;
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);

	EXPECT_LINK_ERRNO(EINVAL, vm, g->fd, KVM_LINK_GUEST_MEMFD_SHARE);
	kvm_vm_free(vm);
}

TEST_F(tied, heir_gets_empty_memory)
{
	struct gmem_vm heir;

	gmem_vm_create_other(&heir, &self->g, 0);
	gmem_vm_free(&self->g);
	ASSERT_GONE();
	gmem_check_pages(&heir, 0, HALF, true);
	ASSERT_MODEL(HALF, .assigned = NR + HALF, .reclaimed = NR, .freed = NR);
	gmem_vm_free(&heir);
	ASSERT_MODEL(0, .assigned = NR + HALF, .reclaimed = NR + HALF,
		     .freed = NR + HALF);
}

/* The view's last close is an end, too, for a VM that lives on. */
TEST_F(tied, heir_of_a_living_vm_gets_empty_memory)
{
	struct gmem_vm *g = &self->g, heir;

	gmem_vm_create_other(&heir, g, 0);
	gmem_vm_close_fd(g);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	ASSERT_GONE();
	gmem_check_pages(&heir, 0, HALF, true);
	gmem_vm_free(&heir);
	ASSERT_MODEL(0, .assigned = NR + HALF, .reclaimed = NR + HALF,
		     .freed = NR + HALF);
}

/* A pending view that goes has nothing to take along. */
TEST_F(tied, goes_not_with_a_pending_view)
{
	struct gmem_vm heir;

	gmem_vm_create_other(&heir, &self->g, 0);
	gmem_vm_free(&heir);
	ASSERT_MODEL(NR, .assigned = NR);
	EXPECT_EQ(1, gmem_count_owners());
}

TEST_F(tied, moves)
{
	struct gmem_vm *g = &self->g, dst;
	int fd;

	gmem_vm_create_linked(&dst, TEST_SIZE, g->fd, 0);
	gmem_move(dst.vm, g->vm);
	fd = gmem_vm_free_keep_fd(g);
	gmem_check_pages(&dst, 0, NR, false);
	ASSERT_MODEL(NR, .assigned = NR, .moved = 1);
	gmem_vm_free(&dst);
	ASSERT_GONE(.moved = 1);
	EXPECT_EQ(0, gmem_count_owners());
	close(fd);
}

/*
 * Without variants
 */

FIXTURE(page)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(page)
{
	gmem_usage_get(&self->usage);
	gmem_model_begin();
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(page)
{
	gmem_vm_free(&self->g);
	unpoison_all();
	gmem_model_end();
	gmem_usage_check(&self->usage);
}

TEST_F(page, that_no_guest_used_is_nobodys)
{
	struct gmem_vm *g = &self->g;

	gmem_allocate(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(0);
	EXPECT_EQ(0, gmem_count_owners());
	gmem_punch(g->fd, 0, HALF * PAGE_SIZE);
	ASSERT_MODEL(0);

	/* Used ones among them */
	gmem_allocate(g->fd, 0, TEST_SIZE);
	gmem_check_pages(g, 10, 20, true);
	ASSERT_MODEL(20, .assigned = 20);
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(0, .assigned = 20, .reclaimed = 20, .freed = 20);

	gmem_allocate(g->fd, 0, TEST_SIZE);
	gmem_vm_free(g);
	ASSERT_MODEL(0, .assigned = 20, .reclaimed = 20, .freed = 20);
}

/* What the guest sees is prepared again and again, but assigned once. */
TEST_F(page, is_assigned_once)
{
	struct gmem_vm *g = &self->g;
	int i;

	for (i = 0; i < 3; i++) {
		give_by_prefault(g);
		give_by_writing(g);
		vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
		vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
		gmem_check_pages(g, 0, NR, false);
	}
	ASSERT_MODEL(NR, .assigned = NR);
}

static void *check_all(void *arg)
{
	gmem_check_pages(arg, 0, NR, false);
	return NULL;
}

/* Two VMs shared it with one that is gone: the first to come inherits. */
TEST_F(page, is_inherited_by_one_of_two)
{
	struct gmem_vm *g = &self->g, a, b;
	pthread_t thread;

	gmem_write_pages(g, 0, NR);
	gmem_vm_create_other(&a, g, KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_vm_create_other(&b, g, KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_check_pages(&a, 0, HALF, false);
	ASSERT_MODEL(NR, .assigned = NR, .shared = HALF);
	gmem_vm_free(g);

	/* What is mapped already stays as it was. */
	thread = gmem_thread(check_all, &a);
	check_all(&b);
	pthread_join(thread, NULL);
	ASSERT_MODEL(NR, .assigned = NR, .inherited = NR, .shared = NR);
	gmem_vm_free(&a);
	gmem_vm_free(&b);
	ASSERT_MODEL(0, .assigned = NR, .inherited = NR, .shared = NR,
		     .reclaimed = NR, .freed = NR);
}

/* Of a VMM that is killed: the guest is running, nothing was closed. */
TEST_F(page, of_a_process_that_is_killed)
{
	struct gmem_vm g;
	pid_t pid;
	int i;

	for (i = 1; i <= 3; i++) {
		pid = gmem_fork();
		if (!pid) {
			gmem_vm_create(&g, TEST_SIZE);
			run_guest(&g);
			_exit(1);
		}
		while (gmem_transition("assigned") < i * NR)
			usleep(1000);
		usleep(i * 20000);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		ASSERT_MODEL(0, .assigned = i * NR, .reclaimed = i * NR,
			     .freed = i * NR);
		EXPECT_EQ(0, gmem_count_owners());
	}
}

/* As above, but the descriptor was passed on. */
TEST_F(page, of_a_killed_process_whose_memory_another_has)
{
	int sock[2], fd;
	struct gmem_vm g;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = gmem_fork();
	if (!pid) {
		gmem_vm_create(&g, TEST_SIZE);
		gmem_send_fd(sock[1], g.fd);
		run_guest(&g);
		_exit(1);
	}
	fd = gmem_receive_fd(sock[0]);
	while (gmem_transition("assigned") < NR)
		usleep(1000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	ASSERT_MODEL(NR, .assigned = NR);
	expect_owner(true, NR);
	close(fd);
	ASSERT_GONE();
	close(sock[0]);
	close(sock[1]);
}

/*
 * A page that failed leaves the file as any other.  Memory failure keeps it from
 * being free until it is unpoisoned.
 */
static void lose_page(struct gmem_vm *g)
{
	unsigned long pfn;

	trace_start();
	pfn = allocate_pfn(g->fd, 5 * PAGE_SIZE);
	trace_stop();
	give_by_writing(g);
	ASSERT_MODEL(NR, .assigned = NR);
	poison(pfn);
	TEST_ASSERT_EQ(__gmem_guest_read(g, 5 * PAGE_SIZE), EHWPOISON);
	ASSERT_MODEL(NR, .assigned = NR);
}

TEST_F(page, that_failed_then_hole)
{
	struct gmem_vm *g = &self->g;

	if (!can_poison())
		SKIP(return, "needs hwpoison-inject and tracefs");

	lose_page(g);
	gmem_punch(g->fd, 0, TEST_SIZE);
	ASSERT_MODEL(1, .assigned = NR, .reclaimed = NR, .freed = NR - 1);
	gmem_check_pages(g, 5, 1, true);
	ASSERT_MODEL(2, .assigned = NR + 1, .reclaimed = NR, .freed = NR - 1);
	unpoison_all();
	ASSERT_MODEL(1, .assigned = NR + 1, .reclaimed = NR, .freed = NR);
}

TEST_F(page, that_failed_then_vm)
{
	struct gmem_vm *g = &self->g;

	if (!can_poison())
		SKIP(return, "needs hwpoison-inject and tracefs");

	lose_page(g);
	gmem_vm_free(g);
	ASSERT_MODEL(1, .assigned = NR, .reclaimed = NR, .freed = NR - 1);
	unpoison_all();
	ASSERT_GONE();
}

int main(int argc, char *argv[])
{
	gmem_require_model();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	return test_harness_run(argc, argv);
}
