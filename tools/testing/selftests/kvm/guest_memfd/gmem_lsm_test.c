// SPDX-License-Identifier: GPL-2.0
/*
 * Security modules know a guest_memfd: they are asked, and told what it is, when
 * one is created, and can refuse it.  The one that asks here is a BPF program on
 * the hook.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/filter.h>

#include "gmem_link_util.h"

#define FILE_SIZE (4 * PAGE_SIZE)

/* What a program and this one tell each other */
struct answer {
	uint64_t calls;
	uint64_t deny;
	char name[32];
};

static int sys_bpf(int cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/*
 * The kernel's functions, by their names
 */

/* How much follows a type's description */
static size_t btf_extra(const struct btf_type *t)
{
	size_t nr = BTF_INFO_VLEN(t->info);

	switch (BTF_INFO_KIND(t->info)) {
	case BTF_KIND_INT:
		return sizeof(uint32_t);
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return nr * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return nr * sizeof(struct btf_enum);
	case BTF_KIND_FUNC_PROTO:
		return nr * sizeof(struct btf_param);
	case BTF_KIND_VAR:
		return sizeof(struct btf_var);
	case BTF_KIND_DATASEC:
		return nr * sizeof(struct btf_var_secinfo);
	case BTF_KIND_DECL_TAG:
		return sizeof(struct btf_decl_tag);
	case BTF_KIND_ENUM64:
		return nr * sizeof(struct btf_enum64);
	default:
		return 0;
	}
}

static int btf_find_function_in(const void *btf, const char *name)
{
	const struct btf_header *hdr = btf;
	const void *types = btf + hdr->hdr_len + hdr->type_off;
	const char *strings = btf + hdr->hdr_len + hdr->str_off;
	const void *pos = types;
	const struct btf_type *t;
	int id;

	for (id = 1; pos < types + hdr->type_len; id++) {
		t = pos;
		if (BTF_INFO_KIND(t->info) == BTF_KIND_FUNC &&
		    !strcmp(strings + t->name_off, name))
			return id;
		pos += sizeof(*t) + btf_extra(t);
	}
	return -1;
}

/* Its number in the kernel's type information, or -1. */
static int btf_find_function(const char *name)
{
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY);
	size_t size, got = 0;
	struct stat st;
	ssize_t n;
	void *btf;
	int id;

	if (fd < 0)
		return -1;
	TEST_ASSERT(!fstat(fd, &st), "fstat() failed");
	size = st.st_size;
	btf = gmem_mmap(size);
	while (got < size) {
		n = read(fd, btf + got, size - got);
		TEST_ASSERT(n > 0, "read() failed");
		got += n;
	}
	id = btf_find_function_in(btf, name);
	munmap(btf, size);
	close(fd);
	return id;
}

/*
 * A program on a hook.  It counts the calls that this process causes, may take
 * down what they are about, and refuses them on demand.
 */

struct hook {
	int map, prog, link;
	struct answer *answer;
};

#define MAX_INSNS 32

static int write_program(struct bpf_insn *insns, int map, bool has_name)
{
	const struct bpf_insn count[] = {
		BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
		BPF_LD_MAP_VALUE(BPF_REG_7, map, 0),
		BPF_EMIT_CALL(BPF_FUNC_get_current_pid_tgid),
		BPF_ALU64_IMM(BPF_RSH, BPF_REG_0, 32),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, getpid(), 2),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7,
			    offsetof(struct answer, calls)),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_1, 1),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_1,
			    offsetof(struct answer, calls)),
	};
	/* The second argument is a struct qstr *, whose name follows 8 bytes. */
	const struct bpf_insn copy_name[] = {
		BPF_LDX_MEM(BPF_DW, BPF_REG_3, BPF_REG_6, 8),
		BPF_LDX_MEM(BPF_DW, BPF_REG_3, BPF_REG_3, 8),
		BPF_MOV64_IMM(BPF_REG_2, sizeof(((struct answer *)0)->name)),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_7),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_1, offsetof(struct answer, name)),
		BPF_EMIT_CALL(BPF_FUNC_probe_read_kernel_str),
	};
	const struct bpf_insn answer[] = {
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7,
			    offsetof(struct answer, deny)),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_1, 0, 1),
		BPF_MOV64_IMM(BPF_REG_0, -EACCES),
		BPF_EXIT_INSN(),
	};
	int nr = 0;

	memcpy(insns + nr, count, sizeof(count));
	nr += ARRAY_SIZE(count);
	if (has_name) {
		memcpy(insns + nr, copy_name, sizeof(copy_name));
		nr += ARRAY_SIZE(copy_name);
	}
	memcpy(insns + nr, answer, sizeof(answer));
	return nr + ARRAY_SIZE(answer);
}

static int create_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.map_flags = BPF_F_MMAPABLE,
		.key_size = sizeof(int),
		.value_size = sizeof(struct answer),
		.max_entries = 1,
	};

	return sys_bpf(BPF_MAP_CREATE, &attr);
}

