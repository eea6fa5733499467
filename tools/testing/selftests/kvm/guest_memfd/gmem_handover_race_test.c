// SPDX-License-Identifier: GPL-2.0
/*
 * A move against all that can be done to the two VMs at the same time: other
 * moves, what the vCPUs do, changes of attributes and memory slots, SIGKILL.
 */
#include "gmem_model_util.h"
#include "gmem_race_util.h"

/*
 * Moves against moves
 */

struct mover {
	struct kvm_vm *dst, *src;
	int err;
};

static void run_move(void *arg)
{
	struct mover *mover = arg;

	mover->err = __gmem_move(mover->dst, mover->src->fd);
}

/* VMs without memory could be moved either way. */
TEST_F(race, moves_in_both_directions_have_one_winner)
{
	struct race race;
	int err;

	race_init(&race);
	while (race_goes_on(&race)) {
		struct gmem_vm a, b;
		struct mover back;

		bare_create(&a);
		bare_create(&b);
		back.dst = a.vm;
		back.src = b.vm;
		race_add(&race, run_move, &back);
		race_start(&race);
		err = __gmem_move(b.vm, a.vm->fd);
		race_join(&race);

		ASSERT_NE(!err, !back.err);
		err = err ?: back.err;
		ASSERT_TRUE(err == EINVAL || err == EIO);
		ASSERT_EQ(!!back.err, gmem_vm_is_dead(a.vm));
		ASSERT_EQ(!back.err, gmem_vm_is_dead(b.vm));
		race_was_first(&race, back.err);
		free_later(&a);
		free_later(&b);
	}
	LOG_RACE(&race, "forwards");
	EXPECT_BOTH_ORDERS(&race);
}

TEST_F(race, memory_moves_in_one_direction_only)
{
	struct race race;

	race_init(&race);
	while (race_goes_on(&race)) {
		struct mover back;
		struct pair p;

		pair_create(&p, &self->witness);
		back.dst = p.src.vm;
		back.src = p.dst.vm;
		race_add(&race, run_move, &back);
		race_start(&race);
		ASSERT_EQ(0, __gmem_move(p.dst.vm, p.src.vm->fd));
		race_join(&race);

		/* The way back was refused before the move, or came after it. */
		ASSERT_TRUE(back.err == EINVAL || back.err == EIO);
		race_was_first(&race, back.err == EIO);
		expect_moved(&p, &self->witness);
		pair_free(&p);
	}
	LOG_RACE(&race, "way back tried too late");
	EXPECT_BOTH_ORDERS(&race);
}

/*
 * The destination's only view is closed after the move has looked at it, and
 * another VM gets a share of the memory that is not to move any more: it keeps
 * that.  Who has the model has enough time in between.
 */
TEST_F(race, memory_is_shared_after_the_move_looked_at_it)
{
	bool delayed = !access(GMEM_MODEL, F_OK) && !gmem_model_has_delays();
	int err, link, nr_shared = 0;
	struct race race;

	if (delayed)
		gmem_model_write("delay", "kvm_gmem_revoke_vm 10000");
	race_init(&race);
	while (race_goes_on(&race)) {
		struct gmem_vm src, dst;
		struct mover mover;

		bare_create(&src);
		bare_create(&dst);
		src.fd = vm_create_guest_memfd(src.vm, TEST_SIZE, 0);
		dst.fd = gmem_link(dst.vm, src.fd, 0);
		mover.dst = dst.vm;
		mover.src = src.vm;
		race_add(&race, run_move, &mover);
		race_start(&race);
		gmem_vm_close_fd(&dst);
		err = __gmem_link(self->witness.vm, src.fd,
				  KVM_LINK_GUEST_MEMFD_SHARE, &link);
		race_join(&race);

		race_was_first(&race, mover.err);
		ASSERT_TRUE(!err || err == EINVAL);
		if (!err) {
			ASSERT_EQ(0, __gmem_allocate(link, 0, TEST_SIZE));
			nr_shared += !mover.err;
			close(link);
		}
		free_later(&src);
		free_later(&dst);
	}
	if (delayed) {
		gmem_model_write("delay", "\n");
		EXPECT_SEEN(&race, nr_shared);
	}
	LOG_RACE(&race, "too early for the move");
	TH_LOG("%d of them: shared after it", nr_shared);
}

#define NR_STORM 3

