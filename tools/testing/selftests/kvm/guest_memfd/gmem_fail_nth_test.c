// SPDX-License-Identifier: GPL-2.0
/*
 * Error paths: whatever can fail in an operation does, one after the other.
 *
 * An operation that succeeds is done again and again, while the first, second,
 * third ... allocation or fault point in it fails, until there is none.  Each
 * time the error must be a proper one, all that was there before as it was, the
 * same operation must succeed right after, and nothing may be left of either in
 * the end.
 */
#include <sys/uio.h>

#include "gmem_fail_util.h"
#include "gmem_mmap_util.h"
#include "gmem_poison_util.h"

/* Another VM, for operations that take one each time */
#define NR_OTHER   8
#define OTHER_SIZE (NR_OTHER * PAGE_SIZE)
#define WORD	   0x600d

/* Another memory slot */
#define SLOT	  (GMEM_SLOT + 1)
#define SLOT_GPA  (GMEM_GPA + SZ_1G)
#define FILE_SIZE SZ_8M

#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE

/*
 * What tests begin with
 */

static void write_by_host(struct gmem_vm *g, long first, long nr)
{
	long i;

	for (i = first; i < first + nr; i++)
		WRITE_ONCE(*(uint64_t *)(g->shared + i * PAGE_SIZE),
			   GMEM_WORD + i);
}

static void set_private(struct gmem_vm *g, long first, long nr, bool private)
{
	vm_set_memory_attributes(g->vm, GMEM_GPA + first * PAGE_SIZE,
				 nr * PAGE_SIZE, private ? PRIVATE : 0);
}

FIXTURE(private)
{
	struct subject s;
};

FIXTURE_SETUP(private)
{
	struct subject *s = &self->s;

	subject_begin(s);
	gmem_vm_create(&s->g, TEST_SIZE);
	s->vm = s->g.vm;
	set_private(&s->g, NR_GUESTS, FREE - NR_GUESTS, false);
	write_by_host(&s->g, NR_GUESTS, NR - NR_GUESTS);
	gmem_write_pages(&s->g, 0, NR_GUESTS);
	s->pages = NR_GUESTS;
}

FIXTURE_TEARDOWN(private)
{
	subject_end(&self->s);
}

FIXTURE(plain)
{
	struct subject s;
};

FIXTURE_SETUP(plain)
{
	struct subject *s = &self->s;

	subject_begin(s);
	gmem_plain_create(&s->g, TEST_SIZE);
	s->vm = s->g.vm;
	write_by_host(&s->g, 0, FREE);
	gmem_check_pages(&s->g, 0, FREE, false);
	s->pages = FREE;
}

FIXTURE_TEARDOWN(plain)
{
	subject_end(&self->s);
}

/*
 * VMs
 */

/* All that is left of a VM are a descriptor of it and one of its memory. */
static void prepare_last_reference(struct subject *s)
{
	struct gmem_vm *g = &s->other;

	gmem_vm_create(g, OTHER_SIZE);
	gmem_guest_fill(g, 0, OTHER_SIZE, WORD);
	s->fd = dup(g->vm->fd);
	s->file = g->fd;
	gmem_free_dead_vm(g->vm);
	munmap(g->shared, g->size);
}

static int close_vm(struct subject *s)
{
	return close(s->fd) ? errno : 0;
}

/* The memory is there, and its contents are for whom it is linked to. */
static void check_orphan(struct subject *s, int err)
{
	gmem_model_settle(s->pages + NR_OTHER);
	s->fd = gmem_link(s->vm, s->file, 0);
	gmem_set_slot(s->vm, SLOT, KVM_MEM_GUEST_MEMFD, SLOT_GPA, OTHER_SIZE,
		      s->mem, s->fd, 0);
	gmem_guest_expect(&s->g, SLOT_GPA - GMEM_GPA, OTHER_SIZE, WORD);
	gmem_delete_slot(s->vm, SLOT);
	close(s->fd);
}

static void close_file(struct subject *s)
{
	close(s->file);
}

TEST_F(private, destroy_vm)
{
	struct subject *s = &self->s;

	s->mem = gmem_mmap(OTHER_SIZE);
	virt_map(s->vm, SLOT_GPA, SLOT_GPA, NR_OTHER);
	vm_mem_set_private(s->vm, SLOT_GPA, OTHER_SIZE);
	SWEEP(s, .set_up = prepare_last_reference, .run = close_vm,
	      .check = check_orphan, .clean_up = close_file, .never = true);
	munmap(s->mem, OTHER_SIZE);
}

