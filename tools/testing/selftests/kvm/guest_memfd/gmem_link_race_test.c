// SPDX-License-Identifier: GPL-2.0
/*
 * Links and moves against all that can be done to the memory, the descriptors
 * and the processes at the same time, up to the end of everything in any order.
 */
#include "gmem_race_util.h"

/*
 * What is done to the memory
 */

/* What is known of the move and of the memory */
struct drilling {
	bool moving, moved;	/* has it begun, has it ended */
	bool succeeded;		/* did the destination's descriptor have the right */
	bool hole[NR_PAGES];
};

struct driller {
	struct drilling *drilling;
	bool is_source;
	int fd;
	int granted, denied;
};

typedef int (*fallocate_fn)(int fd, off_t offset, off_t len);

/* Is the right to fallocate() where the move says? */
static int check_right(struct driller *d, fallocate_fn op, int page)
{
	bool moved = READ_ONCE(d->drilling->moved);
	bool succeeded = READ_ONCE(d->drilling->succeeded);
	int err = op(d->fd, page * PAGE_SIZE, PAGE_SIZE);

	TEST_ASSERT(!err || err == EPERM, "fallocate(): %s", strerror(err));
	if (moved)
		TEST_ASSERT_EQ(err, d->is_source ? EPERM : 0);
	if (!READ_ONCE(d->drilling->moving))
		TEST_ASSERT_EQ(err, d->is_source ? 0 : EPERM);
	if (d->is_source && succeeded)
		TEST_ASSERT_EQ(err, EPERM);
	if (!d->is_source && !err)
		WRITE_ONCE(d->drilling->succeeded, true);

	d->granted += !err;
	d->denied += !!err;
	return err;
}

/* Each has one half of the pages. */
static void run_drill(void *arg)
{
	struct driller *d = arg;
	int i, page;

	for (i = 0; i < NR_PAGES / 2; i++) {
		page = d->is_source ? i : NR_PAGES / 2 + i;
		if (!check_right(d, __gmem_punch, page))
			d->drilling->hole[page] = true;
		check_right(d, __gmem_allocate, page);
		gmem_spin_us(i * 17 % 50);
	}

	/* With delays, the move can take longer than all of that. */
	if (!d->is_source) {
		while (!READ_ONCE(d->drilling->moved))
			gmem_spin_us(10);
		check_right(d, __gmem_allocate, NR_PAGES - 1);
	}
}

/*
 * The right goes over at once, and who has it not changes nothing: neither what
 * was in the memory nor, in every other round, what the destination's guest
 * writes as soon as it can.
 */
TEST_F(race, fallocate_is_the_right_of_one_side)
{
	int i, granted[2] = {}, denied[2] = {};
	struct gmem_vm src, dst;
	bool rewrite = false;
	struct race race;

	race_init(&race);
	gmem_vm_create(&src, TEST_SIZE);
	while (race_goes_on(&race)) {
		struct drilling drilling = {};
		struct driller d[2] = {
			{ .is_source = true, .drilling = &drilling },
			{ .is_source = false, .drilling = &drilling },
		};

		gmem_guest_fill(&src, 0, TEST_SIZE, PATTERN);
		gmem_vm_create_linked(&dst, TEST_SIZE, src.fd, 0);
		d[0].fd = src.fd;
		d[1].fd = dst.fd;
		race_add(&race, run_drill, &d[0]);
		race_add(&race, run_drill, &d[1]);
		race_start(&race);
		WRITE_ONCE(drilling.moving, true);
		gmem_move(dst.vm, src.vm);
		WRITE_ONCE(drilling.moved, true);
		if (rewrite)
			gmem_guest_fill(&dst, 0, TEST_SIZE / 2, PATTERN);
		race_join(&race);

		if (rewrite)
			memset(drilling.hole, 0, NR_PAGES / 2);
		look(&dst);
		for (i = 0; i < NR_PAGES; i++) {
			ASSERT_EQ(drilling.hole[i] ? 0 : PATTERN, seen[i])
				TH_LOG("page %d", i);
		}
		for (i = 0; i < 2; i++) {
			granted[i] += d[i].granted;
			denied[i] += d[i].denied;
		}
		race_was_first(&race, d[0].denied > d[0].granted);
		rewrite = !rewrite;
		free_later(&src);
		src = dst;
	}
	gmem_vm_free(&src);
	TH_LOG("%d rounds, source %d granted, %d denied, destination %d, %d",
	       race.rounds, granted[0], denied[0], granted[1], denied[1]);
	for (i = 0; i < 2; i++) {
		EXPECT_SEEN(&race, granted[i]);
		EXPECT_SEEN(&race, denied[i]);
	}
}

