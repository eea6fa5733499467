// SPDX-License-Identifier: GPL-2.0
/*
 * The move: the destination gets the source's memory and memory attributes, and
 * the source is dead.  What a move refuses is gmem_move_check_test's, how long it
 * takes gmem_move_time_test's.
 */
#include <sys/resource.h>

#include "apic.h"
#include "gmem_move_util.h"

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
TEST_F(move, source_is_closed_meanwhile)
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

/* Needs what every change to a VM needs, and is not to be killed. */
static void add_vcpu(struct kvm_vm *vm)
{
	int fd = __vm_ioctl(vm, KVM_CREATE_VCPU, (void *)7UL);

	TEST_ASSERT(fd >= 0, "no vCPU can be added");
	close(fd);
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
	/* Nobody else has to wait. */
	add_vcpu(p->src.g.vm);
	add_vcpu(p->dst.g.vm);

	stop_vcpu(&r, runner);
	pthread_join(mover, NULL);
	TEST_ASSERT_EQ(r.err, EINTR);
	TEST_ASSERT_EQ(m.err, 0);
	TEST_ASSERT(gmem_vm_is_dead(p->src.g.vm), "the source is not dead");
}

TEST_F(move, waits_for_running_vcpu_of_the_source)
{
	struct pair *p = &self->p;

	move_with_running_vcpu(p, &p->src);
	EXPECT_ERRNO(EIO, __vcpu_run(p->src.g.vcpu));
	expect_model(&p->dst);
}

TEST_F(move, waits_for_running_vcpu_of_the_destination)
{
	struct pair *p = &self->p;

	move_with_running_vcpu(p, &p->dst);
	expect_model(&p->dst);
}

/* A software-protected VM has no memory for system management mode: it dies. */
static void kill_vm(struct end *e, uint8_t apic_id)
{
	struct kvm_msi smi = {
		.address_lo = APIC_DEFAULT_GPA | apic_id << 12,
		.data = 0x200,
	};

	TEST_ASSERT_EQ(__vm_ioctl(e->g.vm, KVM_SIGNAL_MSI, &smi), 1);
}

/* The VM of @e dies while the move waits for its vCPU. */
static void move_while_vm_dies(struct pair *p, struct end *e, int err)
{
	struct mover m = { .dst = p->dst.g.vm, .src = p->src.g.vm->fd };
	struct runner r = {};
	pthread_t runner, mover;

	start_counting(e, &r, &runner);
	mover = gmem_thread(run_move, &m);
	usleep(300000);
	TEST_ASSERT(!READ_ONCE(m.done), "the move did not wait for the vCPU");

	kill_vm(e, 0xff);	/* to all vCPUs */
	pthread_join(runner, NULL);
	pthread_join(mover, NULL);
	TEST_ASSERT_EQ(r.err, EIO);
	TEST_ASSERT(gmem_vm_is_dead(e->g.vm), "the VM lives");
	TEST_ASSERT_EQ(m.err, err);
}

TEST_F(move, source_dies_meanwhile)
{
	struct pair *p = &self->p;

	move_while_vm_dies(p, &p->src, EINVAL);
	EXPECT_FALSE(gmem_vm_is_dead(p->dst.g.vm));
}

TEST_F(move, destination_dies_meanwhile)
{
	struct pair *p = &self->p;

	move_while_vm_dies(p, &p->dst, EIO);
	EXPECT_FALSE(gmem_vm_is_dead(p->src.g.vm));
	expect_model(&p->src);
}

/*
 * Another vCPU of @e sleeps in @state while the first one is the end of their VM,
 * and is what the move waits for.
 */
static void move_while_sleeper_is_killed(struct pair *p, struct end *e,
					 uint32_t state, int err)
{
	struct kvm_mp_state mp_state = { state };
	struct mover m = { .dst = p->dst.g.vm, .src = p->src.g.vm->fd };
	struct runner r = {};
	pthread_t runner, mover;

	r.vcpu = vm_vcpu_add(e->g.vm, 1, guest_count);
	vcpu_mp_state_set(r.vcpu, &mp_state);
	runner = gmem_thread(run_vcpu, &r);
	usleep(100000);
	mover = gmem_thread(run_move, &m);
	usleep(300000);
	TEST_ASSERT(!READ_ONCE(r.done), "the vCPU does not sleep");
	TEST_ASSERT(!READ_ONCE(m.done), "the move did not wait for the vCPU");

	kill_vm(e, 0);
	TEST_ASSERT(__vcpu_run(e->g.vcpu) && errno == EIO, "the VM lives");
	pthread_join(mover, NULL);
	pthread_join(runner, NULL);
	TEST_ASSERT_EQ(r.err, state == KVM_MP_STATE_HALTED ? EIO : EAGAIN);
	TEST_ASSERT_EQ(m.err, err);
}

TEST_F(move, source_dies_with_a_halted_vcpu)
{
	move_while_sleeper_is_killed(&self->p, &self->p.src,
				     KVM_MP_STATE_HALTED, EINVAL);
}

TEST_F(move, source_dies_with_a_vcpu_that_was_not_started)
{
	move_while_sleeper_is_killed(&self->p, &self->p.src,
				     KVM_MP_STATE_UNINITIALIZED, EINVAL);
}

TEST_F(move, destination_dies_with_a_halted_vcpu)
{
	move_while_sleeper_is_killed(&self->p, &self->p.dst,
				     KVM_MP_STATE_HALTED, EIO);
}

/*
 * The source's vCPU is in the guest, the move waits for it, and other threads
 * wait to run it: none of them does so after the move.
 */
TEST_F(move, waiting_vcpus_never_run_again)
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

TEST_F(process, waiting_move_can_be_killed)
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
