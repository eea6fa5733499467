// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_SET_MEMORY_ATTRIBUTES: which requests are accepted, that the guest sees
 * exactly what a plain array of bits predicts, and that neither the time nor
 * the memory of a request grows out of hand with its size.
 */
#include "gmem_util.h"

#define NR_PAGES  512
#define TEST_SIZE (NR_PAGES * PAGE_SIZE)

/* A range larger than any slot, in guest physical space that has none */
#define HUGE_GPA  BIT_ULL(36)
#define HUGE_SIZE (64ull * SZ_1G)

static int __set_private(struct kvm_vm *vm, uint64_t gpa, uint64_t size)
{
	return __gmem_set_attributes(vm, gpa, size,
				     KVM_MEMORY_ATTRIBUTE_PRIVATE, 0);
}

/*
 * Every page holds a different word in its two halves; the guest reports which
 * it sees.
 */
struct model {
	struct gmem_vm g;
	bool private[NR_PAGES];
};

FIXTURE(model)
{
	struct gmem_usage usage;
	struct model m;
};

#define PRIVATE_WORD 0x5050505050505050ull
#define SHARED_WORD  0x5353535353535353ull

static uint64_t seen[NR_PAGES];

static void guest_look(void)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		seen[i] = READ_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE));
	GUEST_UCALL_NONE();
}

FIXTURE_SETUP(model)
{
	struct gmem_vm *g = &self->m.g;
	int i;

	gmem_usage_get(&self->usage);
	gmem_vm_create(g, TEST_SIZE);
	for (i = 0; i < NR_PAGES; i++) {
		self->m.private[i] = true;
		gmem_guest_fill(g, i * PAGE_SIZE, 8, PRIVATE_WORD + i);
		*(uint64_t *)(g->shared + i * PAGE_SIZE) = SHARED_WORD + i;
	}
}

FIXTURE_TEARDOWN(model)
{
	gmem_vm_free(&self->m.g);
	gmem_usage_check(&self->usage);
}

static void model_set(struct model *m, int start, int nr, bool private)
{
	uint64_t attr = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
	int i;

	vm_set_memory_attributes(m->g.vm, GMEM_GPA + start * PAGE_SIZE,
				 nr * PAGE_SIZE, attr);
	for (i = start; i < start + nr; i++)
		m->private[i] = private;
}

static void model_check(struct model *m)
{
	uint64_t expected;
	int i;

	TEST_ASSERT_EQ(__gmem_guest_run(&m->g, guest_look, 0, 0, 0, 0), 0);
	sync_global_from_guest(m->g.vm, seen);

	for (i = 0; i < NR_PAGES; i++) {
		expected = (m->private[i] ? PRIVATE_WORD : SHARED_WORD) + i;
		TEST_ASSERT(seen[i] == expected,
			    "page %d should be %s, the guest sees 0x%lx", i,
			    m->private[i] ? "private" : "shared", seen[i]);
	}
}

TEST_F(model, edges_of_a_range)
{
	model_set(&self->m, 0, NR_PAGES, false);
	model_check(&self->m);
	model_set(&self->m, 100, 10, true);
	model_check(&self->m);
	model_set(&self->m, 100, 1, false);
	model_set(&self->m, 109, 1, false);
	model_check(&self->m);
	model_set(&self->m, 110, 5, true);
	model_set(&self->m, 90, 11, true);
	model_check(&self->m);
	model_set(&self->m, 95, 15, false);
	model_check(&self->m);
	model_set(&self->m, 0, NR_PAGES, true);
	model_check(&self->m);
}

TEST_F(model, alternating_pages)
{
	int i;

	for (i = 0; i < NR_PAGES; i += 2)
		model_set(&self->m, i, 1, false);
	model_check(&self->m);
	for (i = 0; i < NR_PAGES; i++)
		model_set(&self->m, i, 1, !self->m.private[i]);
	model_check(&self->m);
	for (i = 0; i < NR_PAGES; i += 2)
		model_set(&self->m, i, 1, false);
	model_check(&self->m);
}

