/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fuzzer's calls: each does one thing to the kernel's objects, expects of
 * it what the model says, and then does the same to the model.
 */
#ifndef SELFTEST_KVM_GMEM_FUZZ_CALLS_H
#define SELFTEST_KVM_GMEM_FUZZ_CALLS_H

#include <sys/uio.h>

#include "gmem_fuzz_vm.h"
#include "gmem_mmap_util.h"

#define BAD_FD		1000	/* is not open */
#define BAD_FLAG	BIT_ULL(40)

/* This process's number: 0, or 1 in a child. */
static int self;

/* Each word that is written is another. */
static inline uint32_t new_word(void)
{
	return ++fuzz->last_word;
}

/* Descriptors that a child makes are no use to its parent. */
static inline bool fd_is_usable(int i)
{
	struct model_fd *f = &model->fds[i];

	return f->used && !f->in_flight && f->process <= self;
}

static inline bool map_is_usable(int i)
{
	return model->maps[i].used && model->maps[i].process <= self;
}

/* Every ioctl of a VM, or of its vCPU, gives this if it is not 0. */
static inline int vm_errno(int vm)
{
	return model->vms[vm].dead || model->vms[vm].process != self ? EIO : 0;
}

/* A descriptor of a view, or NONE. */
static inline int find_fd(int view)
{
	int i;

	for (i = 0; i < NR_FDS; i++) {
		if (fd_is_usable(i) && model->fds[i].view == view)
			return i;
	}
	return NONE;
}

static inline bool has_room_for_view(void)
{
	return FIND_FREE(model->fds) != NONE && FIND_FREE(model->views) != NONE;
}

/* Takes over a reference to @view. */
static inline int add_fd(int view, int fd)
{
	int i = FIND_FREE(model->fds);

	TEST_ASSERT(i != NONE, "the model has no descriptor left");
	model->fds[i] = (struct model_fd) {
		.used = true,
		.process = self,
		.view = view,
		.fd = fd,
	};
	say(" (fd %d, view %d)", i, view);
	return i;
}

/*
 * VMs
 */

static inline void call_create_vm(int vm, bool protected)
{
	say("create %s VM %d", protected ? "protected" : "ordinary", vm);
	tiny_create(&model->vms[vm], protected, self);
	count(true);
}

static inline void call_destroy_vm(int vm)
{
	say("destroy VM %d", vm);
	tiny_destroy(&model->vms[vm]);
	count(true);
	model_destroy_vm(vm);
}

static inline void call_set_attributes(int vm, int gfn, int nr, bool private)
{
	struct model_vm *v = &model->vms[vm];
	struct kvm_memory_attributes attr = {
		.address = WINDOW + gfn * unit,
		.size = nr * unit,
		.attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
	};
	int want = vm_errno(vm);

	if (!want && private && !v->protected)
		want = EINVAL;
	/* The last one is many. */
	if (gfn + nr > BEYOND)
		attr.size += SZ_1G;
	say("VM %d: gfn %d+%d %s", vm, gfn, nr, private ? "private" : "shared");
	if (expect_errno(want, ioctl(v->fd, KVM_SET_MEMORY_ATTRIBUTES, &attr)))
		memset(v->private + gfn, private, nr);
}

static inline void call_move(int dst, int src)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM,
		.args[0] = model->vms[src].fd,
	};
	int want = vm_errno(dst) ?: model_move_errno(dst, src);

	say("move VM %d to VM %d", src, dst);
	if (expect_errno(want, ioctl(model->vms[dst].fd, KVM_ENABLE_CAP, &cap)))
		fuzz->nr_handed_over += model_move(dst, src);
}

/*
 * Memslots
 */

static inline void call_bind(int vm, int slot, int gfn, int nr, int fd,
			     int page)
{
	struct model_vm *v = &model->vms[vm];
	struct model_slot new = {
		.gfn = gfn,
		.nr = nr,
		.view = fd == NONE ? NONE : model->fds[fd].view,
		.page = page,
	};
	int want = vm_errno(vm);
	long ret;

	say("VM %d: slot %d gfn %d+%d, fd %d page %d", vm, slot, gfn, nr, fd,
	    page);
	if (!want)
		want = v->slots[slot].used ? EINVAL : model_bind_errno(vm, &new);
	ret = set_region(v, slot, fd == NONE ? 0 : KVM_MEM_GUEST_MEMFD,
			 WINDOW + gfn * unit, nr * unit,
			 v->mem + gfn * unit,
			 fd == NONE ? -1 : model->fds[fd].fd, page * unit);
	if (expect_errno(want, ret))
		model_bind(&v->slots[slot], &new);
}