/* Another file under descriptor @fd: the number cannot be given out again. */
static void replace_fd(int fd)
{
	int null = open("/dev/null", O_RDWR);

	TEST_ASSERT(null >= 0, "cannot open /dev/null");
	TEST_ASSERT(dup2(null, fd) == fd, "dup2() failed");
	close(null);
}

static ino_t inode_of(int fd)
{
	struct stat st;

	TEST_ASSERT(!fstat(fd, &st), "fstat() failed");
	return st.st_ino;
}

struct linker {
	struct kvm_vm *vm;
	uint64_t flags;
	int src;		/* descriptor of the memory, until replaced */
	ino_t ino;
	int keep;		/* from this attempt on, keep a pending link */
	int link;		/* which is that, or -1 */
	int linked, busy;
};

static void run_link(void *arg)
{
	struct linker *l = arg;
	int i, err, link;

	l->link = -1;
	for (i = 0; i < 20; i++) {
		err = __gmem_link(l->vm, l->src, l->flags, &link);
		TEST_ASSERT(!err || err == EBUSY || err == EINVAL,
			    "unexpected error: %s", strerror(err));
		if (err == EINVAL)
			break;
		l->busy += err == EBUSY;
		if (err)
			continue;

		l->linked++;
		TEST_ASSERT_EQ(inode_of(link), l->ino);
		err = __gmem_allocate(link, 0, PAGE_SIZE);
		TEST_ASSERT(!err || (!l->flags && err == EPERM),
			    "fallocate() of a link: %s", strerror(err));
		if (!l->flags && i >= l->keep) {
			l->link = link;
			break;
		}
		close(link);
	}
}

static void run_punch(void *arg)
{
	int *fd = arg;
	int i, err;

	for (i = 0; i < 30; i++) {
		err = __gmem_punch(*fd, 0, TEST_SIZE);
		/* Of /dev/null */
		if (err == ENODEV)
			break;
		TEST_ASSERT(!err, "PUNCH_HOLE: %s", strerror(err));
	}
}

/*
 * The first view goes while links of both kinds come and go, and the memory
 * with it.  What is left at the end has all the rights, and is the last.
 */
TEST_F(race, links_come_and_go_when_the_source_is_closed)
{
	int kept = 0, shared = 0, pending = 0, busy = 0;
	struct gmem_vm src, vms[2];
	struct race race;
	long base;

	bare_create(&vms[0]);
	bare_create(&vms[1]);
	bare_create(&src);
	base = gmem_file_pages();
	race_init(&race);
	while (race_goes_on(&race)) {
		int fd = vm_create_guest_memfd(src.vm, TEST_SIZE, 0);
		struct linker share = {
			.vm = vms[0].vm,
			.flags = KVM_LINK_GUEST_MEMFD_SHARE,
			.src = fd,
			.ino = inode_of(fd),
		};
		struct linker handover = share;

		handover.vm = vms[1].vm;
		handover.flags = 0;
		/* Where a link takes long the source is closed before a second */
		handover.keep = race.rounds % 2 ? race_jitter(&race) % 10 : 0;
		gmem_allocate(fd, 0, TEST_SIZE);
		race_add(&race, run_link, &share);
		race_add(&race, run_link, &handover);
		race_add(&race, run_punch, &fd);
		race_start(&race);
		replace_fd(fd);
		race_join(&race);
		race_was_first(&race, handover.link < 0);

		shared += share.linked;
		pending += handover.linked;
		busy += share.busy + handover.busy;
		if (handover.link >= 0) {
			kept++;
			gmem_allocate(handover.link, 0, TEST_SIZE);
			ASSERT_TRUE(gmem_pages_are(base, NR_PAGES));
			gmem_punch(handover.link, 0, TEST_SIZE);
			gmem_allocate(handover.link, 0, TEST_SIZE);
			close(handover.link);
		}
		ASSERT_TRUE(gmem_pages_are(base, 0));
		close(fd);
	}
	gmem_vm_free(&src);
	gmem_vm_free(&vms[0]);
	gmem_vm_free(&vms[1]);
	TH_LOG("%d rounds, %d shared and %d pending links, %d EBUSY, %d left",
	       race.rounds, shared, pending, busy, kept);
	EXPECT_SEEN(&race, shared);
	EXPECT_SEEN(&race, pending);
	EXPECT_SEEN(&race, kept);
}

struct newcomer {
	struct kvm_vm *vm;
	int fd;			/* some memory of another VM, or -1: create */
	int added;
	bool late;
};

