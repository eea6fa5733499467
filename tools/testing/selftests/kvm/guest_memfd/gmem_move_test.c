// SPDX-License-Identifier: GPL-2.0
/*
 * The move: the destination gets the source's memory and memory attributes, and
 * the source is dead; or, if anything is not as it has to be, nothing changes.
 * How long it takes is gmem_move_time_test's.
 */
#include <sys/resource.h>

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

static bool begins_private(int page)
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

static void reset_model(void)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		is_private[i] = begins_private(i);
}

/* Write to word @word of each page. */
static void guest_write(uint64_t word, uint64_t val)
{
	uint64_t i;

	for (i = 0; i < NR_PAGES; i++)
		WRITE_ONCE(((uint64_t *)(GMEM_GPA + i * PAGE_SIZE))[word], val + i);
	GUEST_UCALL_NONE();
}

static void guest_look(uint64_t first, uint64_t nr)
{
	uint64_t i;

	for (i = first; i < first + nr; i++)
		seen[i] = READ_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE));
	GUEST_UCALL_NONE();
}

static uint64_t guest_counter;

static void guest_count(void)
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

static int end_fd(const struct end *e, int file)
{
	return file ? e->fd2 : e->g.fd;
}

static void bind_piece_at(struct end *e, int i, uint32_t slot, int fd)
{
	const struct piece *p = &pieces[i];

	gmem_set_slot(e->g.vm, slot, KVM_MEM_GUEST_MEMFD, GMEM_GPA + p->offset,
		      p->size, e->g.shared + p->offset, fd, p->file_offset);
}

static void bind_piece(struct end *e, int i)
{
	bind_piece_at(e, i, GMEM_SLOT + i, end_fd(e, pieces[i].file));
}

static void unbind_last(struct end *e)
{
	gmem_delete_slot(e->g.vm, GMEM_SLOT + LAST);
}

static void set_plain_slot(struct end *e, uint32_t flags)
{
	gmem_set_slot(e->g.vm, PLAIN_SLOT, flags, PLAIN_GPA, PLAIN_SIZE,
		      e->plain, -1, 0);
}

static void write_shared(struct end *e)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		*(uint64_t *)(e->g.shared + i * PAGE_SIZE) = SHARED_WORD + i;
}

static void bind_all(struct end *e)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(pieces); i++)
		bind_piece(e, i);
	e->plain = gmem_mmap(PLAIN_SIZE);
	set_plain_slot(e, 0);
	write_shared(e);
}

static void convert(struct end *e, int first, int nr, bool private)
{
	vm_set_memory_attributes(e->g.vm, GMEM_GPA + first * PAGE_SIZE,
				 nr * PAGE_SIZE,
				 private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0);
	memset(is_private + first, private, nr);
}

/* Make the VM's attributes what the model says. */
static void convert_all(struct end *e)
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

static void guest_write_all(struct end *e, int word, uint64_t val)
{
	TEST_ASSERT_EQ(__gmem_guest_run(&e->g, guest_write, word, val, 0, 0), 0);
}

static void create_source(struct end *e)
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
static void create_destination(struct end *e, int fd, int fd2)
{
	gmem_vm_create_empty(&e->g, TEST_SIZE);
	e->g.fd = gmem_link(e->g.vm, fd, 0);
	e->fd2 = gmem_link(e->g.vm, fd2, 0);
	bind_all(e);
}

static void close_fds(struct end *e)
{
	gmem_vm_close_fd(&e->g);
	TEST_ASSERT(!close(e->fd2), "close() of a guest_memfd failed");
	e->fd2 = -1;
}

static void end_free(struct end *e)
{
	if (!e->g.vm)
		return;

	if (e->fd2 >= 0)
		close(e->fd2);
	gmem_vm_free(&e->g);
	munmap(e->plain, PLAIN_SIZE);
	e->g.vm = NULL;
}

