// SPDX-License-Identifier: GPL-2.0
/*
 * What the guest writes to private memory cannot be read by the host: not
 * through the descriptor, not through the slot's shared half, and it is nowhere
 * in the address space of the VMM.
 */
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "gmem_util.h"

#define TEST_SIZE SZ_4M

/*
 * The guest's secret is a function of a seed, so that the host can look for it
 * without holding it in memory itself.
 */
#define SECRET(seed) ((seed) * 0x9e3779b97f4a7c15ull)

/* This many equal words in a row are a secret, not a spilled register. */
#define RUN_LENGTH 8

FIXTURE(secret)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(secret)
{
	gmem_usage_get(&self->usage);
	gmem_vm_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(secret)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

static void guest_write_secret(uint64_t gpa, uint64_t size, uint64_t seed)
{
	uint64_t *p = (void *)gpa;

	for (; p < (uint64_t *)(gpa + size); p++)
		WRITE_ONCE(*p, SECRET(seed));
	GUEST_UCALL_NONE();
}

static void write_secret(struct gmem_vm *g, uint64_t offset, uint64_t size,
			 uint64_t seed)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, guest_write_secret, GMEM_GPA + offset,
					size, seed, 0), 0);
}

static long count_runs(const uint64_t *word, size_t nr, uint64_t seed)
{
	long found = 0;
	int run = 0;

	for (; nr; nr--, word++) {
		run = *word == SECRET(seed) ? run + 1 : 0;
		found += run == RUN_LENGTH;
	}
	return found;
}

/*
 * Count the secret's runs in everything that is mapped, reading the way a
 * debugger does: a page that is not there is skipped, not faulted in.
 */
static long count_in_address_space(uint64_t seed)
{
	static uint64_t buf[PAGE_SIZE / 8];
	unsigned long start, end;
	char line[512];
	long found = 0;
	FILE *maps;

	maps = fopen("/proc/self/maps", "r");
	TEST_ASSERT(maps, "cannot open /proc/self/maps");
	while (fgets(line, sizeof(line), maps)) {
		TEST_ASSERT(sscanf(line, "%lx-%lx", &start, &end) == 2,
			    "cannot parse '%s'", line);
		for (; start < end; start += PAGE_SIZE) {
			struct iovec to = { buf, PAGE_SIZE };
			struct iovec from = { (void *)start, PAGE_SIZE };

			if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) ==
			    PAGE_SIZE)
				found += count_runs(buf, ARRAY_SIZE(buf), seed);
		}
	}
	fclose(maps);
	memset(buf, 0, sizeof(buf));
	return found;
}

TEST_F(secret, is_nowhere_in_the_address_space)
{
	struct gmem_vm *g = &self->g;

	write_secret(g, 0, TEST_SIZE, 12345);
	EXPECT_EQ(0, count_in_address_space(12345));

	/* The search finds what is there to be found. */
	vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
	write_secret(g, 0, PAGE_SIZE, 12345);
	EXPECT_LT(0, count_in_address_space(12345));
}

TEST_F(secret, shared_half_keeps_what_the_host_wrote)
{
	struct gmem_vm *g = &self->g;
	const unsigned char *shared = g->shared;
	size_t i;

	memset(g->shared, 0x11, TEST_SIZE);
	write_secret(g, 0, TEST_SIZE, 777);
	for (i = 0; i < TEST_SIZE; i++)
		TEST_ASSERT(shared[i] == 0x11, "shared byte 0x%lx changed", i);
}

TEST_F(secret, conversion_does_not_carry_it_over)
{
	struct gmem_vm *g = &self->g;

	write_secret(g, 0, TEST_SIZE, 4242);
	vm_mem_set_shared(g->vm, GMEM_GPA, TEST_SIZE);
	gmem_guest_expect(g, 0, TEST_SIZE, 0);
	EXPECT_EQ(0, count_in_address_space(4242));
}