static inline void call_unbind(int vm, int slot)
{
	struct model_vm *v = &model->vms[vm];
	int want = vm_errno(vm) ?: v->slots[slot].used ? 0 : EINVAL;

	say("VM %d: delete slot %d", vm, slot);
	if (expect_errno(want, set_region(v, slot, 0, 0, 0, NULL, -1, 0)))
		model_unbind(&v->slots[slot]);
}

/*
 * Files
 */

static inline void call_create(int vm, uint64_t flags, uint64_t size)
{
	struct kvm_create_guest_memfd arg = {
		.size = size,
		.flags = flags,
		.reserved[0] = 1,	/* is ignored */
	};
	bool bad = !size || size % PAGE_SIZE || (int64_t)size < 0 ||
		   flags & ~model_supported_flags(&model->vms[vm]);
	int want = vm_errno(vm) ?: bad ? EINVAL : 0;
	int fd;

	say("VM %d: create guest_memfd, 0x%lx bytes, flags 0x%lx", vm, size,
	    flags);
	fd = ioctl(model->vms[vm].fd, KVM_CREATE_GUEST_MEMFD, &arg);
	if (expect_errno(want, fd))
		add_fd(model_create(vm, flags, size / unit), fd);
}

/* Returns the new descriptor's number in the model, or NONE. */
static inline int call_link(int vm, int from, uint64_t flags)
{
	struct kvm_link_guest_memfd arg = {
		.fd = model->fds[from].fd,
		.flags = flags,
	};
	int view = model->fds[from].view;
	int want = vm_errno(vm);
	int fd;

	if (!want && (flags & ~(SHARE | READONLY | NO_FALLOCATE) ||
		      (flags && !(flags & SHARE))))
		want = EINVAL;
	if (!want)
		want = model_link_errno(vm, view, flags);
	say("VM %d: link fd %d, flags 0x%lx", vm, from, flags);
	fd = ioctl(model->vms[vm].fd, KVM_LINK_GUEST_MEMFD, &arg);
	if (!expect_errno(want, fd))
		return NONE;
	return add_fd(model_link(vm, view, flags), fd);
}

static inline void call_dup(int fd)
{
	int copy = dup(model->fds[fd].fd);

	say("dup fd %d", fd);
	MUST(copy >= 0, "dup()");
	count(true);
	model_get_view(model->fds[fd].view);
	add_fd(model->fds[fd].view, copy);
}

static inline void call_close(int fd)
{
	struct model_fd *f = &model->fds[fd];

	say("close fd %d, view %d", fd, f->view);
	MUST(!close(f->fd), "close()");
	count(true);
	f->used = false;
	model_put_view(f->view);
}

static inline void call_punch(int fd, int page, int nr)
{
	struct model_fd *f = &model->fds[fd];
	int want = model_may_change(f->view) ? 0 : EPERM;

	say("fd %d: punch page %d+%d", fd, page, nr);
	if (expect_errno(want, fallocate(f->fd, GMEM_PUNCH, page * unit,
					 nr * unit)))
		model_punch(f->view, page, nr);
}

static inline void call_allocate(int fd, int page, int nr)
{
	struct model_fd *f = &model->fds[fd];
	int want = model_may_change(f->view) ? 0 : EPERM;

	if (page + nr > model_view_inode(f->view)->nr_pages)
		want = EINVAL;
	say("fd %d: allocate page %d+%d", fd, page, nr);
	expect_errno(want, fallocate(f->fd, FALLOC_FL_KEEP_SIZE,
				     page * unit, nr * unit));
}

/*
 * Mappings, which end a page behind the file
 */

static inline size_t map_size(int view)
{
	return (model_view_inode(view)->nr_pages + 1) * unit;
}