struct stormer {
	struct kvm_vm *vms[NR_STORM];
	int self;
	int won;
};

static void run_storm(void *arg)
{
	struct stormer *s = arg;
	int i, other, err;

	for (i = 0; i < 30; i++) {
		other = (s->self + 1 + i % 2) % NR_STORM;
		err = __gmem_move(s->vms[s->self], s->vms[other]->fd);
		TEST_ASSERT(!err || err == EINVAL || err == EIO,
			    "unexpected error: %s", strerror(err));
		s->won += !err;
	}
}

/*
 * Three VMs, with a vCPU each, take each other's context for as long as they
 * live.  Return how many moves succeed, and the one survivor or -1.
 */
static int storm(struct race *race, struct gmem_vm *vms, int *survivor)
{
	struct stormer stormers[NR_STORM];
	int i, j, won = 0, alive = 0;

	for (i = 0; i < NR_STORM; i++) {
		stormers[i].self = i;
		stormers[i].won = 0;
		for (j = 0; j < NR_STORM; j++)
			stormers[i].vms[j] = vms[j].vm;
		race_add(race, run_storm, &stormers[i]);
	}
	race_start(race);
	race_join(race);

	*survivor = -1;
	for (i = 0; i < NR_STORM; i++) {
		won += stormers[i].won;
		if (gmem_vm_is_dead(vms[i].vm))
			continue;
		alive++;
		*survivor = i;
	}
	TEST_ASSERT_EQ(alive + won, NR_STORM);
	return won;
}

TEST_F(race, three_vms_storm_until_one_is_left)
{
	int i, survivor, survived[NR_STORM] = {};
	struct gmem_vm vms[NR_STORM];
	struct race race;

	race_init(&race);
	while (race_goes_on(&race)) {
		for (i = 0; i < NR_STORM; i++) {
			bare_create(&vms[i]);
			__vm_vcpu_add(vms[i].vm, 0);
		}
		ASSERT_EQ(NR_STORM - 1, storm(&race, vms, &survivor));
		survived[survivor]++;
		for (i = 0; i < NR_STORM; i++)
			free_later(&vms[i]);
	}
	TH_LOG("%d rounds, survived by %d, %d, %d", race.rounds, survived[0],
	       survived[1], survived[2]);
}

/* Only one of all the moves is possible: that to the VM with the link. */
TEST_F(race, three_vms_storm_for_the_memory_of_one)
{
	struct gmem_vm vms[NR_STORM];
	struct race race;
	struct pair p;
	int i, ignored;

	race_init(&race);
	while (race_goes_on(&race)) {
		pair_create(&p, &self->witness);
		vms[0] = p.src;
		vms[1] = p.dst;
		bare_create(&vms[2]);
		for (i = 0; i < NR_STORM; i++)
			__vm_vcpu_add(vms[i].vm, 0);

		ASSERT_EQ(1, storm(&race, vms, &ignored));
		ASSERT_FALSE(gmem_vm_is_dead(vms[2].vm));
		expect_moved(&p, &self->witness);
		pair_free(&p);
		free_later(&vms[2]);
	}
	TH_LOG("%d rounds", race.rounds);
}

/*
 * Moves against the source's vCPUs
 */

#define NR_PRIVATE (NR_PAGES / 2)	/* pages, the rest is shared */

/* Go on counting in each page, and exit after every @exits counts if not 0. */
static void guest_count(uint64_t exits)
{
	uint64_t i, page;

	for (i = READ_ONCE(*(uint64_t *)GMEM_GPA) + 1; ; i++) {
		for (page = 0; page < NR_PAGES; page++)
			WRITE_ONCE(*(uint64_t *)(GMEM_GPA + page * PAGE_SIZE), i);
		if (exits && !(i % exits))
			GUEST_UCALL_NONE();
	}
}

static int nr_exits;

/* Of several threads in here one runs the vCPU, the others wait for it. */
static void *run_until_error(void *arg)
{
	struct kvm_vcpu *vcpu = arg;

	while (!__vcpu_run(vcpu))
		__atomic_add_fetch(&nr_exits, 1, __ATOMIC_SEQ_CST);
	return (void *)(long)errno;
}