/* A request may replace many ranges, and begin and end in the midst of some. */
TEST_F(model, many_ranges_become_one)
{
	static const struct {
		int start, end;
	} requests[] = {
		{ 0, NR_PAGES }, { 1, NR_PAGES - 1 }, { 2, NR_PAGES - 2 },
		{ 128, NR_PAGES }, { 0, 300 },
	};
	int i, j;

	for (i = 0; i < 2 * ARRAY_SIZE(requests); i++) {
		for (j = 0; j < NR_PAGES; j++)
			model_set(&self->m, j, 1, j % 2);
		model_set(&self->m, requests[i / 2].start,
			  requests[i / 2].end - requests[i / 2].start, i % 2);
		model_check(&self->m);
	}
}

TEST_F(model, random_ranges)
{
	struct guest_random_state rng = new_guest_random_state(0x676d656d);
	int i, j, start, nr;

	for (i = 0; i < 200; i++) {
		for (j = 0; j < 8; j++) {
			start = guest_random_u32(&rng) % NR_PAGES;
			/* Short ranges prevail. */
			nr = 1 + guest_random_u32(&rng) %
				 (1 << guest_random_u32(&rng) % 10);
			model_set(&self->m, start, min(nr, NR_PAGES - start),
				  guest_random_bool(&rng));
		}
		model_check(&self->m);
	}
}

TEST_F(model, outlives_the_slot)
{
	struct gmem_vm *g = &self->m.g;

	model_set(&self->m, 7, 100, false);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	model_set(&self->m, 50, 200, true);
	model_set(&self->m, 300, 3, false);
	gmem_vm_bind(g);
	model_check(&self->m);
}

TEST_F(model, refused_request_changes_nothing)
{
	const struct {
		uint64_t gpa, size, attributes, flags;
	} bad[] = {
		{ GMEM_GPA, 0, 0, 0 },
		{ GMEM_GPA + 1, PAGE_SIZE, 0, 0 },
		{ GMEM_GPA, PAGE_SIZE + 1, 0, 0 },
		{ GMEM_GPA, PAGE_SIZE / 2, 0, 0 },
		{ GMEM_GPA, -GMEM_GPA, 0, 1 },
		{ GMEM_GPA, -PAGE_SIZE, 0, 0 },
		{ -PAGE_SIZE, PAGE_SIZE * 2, 0, 0 },
		{ GMEM_GPA, PAGE_SIZE, 0, 1 },
		{ GMEM_GPA, PAGE_SIZE, 0, BIT_ULL(63) },
	};
	struct kvm_vm *vm = self->m.g.vm;
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(EINVAL, __gmem_set_attributes(vm, bad[i].gpa,
							bad[i].size,
							bad[i].attributes,
							bad[i].flags))
			TH_LOG("request %d of the list", i);
	}
	for (i = 0; i < 64; i++) {
		if (BIT_ULL(i) == KVM_MEMORY_ATTRIBUTE_PRIVATE)
			continue;
		EXPECT_EQ(EINVAL, __gmem_set_attributes(vm, GMEM_GPA, TEST_SIZE,
							BIT_ULL(i), 0))
			TH_LOG("attribute bit %d", i);
	}
	EXPECT_ERRNO(EFAULT, __vm_ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES,
					(struct kvm_memory_attributes *)8));
	model_check(&self->m);
}

TEST_F(model, vm_without_private_memory_has_no_attributes)
{
	struct kvm_vm *vm = vm_create_barebones();

	EXPECT_EQ(0, vm_check_cap(vm, KVM_CAP_MEMORY_ATTRIBUTES));
	EXPECT_EQ(KVM_MEMORY_ATTRIBUTE_PRIVATE,
		  vm_check_cap(self->m.g.vm, KVM_CAP_MEMORY_ATTRIBUTES));
	EXPECT_EQ(EINVAL, __set_private(vm, GMEM_GPA, TEST_SIZE));
	kvm_vm_free(vm);
}