static int add_view(struct newcomer *n, int *fd)
{
	if (n->fd >= 0)
		return __gmem_link(n->vm, n->fd, KVM_LINK_GUEST_MEMFD_SHARE,
				   fd);

	*fd = __vm_create_guest_memfd(n->vm, PAGE_SIZE, 0);
	return *fd < 0 ? errno : 0;
}

/* As long as the view is there no move can accept the VM as its source. */
static void run_add_until_dead(void *arg)
{
	struct newcomer *n = arg;
	int err, fd;

	for (;;) {
		err = add_view(n, &fd);
		if (err)
			break;
		n->late |= gmem_vm_is_dead(n->vm);
		n->added++;
		close(fd);
		usleep(10);
	}
	TEST_ASSERT_EQ(err, EIO);
}

TEST_F(race, nothing_is_added_to_a_dead_source)
{
	int i, err, added = 0, refused = 0;
	struct race race;
	struct pair p;

	race_init(&race);
	while (race_goes_on(&race)) {
		struct newcomer n[4] = {};

		pair_create(&p, &self->witness);
		for (i = 0; i < ARRAY_SIZE(n); i++) {
			n[i].vm = p.src.vm;
			n[i].fd = -1;
			if (i % 2)
				n[i].fd = vm_create_guest_memfd(self->witness.vm,
								PAGE_SIZE, 0);
			race_add(&race, run_add_until_dead, &n[i]);
		}
		race_start(&race);
		while (READ_ONCE(n[0].added) < 3)
			usleep(10);
		while ((err = __gmem_move(p.dst.vm, p.src.vm->fd))) {
			ASSERT_EQ(EINVAL, err);
			refused++;
			usleep(10);
		}
		race_join(&race);

		for (i = 0; i < ARRAY_SIZE(n); i++) {
			ASSERT_FALSE(n[i].late);
			added += n[i].added;
			if (n[i].fd >= 0)
				close(n[i].fd);
		}
		witness_expect(&self->witness, p.dst.fd);
		pair_free(&p);
	}
	TH_LOG("%d rounds, %d views, %d moves refused", race.rounds, added,
	       refused);
}

static void run_close(void *arg)
{
	struct gmem_vm *g = arg;

	replace_fd(g->fd);
}

static void run_delete_slot(void *arg)
{
	struct gmem_vm *g = arg;

	gmem_delete_slot(g->vm, GMEM_SLOT);
}

/*
 * A destination that loses its slot and its descriptor either had them long
 * enough, or gets nothing and takes nothing.
 */
TEST_F(race, destination_loses_its_view)
{
	struct race race;
	struct pair p;
	int err;

	race_init(&race);
	while (race_goes_on(&race)) {
		pair_create(&p, &self->witness);
		race_add(&race, run_close, &p.dst);
		race_add(&race, run_delete_slot, &p.dst);
		race_start(&race);
		err = __gmem_move(p.dst.vm, p.src.vm->fd);
		race_join(&race);

		race_was_first(&race, !err);
		ASSERT_FALSE(gmem_vm_is_dead(p.dst.vm));
		if (err) {
			ASSERT_EQ(EINVAL, err);
			ASSERT_FALSE(gmem_vm_is_dead(p.src.vm));
			witness_expect(&self->witness, p.src.fd);
			gmem_punch(p.src.fd, 0, TEST_SIZE);
		} else {
			expect_left(&p.src, &self->witness);
		}
		pair_free(&p);
	}
	LOG_RACE(&race, "move first");
	EXPECT_BOTH_ORDERS(&race);
}

/*
 * The ends of processes
 */

/* A process with a VM, which it gives away and keeps until it is told to end. */
static void be_source(int sock)
{
	struct gmem_vm g;
	char c;

	bare_create_source(&g);
	gmem_send_fd(sock, g.vm->fd);
	gmem_send_fd(sock, g.fd);
	_exit(read(sock, &c, 1) != 1);
}

struct ender {
	int sock;
	int vm_fd;
};

static void run_end_source(void *arg)
{
	struct ender *e = arg;

	TEST_ASSERT(write(e->sock, "", 1) == 1, "write() failed");
	replace_fd(e->vm_fd);
}

/*
 * The process that the source belongs to dies, and nobody has its VM any more
 * but the move.  The memory is the destination's, with the move or without.
 */