static void start_counting(struct gmem_vm *g, uint64_t exits,
			   pthread_t *threads, int nr)
{
	int i;

	vcpu_regs_set(g->vcpu, &g->regs);
	vcpu_arch_set_entry_point(g->vcpu, guest_count);
	vcpu_args_set(g->vcpu, 1, exits);
	nr_exits = 0;
	for (i = 0; i < nr; i++)
		threads[i] = gmem_thread(run_until_error, g->vcpu);
}

static void expect_stopped(pthread_t *threads, int nr, int err)
{
	void *ret;
	int i;

	for (i = 0; i < nr; i++) {
		pthread_join(threads[i], &ret);
		TEST_ASSERT_EQ((long)ret, err);
	}
}

/* How far did the count get?  No write of it may be missing. */
static uint64_t read_count(struct gmem_vm *g)
{
	int i, steps = 0;

	look(g);
	for (i = 1; i < NR_PRIVATE; i++) {
		TEST_ASSERT(seen[i - 1] - seen[i] <= 1,
			    "page %d counts 0x%lx, the next one 0x%lx", i - 1,
			    seen[i - 1], seen[i]);
		steps += seen[i - 1] != seen[i];
	}
	TEST_ASSERT(steps <= 1, "%d pages lag behind", steps);
	return seen[0];
}

static void create_counting_source(struct gmem_vm *g)
{
	gmem_vm_create(g, TEST_SIZE);
	vm_mem_set_shared(g->vm, GMEM_GPA + NR_PRIVATE * PAGE_SIZE,
			  TEST_SIZE - NR_PRIVATE * PAGE_SIZE);
}

struct unmapper {
	void *mem[2];
	int nr;
	bool stop;
};

/* Take the shared half of both VMs' memory away, again and again. */
static void *unmap_until_told(void *arg)
{
	size_t private = NR_PRIVATE * PAGE_SIZE;
	struct unmapper *u = arg;
	int i;

	while (!READ_ONCE(u->stop)) {
		for (i = 0; i < 2; i++)
			madvise(u->mem[i] + private, TEST_SIZE - private,
				MADV_DONTNEED);
		u->nr++;
		usleep(100);
	}
	return NULL;
}

/* As the source has no private memory any more, its guest would write here. */
static void expect_no_write(struct gmem_vm *src)
{
	int i;

	for (i = 0; i < NR_PRIVATE; i++)
		TEST_ASSERT_EQ(*(uint64_t *)(src->shared + i * PAGE_SIZE), 0);
}

/*
 * From VM to VM, each time out of a running guest.  Not a single write of the
 * source may come after the move.  Return the number of moves.
 */
static int move_running_guests(bool unmap)
{
	pthread_t counters[4], unmapper = 0;
	struct gmem_vm src, dst;
	uint64_t count, last = 0;
	struct race race;

	race_init(&race);
	create_counting_source(&src);
	while (race_goes_on(&race)) {
		struct unmapper u = {};

		start_counting(&src, 16, counters, ARRAY_SIZE(counters));
		gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
		if (unmap) {
			u.mem[0] = src.shared;
			u.mem[1] = dst.shared;
			unmapper = gmem_thread(unmap_until_told, &u);
		}
		while (!READ_ONCE(nr_exits))
			usleep(100);
		gmem_spin_us(race_jitter(&race));

		gmem_move(dst.vm, src.vm);
		count = read_count(&dst);
		TEST_ASSERT(count > last, "the guest has not moved on from %lu",
			    last);
		usleep(5000);
		TEST_ASSERT_EQ(read_count(&dst), count);
		expect_stopped(counters, ARRAY_SIZE(counters), EIO);
		TEST_ASSERT_EQ(read_count(&dst), count);
		expect_no_write(&src);

		if (unmap) {
			WRITE_ONCE(u.stop, true);
			pthread_join(unmapper, NULL);
			TEST_ASSERT(u.nr, "nothing was unmapped meanwhile");
		}
		last = count;
		race.rounds++;
		free_later(&src);
		src = dst;
	}
	gmem_vm_free(&src);
	return race.rounds;
}

TEST_F(race, no_write_of_the_source_comes_after_the_move)
{
	TH_LOG("%d moves", move_running_guests(false));
}

TEST_F(race, shared_memory_is_unmapped_meanwhile)
{
	TH_LOG("%d moves", move_running_guests(true));
}

static void run_regs(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	struct kvm_regs regs;

	while (!__vcpu_ioctl(vcpu, KVM_GET_REGS, &regs) &&
	       !__vcpu_ioctl(vcpu, KVM_SET_REGS, &regs))
		;
	TEST_ASSERT_EQ(errno, EIO);
}