static void expect_pages(struct end *e, int first, int nr, const bool *private)
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
static void expect_model(struct end *e)
{
	expect_pages(e, 0, NR_PAGES, is_private);
}

/* Without attributes all is shared. */
static void expect_shared(struct end *e, int first, int nr)
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

static void pair_create(struct pair *p)
{
	gmem_usage_get(&p->usage);
	reset_model();
	create_source(&p->src);
	create_destination(&p->dst, p->src.g.fd, p->src.fd2);
	p->fd = -1;
	p->link = -1;
}

static void close_extra(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void pair_free(struct pair *p)
{
	close_extra(&p->fd);
	close_extra(&p->link);
	kvm_vm_free(p->third);
	end_free(&p->src);
	end_free(&p->dst);
	gmem_usage_check(&p->usage);
}

static int __move(struct pair *p)
{
	return __gmem_move(p->dst.g.vm, p->src.g.vm->fd);
}

static void move(struct pair *p)
{
	gmem_move(p->dst.g.vm, p->src.g.vm);
	TEST_ASSERT(gmem_vm_is_dead(p->src.g.vm), "the source is not dead");
}

static struct kvm_vm *create_third(struct pair *p)
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

TEST_F(move, destination_has_memory_and_attributes)
{
	struct pair *p = &self->p;

	expect_model(&p->src);
	move(p);
	expect_model(&p->dst);
}

TEST_F(move, attributes_can_be_changed_afterwards)
{
	struct end *dst = &self->p.dst;
	int i;

	move(&self->p);
	for (i = 0; i < NR_PAGES - 100; i += 300)
		convert(dst, i, 100, !is_private[i]);
	expect_model(dst);
	convert(dst, 0, NR_PAGES, true);
	expect_model(dst);
	convert(dst, 0, NR_PAGES, false);
	expect_model(dst);
}

/*
 * Before the move all of it is shared in the destination, and mapped with huge
 * pages.  No private page may be reached by them, nor written through them.
 */
TEST_F(move, huge_shared_pages_are_split)
{
	struct end *dst = &self->p.dst;
	uint64_t *page, expected;
	long before, after;
	int i;

	expect_shared(dst, 0, NR_PAGES);
	before = vm_get_stat(dst->g.vm, "pages_2m");
	ASSERT_LE(TEST_SIZE / SZ_2M, before);

	/* Twice: what the first look maps could hide something. */
	move(&self->p);
	expect_model(dst);
	expect_model(dst);

	/* Of the three only one is all shared. */
	after = vm_get_stat(dst->g.vm, "pages_2m");
	EXPECT_EQ(before - 2, after);

	guest_write_all(dst, 1, MARK);
	for (i = 0; i < NR_PAGES; i++) {
		page = dst->g.shared + i * PAGE_SIZE;
		expected = is_private[i] ? 0 : MARK + i;
		TEST_ASSERT_EQ(page[1], expected);
	}
	expect_model(dst);
}

TEST_F(move, pre_fault_afterwards)
{
	struct end *dst = &self->p.dst;
	long base = gmem_file_pages();
	uint64_t left;

	move(&self->p);
	ASSERT_EQ(0, __gmem_pre_fault(dst->g.vcpu, GMEM_GPA, TEST_SIZE, 0,
				      &left));
	EXPECT_EQ(0, left);
	EXPECT_TRUE(gmem_pages_are(base, 0));
	expect_model(dst);
}

TEST_F(move, hole_is_punched_through_the_destination)
{
	const struct piece *first = &pieces[0];
	struct end *dst = &self->p.dst;
	long base = gmem_file_pages();

	move(&self->p);
	expect_model(dst);
	gmem_punch(dst->g.fd, first->file_offset, SZ_1M);
	EXPECT_TRUE(gmem_pages_are(base, -(SZ_1M / PAGE_SIZE)));
	gmem_guest_expect(&dst->g, 0, SZ_1M, 0);

	/* As before: what is beside it, and what the guest writes now */
	gmem_guest_expect(&dst->g, SZ_1M + PAGE_SIZE, 8,
			  PRIVATE_WORD + SZ_1M / PAGE_SIZE + 1);
	gmem_punch(dst->fd2, pieces[LAST].file_offset, SZ_2M);
	guest_write_all(dst, 0, PRIVATE_WORD);
	write_shared(dst);
	expect_model(dst);
}

TEST_F(move, slot_numbers_and_addresses_may_differ)
{
	struct end *dst = &self->p.dst;
	int i;

	for (i = 0; i < ARRAY_SIZE(pieces); i++)
		gmem_delete_slot(dst->g.vm, GMEM_SLOT + i);
	munmap(dst->g.shared, TEST_SIZE);
	dst->g.shared = gmem_mmap(TEST_SIZE + PAGE_SIZE) + PAGE_SIZE;
	write_shared(dst);
	for (i = 0; i < ARRAY_SIZE(pieces); i++) {
		bind_piece_at(dst, i, 100 - i,
			      end_fd(dst, pieces[i].file));
	}
	move(&self->p);
	expect_model(dst);
}

TEST_F(move, closed_descriptors_do_not_matter)
{
	struct pair *p = &self->p;

	close_fds(&p->src);
	close_fds(&p->dst);
	move(p);
	expect_model(&p->dst);
	end_free(&p->src);
	expect_model(&p->dst);
}

TEST_F(move, unbound_guest_memfd_goes_along)
{
	struct pair *p = &self->p;

	p->fd = vm_create_guest_memfd(p->src.g.vm, TEST_SIZE, 0);
	p->link = gmem_link(p->dst.g.vm, p->fd, 0);
	EXPECT_EQ(EPERM, __gmem_allocate(p->link, 0, PAGE_SIZE));
	move(p);
	EXPECT_EQ(EPERM, __gmem_allocate(p->fd, 0, PAGE_SIZE));
	EXPECT_EQ(0, __gmem_allocate(p->link, 0, PAGE_SIZE));
	EXPECT_EQ(0, __gmem_punch(p->link, 0, PAGE_SIZE));
}

TEST_F(move, dead_owners_do_not_matter)
{
	struct pair *p = &self->p;

	/* Another VM shared it, and is gone: its view owns nothing. */
	end_free(&p->dst);
	p->link = gmem_link(create_third(p), p->src.g.fd,
			    KVM_LINK_GUEST_MEMFD_SHARE);
	kvm_vm_free(p->third);
	p->third = NULL;

	create_destination(&p->dst, p->src.g.fd, p->src.fd2);
	move(p);
	expect_model(&p->dst);
}

TEST_F(move, attributes_set_and_cleared_are_none)
{
	struct pair *p = &self->p;

	vm_mem_set_private(p->dst.g.vm, GMEM_GPA, TEST_SIZE);
	vm_mem_set_shared(p->dst.g.vm, GMEM_GPA, TEST_SIZE);
	convert(&p->src, 0, NR_PAGES, true);
	convert(&p->src, 0, NR_PAGES, false);
	move(p);
	expect_model(&p->dst);
	convert(&p->dst, 700, 7, true);
	expect_model(&p->dst);
}

TEST_F(move, guest_goes_on_when_its_memory_has_come)
{
	struct pair *p = &self->p;
	struct gmem_vm *g = &p->dst.g;

	vm_mem_set_private(g->vm, GMEM_GPA, PAGE_SIZE);
	gmem_expect_no_access(g, 0);
	EXPECT_EQ(EFAULT, __gmem_guest_skip(g, 0, 8, 0));
	vm_mem_set_shared(g->vm, GMEM_GPA, PAGE_SIZE);

	/* The same instruction is executed again. */
	move(p);
	ASSERT_EQ(0, __gmem_guest_end(g));
	sync_global_from_guest(g->vm, gmem_guest_word);
	EXPECT_EQ(PRIVATE_WORD, gmem_guest_word);
	expect_model(&p->dst);
}

/*
 * A VM's vCPUs do not go along, and KVM may have made slots of its own for them
 * or for userspace's KVM_SET_TSS_ADDR.
 */
TEST_F(move, vcpus_need_not_match)
{
	const struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = KVM_X86_SW_PROTECTED_VM,
	};
	struct pair *p = &self->p;
	struct gmem_vm *g = &p->dst.g;
	struct kvm_vcpu *vcpu;

	vcpu = vm_vcpu_add(p->src.g.vm, 1, guest_count);
	vm_ioctl(p->src.g.vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000ul);

	/* As gmem_vm_create_empty(), but without a vCPU */
	end_free(&p->dst);
	g->size = TEST_SIZE;
	g->shared = gmem_mmap(TEST_SIZE);
	g->vm = __vm_create(shape, 1, NR_PAGES);
	g->fd = gmem_link(g->vm, p->src.g.fd, 0);
	p->dst.fd2 = gmem_link(g->vm, p->src.fd2, 0);
	bind_all(&p->dst);

	move(p);
	EXPECT_ERRNO(EIO, __vcpu_run(vcpu));
	g->vcpu = vm_vcpu_add(g->vm, 3, guest_count);
	vcpu_regs_get(g->vcpu, &g->regs);
	virt_map(g->vm, GMEM_GPA, GMEM_GPA, NR_PAGES);
	expect_model(&p->dst);
}