TEST_F(race, process_of_the_source_dies)
{
	int err, fd, sock[2];
	struct gmem_vm dst;
	struct race race;
	struct ender e;
	uint64_t end;
	pid_t pid;

	race_init(&race);
	while (race_goes_on(&race)) {
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
		pid = gmem_fork();
		if (!pid)
			be_source(sock[1]);
		e.sock = sock[0];
		e.vm_fd = gmem_receive_fd(sock[0]);
		fd = gmem_receive_fd(sock[0]);
		witness_fill(&self->witness, fd);
		bare_create_linked(&dst, fd);
		close(fd);

		race_add(&race, run_end_source, &e);
		race_start(&race);
		err = __gmem_move(dst.vm, e.vm_fd);
		race_join(&race);
		gmem_wait_ok(pid);

		race_was_first(&race, !err);
		if (err)
			ASSERT_EQ(EBADF, err);
		end = gmem_now_ms() + 5000;
		while ((err = __gmem_allocate(dst.fd, 0, TEST_SIZE))) {
			ASSERT_EQ(EPERM, err);
			ASSERT_GT(end, gmem_now_ms());
			usleep(1000);
		}
		witness_expect(&self->witness, dst.fd);
		free_later(&dst);
		close(e.vm_fd);
		close(sock[0]);
		close(sock[1]);
	}
	LOG_RACE(&race, "move first");
	EXPECT_BOTH_ORDERS(&race);
}

/*
 * Ends
 */

static void shuffle(struct guest_random_state *rng, int *fds, int nr)
{
	int i, j, fd;

	for (i = nr - 1; i > 0; i--) {
		j = guest_random_u32(rng) % (i + 1);
		fd = fds[i];
		fds[i] = fds[j];
		fds[j] = fd;
	}
}

/*
 * A source, a sharer and a destination, or some of them, before or after a
 * move; then close some of the descriptors and leave the others to exit().
 */
static void end_in_disorder(struct guest_random_state *rng)
{
	bool moves = guest_random_bool(rng);
	bool shares = !moves && guest_random_bool(rng);
	struct gmem_vm src, dst, sharer;
	int fds[12], nr = 0, i, closed;
	struct kvm_vcpu *vcpu;

	bare_create_source(&src);
	vcpu = __vm_vcpu_add(src.vm, 0);
	TEST_ASSERT_EQ(__gmem_pre_fault(vcpu, GMEM_GPA, TEST_SIZE, 0, NULL), 0);
	fds[nr++] = vcpu->fd;
	fds[nr++] = dup(src.fd);
	if (shares) {
		bare_create(&sharer);
		sharer.fd = gmem_link(sharer.vm, src.fd,
				      KVM_LINK_GUEST_MEMFD_SHARE);
		if (guest_random_bool(rng))
			gmem_vm_bind(&sharer);
		fds[nr++] = sharer.fd;
		fds[nr++] = sharer.vm->fd;
	}
	bare_create(&dst);
	dst.fd = gmem_link(dst.vm, src.fd, 0);
	fds[nr++] = dup(dst.fd);
	if (moves || guest_random_bool(rng))
		gmem_vm_bind(&dst);
	if (moves)
		gmem_move(dst.vm, src.vm);
	fds[nr++] = src.vm->fd;
	fds[nr++] = src.fd;
	fds[nr++] = dst.vm->fd;
	fds[nr++] = dst.fd;

	shuffle(rng, fds, nr);
	closed = guest_random_u32(rng) % (nr + 1);
	for (i = 0; i < closed; i++) {
		if (fds[i] == vcpu->fd)
			munmap(vcpu->run, 3 * PAGE_SIZE);
		TEST_ASSERT(!close(fds[i]), "close() failed");
	}
	_exit(0);
}

TEST_F(race, descriptors_end_in_any_order)
{
	uint32_t seed = time(NULL);
	struct guest_random_state rng = new_guest_random_state(seed);
	uint64_t end = gmem_now_ms() + 2 * gmem_race_ms();
	struct gmem_usage before;
	int nr = 0;
	pid_t pid;

	TH_LOG("seed %u", seed);
	gmem_usage_get(&before);
	while (gmem_now_ms() < end) {
		struct guest_random_state child = rng;

		pid = gmem_fork();
		if (!pid)
			end_in_disorder(&child);
		gmem_wait_ok(pid);
		gmem_usage_check(&before);
		guest_random_u32(&rng);
		nr++;
	}
	TH_LOG("%d processes", nr);
}

TEST_F(race, linked_descriptor_keeps_the_module)
{
	struct gmem_usage before;
	struct pair p;
	int link;

	gmem_usage_get(&before);
	pair_create(&p, &self->witness);
	link = dup(p.dst.fd);
	gmem_vm_free(&p.src);
	gmem_vm_free(&p.dst);
	EXPECT_EQ(before.vms, gmem_count_vms());
	EXPECT_LT(before.refcnt, gmem_count_module_refs());
	close(link);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	return test_harness_run(argc, argv);
}