struct pre_faulter {
	struct kvm_vcpu *vcpu;
	int nr;			/* of successes */
};

static void run_pre_fault(void *arg)
{
	struct pre_faulter *f = arg;
	int err;

	do {
		err = __gmem_pre_fault(f->vcpu, GMEM_GPA, TEST_SIZE, 0, NULL);
		f->nr += !err;
	} while (!err || err == EAGAIN);
	TEST_ASSERT_EQ(err, EIO);
}

/* The work that unmaps what was mapped before the move takes its time. */
static void wait_until_unmapped(struct kvm_vm *vm)
{
	uint64_t end = gmem_now_ms() + 10000;

	while (vm_get_stat(vm, "pages_4k")) {
		TEST_ASSERT(gmem_now_ms() < end,
			    "the source still maps the memory");
		usleep(1000);
	}
}

/* Those that wait for the vCPU during the move get it after the move. */
TEST_F(race, vcpu_of_a_dead_source_maps_nothing)
{
	struct kvm_vcpu *vcpu;
	bool last = false;
	uint64_t mapped;
	struct race race;
	struct pair p;
	int i, nr;

	race_init(&race);
	while (!last) {
		struct pre_faulter f[4] = {};

		pair_create(&p, &self->witness);
		vcpu = __vm_vcpu_add(p.src.vm, 0);
		ASSERT_EQ(0, vm_get_stat(p.src.vm, "pages_4k"));

		for (i = 0; i < ARRAY_SIZE(f); i++) {
			f[i].vcpu = vcpu;
			race_add(&race, run_pre_fault, &f[i]);
		}
		race_add(&race, run_regs, vcpu);
		race_start(&race);
		gmem_spin_us(race_jitter(&race) * 20);
		gmem_move(p.dst.vm, p.src.vm);
		mapped = vm_get_stat(p.src.vm, "pages_4k");
		race_join(&race);
		ASSERT_GE(mapped, vm_get_stat(p.src.vm, "pages_4k"));

		for (i = 0, nr = 0; i < ARRAY_SIZE(f); i++)
			nr += f[i].nr;
		race_was_first(&race, !nr);
		last = !race_goes_on(&race);
		if (last)
			wait_until_unmapped(p.src.vm);
		expect_moved(&p, &self->witness);
		pair_free(&p);
	}
	LOG_RACE(&race, "move before the first page was mapped");
	EXPECT_SEEN(&race, race.rounds - race.firsts);
}

struct creator {
	struct kvm_vm *vm;
	int fds[8];
	int nr;
	int err;
};

static void run_create_vcpus(void *arg)
{
	struct creator *c = arg;
	long fd;

	for (c->nr = 0; c->nr < ARRAY_SIZE(c->fds); c->nr++) {
		fd = __vm_ioctl(c->vm, KVM_CREATE_VCPU, (void *)(long)c->nr);
		c->err = fd < 0 ? errno : 0;
		if (c->err)
			break;
		c->fds[c->nr] = fd;
	}
}

/*
 * A vCPU that is half there when the move begins makes the move fail for now.
 * What is created later is a vCPU of a dead VM, or one of the destination.
 */
static void move_while_vcpus_come(struct __test_metadata *_metadata,
				  struct gmem_vm *witness, bool in_source)
{
	struct kvm_regs regs;
	struct race race;
	struct pair p;
	int i, err, before, busy = 0;

	race_init(&race);
	while (race_goes_on(&race)) {
		struct creator c = {};

		pair_create(&p, witness);
		c.vm = in_source ? p.src.vm : p.dst.vm;
		race_add(&race, run_create_vcpus, &c);
		race_start(&race);
		while ((err = __gmem_move(p.dst.vm, p.src.vm->fd))) {
			ASSERT_EQ(EBUSY, err);
			ASSERT_FALSE(gmem_vm_is_dead(p.src.vm));
			busy++;
			usleep(10);
		}
		before = READ_ONCE(c.nr);
		race_join(&race);

		race_was_first(&race, before < ARRAY_SIZE(c.fds) / 2);
		ASSERT_TRUE(!c.err || (in_source && c.err == EIO));
		for (i = 0; i < c.nr; i++) {
			err = ioctl(c.fds[i], KVM_GET_REGS, &regs) ? errno : 0;
			ASSERT_EQ(in_source ? EIO : 0, err);
			close(c.fds[i]);
		}
		expect_moved(&p, witness);
		pair_free(&p);
	}
	LOG_RACE(&race, "move before most of the vCPUs");
	TH_LOG("EBUSY %d times", busy);
	EXPECT_SEEN(&race, busy);
	EXPECT_BOTH_ORDERS(&race);
}

