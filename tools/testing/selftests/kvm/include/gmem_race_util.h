/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests in which links and moves meet what else can be done to
 * the VMs and the memory at the same time.  Each race runs again and again for a
 * while and has a rule that tells right results from wrong ones.  Where two
 * orders are possible, the delay between the opponents is adapted so that each
 * of them is often the first.
 */
#ifndef SELFTEST_KVM_GMEM_RACE_UTIL_H
#define SELFTEST_KVM_GMEM_RACE_UTIL_H

#include "gmem_link_util.h"

/* Of all of the memory: few, unless there are to be huge folios */
#ifndef NR_PAGES
#define NR_PAGES  32
#endif
#define TEST_SIZE (NR_PAGES * PAGE_SIZE)
#define PATTERN	  0x600dull	/* what the memory holds */

#define MIN_ROUNDS  20		/* unless the machine is too slow */
#define JITTER_US   200
#define MAX_STEP_US 2000
#define MAX_RACERS  6
#define MAX_FREEING 16

/*
 * Races
 */

struct racer {
	struct race *race;
	pthread_t thread;
	void (*run)(void *arg);
	void *arg;
	long delay_us;
};

struct race {
	struct guest_random_state rng;
	uint64_t start;
	long lead_us;		/* of the main thread, may be negative */
	long step_us;		/* by which that was changed last */
	int rounds;
	int firsts;		/* rounds in which the main thread was first */
	struct racer racers[MAX_RACERS];
	int nr_racers;
	int nr_ready;
	bool go;
};

static inline void race_init(struct race *race)
{
	memset(race, 0, sizeof(*race));
	race->rng = new_guest_random_state(time(NULL));
	race->start = gmem_now_ms();
}

static inline bool race_goes_on(struct race *race)
{
	return gmem_race_goes_on(race->start, race->rounds, MIN_ROUNDS);
}

static inline long race_jitter(struct race *race)
{
	return guest_random_u32(&race->rng) % JITTER_US;
}

static inline void *racer_thread(void *arg)
{
	struct racer *racer = arg;

	__atomic_add_fetch(&racer->race->nr_ready, 1, __ATOMIC_SEQ_CST);
	while (!READ_ONCE(racer->race->go))
		cpu_relax();
	gmem_spin_us(racer->delay_us);
	racer->run(racer->arg);
	return NULL;
}

static inline void race_add(struct race *race, void (*run)(void *arg), void *arg)
{
	struct racer *racer = &race->racers[race->nr_racers++];

	racer->race = race;
	racer->run = run;
	racer->arg = arg;
	racer->delay_us = race->lead_us + race_jitter(race);
	racer->thread = gmem_thread(racer_thread, racer);
}

/* The main thread's own part comes right after this. */
static inline void race_start(struct race *race)
{
	while (READ_ONCE(race->nr_ready) < race->nr_racers)
		cpu_relax();
	WRITE_ONCE(race->go, true);
	gmem_spin_us(race_jitter(race) - race->lead_us);
}

static inline void race_join(struct race *race)
{
	while (race->nr_racers)
		pthread_join(race->racers[--race->nr_racers].thread, NULL);
	race->nr_ready = 0;
	race->go = false;
	race->rounds++;
}

/*
 * Tell whether the main thread was first, and make that less likely: by ever
 * larger steps until the other one is.
 */
static inline void race_was_first(struct race *race, bool first)
{
	bool was_first = race->step_us < 0;

	if (race->step_us && first == was_first)
		race->step_us *= 2;
	else
		race->step_us = first ? -10 : 10;
	if (labs(race->step_us) > MAX_STEP_US)
		race->step_us /= 2;

	race->lead_us += race->step_us;
	race->firsts += first;
}

#define LOG_RACE(r, what)						\
do {									\
	struct race *__r = (r);						\
									\
	TH_LOG("%d rounds, %d of them: %s", __r->rounds, __r->firsts,	\
	       what);							\
} while (0)

/* Something came up, unless the machine is too slow for many rounds. */
#define EXPECT_SEEN(race, nr)						\
do {									\
	if ((race)->rounds >= MIN_ROUNDS) {				\
		EXPECT_LT(0, nr);					\
	}								\
} while (0)

#define EXPECT_BOTH_ORDERS(r)						\
do {									\
	struct race *__race = (r);					\
									\
	EXPECT_SEEN(__race, __race->firsts);				\
	EXPECT_SEEN(__race, __race->rounds - __race->firsts);		\
} while (0)

/*
 * The witness: a VM whose guest reads and writes the memory of VMs that have no
 * guest, which are quick to make.
 */

FIXTURE(race)
{
	struct gmem_usage usage;
	struct gmem_vm witness;
};