TEST_F(secret, no_system_call_reads_it)
{
	struct gmem_vm *g = &self->g;
	char buf[64] = {}, path[64];
	struct iovec iov = { buf, sizeof(buf) };
	struct iovec from = { (void *)GMEM_GPA, sizeof(buf) };
	int memfd, pipefd[2];
	off_t off = 0;
	size_t i;

	write_secret(g, 0, TEST_SIZE, 99);
	memfd = memfd_create("peer", 0);
	ASSERT_LE(0, memfd);
	ASSERT_EQ(0, pipe(pipefd));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", g->fd);

	EXPECT_GE(0, read(g->fd, buf, sizeof(buf)));
	EXPECT_GE(0, pread(g->fd, buf, sizeof(buf), 0));
	EXPECT_GE(0, preadv2(g->fd, &iov, 1, 0, 0));
	EXPECT_GE(0, splice(g->fd, &off, pipefd[1], NULL, sizeof(buf), 0));
	EXPECT_GE(0, sendfile(memfd, g->fd, &off, sizeof(buf)));
	EXPECT_GE(0, copy_file_range(g->fd, &off, memfd, NULL, sizeof(buf), 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, TEST_SIZE, PROT_READ, MAP_SHARED,
				   g->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, TEST_SIZE, PROT_READ, MAP_PRIVATE,
				   g->fd, 0));
	EXPECT_GE(0, process_vm_readv(getpid(), &iov, 1, &from, 1, 0));
	EXPECT_GT(0, open(path, O_RDONLY));

	for (i = 0; i < sizeof(buf); i++)
		EXPECT_EQ(0, buf[i]);
	EXPECT_EQ(0, lseek(memfd, 0, SEEK_END));
	close(pipefd[0]);
	close(pipefd[1]);
	close(memfd);
}

/* KVM emulates this, by way of userspace_addr. */
static void guest_string_out(uint64_t gpa)
{
	uint64_t nr = 8;

	asm volatile("rep outsb" : "+S"(gpa), "+c"(nr) : "d"(0x123) : "memory");
	GUEST_UCALL_NONE();
}

static void guest_string_in(uint64_t gpa)
{
	uint64_t nr = 8;

	asm volatile("rep insb" : "+D"(gpa), "+c"(nr) : "d"(0x123) : "memory");
	GUEST_UCALL_NONE();
}

TEST_F(secret, is_not_written_to_the_other_half_by_kvm)
{
	void *fns[] = { guest_string_out, guest_string_in };
	struct gmem_vm *g = &self->g;
	uint64_t *shared = g->shared;
	struct kvm_run *run = g->vcpu->run;
	int i;

	*shared = 0x5a5a5a5a5a5a5a5aull;
	write_secret(g, 0, TEST_SIZE, 3);
	for (i = 0; i < ARRAY_SIZE(fns); i++) {
		gmem_guest_start(g, fns[i], GMEM_GPA, 0, 0, 0);
		vcpu_run(g->vcpu);
		if (run->exit_reason == KVM_EXIT_IO) {
			/* The data comes before the access to memory. */
			EXPECT_EQ(KVM_EXIT_IO_IN, run->io.direction);
			memset((void *)run + run->io.data_offset, 0x77,
			       run->io.count);
			vcpu_run(g->vcpu);
		}
		TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_INTERNAL_ERROR);
		EXPECT_EQ(0x5a5a5a5a5a5a5a5aull, *shared);
	}
}

/* Instructions whose operands KVM's emulator has several ways to get at */
#define GUEST_EMULATES(name, insn)					\
static void guest_##name(uint64_t gpa)					\
{									\
	asm volatile(KVM_FEP insn : : "D"(gpa), "a"(7) : "memory", "cc");	\
	GUEST_UCALL_NONE();						\
}

GUEST_EMULATES(mov, "mov %%rax, (%%rdi)")
GUEST_EMULATES(cmpxchg, "lock cmpxchg %%rax, (%%rdi)")
GUEST_EMULATES(load, "mov (%%rdi), %%rax")
GUEST_EMULATES(fxsave, "fxsave (%%rdi)")
GUEST_EMULATES(fxrstor, "fxrstor (%%rdi)")
GUEST_EMULATES(sgdt, "sgdt (%%rdi)")
GUEST_EMULATES(lgdt, "lgdt (%%rdi)")

#define FORCE_EMULATION "/sys/module/kvm/parameters/force_emulation_prefix"

TEST_F(secret, is_not_mistaken_for_the_other_half_by_kvm)
{
	void *fns[] = {
		guest_mov, guest_cmpxchg, guest_load, guest_fxsave,
		guest_fxrstor, guest_sgdt, guest_lgdt,
	};
	struct gmem_vm *g = &self->g;
	uint64_t shared[64];
	int i;

	/* That would do as each of the operands. */
	memset(g->shared, 0, TEST_SIZE);
	memcpy(shared, g->shared, sizeof(shared));
	write_secret(g, 0, TEST_SIZE, 3);
	gmem_write_file(FORCE_EMULATION, "1");
	for (i = 0; i < ARRAY_SIZE(fns); i++) {
		gmem_guest_start(g, fns[i], GMEM_GPA, 0, 0, 0);
		vcpu_run(g->vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_INTERNAL_ERROR);
		EXPECT_EQ(0, memcmp(shared, g->shared, sizeof(shared)));
	}
	gmem_write_file(FORCE_EMULATION, "0");
}

int main(int argc, char *argv[])
{
	gmem_require_sw_protected();
	return test_harness_run(argc, argv);
}
