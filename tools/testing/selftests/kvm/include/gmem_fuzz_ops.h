/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fuzzer's operations: each makes a call, or some, out of a few random
 * numbers.  These say which of the objects that there are it is about.  So a
 * sequence from which operations are left out is a sequence as well.
 */
#ifndef SELFTEST_KVM_GMEM_FUZZ_OPS_H
#define SELFTEST_KVM_GMEM_FUZZ_OPS_H

#include "gmem_fuzz_pick.h"

#define NR_ARGS		8
#define MAX_ACCESSES	6

struct fuzz_op {
	int type;
	uint32_t arg[NR_ARGS];
};

#define ARG(i, n)	((int)(op->arg[i] % (n)))
#define CHANCE(i, n)	(ARG(i, n) == 0)

/*
 * VMs
 */

static bool has_living_vm(void)
{
	return pick_vm_of(0, ALIVE) != NONE;
}

static bool op_create_vm(const struct fuzz_op *op)
{
	int vm = FIND_FREE(model->vms);

	if (vm == NONE)
		return false;
	call_create_vm(vm, !CHANCE(0, 3));
	return true;
}

static bool op_destroy_vm(const struct fuzz_op *op)
{
	int vm = NONE;

	if (ARG(1, 3))
		vm = pick_vm_of(op->arg[0], LEFT);
	if (vm == NONE)
		vm = pick_vm_of(op->arg[0], OWN);
	if (vm == NONE)
		return false;
	call_destroy_vm(vm);
	return true;
}

#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE

static const struct kvm_memory_attributes bad_attributes[] = {
	{ .address = WINDOW, .size = PAGE_SIZE, .attributes = PRIVATE, .flags = 1 },
	{ .address = WINDOW, .size = PAGE_SIZE, .attributes = PRIVATE >> 1 },
	{ .address = WINDOW, .size = PAGE_SIZE, .attributes = ~0ull },
	{ .address = WINDOW, .size = 0, .attributes = PRIVATE },
	{ .address = WINDOW, .size = PAGE_SIZE + 8, .attributes = PRIVATE },
	{ .address = WINDOW + 8, .size = PAGE_SIZE, .attributes = PRIVATE },
	{ .address = -PAGE_SIZE, .size = 2 * PAGE_SIZE, .attributes = PRIVATE },
};

static void set_bad_attributes(int vm, int which)
{
	struct kvm_memory_attributes attr = bad_attributes[which];

	say("VM %d: bad attributes %d", vm, which);
	expect_errno(vm_errno(vm) ?: EINVAL,
		     ioctl(model->vms[vm].fd, KVM_SET_MEMORY_ATTRIBUTES, &attr));
}

static bool op_set_attributes(const struct fuzz_op *op)
{
	int vm = pick_vm_mostly(op->arg[0], PROTECTED);
	int gfn = ARG(1, NR_GFNS + 1);
	int nr = 1 + ARG(2, CHANCE(3, 4) ? NR_GFNS + 1 : 8);

	if (vm == NONE)
		return false;
	if (CHANCE(4, 12)) {
		set_bad_attributes(vm, ARG(5, ARRAY_SIZE(bad_attributes)));
		return true;
	}
	call_set_attributes(vm, gfn, min(nr, NR_GFNS + 1 - gfn), ARG(6, 8) < 5);
	return true;
}

static void move_from_no_vm(int dst, int fd)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM,
		.args[0] = fd,
	};

	say("move descriptor %d to VM %d", fd, dst);
	expect_errno(vm_errno(dst) ?: EBADF,
		     ioctl(model->vms[dst].fd, KVM_ENABLE_CAP, &cap));
}

static bool op_move(const struct fuzz_op *op)
{
	int dst = pick_vm(op->arg[0]);
	int src = pick_vm_of(op->arg[1], ANY);
	int fd = pick_fd(op->arg[2]);
	int i;

	if (dst == NONE)
		return false;
	if (CHANCE(3, 10) && model->vms[dst].protected) {
		move_from_no_vm(dst, fd != NONE && CHANCE(4, 2) ?
				     model->fds[fd].fd : BAD_FD);
		return true;
	}
	/* Mostly one that can be moved, if there is one. */
	for (i = 0; i < NR_VMS && ARG(5, 8); i++) {
		if (!vm_errno(dst) && model->vms[i].used &&
		    !model_move_errno(dst, i))
			src = i;
	}
	call_move(dst, src);
	return true;
}