/*
 * Files
 */

static void close_fd(struct subject *s)
{
	close(s->fd);
}

static int create_file(struct subject *s)
{
	s->fd = __vm_create_guest_memfd(s->vm, TEST_SIZE, s->flags);
	return s->fd < 0 ? errno : 0;
}

static void check_file(struct subject *s, int err)
{
	if (!err)
		gmem_allocate(s->fd, 0, PAGE_SIZE);
}

static void sweep_create(struct subject *s, uint64_t flags,
			 struct __test_metadata *_metadata)
{
	s->flags = flags;
	/* An inode, a directory entry, a file and a view at least */
	SWEEP(s, .run = create_file, .check = check_file, .clean_up = close_fd,
	      .min = 4);
}

/* The filesystem comes and goes with the file. */
static void sweep_create_first(struct subject *s, unsigned long type,
			       uint64_t flags,
			       struct __test_metadata *_metadata)
{
	gmem_vm_free(&s->g);
	s->pages = 0;
	s->vm = vm_create_barebones_type(type);
	sweep_create(s, flags, _metadata);
	kvm_vm_free(s->vm);
}

TEST_F(private, create_first_file)
{
	sweep_create_first(&self->s, KVM_X86_SW_PROTECTED_VM, 0, _metadata);
}

TEST_F(plain, create_first_file)
{
	sweep_create_first(&self->s, VM_TYPE_DEFAULT, GMEM_BOTH, _metadata);
}

TEST_F(private, create_file)
{
	sweep_create(&self->s, GMEM_MMAP, _metadata);
}

TEST_F(plain, create_file)
{
	sweep_create(&self->s, GMEM_BOTH, _metadata);
}

/*
 * Links
 */

static int link_file(struct subject *s)
{
	return __gmem_link(s->vm, s->file, s->flags, &s->fd);
}

static void check_link(struct subject *s, int err)
{
	if (err)
		return;

	TEST_ASSERT_EQ(__gmem_allocate(s->fd, AT, PAGE_SIZE), s->err);
	gmem_punch(s->file, AT, PAGE_SIZE);
}

static void sweep_link(struct subject *s, uint64_t flags, int allocate_err,
		       struct __test_metadata *_metadata)
{
	s->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	s->file = s->g.fd;
	s->flags = flags;
	s->err = allocate_err;
	/* A directory entry, a file and a view at least */
	SWEEP(s, .run = link_file, .check = check_link, .clean_up = close_fd,
	      .min = 3);
	kvm_vm_free(s->vm);
}

TEST_F(private, link_for_a_handover)
{
	sweep_link(&self->s, 0, EPERM, _metadata);
}

TEST_F(private, link_to_share)
{
	sweep_link(&self->s, KVM_LINK_GUEST_MEMFD_SHARE, 0, _metadata);
}

TEST_F(private, link_to_share_without_rights)
{
	sweep_link(&self->s, KVM_LINK_GUEST_MEMFD_SHARE |
			     KVM_LINK_GUEST_MEMFD_READONLY, EPERM, _metadata);
}

TEST_F(private, link_memory_of_a_dead_vm)
{
	struct subject *s = &self->s;

	s->g.fd = gmem_vm_free_keep_fd(&s->g);
	sweep_link(s, 0, 0, _metadata);
	close(s->g.fd);
}

/*
 * Memory slots
 */

static int bind_slot(struct subject *s)
{
	return __gmem_set_slot(s->vm, SLOT, KVM_MEM_GUEST_MEMFD, s->gpa,
			       s->size, s->mem, s->file, s->offset);
}

static int delete_slot(struct subject *s)
{
	return __gmem_set_slot(s->vm, SLOT, 0, 0, 0, NULL, -1, 0);
}

/* Private memory that no slot has is for userspace to see to. */
static void expect_slot(struct subject *s, bool there)
{
	TEST_ASSERT_EQ(__gmem_pre_fault(s->g.vcpu,
					s->gpa + s->size - PAGE_SIZE, PAGE_SIZE,
					0, NULL),
		       there ? 0 : EFAULT);
}

static void check_bound(struct subject *s, int err)
{
	expect_slot(s, !err);
	gmem_model_settle(s->pages + !err);
}

