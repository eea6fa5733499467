/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests in which vCPUs keep account of all words that they write
 * to memory, while the host changes what the memory is: the board, in which host
 * and guest tell each other what they do, and the area, a VM whose vCPUs walk
 * through its memory.
 */
#ifndef SELFTEST_KVM_GMEM_BOARD_UTIL_H
#define SELFTEST_KVM_GMEM_BOARD_UTIL_H

#include "gmem_util.h"

#define NR_VCPUS   2
#define NR_HUGE    (SZ_2M / PAGE_SIZE)
#define MAX_PAGES  (3 * NR_HUGE)
#define MAX_SLOTS  4

#define BOARD_SLOT (GMEM_SLOT + 1)
#define BOARD_GPA  (GMEM_GPA + SZ_1G)
#define BOARD_SIZE align_up(sizeof(struct board), PAGE_SIZE)

/* In all words of the shared half whose other half is private memory */
#define SHARED_BIT BIT_ULL(63)

/* By the host, of a page of the guest */
struct page_state {
	uint32_t seq;		/* odd while the rest, and the page, may change */
	uint32_t holes;		/* how often its contents became zeroes */
	bool shared;		/* its words have SHARED_BIT */
	bool may_fault;		/* an access may fail */
};

/* By a vCPU, of its word of a page */
struct word_model {
	uint64_t next[2];	/* what the private, and the shared, one holds */
	uint32_t holes;		/* as of the last visit to the private one */
	bool sure;		/* nothing changed during that */
};

/* By the host, of a slot that comes and goes */
struct slot_state {
	uint32_t seq;		/* odd while it may change */
	uint32_t first;		/* its first page in the file */
};

struct board {
	bool stop;
	uint64_t hot;		/* a page to visit often */
	uint64_t at[NR_VCPUS];	/* the page that a vCPU visits */
	uint64_t steps[NR_VCPUS];
	uint64_t unstable[NR_VCPUS]; /* visits during a change */
	uint64_t zeroed[NR_VCPUS];   /* visits that found a hole */
	struct page_state pages[MAX_PAGES];
	struct word_model words[NR_VCPUS][MAX_PAGES];
	struct slot_state slots[MAX_SLOTS];
};

#define GUEST_BOARD ((struct board *)BOARD_GPA)