FIXTURE(scale)
{
	struct gmem_usage usage;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(scale)
{
	gmem_usage_get(&self->usage);
	self->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
}

FIXTURE_TEARDOWN(scale)
{
	kvm_vm_free(self->vm);
	gmem_usage_check(&self->usage);
}

/* The child's VM is its own: KVM ties a VM to the process that made it. */
static void set_huge_range_in_child(int ready)
{
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);

	close(ready);
	for (;;) {
		__set_private(vm, HUGE_GPA, HUGE_SIZE);
		__gmem_set_attributes(vm, HUGE_GPA, HUGE_SIZE, 0, 0);
	}
}

TEST_F(scale, huge_request_can_be_killed)
{
	int pipefd[2];
	uint64_t killed;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(pipefd));
	pid = gmem_fork();
	if (!pid) {
		close(pipefd[0]);
		set_huge_range_in_child(pipefd[1]);
	}
	close(pipefd[1]);
	ASSERT_EQ(0, read(pipefd[0], &c, 1));
	usleep(200000);
	killed = gmem_now_ms();
	gmem_kill(pid);
	EXPECT_GT(1000, gmem_now_ms() - killed);
	close(pipefd[0]);
}

TEST_F(scale, memory_does_not_grow_with_the_range)
{
	long before, after;

	before = gmem_read_long("/proc/meminfo", "Slab:");
	ASSERT_EQ(0, __set_private(self->vm, HUGE_GPA, HUGE_SIZE));
	after = gmem_read_long("/proc/meminfo", "Slab:");
	EXPECT_GT(4096, after - before)
		TH_LOG("64 GiB of attributes took %ld KiB", after - before);
}

TEST_F(scale, time_does_not_grow_with_the_range)
{
	uint64_t start = gmem_now_ms();

	ASSERT_EQ(0, __set_private(self->vm, HUGE_GPA, HUGE_SIZE));
	ASSERT_EQ(0, __gmem_set_attributes(self->vm, HUGE_GPA, HUGE_SIZE, 0,
					   0));
	/* A store of single pages must fail here, not go on for hours below. */
	ASSERT_GT(1000, gmem_now_ms() - start);

	start = gmem_now_ms();
	ASSERT_EQ(0, __set_private(self->vm, 0, -PAGE_SIZE));
	ASSERT_EQ(0, __gmem_set_attributes(self->vm, SZ_2G, BIT_ULL(50), 0,
					   0));
	EXPECT_GT(1000, gmem_now_ms() - start);
}

/*
 * Ranges by the thousand, however they came about, make way for one, and what
 * they were kept in is freed.
 */
TEST_F(scale, many_ranges_become_one)
{
	static const int numbers[] = { 300, 1000, 3000 };
	/* Ascending; descending; as good as random */
	static const long strides[] = { 1, -1, 7919 };
	uint64_t page;
	int i, j, k, nr;

	for (i = 0; i < ARRAY_SIZE(numbers) * ARRAY_SIZE(strides); i++) {
		nr = numbers[i / ARRAY_SIZE(strides)];
		k = i % ARRAY_SIZE(strides);
		for (j = 0; j < nr; j++) {
			page = (nr + (j + 1) * strides[k]) % nr;
			ASSERT_EQ(0, __set_private(self->vm, 2 * page * PAGE_SIZE,
						   PAGE_SIZE));
		}
		TH_LOG("%d ranges", nr);
		ASSERT_EQ(0, __gmem_set_attributes(self->vm, 0,
						   2 * nr * PAGE_SIZE,
						   i % 2 ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
						   0));
		ASSERT_EQ(0, __gmem_set_attributes(self->vm, 0,
						   2 * nr * PAGE_SIZE, 0, 0));
		/* It is freed a little later. */
		usleep(100000);
	}
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
