// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's own accesses to memory that is a guest_memfd: clocks, steal time,
 * instructions that it emulates, page tables that it walks, and the state of nested
 * guests.  They go by way of userspace_addr, where the same memory is mapped.
 */
#include "gmem_mmap_plain.h"
#include "svm_util.h"

/* After what defines the types that it uses */
#include <asm/pvclock-abi.h>

static struct pvclock_vcpu_time_info seen_clock;

static void guest_set_clock(uint64_t msr)
{
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, msr);
	GUEST_UCALL_NONE();
}

static void guest_read_clock(uint64_t gpa)
{
	struct pvclock_vcpu_time_info *clock = (void *)gpa;

	do {
		seen_clock = *clock;
		barrier();
	} while (seen_clock.version & 1 ||
		 READ_ONCE(clock->version) != seen_clock.version);
	GUEST_UCALL_NONE();
}

static void guest_clear_clock_flags(uint64_t gpa)
{
	struct pvclock_vcpu_time_info *clock = (void *)gpa;

	WRITE_ONCE(clock->flags, 0);
	GUEST_UCALL_NONE();
}

static void read_clock(struct gmem_vm *g)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, guest_read_clock, GMEM_GPA, 0, 0, 0),
		       0);
	sync_global_from_guest(g->vm, seen_clock);
}

TEST_F(plain, kvm_writes_what_the_guest_reads)
{
	struct gmem_vm *g = &self->g;
	uint32_t version;
	int i;

	if (!kvm_has_cap(KVM_CAP_ADJUST_CLOCK))
		SKIP(return, "no clock");

	gmem_host_fill(g->shared, PAGE_SIZE, 0);
	ASSERT_EQ(0, __gmem_guest_run(g, guest_set_clock, GMEM_GPA | 1, 0, 0,
				      0));
	for (i = 0; i < 4; i++) {
		read_clock(g);
		EXPECT_NE(0, seen_clock.version);
		EXPECT_NE(0, seen_clock.tsc_to_system_mul);
		EXPECT_EQ(0, memcmp(&seen_clock, g->shared, sizeof(seen_clock)));
		version = seen_clock.version;

		/* KVM reads what the guest and the host wrote... */
		ASSERT_EQ(0, __gmem_guest_run(g, guest_clear_clock_flags,
					      GMEM_GPA, 0, 0, 0));
		vcpu_ioctl(g->vcpu, KVM_KVMCLOCK_CTRL, NULL);
		read_clock(g);
		EXPECT_LT(version, seen_clock.version);
		EXPECT_TRUE(seen_clock.flags & PVCLOCK_GUEST_STOPPED);
		EXPECT_EQ(0, memcmp(&seen_clock, g->shared, sizeof(seen_clock)));

		/* ... and finds the new page when the old one is gone. */
		gmem_punch(g->fd, 0, PAGE_SIZE);
		gmem_host_expect(g->shared, PAGE_SIZE, 0);
		vcpu_ioctl(g->vcpu, KVM_KVMCLOCK_CTRL, NULL);
	}
}

/* As documented: by way of userspace_addr. */
TEST_F(plain, kvm_writes_where_userspace_addr_says)
{
	struct pvclock_vcpu_time_info *clock;
	struct gmem_vm *g = &self->g;

	clock = gmem_mmap(TEST_SIZE);
	gmem_delete_slot(g->vm, GMEM_SLOT);
	gmem_set_slot(g->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD, GMEM_GPA,
		      TEST_SIZE, clock, g->fd, 0);
	ASSERT_EQ(0, __gmem_guest_run(g, guest_set_clock, GMEM_GPA | 1, 0, 0,
				      0));
	read_clock(g);
	EXPECT_EQ(0, seen_clock.version);
	EXPECT_NE(0, clock->version);
	gmem_host_expect(g->shared, PAGE_SIZE, 0);
	ASSERT_EQ(0, __gmem_guest_run(g, guest_set_clock, 0, 0, 0, 0));
	munmap(clock, TEST_SIZE);
}

static void guest_set_steal_time(uint64_t msr)
{
	wrmsr(MSR_KVM_STEAL_TIME, msr);
	GUEST_UCALL_NONE();
}

static struct kvm_steal_time seen_steal;

static void guest_read_steal_time(uint64_t gpa)
{
	seen_steal = *(struct kvm_steal_time *)gpa;
	GUEST_UCALL_NONE();
}