TEST_F(move, needs_no_new_descriptor)
{
	struct rlimit limit, none;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	none = limit;
	none.rlim_cur = 0;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	move(&self->p);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	expect_model(&self->p.dst);
}

TEST_F(move, allocation_failures_change_nothing)
{
	struct pair *p = &self->p;
	bool failed = true;
	int nth, err;

	if (!gmem_fail_init())
		SKIP(return, "the kernel has no fault injection");

	for (nth = 1; failed; nth++) {
		gmem_fail_nth(nth);
		err = __move(p);
		failed = gmem_has_failed();
		ASSERT_EQ(failed ? ENOMEM : 0, err);
		expect_model(err ? &p->src : &p->dst);
	}
}

/* Also when the VM is dead, if this was called before. */
static uint64_t nr_mapped(struct kvm_vm *vm)
{
	return vm_get_stat(vm, "pages_4k") + vm_get_stat(vm, "pages_2m");
}

/*
 * Page tables are left to a work item: they would take time that grows with the
 * memory.
 */
TEST_F(move, page_tables_of_the_source_go)
{
	struct pair *p = &self->p;
	uint64_t end;

	expect_model(&p->src);
	EXPECT_LE(NR_PAGES / 2, nr_mapped(p->src.g.vm));
	move(p);
	end = gmem_now_ms() + 10000;
	while (nr_mapped(p->src.g.vm) && gmem_now_ms() < end)
		usleep(1000);
	EXPECT_EQ(0, nr_mapped(p->src.g.vm));
	expect_model(&p->dst);
}