/* Have a descriptor of @vm's view of what @view is a view of. */
static int mirror_view(int vm, int view)
{
	int own = model_find_view(model_view(view)->inode, vm);
	int from = find_fd(view);

	if (own != NONE)
		return find_fd(own);
	if (from == NONE || !has_room_for_view())
		return NONE;
	say("; ");
	return call_link(vm, from, 0);
}

static void mirror_slots(int dst, int src)
{
	struct model_slot *s;
	int i, fd;

	for (i = 0; i < NR_SLOTS; i++) {
		if (model->vms[dst].slots[i].used) {
			say("; ");
			call_unbind(dst, i);
		}
	}
	for (i = 0; i < NR_SLOTS; i++) {
		s = &model->vms[src].slots[i];
		if (!s->used)
			continue;
		fd = s->view == NONE ? NONE : mirror_view(dst, s->view);
		if (s->view != NONE && fd == NONE)
			return;
		say("; ");
		call_bind(dst, i, s->gfn, s->nr, fd, s->page);
	}
}

/* What comes before a move: a VM that is like another, with pending views. */
static void mirror_vm(int dst, int src)
{
	int i;

	say("make VM %d like VM %d", dst, src);
	if (model_has_private(&model->vms[dst])) {
		say("; ");
		call_set_attributes(dst, 0, NR_GFNS + 1, false);
	}
	mirror_slots(dst, src);

	/* Those that no memslot is bound to. */
	for (i = 0; i < NR_VIEWS; i++) {
		if (model->views[i].used && model->views[i].vm == src)
			mirror_view(dst, i);
	}
}

static bool op_mirror(const struct fuzz_op *op)
{
	int dst = pick_vm_of(op->arg[0], OWN);
	int src = pick_vm_of(op->arg[1], ANY);

	if (dst == NONE || dst == src || vm_errno(dst) || model->vms[src].dead)
		return false;
	mirror_vm(dst, src);
	return true;
}

/* A VM that can be the successor of @src, in place of another if need be. */
static int make_successor(const struct fuzz_op *op, int src)
{
	int vm = FIND_FREE(model->vms);

	if (vm == NONE) {
		vm = pick_vm_of(op->arg[1], OWN);
		if (vm == src)
			return NONE;
		call_destroy_vm(vm);
		say("; ");
	}
	call_create_vm(vm, true);
	say("; ");
	return vm;
}

/* What a VMM does that makes room for another. */
static bool op_hand_over(const struct fuzz_op *op)
{
	int src = pick_vm_of(op->arg[0], PROTECTED), dst;

	if (src == NONE)
		return false;
	dst = make_successor(op, src);
	if (dst == NONE)
		return false;
	mirror_vm(dst, src);
	say("; ");
	call_move(dst, src);
	return true;
}

/*
 * Files
 */

static bool op_create(const struct fuzz_op *op)
{
	static const uint64_t good[] = {
		0, 0, FLAG_MMAP, FLAG_MMAP | FLAG_SHARED
	};
	static const uint64_t bad_sizes[] = {
		0, 8, PAGE_SIZE + 8, -PAGE_SIZE, 1ull << 63,
	};
	int vm = pick_vm(op->arg[0]);
	uint64_t size = (1 + ARG(1, MAX_PAGES)) * unit;
	uint64_t flags = good[ARG(2, 4)];

	if (vm == NONE || !has_room_for_view() ||
	    FIND_FREE(model->inodes) == NONE)
		return false;
	if (!model->vms[vm].protected && ARG(3, 4))
		flags = FLAG_MMAP | FLAG_SHARED;
	if (CHANCE(4, 12))
		flags |= BIT_ULL(2 + ARG(5, 62));
	else if (CHANCE(4, 11))
		flags = FLAG_SHARED;
	if (CHANCE(6, 12))
		size = bad_sizes[ARG(7, ARRAY_SIZE(bad_sizes))];
	call_create(vm, flags, size);
	return true;
}

static void link_what_is_bad(int vm, int which, int from)
{
	const uint64_t bad[] = {
		BAD_FD, -1, BIT_ULL(32) | model->fds[from].fd, model->vms[vm].fd,
		model->fds[from].fd,
	};
	struct kvm_link_guest_memfd arg = {
		.fd = bad[which],
		.flags = SHARE,
		.reserved[5] = which == 4,
	};

	say("VM %d: bad link %d of fd %d", vm, which, from);
	expect_errno(vm_errno(vm) ?: EINVAL,
		     ioctl(model->vms[vm].fd, KVM_LINK_GUEST_MEMFD, &arg));
}