TEST_F(plain, steal_time)
{
	struct kvm_steal_time *steal = self->g.shared;
	struct gmem_vm *g = &self->g;
	uint32_t version = 0;
	int i;

	if (!kvm_cpu_has(X86_FEATURE_KVM_STEAL_TIME))
		SKIP(return, "no steal time");

	ASSERT_EQ(0, __gmem_guest_run(g, guest_set_steal_time, GMEM_GPA | 1, 0,
				      0, 0));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, __gmem_guest_run(g, guest_read_steal_time,
					      GMEM_GPA, 0, 0, 0));
		sync_global_from_guest(g->vm, seen_steal);
		EXPECT_EQ(0, seen_steal.version % 2);
		EXPECT_LT(version, seen_steal.version);
		EXPECT_LE(seen_steal.version, READ_ONCE(steal->version));
		EXPECT_LE(seen_steal.steal, READ_ONCE(steal->steal));
		version = seen_steal.version;

		/* KVM goes on from what it finds there. */
		steal->version += 1000;
	}
}

static void guest_set_wall_clock(uint64_t gpa)
{
	wrmsr(MSR_KVM_WALL_CLOCK_NEW, gpa);
	GUEST_UCALL_NONE();
}

TEST_F(plain, wall_clock)
{
	struct pvclock_wall_clock *clock = self->g.shared;
	struct gmem_vm *g = &self->g;

	ASSERT_EQ(0, __gmem_guest_run(g, guest_set_wall_clock, GMEM_GPA, 0, 0,
				      0));
	EXPECT_NE(0, clock->version);
	EXPECT_NE(0, clock->sec);
	gmem_guest_expect(g, PAGE_SIZE, PAGE_SIZE, 0);
}

/*
 * A VM that has nothing but a guest_memfd: code, stacks, page tables
 */

FIXTURE(whole)
{
	struct gmem_usage usage;
	struct gmem_vm g;
};