/*
 * What a move leaves of the source
 */

struct request {
	const char *name;
	unsigned long nr;
};

#define REQUEST(name) { #name, name }

static void expect_eio(int fd, const struct request *requests, int nr)
{
	char *arg = gmem_mmap(PAGE_SIZE);
	int i, r;

	for (i = 0; i < nr; i++) {
		r = ioctl(fd, requests[i].nr, arg);
		TEST_ASSERT(r < 0 && errno == EIO, "%s on a dead VM: %d, %s",
			    requests[i].name, r, strerror(errno));
	}
	munmap(arg, PAGE_SIZE);
}

TEST_F(move, dead_source_refuses_every_ioctl)
{
	static const struct request vm_requests[] = {
		REQUEST(KVM_CHECK_EXTENSION),
		REQUEST(KVM_CREATE_VCPU),
		REQUEST(KVM_CREATE_DEVICE),
		REQUEST(KVM_SET_USER_MEMORY_REGION),
		REQUEST(KVM_SET_USER_MEMORY_REGION2),
		REQUEST(KVM_SET_MEMORY_ATTRIBUTES),
		REQUEST(KVM_CREATE_GUEST_MEMFD),
		REQUEST(KVM_LINK_GUEST_MEMFD),
		REQUEST(KVM_ENABLE_CAP),
		REQUEST(KVM_GET_DIRTY_LOG),
		REQUEST(KVM_GET_IRQCHIP),
		REQUEST(KVM_GET_CLOCK),
		REQUEST(KVM_IRQ_LINE),
		REQUEST(KVM_IRQFD),
		REQUEST(KVM_GET_STATS_FD),
	};
	static const struct request vcpu_requests[] = {
		REQUEST(KVM_RUN),
		REQUEST(KVM_GET_REGS),
		REQUEST(KVM_SET_REGS),
		REQUEST(KVM_GET_SREGS),
		REQUEST(KVM_GET_LAPIC),
		REQUEST(KVM_GET_MSRS),
		REQUEST(KVM_GET_MP_STATE),
		REQUEST(KVM_SET_MP_STATE),
		REQUEST(KVM_PRE_FAULT_MEMORY),
		REQUEST(KVM_NMI),
		REQUEST(KVM_GET_STATS_FD),
	};
	struct pair *p = &self->p;

	move(p);
	expect_eio(p->src.g.vm->fd, vm_requests, ARRAY_SIZE(vm_requests));
	expect_eio(p->src.g.vcpu->fd, vcpu_requests, ARRAY_SIZE(vcpu_requests));
	expect_model(&p->dst);
}