static void unbind_slot(struct subject *s)
{
	gmem_delete_slot(s->vm, SLOT);
	gmem_punch(s->file, 0, FILE_SIZE);
}

static void bind_and_use_slot(struct subject *s)
{
	TEST_ASSERT_EQ(bind_slot(s), 0);
	expect_slot(s, true);
	s->extra = 1;
}

static void check_deleted(struct subject *s, int err)
{
	expect_slot(s, err);
}

static void empty_file(struct subject *s)
{
	gmem_punch(s->file, 0, FILE_SIZE);
	s->extra = 0;
}

static void prepare_slot(struct subject *s, bool aligned)
{
	s->file = vm_create_guest_memfd(s->vm, FILE_SIZE, 0);
	s->gpa = SLOT_GPA + (aligned ? 0 : 3 * PAGE_SIZE);
	s->size = aligned ? SZ_4M : SZ_2M + 5 * PAGE_SIZE;
	s->offset = aligned ? SZ_2M : 7 * PAGE_SIZE;
	s->mem = gmem_mmap(s->size);
	vm_mem_set_private(s->vm, s->gpa, s->size);
}

static void forget_slot(struct subject *s)
{
	close(s->file);
	munmap(s->mem, s->size);
}

/* The slot itself, its arch metadata, and the binding's fault point */
#define CREATE_SLOT .run = bind_slot, .check = check_bound,		\
		    .clean_up = unbind_slot, .min = 3

TEST_F(private, create_slot)
{
	prepare_slot(&self->s, true);
	SWEEP(&self->s, CREATE_SLOT);
	forget_slot(&self->s);
}

TEST_F(private, create_slot_at_odd_offsets)
{
	prepare_slot(&self->s, false);
	SWEEP(&self->s, CREATE_SLOT);
	forget_slot(&self->s);
}

TEST_F(private, delete_slot)
{
	prepare_slot(&self->s, true);
	SWEEP(&self->s, .set_up = bind_and_use_slot, .run = delete_slot,
	      .check = check_deleted, .clean_up = empty_file, .min = 1);
	forget_slot(&self->s);
}

/* A file with pages that are a guest's, and that no slot has any more */
static void create_used_file(struct subject *s)
{
	s->file = vm_create_guest_memfd(s->vm, FILE_SIZE, 0);
	bind_and_use_slot(s);
	gmem_delete_slot(s->vm, SLOT);
	gmem_model_settle(s->pages + 1);
	s->extra = 0;
}

static int close_last_fd(struct subject *s)
{
	return close(s->file) ? errno : 0;
}

TEST_F(private, close_file)
{
	struct subject *s = &self->s;

	prepare_slot(s, true);
	close(s->file);
	SWEEP(s, .set_up = create_used_file, .run = close_last_fd,
	      .never = true);
	munmap(s->mem, s->size);
}

/*
 * Attributes
 */

static int set_attributes(struct subject *s)
{
	return __gmem_set_attributes(s->vm, s->gpa, s->size, s->flags, 0);
}

/* What the guest finds in page i tells whether it is private: bit i of @halves */
static void guest_check_halves(uint64_t first, uint64_t nr, uint64_t halves)
{
	uint64_t i, word;

	for (i = 0; i < nr; i++) {
		word = READ_ONCE(*(uint64_t *)(GMEM_GPA +
					       (first + i) * PAGE_SIZE));
		__GUEST_ASSERT(word == (halves & BIT_ULL(i) ? 0 :
					GMEM_WORD + first + i),
			       "page %lu holds 0x%lx", first + i, word);
	}
	GUEST_UCALL_NONE();
}

static void expect_private(struct gmem_vm *g, long first, long nr,
			   uint64_t halves)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, guest_check_halves, first, nr,
					halves, 0), 0);
	gmem_punch(g->fd, first * PAGE_SIZE, nr * PAGE_SIZE);
}

/* The pages that the guest looks at, and the one that changes */
#define NR_SEEN	16
#define MIDDLE	7
#define ALL	(BIT_ULL(NR_SEEN) - 1)

static void check_attributes(struct subject *s, int err)
{
	expect_private(&s->g, FREE, NR_SEEN, err ? s->before : s->after);
}

static void restore_attributes(struct subject *s)
{
	set_private(&s->g, 0, NR_GUESTS, true);
	set_private(&s->g, FREE, NR_FREE, true);
}