TEST_F(race, vcpus_are_created_in_the_source)
{
	move_while_vcpus_come(_metadata, &self->witness, true);
}

TEST_F(race, vcpus_are_created_in_the_destination)
{
	move_while_vcpus_come(_metadata, &self->witness, false);
}

/*
 * Moves against attributes and memory slots
 */

#define PRIVATE_WORD 0x9999ull
#define SHARED_WORD  0x5555ull

/* All pages are private at first, then each in turn is flipped. */
static bool is_private_after(long flips, int page)
{
	return !((flips + NR_PAGES - 1 - page) / NR_PAGES % 2);
}

struct flipper {
	struct kvm_vm *vm;
	long done;
	int err;
};

static void run_flips(void *arg)
{
	struct flipper *f = arg;
	uint64_t attrs;
	int page;

	for (f->done = 0; ; f->done++) {
		page = f->done % NR_PAGES;
		attrs = is_private_after(f->done + 1, page) ?
			KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
		f->err = __gmem_set_attributes(f->vm,
					       GMEM_GPA + page * PAGE_SIZE,
					       PAGE_SIZE, attrs, 0);
		if (f->err)
			break;
	}
}

/* Does the guest of the last look() see the attributes as after @flips? */
static bool saw_flips(long flips)
{
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		if (seen[i] != (is_private_after(flips, i) ? PRIVATE_WORD :
							     SHARED_WORD))
			return false;
	}
	return true;
}

static void fill_shared(struct gmem_vm *g)
{
	uint64_t i;

	for (i = 0; i < NR_PAGES; i++)
		*(uint64_t *)(g->shared + i * PAGE_SIZE) = SHARED_WORD;
}

/*
 * The pages tell how many flips the destination got to know.  That is all but
 * the last one at most: its ioctl was under way, and found a dead VM.  None of
 * them undoes what is set in the destination after the move.
 */
TEST_F(race, attributes_move_whole)
{
	struct gmem_vm src, dst;
	bool reset = false;
	long flips = 0;
	struct race race;

	race_init(&race);
	gmem_vm_create(&src, TEST_SIZE);
	gmem_guest_fill(&src, 0, TEST_SIZE, PRIVATE_WORD);
	while (race_goes_on(&race)) {
		struct flipper f = { .vm = src.vm };

		gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
		fill_shared(&dst);
		race_add(&race, run_flips, &f);
		race_start(&race);
		usleep(race_jitter(&race) * 20);
		gmem_move(dst.vm, src.vm);
		if (reset)
			vm_mem_set_private(dst.vm, GMEM_GPA, TEST_SIZE);
		race_join(&race);

		ASSERT_EQ(EIO, f.err);
		flips += f.done;
		if (reset)
			f.done = 0;
		look(&dst);
		ASSERT_TRUE(saw_flips(f.done) ||
			    (f.done && saw_flips(f.done - 1)))
			TH_LOG("not the attributes after %ld flips", f.done);

		reset = !reset;
		free_later(&src);
		src = dst;
		vm_mem_set_private(src.vm, GMEM_GPA, TEST_SIZE);
	}
	gmem_vm_free(&src);
	TH_LOG("%d rounds, %ld flips", race.rounds, flips);
	EXPECT_SEEN(&race, flips);
}

struct looker {
	struct gmem_vm *g;
	int shared, private;	/* how often it was which */
	bool stop;
};

/* Each look is one KVM_RUN. */
static void run_looks(void *arg)
{
	struct looker *l = arg;
	int i;

	while (!READ_ONCE(l->stop)) {
		look(l->g);
		for (i = 1; i < NR_PAGES; i++)
			TEST_ASSERT_EQ(seen[i], seen[0]);
		if (seen[0] == SHARED_WORD) {
			TEST_ASSERT(!l->private, "private memory is shared again");
			WRITE_ONCE(l->shared, l->shared + 1);
		} else {
			TEST_ASSERT_EQ(seen[0], PRIVATE_WORD);
			WRITE_ONCE(l->private, l->private + 1);
		}
	}
}