static void expect_revoked(int fd, struct kvm_vm *vm)
{
	int link;

	TEST_ASSERT_EQ(__gmem_allocate(fd, 0, TEST_SIZE), EPERM);
	TEST_ASSERT_EQ(__gmem_punch(fd, 0, TEST_SIZE), EPERM);
	TEST_ASSERT_EQ(__gmem_link(vm, fd, 0, &link), EINVAL);
	TEST_ASSERT_EQ(__gmem_link(vm, fd, KVM_LINK_GUEST_MEMFD_SHARE, &link),
		       EINVAL);
}

TEST_F(move, descriptors_of_the_source_have_no_rights)
{
	struct pair *p = &self->p;
	struct kvm_vm *vm = create_third(p);

	p->fd = dup(p->src.g.fd);
	move(p);
	expect_revoked(p->fd, vm);
	expect_model(&p->dst);

	/* Nor when the source is gone, nor when there is no owner any more */
	end_free(&p->src);
	expect_revoked(p->fd, vm);
	expect_model(&p->dst);
	end_free(&p->dst);
	expect_revoked(p->fd, vm);
}

/* Views whose VM is gone, active or not, might be in anybody's hands. */
TEST_F(move, descriptors_of_dead_vms_have_no_rights)
{
	struct pair *p = &self->p;
	struct kvm_vm *vm;
	int shared, waited;

	end_free(&p->dst);
	vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	shared = gmem_link(vm, p->src.g.fd, KVM_LINK_GUEST_MEMFD_SHARE);
	kvm_vm_free(vm);
	vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	waited = gmem_link(vm, p->src.g.fd, 0);
	kvm_vm_free(vm);

	create_destination(&p->dst, p->src.g.fd, p->src.fd2);
	move(p);
	vm = create_third(p);
	expect_revoked(shared, vm);
	expect_revoked(waited, vm);
	expect_model(&p->dst);
	close(shared);
	close(waited);
}

/*
 * Moves in a row
 */