static bool op_link(const struct fuzz_op *op)
{
	static const uint64_t flags[] = {
		0, 0, 0, SHARE, SHARE, SHARE, SHARE | READONLY, SHARE | READONLY,
		SHARE | NO_FALLOCATE, SHARE | NO_FALLOCATE,
		SHARE | READONLY | NO_FALLOCATE,
		READONLY, NO_FALLOCATE, READONLY | NO_FALLOCATE,
		1, SHARE | 1, SHARE | BAD_FLAG, BAD_FLAG,
	};
	uint64_t chosen = flags[ARG(4, ARRAY_SIZE(flags))];
	int vm = pick_vm(op->arg[0]);
	int from = pick_fd(op->arg[1]), good = NONE;

	if (vm == NONE || from == NONE || !has_room_for_view())
		return false;
	if (CHANCE(2, 16)) {
		link_what_is_bad(vm, ARG(3, 5), from);
		return true;
	}
	if (ARG(5, 4))
		good = pick_link(op->arg[1], vm, chosen);
	call_link(vm, good != NONE ? good : from, chosen);
	return true;
}

static bool op_dup(const struct fuzz_op *op)
{
	int fd = pick_fd(op->arg[0]);

	if (fd == NONE || FIND_FREE(model->fds) == NONE)
		return false;
	call_dup(fd);
	return true;
}

static bool op_close(const struct fuzz_op *op)
{
	int fd = pick_own_fd(op->arg[0]);

	if (fd == NONE)
		return false;
	call_close(fd);
	return true;
}

static const struct {
	int mode;
	off_t offset, len;
	int err;
} bad_fallocate[] = {
	{ 0, 0, PAGE_SIZE, EOPNOTSUPP },
	{ FALLOC_FL_PUNCH_HOLE, 0, PAGE_SIZE, EOPNOTSUPP },
	{ FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, PAGE_SIZE, EOPNOTSUPP },
	{ FALLOC_FL_KEEP_SIZE, 8, PAGE_SIZE, EINVAL },
	{ FALLOC_FL_KEEP_SIZE, 0, 8, EINVAL },
	{ FALLOC_FL_KEEP_SIZE, 0, 0, EINVAL },
	{ GMEM_PUNCH, 8, PAGE_SIZE, EINVAL },
	{ GMEM_PUNCH, 0, 8, EINVAL },
	{ GMEM_PUNCH, 0, 0, EINVAL },
};

static void fallocate_badly(int fd, int which)
{
	say("fd %d: bad fallocate %d", fd, which);
	expect_errno(bad_fallocate[which].err,
		     fallocate(model->fds[fd].fd, bad_fallocate[which].mode,
			       bad_fallocate[which].offset,
			       bad_fallocate[which].len));
}

static bool op_fallocate(const struct fuzz_op *op)
{
	int fd = pick_fd(op->arg[0]);
	int page = ARG(1, MAX_PAGES);
	int nr = 1 + ARG(2, CHANCE(3, 3) ? MAX_PAGES : 4);

	if (fd == NONE)
		return false;
	if (CHANCE(4, 12))
		fallocate_badly(fd, ARG(5, ARRAY_SIZE(bad_fallocate)));
	else if (CHANCE(6, 4))
		call_allocate(fd, page, nr);
	else
		call_punch(fd, page, nr);
	return true;
}

/* What a guest_memfd is not for. */
static bool op_other(const struct fuzz_op *op)
{
	int fd = pick_fd(op->arg[0]);
	struct statfs fs;
	struct stat st;
	char buf[8] = {};

	if (fd == NONE)
		return false;
	say("fd %d: stat and more", fd);
	fd = model->fds[fd].fd;
	MUST(!fstat(fd, &st), "fstat()");
	MUST(!fstatfs(fd, &fs), "fstatfs()");
	count(true);
	if (fs.f_type != GUEST_MEMFD_MAGIC)
		fail("type 0x%lx", fs.f_type);
	if (st.st_size % PAGE_SIZE || !st.st_size)
		fail("size 0x%lx", st.st_size);
	expect_errno(EINVAL, ftruncate(fd, 0));
	expect_errno(EINVAL, fchmod(fd, 0600));
	expect_errno(EINVAL, read(fd, buf, sizeof(buf)));
	expect_errno(EINVAL, write(fd, buf, sizeof(buf)));
	return true;
}

/*
 * Memslots
 */