/*
 * Without attributes, the destination's guest has the shared half of the slot
 * mapped.  From the move on it sees nothing but private memory.
 */
TEST_F(race, destination_guest_sees_the_memory_whole)
{
	struct gmem_vm src, dst;
	long shared = 0;
	struct race race;
	int looks;

	race_init(&race);
	gmem_vm_create(&src, TEST_SIZE);
	gmem_guest_fill(&src, 0, TEST_SIZE, PRIVATE_WORD);
	while (race_goes_on(&race)) {
		struct looker l = { .g = &dst };

		gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
		fill_shared(&dst);
		race_add(&race, run_looks, &l);
		race_start(&race);
		while (!READ_ONCE(l.shared))
			cpu_relax();
		gmem_spin_us(race_jitter(&race));
		gmem_move(dst.vm, src.vm);

		/* The first may have been under way before. */
		looks = READ_ONCE(l.shared) + READ_ONCE(l.private);
		while (READ_ONCE(l.shared) + READ_ONCE(l.private) < looks + 2)
			cpu_relax();
		WRITE_ONCE(l.stop, true);
		race_join(&race);
		ASSERT_LT(0, l.private)
			TH_LOG("the guest still sees shared memory");
		shared += l.shared;

		free_later(&src);
		src = dst;
	}
	gmem_vm_free(&src);
	TH_LOG("%d rounds, %ld looks at shared memory", race.rounds, shared);
}

static void run_set_private(void *arg)
{
	struct gmem_vm *g = arg;

	vm_mem_set_private(g->vm, 2 * GMEM_GPA, TEST_SIZE);
}

TEST_F(race, attributes_of_the_destination_come_before_or_after)
{
	struct race race;
	struct pair p;
	int err;

	race_init(&race);
	while (race_goes_on(&race)) {
		pair_create(&p, &self->witness);
		race_add(&race, run_set_private, &p.dst);
		race_start(&race);
		err = __gmem_move(p.dst.vm, p.src.vm->fd);
		race_join(&race);

		race_was_first(&race, !err);
		if (err) {
			ASSERT_EQ(EINVAL, err);
			vm_mem_set_shared(p.dst.vm, 2 * GMEM_GPA, TEST_SIZE);
			gmem_move(p.dst.vm, p.src.vm);
		}
		expect_moved(&p, &self->witness);
		pair_free(&p);
	}
	LOG_RACE(&race, "move first");
	EXPECT_BOTH_ORDERS(&race);
}

struct toggler {
	struct gmem_vm *g;
	long begun, ended;
	bool tried, stop;
};

/*
 * An odd number of toggles: the slot is there.  After the first it stays until a
 * move was tried, so that one result is known however slow a toggle is.
 */
static void run_toggle_slot(void *arg)
{
	struct toggler *t = arg;
	int err;

	while (!READ_ONCE(t->stop)) {
		WRITE_ONCE(t->begun, t->begun + 1);
		err = __gmem_set_slot(t->g->vm, GMEM_SLOT + 1, 0, 2 * GMEM_GPA,
				      t->begun % 2 ? TEST_SIZE : 0, t->g->shared,
				      -1, 0);
		if (err) {
			TEST_ASSERT_EQ(err, EIO);
			break;
		}
		WRITE_ONCE(t->ended, t->begun);
		gmem_spin_us(t->begun * 37 % JITTER_US);
		while (!READ_ONCE(t->tried))
			sched_yield();
	}
}

/*
 * Whether a slot that the other VM does not have is there decides on the move.
 * The result is known beforehand if the slot neither came nor went meanwhile.
 */
static void move_while_slots_change(struct __test_metadata *_metadata,
				    struct gmem_vm *witness, bool in_source)
{
	int err, moves = 0, refused = 0, certain = 0;
	struct race race;
	struct pair p;
	bool known;
	long ended;