/* Children have it, too. */
static inline struct board *board_create(void)
{
	void *mem = mmap(NULL, BOARD_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	TEST_ASSERT(mem != MAP_FAILED, "mmap() of the board failed");
	return mem;
}

static inline void board_free(struct board *b)
{
	munmap(b, BOARD_SIZE);
}

static inline void board_bind(struct board *b, struct kvm_vm *vm)
{
	gmem_set_slot(vm, BOARD_SLOT, 0, BOARD_GPA, BOARD_SIZE, b, -1, 0);
	virt_map(vm, BOARD_GPA, BOARD_GPA, BOARD_SIZE / PAGE_SIZE);
}

/* The start and the end of a change */
static inline void change_page(struct page_state *p)
{
	__atomic_add_fetch(&p->seq, 1, __ATOMIC_SEQ_CST);
}

static inline void change_pages(struct board *b, long start, long nr)
{
	long i;

	for (i = start; i < start + nr; i++)
		change_page(&b->pages[i]);
}

/* Within a change */
static inline void note_holes(struct board *b, long start, long nr)
{
	long i;

	for (i = start; i < start + nr; i++)
		__atomic_add_fetch(&b->pages[i].holes, 1, __ATOMIC_SEQ_CST);
}

/*
 * The guest
 *
 * A visit adds 1 to the vCPU's own word of a page, atomically: the old value
 * tells which half that was in, and is the one that the last visit left there.
 */

static inline void guest_check_private(struct page_state *p,
				       struct word_model *m, uint64_t i,
				       uint64_t val, uint32_t holes,
				       bool stable)
{
	bool may_be_zero = !m->sure || READ_ONCE(p->holes) != m->holes;
	bool must_be_zero = stable && m->sure && holes != m->holes;

	__GUEST_ASSERT(val ? val == m->next[0] && !must_be_zero :
			     !m->next[0] || may_be_zero,
		       "page %lu holds 0x%lx, not 0x%lx; zero: %d, %d", i, val,
		       m->next[0], may_be_zero, must_be_zero);
	m->next[0] = val + 1;
	m->holes = holes;
	m->sure = stable;
}

static inline void guest_visit(uint64_t id, uint64_t i)
{
	uint64_t *word = (uint64_t *)(GMEM_GPA + i * PAGE_SIZE) + id;
	struct word_model *m = &GUEST_BOARD->words[id][i];
	struct page_state *p = &GUEST_BOARD->pages[i];
	uint32_t seq, holes;
	bool stable, shared;
	uint64_t val;

	WRITE_ONCE(GUEST_BOARD->at[id], i);
	seq = __atomic_load_n(&p->seq, __ATOMIC_SEQ_CST);
	holes = READ_ONCE(p->holes);
	shared = READ_ONCE(p->shared);
	val = __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
	stable = !(seq & 1) &&
		 __atomic_load_n(&p->seq, __ATOMIC_SEQ_CST) == seq;

	__GUEST_ASSERT(!stable || !!(val & SHARED_BIT) == shared,
		       "page %lu holds 0x%lx, and is %s", i, val,
		       shared ? "shared" : "private");
	if (val & SHARED_BIT) {
		__GUEST_ASSERT(val == m->next[1], "page %lu holds 0x%lx, not 0x%lx",
			       i, val, m->next[1]);
		m->next[1] = val + 1;
	} else {
		GUEST_BOARD->zeroed[id] += !val && m->next[0];
		guest_check_private(p, m, i, val, holes, stable);
	}
	GUEST_BOARD->unstable[id] += !stable;
	GUEST_BOARD->steps[id]++;
}

/* vCPU 1 goes the other way. */
static inline void guest_walk(uint64_t id, uint64_t nr_pages, uint64_t passes)
{
	uint64_t i, n;

	for (n = 0; n < passes; n++) {
		for (i = 0; i < nr_pages; i++) {
			if (READ_ONCE(GUEST_BOARD->stop))
				goto out;
			guest_visit(id, id ? nr_pages - 1 - i : i);
			guest_visit(id, READ_ONCE(GUEST_BOARD->hot));
		}
	}
out:
	GUEST_UCALL_NONE();
}

/*
 * The area: a VM with a board and two vCPUs that walk through its memory
 */

struct walker {
	struct gmem_vm g;	/* the area's VM, with the vCPU of this walker */
	struct board *b;
	uint64_t id;
	long faults;		/* accesses that failed */
	bool any_fault;		/* not only in KVM_EXIT_MEMORY_FAULT */
	pthread_t thread;
};

struct area {
	struct gmem_vm g;
	struct board *b;
	long nr_pages;
	struct walker walkers[NR_VCPUS];
};

static inline void area_create(struct area *a, struct board *b, long nr_pages,
			       void *shared)
{
	struct gmem_vm *g = &a->g;
	struct walker *w;
	int i;

	memset(a, 0, sizeof(*a));
	gmem_vm_create_type(g, nr_pages * PAGE_SIZE, KVM_X86_SW_PROTECTED_VM);
	g->shared = shared;
	g->fd = vm_create_guest_memfd(g->vm, g->size, 0);
	gmem_vm_bind(g);
	board_bind(b, g->vm);
	a->b = b;
	a->nr_pages = nr_pages;
	for (i = 0; i < NR_VCPUS; i++) {
		w = &a->walkers[i];
		w->g = *g;
		w->b = b;
		w->id = i;
		if (i)
			w->g.vcpu = vm_vcpu_add(g->vm, i, guest_walk);
		vcpu_regs_get(w->g.vcpu, &w->g.regs);
	}
}

static inline void walk_pass(struct area *a, int id)
{
	WRITE_ONCE(a->b->stop, false);
	TEST_ASSERT_EQ(__gmem_guest_run(&a->walkers[id].g, guest_walk, id,
					a->nr_pages, 1, 0), 0);
}

/* The access of @w that failed is one that may; let it be tried again. */
static inline void check_fault(struct walker *w, int err)
{
	struct kvm_run *run = w->g.vcpu->run;
	uint64_t i = READ_ONCE(w->b->at[w->id]);

	TEST_ASSERT(err == EFAULT && w->b->pages[i].may_fault,
		    "access to page %lu: %s", i, strerror(err));
	if (run->exit_reason != KVM_EXIT_MEMORY_FAULT) {
		TEST_ASSERT(w->any_fault, "exit reason %u", run->exit_reason);
		return;
	}
	TEST_ASSERT_EQ(run->memory_fault.gpa, GMEM_GPA + i * PAGE_SIZE);
	TEST_ASSERT_EQ(run->memory_fault.size, PAGE_SIZE);
	TEST_ASSERT_EQ(run->memory_fault.flags & ~KVM_MEMORY_EXIT_FLAG_PRIVATE,
		       0);
}

static inline void *run_walker(void *arg)
{
	struct walker *w = arg;
	int err;

	while ((err = __gmem_guest_end(&w->g))) {
		check_fault(w, err);
		w->faults++;
		sched_yield();
	}
	return NULL;
}

static inline void walk_start(struct walker *w, void *entry, long nr_pages)
{
	WRITE_ONCE(w->b->stop, false);
	gmem_guest_start(&w->g, entry, w->id, nr_pages, ~0ull, 0);
	w->thread = gmem_thread(run_walker, w);
}

static inline void area_start(struct area *a)
{
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		walk_start(&a->walkers[i], guest_walk, a->nr_pages);
}

static inline void area_stop(struct area *a)
{
	int i;

	WRITE_ONCE(a->b->stop, true);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(a->walkers[i].thread, NULL);
}

#define LOG_AREA(a)							\
do {									\
	struct area *__a = (a);						\
	int __i;							\
									\
	for (__i = 0; __i < NR_VCPUS; __i++)				\
		TH_LOG("vCPU %d: %lu visits, %lu in a change, %lu zeroes, %ld faults", \
		       __i, __a->b->steps[__i], __a->b->unstable[__i],	\
		       __a->b->zeroed[__i], __a->walkers[__i].faults);	\
} while (0)

#endif /* SELFTEST_KVM_GMEM_BOARD_UTIL_H */