TEST_F(move, chain_of_ten)
{
	struct end hops[8], *at = &self->p.dst;
	int i;

	move(&self->p);
	for (i = 0; i < ARRAY_SIZE(hops); i++) {
		convert(at, PAGES_PER_HUGE + 10 * i, 3, true);
		gmem_guest_fill(&at->g, 8, 8, MARK + i);

		create_destination(&hops[i], at->g.fd, at->fd2);
		gmem_move(hops[i].g.vm, at->g.vm);
		at = &hops[i];
		gmem_guest_expect(&at->g, 8, 8, MARK + i);
	}
	expect_model(at);

	EXPECT_ERRNO(EIO, __vcpu_run(self->p.src.g.vcpu));
	EXPECT_ERRNO(EIO, __vcpu_run(self->p.dst.g.vcpu));
	for (i = 0; i < ARRAY_SIZE(hops); i++) {
		if (&hops[i] != at)
			EXPECT_ERRNO(EIO, __vcpu_run(hops[i].g.vcpu));
		end_free(&hops[i]);
	}
}

/* Make the destination the source of the next move. */
static void next_move(struct pair *p)
{
	p->src = p->dst;
	create_destination(&p->dst, p->src.g.fd, p->src.fd2);
}

TEST_F(move, source_is_freed_at_once)
{
	struct pair *p = &self->p;
	int i;

	for (i = 0; i < 8; i++) {
		expect_model(&p->src);
		move(p);
		end_free(&p->src);
		next_move(p);
	}
	expect_model(&p->src);
}

struct closer {
	struct kvm_vm *vm;
	bool go;
};

static void *close_when_told(void *arg)
{
	struct closer *closer = arg;

	while (!READ_ONCE(closer->go))
		;
	kvm_vm_release(closer->vm);
	return NULL;
}

/* The move finds the source, or the source is gone and memory has a new owner. */
TEST_F_TIMEOUT(move, source_is_closed_meanwhile, 60)
{
	struct pair *p = &self->p;
	struct closer closer;
	pthread_t thread;
	int i, err;

	for (i = 0; i < 10; i++) {
		closer = (struct closer){ .vm = p->src.g.vm };
		thread = gmem_thread(close_when_told, &closer);
		usleep(1000);
		WRITE_ONCE(closer.go, true);
		gmem_spin_us(20 * i);
		err = __move(p);
		pthread_join(thread, NULL);

		ASSERT_TRUE(!err || err == EBADF) {
			TH_LOG("the move fails with %s", strerror(err));
		}
		if (err)
			convert_all(&p->dst);
		expect_model(&p->dst);
		close_fds(&p->src);
		next_move(p);
	}
}

TEST_F(move, unused_pages_are_zero)
{
	struct pair *p = &self->p;
	const int first = SZ_2M / PAGE_SIZE;

	/* Half of it a hole, half of it allocated and never touched */
	gmem_pollute_free_memory();
	convert(&p->src, first, SZ_2M / PAGE_SIZE, true);
	gmem_punch(p->src.g.fd, pieces[1].file_offset, SZ_2M);
	gmem_allocate(p->src.g.fd, pieces[1].file_offset, SZ_1M);
	move(p);
	gmem_guest_expect(&p->dst.g, SZ_2M, SZ_2M, 0);
}

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

/*
 * vCPUs that are in the guest, or are about to be
 */

struct runner {
	struct kvm_vcpu *vcpu;
	bool stop;	/* end when interrupted, do not go on */
	bool done;
	int err;
};

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;

	do {
		r->err = __vcpu_run(r->vcpu) ? errno : 0;
	} while (r->err == EINTR && !READ_ONCE(r->stop));
	WRITE_ONCE(r->done, true);
	return NULL;
}

struct mover {
	struct kvm_vm *dst;
	int src;
	int err;
	bool done;
};

static void *run_move(void *arg)
{
	struct mover *m = arg;

	m->err = __gmem_move(m->dst, m->src);
	WRITE_ONCE(m->done, true);
	return NULL;
}