static void share_middle_page(struct subject *s)
{
	set_private(&s->g, FREE + MIDDLE, 1, false);
}

static void set_middle_page(struct subject *s, bool private)
{
	s->gpa = GMEM_GPA + AT + MIDDLE * PAGE_SIZE;
	s->size = PAGE_SIZE;
	s->flags = private ? PRIVATE : 0;
	s->before = private ? ALL & ~BIT_ULL(MIDDLE) : ALL;
	s->after = private ? ALL : ALL & ~BIT_ULL(MIDDLE);
}

TEST_F(private, split_range_of_attributes)
{
	set_middle_page(&self->s, false);
	SWEEP(&self->s, .run = set_attributes, .check = check_attributes,
	      .clean_up = restore_attributes, .min = 1);
}

TEST_F(private, join_ranges_of_attributes)
{
	set_middle_page(&self->s, true);
	SWEEP(&self->s, .set_up = share_middle_page, .run = set_attributes,
	      .check = check_attributes, .clean_up = restore_attributes,
	      .min = 1);
}

TEST_F(private, clear_all_attributes)
{
	struct subject *s = &self->s;

	s->gpa = 0;
	s->size = -PAGE_SIZE;
	s->before = ALL;
	SWEEP(s, .run = set_attributes, .check = check_attributes,
	      .clean_up = restore_attributes, .min = 1);
}

static void clear_rest_of_attributes(struct subject *s)
{
	vm_mem_set_shared(s->vm, s->gpa, s->size);
}

TEST_F(private, set_all_attributes)
{
	struct subject *s = &self->s;

	/* But not where there are the guest's code and page tables */
	s->gpa = GMEM_GPA + TEST_SIZE;
	s->size = -s->gpa - PAGE_SIZE;
	s->flags = PRIVATE;
	s->before = ALL;
	s->after = ALL;
	SWEEP(s, .run = set_attributes, .check = check_attributes,
	      .clean_up = clear_rest_of_attributes, .min = 1);
}

/* A VM that has no attributes yet */
static void create_shared_vm(struct subject *s)
{
	struct gmem_vm *g = &s->other;

	gmem_vm_create_empty(g, TEST_SIZE);
	g->fd = vm_create_guest_memfd(g->vm, TEST_SIZE, 0);
	gmem_vm_bind(g);
	write_by_host(g, FREE, NR_SEEN);
	s->vm = g->vm;
}

static void check_first_attributes(struct subject *s, int err)
{
	expect_private(&s->other, FREE, NR_SEEN, err ? 0 : BIT_ULL(MIDDLE));
}

static void free_other(struct subject *s)
{
	gmem_vm_free(&s->other);
	s->extra = 0;
}

TEST_F(private, set_first_attributes)
{
	set_middle_page(&self->s, true);
	/* The tree, and a node of it */
	SWEEP(&self->s, .set_up = create_shared_vm, .run = set_attributes,
	      .check = check_first_attributes, .clean_up = free_other,
	      .min = 2);
}

/*
 * Every other page is of the other kind, so that the tree must grow, or shrink.
 * The guest looks at the page and its neighbours.
 */

static void prepare_page(struct subject *s)
{
	set_private(&s->g, s->page, 1, !s->flags);
	s->gpa = GMEM_GPA + s->page * PAGE_SIZE;
	s->size = PAGE_SIZE;
}

static void check_page_attributes(struct subject *s, int err)
{
	expect_private(&s->g, s->page - 1, 3, err ? s->before : s->after);
}

static long sweep_page(struct subject *s, long page, bool private)
{
	s->page = page;
	s->flags = private ? PRIVATE : 0;
	s->before = private ? 0 : 7;
	s->after = private ? 2 : 5;
	return do_sweep(s, &(struct operation){
		.set_up = prepare_page, .run = set_attributes,
		.check = check_page_attributes,
	}).by_memory;
}

static void sweep_every_other_page(struct subject *s, bool private,
				   struct __test_metadata *_metadata)
{
	long page, failed = 0;

	set_private(&s->g, FREE, NR_FREE, !private);
	for (page = FREE + 1; page < NR - 1; page += 2)
		failed += sweep_page(s, page, private);

	expect_private(&s->g, FREE, 64, 0x5555555555555555ull << private);
	TH_LOG("%d changes: %ld failed for memory", NR_FREE / 2 - 1, failed);
	/* At least one for each node that was added */
	EXPECT_LT(NR_FREE / 2 / 16, failed);
}