static inline void call_mmap(int fd, int prot, int flags)
{
	int view = model->fds[fd].view;
	int i = FIND_FREE(model->maps);
	int want = 0;
	void *mem;

	if (prot & PROT_EXEC)
		want = EPERM;
	else if (!(model_view_inode(view)->flags & FLAG_MMAP))
		want = ENODEV;
	else if (flags & MAP_PRIVATE)
		want = EINVAL;
	else if (prot & PROT_WRITE && model_view(view)->rights & READONLY)
		want = EACCES;
	say("mapping %d: fd %d, prot %d, flags %d", i, fd, prot, flags);
	mem = mmap(NULL, map_size(view), prot, flags, model->fds[fd].fd, 0);
	if (!expect_errno(want, mem == MAP_FAILED ? -1 : 0))
		return;

	model->maps[i] = (struct model_map) {
		.used = true,
		.writable = prot & PROT_WRITE,
		.process = self,
		.view = view,
		.mem = mem,
	};
	model_get_view(view);
}

static inline void call_munmap(int map)
{
	struct model_map *m = &model->maps[map];

	say("unmap mapping %d, view %d", map, m->view);
	MUST(!munmap(m->mem, map_size(m->view)), "munmap()");
	count(true);
	m->used = false;
	model_put_view(m->view);
}

static inline void host_access(int map, int page, bool write)
{
	static const int signals[] = {
		[FAULT]	  = SIGBUS,
		[REFUSED] = SIGSEGV,
	};
	struct model_map *m = &model->maps[map];
	void *addr = m->mem + page * unit;
	enum model_found want;
	uint32_t *word = NULL;
	uint64_t val = 0;
	int sig;

	want = model_host_access(m, page, write, &word);
	if (want == FOUND && write)
		*word = new_word();
	sig = write ? gmem_try_write(addr, want == FOUND ? *word : 0xbad) :
		      gmem_try_read(addr, &val);
	fuzz->nr_accesses++;
	if (sig != signals[want])
		fail("mapping %d, page %d: signal %d instead of %d", map, page,
		     sig, signals[want]);
	count(!sig);
	if (!sig && !write && val != *word)
		fail("mapping %d, page %d: the host reads 0x%lx instead of 0x%x",
		     map, page, val, *word);
}

static inline void call_host_access(int map, int page, bool write)
{
	say("mapping %d: %s page %d", map, write ? "write" : "read", page);
	host_access(map, page, write);
}

/* The hole that is punched by way of a mapping. */
static inline void call_remove(int map, int page, int nr)
{
	struct model_map *m = &model->maps[map];
	int want = 0;

	if (model_view(m->view)->rights & READONLY)
		want = EACCES;
	else if (!model_may_change(m->view))
		want = EPERM;
	say("mapping %d: remove page %d+%d", map, page, nr);
	if (expect_errno(want, madvise(m->mem + page * unit, nr * unit,
				       MADV_REMOVE)))
		model_punch(m->view, page, nr);
}

/*
 * References to pages, from pipes
 */

static inline void call_pin(int map, int page)
{
	struct model_map *m = &model->maps[map];
	struct iovec iov = { m->mem + page * unit, PAGE_SIZE };
	int i = FIND_FREE(model->pins);
	struct model_pin *pin = &model->pins[i];
	enum model_found found;
	uint32_t *word;

	found = model_host_access(m, page, false, &word);
	say("pin %d: mapping %d, page %d", i, map, page);
	MUST(!pipe(pin->pipe), "pipe()");
	pin->used = true;
	pin->process = self;
	expect_errno(found == FOUND ? 0 : EFAULT,
		     vmsplice(pin->pipe[1], &iov, 1, 0));
}

static inline void call_unpin(int i)
{
	struct model_pin *pin = &model->pins[i];

	say("drop pin %d", i);
	close(pin->pipe[0]);
	close(pin->pipe[1]);
	count(true);
	pin->used = false;
}

/*
 * The guest's accesses
 */

struct wanted {
	int gfn;
	bool write;
	enum model_found found;
	uint32_t word;
};