static const struct {
	uint32_t flags;
	int gpa, size;		/* more than what would be right */
	uint64_t offset;
	int err;
} bad_slots[] = {
	{ KVM_MEM_READONLY, 0, 0, 0, EINVAL },
	{ KVM_MEM_LOG_DIRTY_PAGES, 0, 0, 0, EINVAL },
	{ BIT(5), 0, 0, 0, EINVAL },
	{ 0, 8, 0, 0, EINVAL },
	{ 0, 0, 8, 0, EINVAL },
	{ 0, 0, 0, 8, EINVAL },
	{ 0, 0, 0, -PAGE_SIZE, EINVAL },
	{ 0, 0, 0, BIT_ULL(62), EINVAL },
	{ 0, 0, 0, 0, EINVAL },		/* a descriptor of something else */
	{ 0, 0, 0, 0, EBADF },		/* no descriptor */
};

/* At a gpa at which nothing is. */
static void bind_badly(int vm, int slot, int fd, int which)
{
	struct model_vm *v = &model->vms[vm];
	int number = model->fds[fd].fd;
	int want = bad_slots[which].err;

	if (which == ARRAY_SIZE(bad_slots) - 2)
		number = v->fd;
	if (want == EBADF)
		number = BAD_FD;
	if (v->slots[slot].used)
		want = EINVAL;
	say("VM %d: bad slot %d, %d, fd %d", vm, slot, which, fd);
	expect_errno(vm_errno(vm) ?: want,
		     set_region(v, slot,
				KVM_MEM_GUEST_MEMFD | bad_slots[which].flags,
				WINDOW + NR_GFNS * unit +
				bad_slots[which].gpa,
				PAGE_SIZE + bad_slots[which].size, v->mem,
				number, bad_slots[which].offset));
}

/* Look for gfns, and for pages, that are free. */
static void find_room(int vm, int view, int *gfn, int *nr, int *page)
{
	int nr_pages = model_view_inode(view)->nr_pages, i;
	struct model_slot new = { .view = view };

	for (i = 0; i < 4 * NR_GFNS; i++) {
		new.nr = max(1, *nr - i / 16);
		new.gfn = (*gfn + 7 * i) % NR_GFNS;
		new.page = (*page + i) % nr_pages;
		if (new.gfn + new.nr <= NR_GFNS && !model_bind_errno(vm, &new)) {
			*gfn = new.gfn;
			*nr = new.nr;
			*page = new.page;
			return;
		}
	}
}

static bool op_bind(const struct fuzz_op *op)
{
	int vm = pick_vm(op->arg[0]);
	int gfn = ARG(1, NR_GFNS), page = ARG(2, MAX_PAGES), nr, fd, slot;

	if (vm == NONE)
		return false;
	slot = ARG(3, NR_SLOTS);
	if (op->arg[3] >> 16 & 7) {
		slot = FIND_FREE(model->vms[vm].slots);
		if (slot == NONE)
			return false;
	}
	nr = 1 + ARG(4, CHANCE(5, 3) ? 16 : 6);
	nr = min(nr, NR_GFNS - gfn);

	if (CHANCE(7, 10) && !model->vms[vm].slots[slot].used) {
		call_bind(vm, slot, gfn, nr, NONE, 0);
		return true;
	}
	fd = pick_vm_fd(op->arg[6], vm);
	if (fd == NONE)
		return false;
	if (CHANCE(7, 11)) {
		bind_badly(vm, slot, fd,
			   op->arg[7] / 11 % ARRAY_SIZE(bad_slots));
		return true;
	}
	if (op->arg[7] >> 16 & 3)
		find_room(vm, model->fds[fd].view, &gfn, &nr, &page);
	call_bind(vm, slot, gfn, nr, fd, page);
	return true;
}

static bool op_unbind(const struct fuzz_op *op)
{
	int vm = pick_vm(op->arg[0]);
	int slot = ARG(1, NR_SLOTS), used;

	if (vm == NONE)
		return false;
	used = pick_slot(slot, &model->vms[vm]);
	if (used != NONE && ARG(2, 8))
		slot = used;
	call_unbind(vm, slot);
	return true;
}

/*
 * Accesses
 */

/* Mostly in a memslot. */
static int pick_gfn(int vm, uint32_t number)
{
	struct model_vm *v = &model->vms[vm];
	int slot = NONE;

	if (number >> 28)
		slot = pick_slot(number, v);
	number = number >> 8 & 0xffff;
	if (slot == NONE)
		return number % NR_GFNS;
	return v->slots[slot].gfn + number % v->slots[slot].nr;
}