FIXTURE_SETUP(race)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create_empty(&self->witness, TEST_SIZE);
	vm_mem_set_private(self->witness.vm, GMEM_GPA, TEST_SIZE);
}

/*
 * The end of a VM takes longer than a round of most races, most of it asleep.
 * That of one round's VMs may overlap with the next rounds.
 */

static int nr_freeing;

static inline void *free_thread(void *arg)
{
	gmem_vm_free(arg);
	free(arg);
	__atomic_sub_fetch(&nr_freeing, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static inline void wait_for_freeing(int nr)
{
	while (READ_ONCE(nr_freeing) > nr)
		usleep(100);
}

static inline void free_later(struct gmem_vm *g)
{
	struct gmem_vm *copy = malloc(sizeof(*copy));

	TEST_ASSERT(copy, "no memory");
	*copy = *g;
	wait_for_freeing(MAX_FREEING - 1);
	__atomic_add_fetch(&nr_freeing, 1, __ATOMIC_SEQ_CST);
	pthread_detach(gmem_thread(free_thread, copy));
}

FIXTURE_TEARDOWN(race)
{
	wait_for_freeing(0);
	gmem_vm_free(&self->witness);
	gmem_usage_check(&self->usage);
}

static inline void witness_bind(struct gmem_vm *w, int fd)
{
	w->fd = gmem_link(w->vm, fd, KVM_LINK_GUEST_MEMFD_SHARE);
	gmem_vm_bind(w);
}

static inline void witness_unbind(struct gmem_vm *w)
{
	gmem_delete_slot(w->vm, GMEM_SLOT);
	gmem_vm_close_fd(w);
}

static inline void witness_fill(struct gmem_vm *w, int fd)
{
	witness_bind(w, fd);
	gmem_guest_fill(w, 0, TEST_SIZE, PATTERN);
	witness_unbind(w);
}

static inline void witness_expect(struct gmem_vm *w, int fd)
{
	witness_bind(w, fd);
	gmem_guest_expect(w, 0, TEST_SIZE, PATTERN);
	witness_unbind(w);
}

/* The first word of each page */
static uint64_t seen[NR_PAGES];

static inline void guest_look(void)
{
	uint64_t i;

	for (i = 0; i < NR_PAGES; i++)
		seen[i] = READ_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE));
	GUEST_UCALL_NONE();
}

static inline void look(struct gmem_vm *g)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, guest_look, 0, 0, 0, 0), 0);
	sync_global_from_guest(g->vm, seen);
}

/*
 * Pairs of VMs without a guest: @src has the memory, @dst is ready for a move.
 */

struct pair {
	struct gmem_vm src, dst;
};

static inline void bare_create(struct gmem_vm *g)
{
	g->size = TEST_SIZE;
	g->shared = gmem_mmap(TEST_SIZE);
	g->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	g->vcpu = NULL;
	g->fd = -1;
}

static inline void bare_create_source(struct gmem_vm *g)
{
	bare_create(g);
	g->fd = vm_create_guest_memfd(g->vm, TEST_SIZE, 0);
	gmem_vm_bind(g);
	vm_mem_set_private(g->vm, GMEM_GPA, TEST_SIZE);
}

static inline void bare_create_linked(struct gmem_vm *g, int fd)
{
	bare_create(g);
	g->fd = gmem_link(g->vm, fd, 0);
	gmem_vm_bind(g);
}

static inline void pair_create(struct pair *p, struct gmem_vm *witness)
{
	bare_create_source(&p->src);
	witness_fill(witness, p->src.fd);
	bare_create_linked(&p->dst, p->src.fd);
}

static inline void pair_free(struct pair *p)
{
	free_later(&p->src);
	free_later(&p->dst);
}

/* @src is dead and has no right to the memory that was its own. */
static inline void expect_left(struct gmem_vm *src, struct gmem_vm *witness)
{
	int link;

	TEST_ASSERT(gmem_vm_is_dead(src->vm), "the source lives on");
	TEST_ASSERT_EQ(__gmem_punch(src->fd, 0, TEST_SIZE), EPERM);
	TEST_ASSERT_EQ(__gmem_allocate(src->fd, 0, TEST_SIZE), EPERM);
	TEST_ASSERT_EQ(__gmem_link(witness->vm, src->fd,
				   KVM_LINK_GUEST_MEMFD_SHARE, &link), EINVAL);
}

static inline void expect_moved(struct pair *p, struct gmem_vm *witness)
{
	expect_left(&p->src, witness);
	TEST_ASSERT(!gmem_vm_is_dead(p->dst.vm), "the destination is dead");
	witness_expect(witness, p->dst.fd);
}

#endif /* SELFTEST_KVM_GMEM_RACE_UTIL_H */