TEST_F(private, set_attributes_of_every_other_page)
{
	sweep_every_other_page(&self->s, true, _metadata);
}

TEST_F(private, clear_attributes_of_every_other_page)
{
	sweep_every_other_page(&self->s, false, _metadata);
}

/*
 * Faults.  Each round has a VM of its own, as what is there is not allocated
 * again.  What the guest needs to come to its memory is mapped.
 */

static void start_reading(struct gmem_vm *g)
{
	gmem_guest_fill(g, 0, 0, 0);
	gmem_guest_start(g, gmem_guest_do_skip, GMEM_GPA, PAGE_SIZE, 0, 0);
}

static void create_private_vm(struct subject *s)
{
	gmem_vm_create(&s->other, OTHER_SIZE);
	start_reading(&s->other);
}

static void create_plain_vm(struct subject *s)
{
	gmem_plain_create(&s->other, OTHER_SIZE);
	start_reading(&s->other);
}

static int run_guest(struct subject *s)
{
	return __vcpu_run(s->other.vcpu) ? errno : 0;
}

static void check_fault(struct subject *s, int err)
{
	struct gmem_vm *g = &s->other;

	if (err == EPERM && g->vm->type == VM_TYPE_DEFAULT)
		gmem_expect_plain_fault(g, 0);
	else if (err == EPERM)
		gmem_expect_memory_fault(g, 0);
	if (err)
		return;

	vcpu_run_complete_io(g->vcpu);
	sync_global_from_guest(g->vm, gmem_guest_skipped);
	TEST_ASSERT_EQ(gmem_guest_skipped, PAGE_SIZE);
	gmem_model_settle(s->pages + 1);
}

static void sweep_fault(struct subject *s,
			void (*set_up)(struct subject *s),
			struct __test_metadata *_metadata)
{
	struct gmem_sweep sweep;

	/* A page, its fault point, and the model's, which is the other error */
	sweep = SWEEP(s, .set_up = set_up, .run = run_guest,
		      .check = check_fault, .clean_up = free_other,
		      .other_err = EPERM, .min = 2);
	EXPECT_EQ(1, sweep.by_hook);
}

TEST_F(private, fault)
{
	sweep_fault(&self->s, create_private_vm, _metadata);
}

TEST_F(plain, fault)
{
	sweep_fault(&self->s, create_plain_vm, _metadata);
}

#define NR_PARTS 2

static int pre_fault(struct subject *s)
{
	const uint64_t size = NR_PARTS * PAGE_SIZE;
	uint64_t left;
	int err = __gmem_pre_fault(s->other.vcpu, GMEM_GPA, size, 0, &left);

	s->page = (size - left) / PAGE_SIZE;
	return !err && left ? ERANGE : err;
}

static void check_pre_fault(struct subject *s, int err)
{
	gmem_model_settle(s->pages + s->page);
	if (err)
		gmem_punch(s->other.fd, 0, OTHER_SIZE);
	else
		gmem_guest_expect(&s->other, 0, NR_PARTS * PAGE_SIZE, 0);
}

TEST_F(private, pre_fault)
{
	struct gmem_sweep sweep;

	sweep = SWEEP(&self->s, .set_up = create_private_vm, .run = pre_fault,
		      .check = check_pre_fault, .clean_up = free_other,
		      .other_err = EPERM, .min = 2);
	EXPECT_LE(NR_PARTS - 1, sweep.partly);
}

static int populate(struct subject *s)
{
	return __gmem_populate(&s->g, AT, NR_PARTS, s->mem + AT, -1);
}

/* What was not populated is as good as never written. */
static void check_populated(struct subject *s, int err)
{
	gmem_check_pages(&s->g, FREE, 1, err && err != ERANGE);
	if (!err)
		gmem_check_pages(&s->g, FREE, NR_PARTS, false);
	gmem_punch(s->g.fd, AT, NR_PARTS * PAGE_SIZE);
}

TEST_F(private, populate)
{
	struct gmem_sweep sweep;

	self->s.mem = gmem_create_source(NR);
	sweep = SWEEP(&self->s, .run = populate, .check = check_populated,
		      .min = 1);
	EXPECT_LE(NR_PARTS - 1, sweep.partly);
	munmap(self->s.mem, NR * PAGE_SIZE);
}