static void on_kick(int sig)
{
}

/* Interrupt @thread's KVM_RUN, if it is there. */
static void kick(pthread_t thread)
{
	const struct sigaction action = { .sa_handler = on_kick };

	sigaction(SIGUSR1, &action, NULL);
	pthread_kill(thread, SIGUSR1);
	usleep(5000);
}

static void stop_vcpu(struct runner *r, pthread_t thread)
{
	while (!READ_ONCE(r->done))
		kick(thread);
	pthread_join(thread, NULL);
}

/* Let the vCPU of @e count for ever, in memory that the host sees. */
static uint64_t *start_counting(struct end *e, struct runner *r,
				pthread_t *thread)
{
	uint64_t *counter;

	counter = addr_gva2hva(e->g.vm, (vm_vaddr_t)&guest_counter);
	vcpu_regs_set(e->g.vcpu, &e->g.regs);
	vcpu_arch_set_entry_point(e->g.vcpu, guest_count);
	r->vcpu = e->g.vcpu;
	*thread = gmem_thread(run_vcpu, r);
	while (!READ_ONCE(*counter))
		usleep(1000);
	return counter;
}

static bool counts(uint64_t *counter)
{
	uint64_t start = READ_ONCE(*counter), end = gmem_now_ms() + 5000;

	while (READ_ONCE(*counter) == start && gmem_now_ms() < end)
		usleep(1000);
	return READ_ONCE(*counter) != start;
}

/* A vCPU of @e is in the guest: the move waits until it is interrupted. */
static void move_with_running_vcpu(struct pair *p, struct end *e)
{
	struct mover m = { .dst = p->dst.g.vm, .src = p->src.g.vm->fd };
	struct runner r = { .stop = true };
	uint64_t *counter;
	pthread_t runner, mover;

	counter = start_counting(e, &r, &runner);
	mover = gmem_thread(run_move, &m);
	usleep(300000);
	TEST_ASSERT(!READ_ONCE(m.done), "the move did not wait for the vCPU");
	TEST_ASSERT(counts(counter), "the guest does not run on");

	stop_vcpu(&r, runner);
	pthread_join(mover, NULL);
	TEST_ASSERT_EQ(r.err, EINTR);
	TEST_ASSERT_EQ(m.err, 0);
	TEST_ASSERT(gmem_vm_is_dead(p->src.g.vm), "the source is not dead");
}

TEST_F_TIMEOUT(move, waits_for_running_vcpu_of_the_source, 60)
{
	struct pair *p = &self->p;

	move_with_running_vcpu(p, &p->src);
	EXPECT_ERRNO(EIO, __vcpu_run(p->src.g.vcpu));
	expect_model(&p->dst);
}

TEST_F_TIMEOUT(move, waits_for_running_vcpu_of_the_destination, 60)
{
	struct pair *p = &self->p;

	move_with_running_vcpu(p, &p->dst);
	expect_model(&p->dst);
}

/*
 * The source's vCPU is in the guest, the move waits for it, and other threads
 * wait to run it: none of them does so after the move.
 */
TEST_F_TIMEOUT(move, waiting_vcpus_never_run_again, 60)
{
	struct pair *p = &self->p;
	struct mover m = { .dst = p->dst.g.vm, .src = p->src.g.vm->fd };
	struct runner r[4] = {};
	uint64_t *counter;
	pthread_t threads[4], mover;
	uint64_t last;
	int i;

	counter = start_counting(&p->src, &r[0], &threads[0]);
	mover = gmem_thread(run_move, &m);
	usleep(100000);
	for (i = 1; i < ARRAY_SIZE(r); i++) {
		r[i].vcpu = p->src.g.vcpu;
		threads[i] = gmem_thread(run_vcpu, &r[i]);
		usleep(20000);
	}

	/* Who was before the move in the queue runs before it, and is kicked. */
	for (i = 0; !READ_ONCE(m.done); i++)
		kick(threads[i % ARRAY_SIZE(r)]);
	pthread_join(mover, NULL);
	EXPECT_EQ(0, m.err);

	last = READ_ONCE(*counter);
	for (i = 0; i < ARRAY_SIZE(r); i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(EIO, r[i].err);
	}
	EXPECT_EQ(last, READ_ONCE(*counter));
	expect_model(&p->dst);
}

