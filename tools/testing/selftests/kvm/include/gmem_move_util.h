/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests of the move: a pair of VMs that is ready for one, with
 * slots, attributes and contents of every sort, and a model of what the guest is
 * to find in either.
 */
#ifndef SELFTEST_KVM_GMEM_MOVE_UTIL_H
#define SELFTEST_KVM_GMEM_MOVE_UTIL_H

#include "gmem_link_util.h"

#define PAGES_PER_HUGE (SZ_2M / PAGE_SIZE)
#define TEST_SIZE      (3 * SZ_2M)
#define NR_PAGES       (TEST_SIZE / PAGE_SIZE)

/*
 * The guest that moves.  Each page holds a different word in its two halves, and
 * each huge page another mixture of private and shared.
 */

#define PRIVATE_WORD 0x5050505050505050ull
#define SHARED_WORD  0x5353535353535353ull
#define MARK	     0x4d4d4d4d4d4d4d4dull

static bool is_private[NR_PAGES];
static uint64_t seen[NR_PAGES];

static inline bool begins_private(int page)
{
	int i = page % PAGES_PER_HUGE;
	bool second_half = i >= PAGES_PER_HUGE / 2;

	switch (page / PAGES_PER_HUGE) {
	case 0:
		return second_half ? i % 2 : true;
	case 1:
		return false;
	default:
		return second_half ? i != 300 : i == 137;
	}
}

static inline void reset_model(void)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		is_private[i] = begins_private(i);
}

/* Write to word @word of each page. */
static inline void guest_write(uint64_t word, uint64_t val)
{
	uint64_t i;

	for (i = 0; i < NR_PAGES; i++)
		WRITE_ONCE(((uint64_t *)(GMEM_GPA + i * PAGE_SIZE))[word], val + i);
	GUEST_UCALL_NONE();
}

static inline void guest_look(uint64_t first, uint64_t nr)
{
	uint64_t i;

	for (i = first; i < first + nr; i++)
		seen[i] = READ_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE));
	GUEST_UCALL_NONE();
}

static uint64_t guest_counter;

static inline void guest_count(void)
{
	for (;;)
		WRITE_ONCE(guest_counter, guest_counter + 1);
}

/*
 * One end of a move: a VM with three slots that are bound to two guest_memfds,
 * not in the order of the file, and an ordinary one.
 */
struct end {
	struct gmem_vm g;	/* g.fd is the first guest_memfd */
	int fd2;
	void *plain;
};

#define PLAIN_SLOT 20
#define PLAIN_GPA  (2 * GMEM_GPA)
#define PLAIN_SIZE (2 * PAGE_SIZE)
#define SPARE_SLOT 30
#define SPARE_GPA  (3 * GMEM_GPA)

static const struct piece {
	uint64_t offset, size;
	int file;
	uint64_t file_offset;
} pieces[] = {
	{ 0,	 SZ_2M, 0, SZ_2M },
	{ SZ_2M, SZ_2M, 0, 0 },
	{ SZ_4M, SZ_2M, 1, SZ_4M },
};

#define LAST 2

static inline int end_fd(const struct end *e, int file)
{
	return file ? e->fd2 : e->g.fd;
}

static inline void bind_piece_at(struct end *e, int i, uint32_t slot, int fd)
{
	const struct piece *p = &pieces[i];

	gmem_set_slot(e->g.vm, slot, KVM_MEM_GUEST_MEMFD, GMEM_GPA + p->offset,
		      p->size, e->g.shared + p->offset, fd, p->file_offset);
}

static inline void bind_piece(struct end *e, int i)
{
	bind_piece_at(e, i, GMEM_SLOT + i, end_fd(e, pieces[i].file));
}

static inline void unbind_last(struct end *e)
{
	gmem_delete_slot(e->g.vm, GMEM_SLOT + LAST);
}

static inline void set_plain_slot(struct end *e, uint32_t flags)
{
	gmem_set_slot(e->g.vm, PLAIN_SLOT, flags, PLAIN_GPA, PLAIN_SIZE,
		      e->plain, -1, 0);
}

static inline void write_shared(struct end *e)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		*(uint64_t *)(e->g.shared + i * PAGE_SIZE) = SHARED_WORD + i;
}

static inline void bind_all(struct end *e)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(pieces); i++)
		bind_piece(e, i);
	e->plain = gmem_mmap(PLAIN_SIZE);
	set_plain_slot(e, 0);
	write_shared(e);
}

static inline void convert(struct end *e, int first, int nr, bool private)
{
	vm_set_memory_attributes(e->g.vm, GMEM_GPA + first * PAGE_SIZE,
				 nr * PAGE_SIZE,
				 private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0);
	memset(is_private + first, private, nr);
}