/*
 * fallocate()
 */

#define NR_ALLOCATE 16

static int allocate(struct subject *s)
{
	return __gmem_allocate(s->g.fd, AT, NR_ALLOCATE * PAGE_SIZE);
}

static int punch(struct subject *s)
{
	return __gmem_punch(s->g.fd, AT, NR_ALLOCATE * PAGE_SIZE);
}

static void use_pages(struct subject *s)
{
	gmem_write_pages(&s->g, FREE, NR_ALLOCATE);
}

static void check_no_contents(struct subject *s, int err)
{
	gmem_guest_expect(&s->g, AT, NR_ALLOCATE * PAGE_SIZE, 0);
	TEST_ASSERT_EQ(punch(s), 0);
}

TEST_F(private, allocate)
{
	SWEEP(&self->s, .run = allocate, .check = check_no_contents,
	      .min = NR_ALLOCATE);
}

TEST_F(plain, allocate)
{
	SWEEP(&self->s, .run = allocate, .check = check_no_contents,
	      .min = NR_ALLOCATE);
}

#define PUNCH .set_up = use_pages, .run = punch,				\
	      .check = check_no_contents, .never = true

TEST_F(private, punch)
{
	SWEEP(&self->s, PUNCH);
}

TEST_F(plain, punch)
{
	SWEEP(&self->s, PUNCH);
}

/*
 * Host mappings
 */

static int map_file(struct subject *s)
{
	s->mem = mmap(NULL, TEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      s->g.fd, 0);
	return s->mem == MAP_FAILED ? errno : 0;
}

static void check_map(struct subject *s, int err)
{
	if (!err)
		TEST_ASSERT_EQ(*(uint64_t *)s->mem, GMEM_WORD);
}

static void unmap_file(struct subject *s)
{
	munmap(s->mem, TEST_SIZE);
	TEST_ASSERT_EQ(punch(s), 0);
}

static void set_up_map(struct subject *s)
{
	TEST_ASSERT_EQ(map_file(s), 0);
}

/* Both sides use one page, whoever came first. */
static void check_touched(struct subject *s, int err)
{
	gmem_write_pages(&s->g, FREE, NR_PARTS);
	TEST_ASSERT_EQ(*(uint64_t *)(s->mem + AT), GMEM_WORD + FREE);
	TEST_ASSERT_EQ(punch(s), 0);
}

static int populate_map(struct subject *s)
{
	return madvise(s->mem + AT, NR_PARTS * PAGE_SIZE, MADV_POPULATE_WRITE) ?
	       errno : 0;
}

/* By way of get_user_pages().  Its errno is EFAULT whatever the reason. */
static int read_map(struct subject *s)
{
	struct iovec local = { &s->err, sizeof(s->err) };
	struct iovec remote = { s->mem + AT, sizeof(s->err) };

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) < 0 ?
	       errno : 0;
}

/* The kernel tries again until it can. */
static int touch_map(struct subject *s)
{
	return gmem_try_write(s->mem + AT, 1) ? EFAULT : 0;
}

#define TOUCH_MAP .set_up = set_up_map, .check = check_touched,		\
		  .clean_up = unmap_file

TEST_F(plain, map)
{
	SWEEP(&self->s, .run = map_file, .check = check_map,
	      .clean_up = unmap_file, .min = 1);
}

TEST_F(plain, populate_map)
{
	/* After the first page, what has failed is tried again. */
	SWEEP(&self->s, TOUCH_MAP, .run = populate_map, .min = 2);
}

TEST_F(plain, read_map)
{
	struct gmem_sweep sweep;

	sweep = SWEEP(&self->s, TOUCH_MAP, .run = read_map,
		      .other_err = EFAULT);
	EXPECT_LE(2, sweep.by_hook);
}

TEST_F(plain, touch_map)
{
	SWEEP(&self->s, TOUCH_MAP, .run = touch_map, .never = true);
}

static int set_policy(struct subject *s)
{
	const int bind = 2; /* MPOL_BIND */
	unsigned long node0 = 1;

	return syscall(SYS_mbind, s->mem + AT, NR_PARTS * PAGE_SIZE, bind,
		       &node0, 8, 0) ? errno : 0;
}

TEST_F(plain, set_policy)
{
	struct subject *s = &self->s;
	int err;

	set_up_map(s);
	err = set_policy(s);
	unmap_file(s);
	if (err == EOPNOTSUPP)
		SKIP(return, "no memory policies");

	/* Each time in a file that has none */
	SWEEP(s, TOUCH_MAP, .run = set_policy, .min = 2);
}