	race_init(&race);
	while (race_goes_on(&race)) {
		struct toggler t = {};

		pair_create(&p, witness);
		t.g = in_source ? &p.src : &p.dst;
		race_add(&race, run_toggle_slot, &t);
		race_start(&race);
		while (race.rounds % 2 && !READ_ONCE(t.ended))
			sched_yield();
		do {
			ended = READ_ONCE(t.ended);
			err = __gmem_move(p.dst.vm, p.src.vm->fd);
			known = READ_ONCE(t.begun) == ended;
			WRITE_ONCE(t.tried, true);
			if (known) {
				ASSERT_EQ(ended % 2 ? EINVAL : 0, err);
				certain++;
			}
			ASSERT_TRUE(!err || err == EINVAL);
			refused += !!err;
			gmem_spin_us(race_jitter(&race));
		} while (err);
		WRITE_ONCE(t.stop, true);
		race_join(&race);

		moves++;
		expect_moved(&p, witness);
		pair_free(&p);
	}
	TH_LOG("%d moves, %d more refused, %d results known beforehand",
	       moves, refused, certain);
	EXPECT_SEEN(&race, certain);
}

TEST_F(race, slots_of_the_source_come_and_go)
{
	move_while_slots_change(_metadata, &self->witness, true);
}

TEST_F(race, slots_of_the_destination_come_and_go)
{
	move_while_slots_change(_metadata, &self->witness, false);
}

/*
 * Moves that are killed
 */

static void ignore_signal(int sig)
{
}

/* Make KVM_RUN return. */
static void kick(struct kvm_vcpu *vcpu, pthread_t thread)
{
	const struct sigaction action = { .sa_handler = ignore_signal };

	sigaction(SIGUSR1, &action, NULL);
	vcpu->run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
}

static char state_of(pid_t pid)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	TEST_ASSERT(f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1,
		    "cannot read %s", path);
	fclose(f);
	return state;
}

/* A child whose move from @src has to wait for a lock. */
static pid_t fork_waiting_mover(struct gmem_vm *src, bool linked)
{
	uint64_t end = gmem_now_ms() + 10000;
	struct gmem_vm dst;
	int pipefd[2];
	pid_t pid;
	char c;

	TEST_ASSERT(!pipe(pipefd), "pipe() failed");
	pid = gmem_fork();
	if (!pid) {
		if (linked)
			gmem_vm_create_linked(&dst, TEST_SIZE, src->fd, 0);
		else
			bare_create(&dst);
		TEST_ASSERT(write(pipefd[1], "", 1) == 1, "write() failed");
		_exit(__gmem_move(dst.vm, src->vm->fd));
	}
	TEST_ASSERT(read(pipefd[0], &c, 1) == 1, "the child has failed");
	close(pipefd[0]);
	close(pipefd[1]);

	while (state_of(pid) != 'D') {
		TEST_ASSERT(gmem_now_ms() < end, "the move does not wait");
		usleep(1000);
	}
	return pid;
}

static void kill_mover(pid_t pid)
{
	uint64_t end = gmem_now_ms() + 10000;
	int status;

	TEST_ASSERT(!waitpid(pid, &status, WNOHANG), "the move did not wait");
	TEST_ASSERT(!kill(pid, SIGKILL), "kill() failed");
	while (!waitpid(pid, &status, WNOHANG)) {
		TEST_ASSERT(gmem_now_ms() < end, "the move is not killable");
		usleep(1000);
	}
	TEST_ASSERT(WIFSIGNALED(status), "the move ended with 0x%x", status);
}

/*
 * The source's vCPU never leaves KVM_RUN.  One move waits for it, another one
 * for the first; both are killed, in either order.
 */
TEST_F(race, mover_is_killed_while_it_waits)
{
	struct gmem_vm src, dst;
	uint64_t count, last = 0;
	pthread_t counter;
	struct race race;
	pid_t pids[2];
	int first;

	race_init(&race);
	create_counting_source(&src);
	while (race_goes_on(&race)) {
		start_counting(&src, 0, &counter, 1);
		pids[0] = fork_waiting_mover(&src, true);
		pids[1] = fork_waiting_mover(&src, false);
		usleep(race_jitter(&race));
		first = race.rounds++ % 2;
		kill_mover(pids[first]);
		kill_mover(pids[!first]);

		/* It runs on, and the next one can have it. */
		gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
		kick(src.vcpu, counter);
		expect_stopped(&counter, 1, EINTR);
		gmem_move(dst.vm, src.vm);
		count = read_count(&dst);
		ASSERT_LE(last, count);
		last = count;
		free_later(&src);
		src = dst;
	}
	gmem_vm_free(&src);
	TH_LOG("%d rounds", race.rounds);
	EXPECT_LT(0, last);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	return test_harness_run(argc, argv);
}