FIXTURE_SETUP(whole)
{
	gmem_usage_get(&self->usage);
	gmem_plain_create_whole(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(whole)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

#define PORT 0x123

static char text[PAGE_SIZE];

static void guest_string_out(uint64_t nr)
{
	const char *from = text;

	asm volatile("rep outsb" : "+S"(from), "+c"(nr) : "d"(PORT) : "memory");
	GUEST_UCALL_NONE();
}

static void guest_string_in(uint64_t nr)
{
	char *to = text;

	asm volatile("rep insb" : "+D"(to), "+c"(nr) : "d"(PORT) : "memory");
	GUEST_UCALL_NONE();
}

/* Run until the guest is done; what it writes goes to @out, what it reads is @in. */
static size_t serve_port(struct gmem_vm *g, char *out, const char *in)
{
	struct kvm_run *run = g->vcpu->run;
	size_t done = 0;
	char *data;

	for (;;) {
		vcpu_run(g->vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_IO);
		if (run->io.port != PORT)
			break;
		TEST_ASSERT_EQ(run->io.size, 1);
		TEST_ASSERT(done + run->io.count <= sizeof(text), "too much");
		data = (char *)run + run->io.data_offset;
		if (run->io.direction == KVM_EXIT_IO_OUT)
			memcpy(out + done, data, run->io.count);
		else
			memcpy(data, in + done, run->io.count);
		done += run->io.count;
	}
	vcpu_run_complete_io(g->vcpu);
	return done;
}

/* Emulated: KVM reads the instruction and the string from the guest's memory. */
TEST_F(whole, string_output)
{
	static char out[sizeof(text)], in[sizeof(text)];
	struct gmem_vm *g = &self->g;
	int i;

	for (i = 0; i < sizeof(in); i++)
		in[i] = i * 7 + i / 256;
	memcpy(addr_gva2hva(g->vm, (uintptr_t)text), in, sizeof(in));

	gmem_guest_start(g, guest_string_out, sizeof(text), 0, 0, 0);
	EXPECT_EQ(sizeof(text), serve_port(g, out, NULL));
	EXPECT_EQ(0, memcmp(in, out, sizeof(in)));
}

static uint64_t sum;

static void guest_add_up(void)
{
	int i;

	for (sum = 0, i = 0; i < sizeof(text); i++)
		sum += (unsigned char)READ_ONCE(text[i]) * (i + 1);
	GUEST_UCALL_NONE();
}

TEST_F(whole, string_input)
{
	static char in[sizeof(text)];
	struct gmem_vm *g = &self->g;
	uint64_t expected = 0;
	int i;

	for (i = 0; i < sizeof(in); i++) {
		in[i] = i * 11 + i / 256;
		expected += (unsigned char)in[i] * (i + 1);
	}
	gmem_guest_start(g, guest_string_in, sizeof(text), 0, 0, 0);
	EXPECT_EQ(sizeof(text), serve_port(g, NULL, in));
	EXPECT_EQ(0, memcmp(in, addr_gva2hva(g->vm, (uintptr_t)text),
			    sizeof(in)));
	ASSERT_EQ(0, __gmem_guest_run(g, guest_add_up, 0, 0, 0, 0));
	sync_global_from_guest(g->vm, sum);
	EXPECT_EQ(expected, sum);
}

/* KVM walks the guest's page tables. */
TEST_F(whole, translation)
{
	struct gmem_vm *g = &self->g;
	struct kvm_translation tr = {
		.linear_address = (uintptr_t)text + 5,
	};

	vcpu_ioctl(g->vcpu, KVM_TRANSLATE, &tr);
	EXPECT_TRUE(tr.valid);
	EXPECT_EQ(addr_gva2gpa(g->vm, (uintptr_t)text) + 5,
		  tr.physical_address);

	tr.linear_address = GMEM_GPA + 2 * TEST_SIZE;
	vcpu_ioctl(g->vcpu, KVM_TRANSLATE, &tr);
	EXPECT_FALSE(tr.valid);
}

#define NR_RUNS 5

static uint64_t runs;

static void l2_guest_code(void)
{
	for (;;) {
		WRITE_ONCE(runs, READ_ONCE(runs) + 1);
		/* To L0's user space, in between */
		outl(PORT, runs);
		vmmcall();
	}
}

static void l1_guest_code(struct svm_test_data *svm, uint64_t nested_cr3)
{
	static uint64_t stack[64];
	struct vmcb *vmcb = svm->vmcb;
	int i;

	generic_svm_setup(svm, l2_guest_code, &stack[ARRAY_SIZE(stack) - 1]);
	if (nested_cr3) {
		vmcb->control.nested_ctl = SVM_NESTED_CTL_NP_ENABLE;
		vmcb->control.nested_cr3 = nested_cr3;
	}
	for (i = 1; i <= NR_RUNS; i++) {
		run_guest(vmcb, svm->vmcb_gpa);
		GUEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		GUEST_ASSERT_EQ(READ_ONCE(runs), i);
		/* Over the instruction */
		vmcb->save.rip += 3;
	}
	GUEST_UCALL_NONE();
}

static void run_nested(struct gmem_vm *g, uint64_t nested_cr3, int prefault_err)
{
	struct kvm_run *run = g->vcpu->run;
	vm_vaddr_t svm;
	int i;

	vcpu_alloc_svm(g->vm, &svm);
	runs = 0;
	sync_global_to_guest(g->vm, runs);
	gmem_guest_start(g, l1_guest_code, svm, nested_cr3, 0, 0);
	for (i = 1; i <= NR_RUNS; i++) {
		vcpu_run(g->vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(g->vcpu, KVM_EXIT_IO);
		TEST_ASSERT_EQ(run->io.port, PORT);
		sync_global_from_guest(g->vm, runs);
		TEST_ASSERT_EQ(runs, i);
		TEST_ASSERT_EQ(__gmem_pre_fault(g->vcpu, 0, PAGE_SIZE, 0, NULL),
			       prefault_err);
	}
	TEST_ASSERT_EQ(__gmem_guest_end(g), 0);
}

/* The control block and the bitmaps of the nested guest are in the file, too. */
TEST_F(whole, nested_guest)
{
	if (!kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return, "no SVM");

	run_nested(&self->g, 0, kvm_is_tdp_enabled() ? 0 : EOPNOTSUPP);
}

/* And so are its page tables.  There is no prefault for what those say. */
TEST_F(whole, nested_guest_with_nested_paging)
{
	if (!kvm_cpu_has(X86_FEATURE_NPT))
		SKIP(return, "no nested paging");

	run_nested(&self->g, gmem_create_identity_map(self->g.vm), EOPNOTSUPP);
}

int main(int argc, char *argv[])
{
	gmem_require_mmap();
	return test_harness_run(argc, argv);
}