/*
 * Memory failure
 */

static void touch_frame(struct subject *s)
{
	set_up_map(s);
	gmem_write_pages(&s->g, FREE, NR_PARTS);
	TEST_ASSERT_EQ(*(uint64_t *)(s->mem + AT), GMEM_WORD + FREE);
	note_poisoned(mapped_pfn(s->mem + AT));
}

static int break_frame(struct subject *s)
{
	gmem_try_madvise(s->mem + AT, PAGE_SIZE, MADV_HWPOISON);
	return errno;
}

static void check_broken(struct subject *s, int err)
{
	if (err)
		return;

	TEST_ASSERT_EQ(__gmem_guest_read(&s->g, AT), EHWPOISON);
	gmem_expect_plain_fault(&s->g, AT);
	gmem_check_pages(&s->g, FREE + 1, NR_PARTS - 1, false);
}

static void mend_frame(struct subject *s)
{
	unmap_file(s);
	gmem_guest_expect(&s->g, AT, PAGE_SIZE, 0);
	TEST_ASSERT_EQ(punch(s), 0);
	unpoison_all();
}

TEST_F(plain, memory_failure)
{
	if (!can_poison())
		SKIP(return, "load hwpoison-inject, mount tracefs");

	SWEEP(&self->s, .set_up = touch_frame, .run = break_frame,
	      .check = check_broken, .clean_up = mend_frame);
}

/*
 * Moves
 */

static void create_pair(struct subject *s)
{
	struct gmem_vm *src = &s->other;

	gmem_vm_create(src, OTHER_SIZE);
	gmem_write_pages(src, 0, NR_OTHER);
	gmem_vm_create_linked(&s->dst, OTHER_SIZE, src->fd, 0);
	s->extra = NR_OTHER;
	s->page = gmem_find_owner(false).number;
	s->moved = gmem_transition("moved");
}

static int move(struct subject *s)
{
	return __gmem_move(s->dst.vm, s->other.vm->fd);
}

static void check_moved(struct subject *s, int err)
{
	TEST_ASSERT_EQ(gmem_vm_is_dead(s->other.vm), !err);
	gmem_check_pages(err ? &s->other : &s->dst, 0, NR_OTHER, false);
	TEST_ASSERT_EQ(gmem_find_owner(false).number, s->page);
	TEST_ASSERT_EQ(gmem_transition("moved") - s->moved, !err);
}

static void free_pair(struct subject *s)
{
	gmem_vm_free(&s->dst);
	free_other(s);
}

TEST_F(private, move)
{
	struct gmem_sweep sweep;

	/* One owner is the one that moves. */
	gmem_vm_free(&self->s.g);
	self->s.pages = 0;
	sweep = SWEEP(&self->s, .set_up = create_pair, .run = move,
		      .check = check_moved, .clean_up = free_pair,
		      .other_err = EIO);
	EXPECT_EQ(1, sweep.by_hook);
}

/*
 * Fault points, without fail-nth
 */

TEST_F(private, page_that_cannot_be_had)
{
	struct gmem_vm *g = &self->s.g;

	gmem_fault_on("grab", 5, 1);
	EXPECT_EQ(ENOMEM, __gmem_allocate(g->fd, AT, 8 * PAGE_SIZE));
	EXPECT_EQ(0, __gmem_allocate(g->fd, AT, 8 * PAGE_SIZE));
	gmem_fault_on("grab", 0, 1);
	EXPECT_EQ(ENOMEM, __gmem_guest_read(g, AT));
	EXPECT_EQ(0, __gmem_guest_read(g, AT));
}

TEST_F(private, slot_that_cannot_be_bound)
{
	prepare_slot(&self->s, true);
	gmem_fault_on("bind", 0, 1);
	EXPECT_EQ(ENOMEM, bind_slot(&self->s));
	EXPECT_EQ(0, bind_slot(&self->s));
	unbind_slot(&self->s);
	forget_slot(&self->s);
}

int main(int argc, char *argv[])
{
	gmem_require_model();
	gmem_require_mmap();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM));
	__TEST_REQUIRE(gmem_has_fault_points(),
		       "needs a kernel with fault injection");
	return test_harness_run(argc, argv);
}