static int load_program(int map, int function, bool has_name)
{
	struct bpf_insn insns[MAX_INSNS];
	static char log[SZ_64K];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_LSM,
		.expected_attach_type = BPF_LSM_MAC,
		.attach_btf_id = function,
		.insns = (uintptr_t)insns,
		.insn_cnt = write_program(insns, map, has_name),
		.license = (uintptr_t)"GPL",
		.log_buf = (uintptr_t)log,
		.log_size = sizeof(log),
		.log_level = 1,
	};
	int fd = sys_bpf(BPF_PROG_LOAD, &attr);

	TEST_ASSERT(fd >= 0, "cannot load the program:\n%s", log);
	return fd;
}

static void hook_open(struct hook *h, const char *name, bool has_name)
{
	int function = btf_find_function(name);
	union bpf_attr attr = {};

	TEST_ASSERT(function > 0, "the kernel has no %s", name);
	h->map = create_map();
	TEST_ASSERT(h->map >= 0, "cannot create the map");
	h->answer = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 h->map, 0);
	TEST_ASSERT(h->answer != MAP_FAILED, "cannot map the map");
	h->prog = load_program(h->map, function, has_name);
	attr.raw_tracepoint.prog_fd = h->prog;
	h->link = sys_bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
	TEST_ASSERT(h->link >= 0, "cannot attach the program");
}

static void hook_close(struct hook *h)
{
	close(h->link);
	close(h->prog);
	munmap(h->answer, PAGE_SIZE);
	close(h->map);
}

static uint64_t calls(struct hook *h)
{
	return READ_ONCE(h->answer->calls);
}

static void deny(struct hook *h, bool deny)
{
	WRITE_ONCE(h->answer->deny, deny);
}

FIXTURE(lsm)
{
	struct gmem_usage usage;
	struct hook create, stat;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(lsm)
{
	gmem_usage_get(&self->usage);
	self->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	hook_open(&self->create, "bpf_lsm_inode_init_security_anon", true);
	hook_open(&self->stat, "bpf_lsm_inode_getattr", false);
}

FIXTURE_TEARDOWN(lsm)
{
	hook_close(&self->create);
	hook_close(&self->stat);
	kvm_vm_free(self->vm);
	gmem_usage_check(&self->usage);
}

TEST_F(lsm, is_told_what_is_created)
{
	int fd = vm_create_guest_memfd(self->vm, FILE_SIZE, 0);

	EXPECT_EQ(1, calls(&self->create));
	EXPECT_STREQ("[kvm-gmem]", self->create.answer->name);
	close(fd);
}

/* It has judged the memory.  The descriptor is what entitles to a link. */
TEST_F(lsm, is_not_asked_about_a_link)
{
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	int fd = vm_create_guest_memfd(self->vm, FILE_SIZE, 0);
	int link = gmem_link(vm, fd, 0);

	EXPECT_EQ(1, calls(&self->create));
	close(link);
	close(fd);
	kvm_vm_free(vm);
}

/* The number that the next descriptor gets */
static int next_descriptor(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

TEST_F(lsm, may_refuse)
{
	int fd, i, next = next_descriptor();
	struct gmem_usage usage;

	gmem_usage_get(&usage);
	deny(&self->create, true);
	for (i = 0; i < 100; i++)
		EXPECT_ERRNO(EACCES, __vm_create_guest_memfd(self->vm,
							     FILE_SIZE, 0));
	EXPECT_EQ(100, calls(&self->create));
	EXPECT_EQ(next, next_descriptor());
	gmem_usage_check(&usage);

	deny(&self->create, false);
	fd = vm_create_guest_memfd(self->vm, FILE_SIZE, 0);
	EXPECT_EQ(next, fd);
	close(fd);
}

/* What was refused has harmed nothing that is there. */
TEST_F(lsm, refusal_leaves_the_guest_alone)
{
	struct gmem_vm g;

	gmem_vm_create(&g, FILE_SIZE);
	gmem_guest_fill(&g, 0, FILE_SIZE, 0x1515);
	deny(&self->create, true);
	EXPECT_ERRNO(EACCES, __vm_create_guest_memfd(g.vm, FILE_SIZE, 0));
	gmem_guest_expect(&g, 0, FILE_SIZE, 0x1515);
	deny(&self->create, false);
	gmem_vm_free(&g);
}

/* Inodes that are private to the kernel are not shown to security modules. */
TEST_F(lsm, sees_the_inode)
{
	int fd = vm_create_guest_memfd(self->vm, FILE_SIZE, 0);
	struct stat st;

	deny(&self->stat, true);
	EXPECT_ERRNO(EACCES, fstat(fd, &st));
	deny(&self->stat, false);
	EXPECT_EQ(0, fstat(fd, &st));
	close(fd);
}

/* Do programs on hooks have a say? */
static bool has_bpf_lsm(void)
{
	struct hook hook;
	struct stat st;
	bool has;

	if (btf_find_function("bpf_lsm_inode_getattr") < 0)
		return false;

	hook_open(&hook, "bpf_lsm_inode_getattr", false);
	TEST_ASSERT(!stat("/", &st), "stat() failed");
	has = calls(&hook);
	hook_close(&hook);
	return has;
}

int main(int argc, char *argv[])
{
	gmem_require_link();
	__TEST_REQUIRE(has_bpf_lsm(),
		       "needs CONFIG_BPF_LSM, CONFIG_DEBUG_INFO_BTF and lsm=bpf");
	return test_harness_run(argc, argv);
}