static inline void guest_check(int vm, struct wanted *want, uint32_t word,
			       enum model_found found)
{
	static const char * const names[] = {
		[FOUND]	  = "memory",
		[FAULT]	  = "a memory fault",
		[NOTHING] = "nothing",
	};
	const char *what = want->write ? "writing to" : "reading";

	if (found != want->found)
		fail("VM %d, %s gfn %d: %s instead of %s", vm, what, want->gfn,
		     names[found], names[want->found]);
	count(found == FOUND);
	if (found == FOUND && word != want->word)
		fail("VM %d, reading gfn %d: 0x%x instead of 0x%x", vm,
		     want->gfn, word, want->word);
}

/* Have the guest access @nr pages; @want has gfn and write of each. */
static inline void guest_access(int vm, int nr, struct wanted *want)
{
	struct model_vm *v = &model->vms[vm];
	struct guest_access *list = tiny_list(v);
	enum model_found found[NR_GFNS];
	uint32_t *word = NULL;
	int i;

	for (i = 0; i < nr; i++) {
		want[i].found = model_guest_access(vm, want[i].gfn,
						   want[i].write, &word);
		list[i] = (struct guest_access) {
			.gpa = WINDOW + want[i].gfn * unit,
			.write = want[i].write,
		};
		if (want[i].write)
			list[i].word = new_word();
		if (want[i].found != FOUND)
			continue;
		if (want[i].write)
			*word = list[i].word;
		want[i].word = *word;
	}

	tiny_run(v, nr, found);
	fuzz->nr_accesses += nr;
	for (i = 0; i < nr; i++)
		guest_check(vm, &want[i], list[i].word, found[i]);
}

static inline void call_guest_access(int vm, int nr, struct wanted *want)
{
	int i;

	say("VM %d:", vm);
	for (i = 0; i < nr; i++)
		say(" %s %d", want[i].write ? "write" : "read", want[i].gfn);
	if (vm_errno(vm))
		expect_errno(EIO, tiny_enter(&model->vms[vm], 0) ? -1 : 0);
	else
		guest_access(vm, nr, want);
}

static inline void call_prefault(int vm, int gfn, int nr)
{
	struct kvm_pre_fault_memory range = {
		.gpa = WINDOW + gfn * unit,
		.size = nr * unit,
	};
	int want = vm_errno(vm), done = 0;

	if (!want)
		want = model_prefault(vm, gfn, nr, &done);
	say("VM %d: prefault gfn %d+%d", vm, gfn, nr);
	expect_errno(want, ioctl(model->vms[vm].vcpu_fd, KVM_PRE_FAULT_MEMORY,
				 &range));
	if (range.size != (nr - done) * unit ||
	    range.gpa != WINDOW + (gfn + done) * unit)
		fail("prefault left 0x%llx bytes at 0x%llx instead of %d pages",
		     range.size, range.gpa, nr - done);
}

/* All that guests and host can read holds what it must. */
static inline void check_vm(int vm)
{
	struct model_vm *v = &model->vms[vm];
	struct wanted want[NR_GFNS];
	uint32_t *word, val;
	int i, nr = 0;

	for (i = 0; i < NR_GFNS; i++) {
		val = READ_ONCE(*(uint32_t *)(v->mem + i * unit));
		if (val != v->shared[i])
			fail("VM %d, gfn %d, shared: 0x%x instead of 0x%x", vm,
			     i, val, v->shared[i]);
		if (model_guest_access(vm, i, false, &word) == FOUND)
			want[nr++] = (struct wanted) { .gfn = i };
	}
	if (nr)
		guest_access(vm, nr, want);
}

static inline void call_check(void)
{
	uint32_t *word;
	int i, j;

	say("check all");
	for (i = 0; i < NR_VMS; i++) {
		if (model->vms[i].used && !vm_errno(i))
			check_vm(i);
	}
	for (i = 0; i < NR_MAPS; i++) {
		for (j = 0; map_is_usable(i) && j < MAX_PAGES; j++) {
			if (model_host_access(&model->maps[i], j, false,
					      &word) == FOUND)
				host_access(i, j, false);
		}
	}
}

#endif /* SELFTEST_KVM_GMEM_FUZZ_CALLS_H */