/* Make the VM's attributes what the model says. */
static inline void convert_all(struct end *e)
{
	int first, i;

	for (first = 0; first < NR_PAGES; first = i) {
		for (i = first; i < NR_PAGES; i++) {
			if (is_private[i] != is_private[first])
				break;
		}
		convert(e, first, i - first, is_private[first]);
	}
}

static inline void guest_write_all(struct end *e, int word, uint64_t val)
{
	TEST_ASSERT_EQ(__gmem_guest_run(&e->g, guest_write, word, val, 0, 0), 0);
}

static inline void create_source(struct end *e)
{
	gmem_vm_create_empty(&e->g, TEST_SIZE);
	e->g.fd = vm_create_guest_memfd(e->g.vm, TEST_SIZE, 0);
	e->fd2 = vm_create_guest_memfd(e->g.vm, TEST_SIZE, 0);
	bind_all(e);
	vm_mem_set_private(e->g.vm, GMEM_GPA, TEST_SIZE);
	guest_write_all(e, 0, PRIVATE_WORD);
	convert_all(e);
}

/* What the source with the descriptors @fd and @fd2 can be moved to. */
static inline void create_destination(struct end *e, int fd, int fd2)
{
	gmem_vm_create_empty(&e->g, TEST_SIZE);
	e->g.fd = gmem_link(e->g.vm, fd, 0);
	e->fd2 = gmem_link(e->g.vm, fd2, 0);
	bind_all(e);
}

static inline void close_fds(struct end *e)
{
	gmem_vm_close_fd(&e->g);
	TEST_ASSERT(!close(e->fd2), "close() of a guest_memfd failed");
	e->fd2 = -1;
}

static inline void end_free(struct end *e)
{
	if (!e->g.vm)
		return;

	if (e->fd2 >= 0)
		close(e->fd2);
	gmem_vm_free(&e->g);
	munmap(e->plain, PLAIN_SIZE);
	e->g.vm = NULL;
}

static inline void expect_pages(struct end *e, int first, int nr, const bool *private)
{
	uint64_t expected;
	int i;

	TEST_ASSERT_EQ(__gmem_guest_run(&e->g, guest_look, first, nr, 0, 0), 0);
	sync_global_from_guest(e->g.vm, seen);

	for (i = first; i < first + nr; i++) {
		expected = i + (private[i] ? PRIVATE_WORD : SHARED_WORD);
		TEST_ASSERT(seen[i] == expected,
			    "page %d should be %s, the guest sees 0x%lx", i,
			    private[i] ? "private" : "shared", seen[i]);
	}
}

/* The guest must see what the model says. */
static inline void expect_model(struct end *e)
{
	expect_pages(e, 0, NR_PAGES, is_private);
}

/* Without attributes all is shared. */
static inline void expect_shared(struct end *e, int first, int nr)
{
	const bool private[NR_PAGES] = {};

	expect_pages(e, first, nr, private);
}

/*
 * A pair of VMs, ready for a move
 */

struct pair {
	struct gmem_usage usage;
	struct end src, dst;
	struct kvm_vm *third;	/* NULL if there are only two VMs */
	int fd, link;		/* of a third guest_memfd; -1 if there is none */
};

static inline void pair_create(struct pair *p)
{
	gmem_usage_get(&p->usage);
	reset_model();
	create_source(&p->src);
	create_destination(&p->dst, p->src.g.fd, p->src.fd2);
	p->fd = -1;
	p->link = -1;
}

static inline void close_extra(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline void pair_free(struct pair *p)
{
	close_extra(&p->fd);
	close_extra(&p->link);
	kvm_vm_free(p->third);
	end_free(&p->src);
	end_free(&p->dst);
	gmem_usage_check(&p->usage);
}

static inline int __move(struct pair *p)
{
	return __gmem_move(p->dst.g.vm, p->src.g.vm->fd);
}

static inline void move(struct pair *p)
{
	gmem_move(p->dst.g.vm, p->src.g.vm);
	TEST_ASSERT(gmem_vm_is_dead(p->src.g.vm), "the source is not dead");
}

static inline struct kvm_vm *create_third(struct pair *p)
{
	p->third = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	return p->third;
}

FIXTURE(move)
{
	struct pair p;
};

FIXTURE_SETUP(move)
{
	pair_create(&self->p);
}

FIXTURE_TEARDOWN(move)
{
	pair_free(&self->p);
}

#endif /* SELFTEST_KVM_GMEM_MOVE_UTIL_H */