static bool op_guest_access(const struct fuzz_op *op)
{
	int vm = pick_vm_mostly(op->arg[0], BUSY);
	struct wanted want[MAX_ACCESSES];
	int i, nr = 1 + ARG(1, MAX_ACCESSES);

	if (vm == NONE)
		return false;
	for (i = 0; i < nr; i++) {
		want[i] = (struct wanted) {
			.gfn = pick_gfn(vm, op->arg[2 + i]),
			.write = op->arg[1] >> (8 + i) & 1,
		};
	}
	call_guest_access(vm, nr, want);
	return true;
}

static const struct kvm_pre_fault_memory bad_prefault[] = {
	{ .gpa = WINDOW, .size = PAGE_SIZE, .flags = 1 },
	{ .gpa = WINDOW + 8, .size = PAGE_SIZE },
	{ .gpa = WINDOW, .size = PAGE_SIZE + 8 },
	{ .gpa = WINDOW, .size = 0 },
	{ .gpa = WINDOW, .size = -WINDOW },
};

static void prefault_badly(int vm, int which)
{
	struct kvm_pre_fault_memory range = bad_prefault[which];

	say("VM %d: bad prefault %d", vm, which);
	expect_errno(vm_errno(vm) ?: EINVAL,
		     ioctl(model->vms[vm].vcpu_fd, KVM_PRE_FAULT_MEMORY, &range));
}

static bool op_prefault(const struct fuzz_op *op)
{
	int vm = pick_vm_mostly(op->arg[0], BUSY), gfn, nr;

	if (vm == NONE)
		return false;
	if (CHANCE(1, 12)) {
		prefault_badly(vm, ARG(2, ARRAY_SIZE(bad_prefault)));
		return true;
	}
	gfn = pick_gfn(vm, op->arg[3]);
	nr = 1 + ARG(4, 8);
	call_prefault(vm, gfn, min(nr, NR_GFNS - gfn));
	return true;
}

static bool op_check(const struct fuzz_op *op)
{
	call_check();
	return true;
}

/*
 * Mappings
 */

static bool op_mmap(const struct fuzz_op *op)
{
	int prot = PROT_READ, flags = MAP_SHARED, fd = NONE;

	if (ARG(1, 4))
		fd = pick_mappable_fd(op->arg[0]);
	if (fd == NONE)
		fd = pick_fd(op->arg[0]);
	if (fd == NONE || FIND_FREE(model->maps) == NONE)
		return false;
	if (ARG(2, 3))
		prot |= PROT_WRITE;
	if (CHANCE(3, 12))
		prot |= PROT_EXEC;
	if (CHANCE(4, 12))
		flags = MAP_PRIVATE;
	call_mmap(fd, prot, flags);
	return true;
}

static bool op_munmap(const struct fuzz_op *op)
{
	int map = pick_own_map(op->arg[0]);

	if (map == NONE)
		return false;
	call_munmap(map);
	return true;
}

static bool op_host_access(const struct fuzz_op *op)
{
	int map = pick_map(op->arg[0]), nr_pages, page;

	if (map == NONE)
		return false;
	nr_pages = model_view_inode(model->maps[map].view)->nr_pages;
	if (CHANCE(1, 8)) {
		page = ARG(2, nr_pages);
		call_remove(map, page, min(1 + ARG(3, 3), nr_pages - page));
	} else {
		call_host_access(map, ARG(2, nr_pages + 1), ARG(3, 2));
	}
	return true;
}

/* Then, often, give the page back that somebody has a reference to. */
static bool op_pin(const struct fuzz_op *op)
{
	int map = pick_map(op->arg[0]), nr_pages, page, fd;

	if (map == NONE || FIND_FREE(model->pins) == NONE)
		return false;
	nr_pages = model_view_inode(model->maps[map].view)->nr_pages;
	page = ARG(1, nr_pages + CHANCE(2, 8));
	call_pin(map, page);
	fd = find_fd(model->maps[map].view);
	if (fd != NONE && ARG(3, 3)) {
		say("; ");
		call_punch(fd, page, 1 + ARG(4, 3));
	}
	return true;
}

/* How long it takes until what was punched meanwhile is given back. */
#define DEFERRED_MS	700

/* Sometimes, wait for what only large pages are about. */
static bool op_unpin(const struct fuzz_op *op)
{
	int pin = pick_own_pin(op->arg[0]);

	if (pin == NONE)
		return false;
	call_unpin(pin);
	if (unit == LARGE_UNIT && CHANCE(1, 4)) {
		say("; wait");
		usleep(DEFERRED_MS * 1000);
	}
	return true;
}

#endif /* SELFTEST_KVM_GMEM_FUZZ_OPS_H */