/*
 * Processes: each VM belongs to one.
 */

FIXTURE(process)
{
	struct gmem_usage usage;
};

FIXTURE_SETUP(process)
{
	gmem_usage_get(&self->usage);
	reset_model();
}

FIXTURE_TEARDOWN(process)
{
	gmem_usage_check(&self->usage);
}

/* Wait for the other side of @sock, or wake it. */
static void await(int sock)
{
	char c;

	TEST_ASSERT(read(sock, &c, 1) == 1, "the other process is gone");
}

static void wake(int sock)
{
	TEST_ASSERT(write(sock, "", 1) == 1, "the other process is gone");
}

static void own_source(int sock)
{
	struct end src;

	create_source(&src);
	gmem_send_fd(sock, src.g.vm->fd);
	gmem_send_fd(sock, src.g.fd);
	gmem_send_fd(sock, src.fd2);
	await(sock);
	TEST_ASSERT(__vcpu_run(src.g.vcpu) < 0 && errno == EIO,
		    "KVM_RUN on a dead VM");
	TEST_ASSERT_EQ(__gmem_punch(src.g.fd, 0, TEST_SIZE), EPERM);
	_exit(0);
}

TEST_F(process, source_of_another_process)
{
	int sock[2], vm, fd, fd2;
	struct end dst;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = gmem_fork();
	if (!pid)
		own_source(sock[1]);
	close(sock[1]);
	vm = gmem_receive_fd(sock[0]);
	fd = gmem_receive_fd(sock[0]);
	fd2 = gmem_receive_fd(sock[0]);

	create_destination(&dst, fd, fd2);
	ASSERT_EQ(0, __gmem_move(dst.g.vm, vm));
	expect_model(&dst);
	wake(sock[0]);
	gmem_wait_ok(pid);
	expect_model(&dst);

	/* The source's descriptors are still here. */
	close(vm);
	close(fd);
	close(fd2);
	close(sock[0]);
	expect_model(&dst);
	end_free(&dst);
}

static void move_in_vain(struct end *src, int sock)
{
	struct end dst;

	create_destination(&dst, src->g.fd, src->fd2);
	wake(sock);
	await(sock);
	__gmem_move(dst.g.vm, src->g.vm->fd);
	_exit(1);
}

TEST_F_TIMEOUT(process, waiting_move_can_be_killed, 60)
{
	struct runner r = { .stop = true };
	struct end src, dst;
	uint64_t *counter;
	struct mover m;
	pthread_t runner, mover;
	int sock[2], status;
	uint64_t killed;
	pid_t pid;

	create_source(&src);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = gmem_fork();
	if (!pid)
		move_in_vain(&src, sock[1]);
	await(sock[0]);

	counter = start_counting(&src, &r, &runner);
	wake(sock[0]);
	usleep(300000);
	ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	killed = gmem_now_ms();
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_GT(2000, gmem_now_ms() - killed);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_TRUE(counts(counter));

	create_destination(&dst, src.g.fd, src.fd2);
	m = (struct mover){ .dst = dst.g.vm, .src = src.g.vm->fd };
	mover = gmem_thread(run_move, &m);
	stop_vcpu(&r, runner);
	pthread_join(mover, NULL);
	ASSERT_EQ(0, m.err);
	expect_model(&dst);
	close(sock[0]);
	close(sock[1]);
	end_free(&src);
	end_free(&dst);
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	return test_harness_run(argc, argv);
}
