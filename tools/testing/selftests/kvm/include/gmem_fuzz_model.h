/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fuzzer's model of guest_memfd: what guest_memfd.rst in the documentation
 * and <linux/guest_memfd.h> promise, and nothing of how the kernel does it.
 *
 * There are inodes, which hold one word for each page; views of them; what
 * holds views: descriptors, memslots and mappings; and VMs, with memory
 * attributes and memslots in a window of guest physical addresses.  The
 * functions tell what a call must return, or change the model as a call that
 * succeeds does.
 *
 * The model lives in memory that a child process shares with its parent, as it
 * can do to the kernel's objects what the parent can.
 */
#ifndef SELFTEST_KVM_GMEM_FUZZ_MODEL_H
#define SELFTEST_KVM_GMEM_FUZZ_MODEL_H

#include "gmem_link_util.h"

#define NR_VMS		4
#define NR_INODES	5
#define NR_VIEWS	24
#define NR_FDS		12
#define NR_MAPS		4
#define NR_PINS		3
#define NR_SLOTS	6
#define MAX_PAGES	24	/* of an inode */
#define NR_GFNS		40	/* in the window */
#define BEYOND		NR_GFNS	/* the attribute of all that follows it */

/*
 * How many bytes a page of the model has: one page, or half of what can be huge,
 * of which the first word is the one that counts.
 */
#define LARGE_UNIT SZ_1M

static uint64_t unit = PAGE_SIZE;

#define NONE		(-1)	/* for what is otherwise an index */

#define SHARE		KVM_LINK_GUEST_MEMFD_SHARE
#define READONLY	KVM_LINK_GUEST_MEMFD_READONLY
#define NO_FALLOCATE	KVM_LINK_GUEST_MEMFD_NO_FALLOCATE
#define FLAG_MMAP	GUEST_MEMFD_FLAG_MMAP
#define FLAG_SHARED	GUEST_MEMFD_FLAG_INIT_SHARED

enum model_state {
	ACTIVE,
	PENDING,
	REVOKED,
};

struct model_inode {
	bool used;
	uint64_t flags;
	int nr_pages;
	int pending;		/* the VM whose view is */
	uint32_t word[MAX_PAGES];
};

struct model_view {
	bool used;
	int inode;
	int vm;			/* NONE: dead */
	uint64_t rights;	/* that are missing: READONLY, NO_FALLOCATE */
	enum model_state state;
	int refs;
};

struct model_slot {
	bool used;
	int gfn, nr;
	int view;		/* NONE: no guest_memfd */
	int page;
};

/* Processes are numbered: who has more can use what those with less have. */
struct model_vm {
	bool used;
	bool dead;		/* moved away */
	bool protected;
	int process;
	bool private[NR_GFNS + 1];
	uint32_t shared[NR_GFNS]; /* the words of the shared half */
	struct model_slot slots[NR_SLOTS];

	/* The real thing. */
	int fd, vcpu_fd;
	struct kvm_run *run;
	void *low, *mem;
};

struct model_fd {
	bool used;
	int in_flight;		/* from a child to its parent, as which one */
	int process;
	int view;
	int fd;
};

struct model_map {
	bool used;
	bool writable;
	int process;
	int view;
	void *mem;
};

/* Somebody else's reference to a page.  It does not matter to what anybody finds. */
struct model_pin {
	bool used;
	int process;
	int pipe[2];
};

struct model {
	struct model_inode inodes[NR_INODES];
	struct model_view views[NR_VIEWS];
	struct model_vm vms[NR_VMS];
	struct model_fd fds[NR_FDS];
	struct model_map maps[NR_MAPS];
	struct model_pin pins[NR_PINS];
};

static struct model *model;

/* The first entry that is not used, of an array of what begins with that. */
#define FIND_FREE(array)						\
	find_free(array, sizeof((array)[0]), sizeof(array))

static inline int find_free(const void *array, size_t step, size_t size)
{
	size_t offset;

	for (offset = 0; offset < size; offset += step) {
		if (!*(const bool *)(array + offset))
			return offset / step;
	}
	return NONE;
}

/*
 * Views
 */

static inline struct model_view *model_view(int view)
{
	TEST_ASSERT(view >= 0 && model->views[view].used, "the model is broken");
	return &model->views[view];
}

static inline struct model_inode *model_view_inode(int view)
{
	return &model->inodes[model_view(view)->inode];
}

static inline int model_nr_active(int inode)
{
	struct model_view *v;
	int nr = 0;

	for (v = model->views; v < model->views + NR_VIEWS; v++)
		nr += v->used && v->inode == inode && v->vm != NONE &&
		      v->state == ACTIVE;
	return nr;
}

/* The living view that a VM has of an inode. */
static inline int model_find_view(int inode, int vm)
{
	struct model_view *v;

	for (v = model->views; v < model->views + NR_VIEWS; v++) {
		if (v->used && v->inode == inode && v->vm == vm)
			return v - model->views;
	}
	return NONE;
}

/* The last active view of a living VM has gone: the next in line is. */
static inline void model_activate_pending(int inode)
{
	struct model_inode *mi = &model->inodes[inode];
	struct model_view *v;

	if (model_nr_active(inode))
		return;

	for (v = model->views; v < model->views + NR_VIEWS; v++) {
		if (v->used && v->inode == inode && v->state == PENDING &&
		    v->vm == mi->pending)
			v->state = ACTIVE;
	}
	mi->pending = NONE;
}

/* The view has no VM any more. */
static inline void model_disown(struct model_view *v)
{
	struct model_inode *mi = &model->inodes[v->inode];

	if (v->state == PENDING && mi->pending == v->vm)
		mi->pending = NONE;
	v->vm = NONE;
	model_activate_pending(v->inode);
}

static inline int model_new_view(int inode, int vm)
{
	int view = FIND_FREE(model->views);

	TEST_ASSERT(view != NONE, "the model has no view left");
	model->views[view] = (struct model_view) {
		.used = true,
		.inode = inode,
		.vm = vm,
		.refs = 1,
	};
	return view;
}

static inline void model_get_view(int view)
{
	model_view(view)->refs++;
}

static inline void model_put_view(int view)
{
	struct model_view *v = model_view(view);
	int i;

	if (--v->refs)
		return;

	if (v->vm != NONE)
		model_disown(v);
	v->used = false;
	for (i = 0; i < NR_VIEWS; i++) {
		if (model->views[i].used && model->views[i].inode == v->inode)
			return;
	}
	model->inodes[v->inode].used = false;
}

static inline bool model_may_change(int view)
{
	return model_view(view)->state == ACTIVE &&
	       !(model_view(view)->rights & NO_FALLOCATE);
}

static inline void model_punch(int view, int page, int nr)
{
	struct model_inode *mi = model_view_inode(view);

	for (; nr--; page++) {
		if (page < mi->nr_pages)
			mi->word[page] = 0;
	}
}

/*
 * Creating and linking
 */

static inline uint64_t model_supported_flags(struct model_vm *vm)
{
	return vm->protected ? FLAG_MMAP : FLAG_MMAP | FLAG_SHARED;
}

static inline int model_create(int vm, uint64_t flags, int nr_pages)
{
	int inode = FIND_FREE(model->inodes);

	TEST_ASSERT(inode != NONE, "the model has no inode left");
	model->inodes[inode] = (struct model_inode) {
		.used = true,
		.flags = flags,
		.nr_pages = nr_pages,
		.pending = NONE,
	};
	return model_new_view(inode, vm);
}

/* The argument is valid in itself, and the VM lives. */
static inline int model_link_errno(int vm, int view, uint64_t flags)
{
	struct model_inode *mi = model_view_inode(view);
	struct model_view *v = model_view(view);

	int err = 0;

	if (flags & READONLY)
		flags |= NO_FALLOCATE;
	if (v->state != ACTIVE || model_find_view(v->inode, vm) != NONE ||
	    mi->flags & ~model_supported_flags(&model->vms[vm]))
		err = EINVAL;
	else if (v->rights & ~flags)
		err = EPERM;
	else if (mi->pending != NONE)
		err = EBUSY;
	return err;
}

static inline int model_link(int vm, int from, uint64_t flags)
{
	int inode = model_view(from)->inode;
	bool active = flags & SHARE || !model_nr_active(inode);
	int view = model_new_view(inode, vm);
	struct model_view *v = model_view(view);

	v->rights = flags & (READONLY | NO_FALLOCATE);
	if (flags & READONLY)
		v->rights |= NO_FALLOCATE;
	v->state = active ? ACTIVE : PENDING;
	if (!active)
		model->inodes[inode].pending = vm;
	return view;
}

/*
 * Memslots
 */

static inline bool model_overlap(int a, int nr_a, int b, int nr_b)
{
	return a < b + nr_b && b < a + nr_a;
}

static inline struct model_slot *model_find_slot(struct model_vm *vm, int gfn)
{
	struct model_slot *s;

	for (s = vm->slots; s < vm->slots + NR_SLOTS; s++) {
		if (s->used && model_overlap(gfn, 1, s->gfn, s->nr))
			return s;
	}
	return NULL;
}

/* What is wrong with the binding as such comes last. */
static inline int model_bind_errno(int vm, struct model_slot *new)
{
	struct model_vm *v = &model->vms[vm];
	bool same_gfns = false, same_pages = false;
	struct model_slot *s;
	int err = 0;

	for (s = v->slots; s < v->slots + NR_SLOTS; s++) {
		if (!s->used)
			continue;
		same_gfns |= model_overlap(s->gfn, s->nr, new->gfn, new->nr);
		same_pages |= s->view == new->view && new->view != NONE &&
			      model_overlap(s->page, s->nr, new->page, new->nr);
	}

	if (same_gfns)
		err = EEXIST;
	else if (new->view == NONE)
		err = 0;
	else if (model_view(new->view)->vm != vm ||
		 new->page + new->nr > model_view_inode(new->view)->nr_pages)
		err = EINVAL;
	else if (same_pages)
		err = EEXIST;
	return err;
}

static inline void model_bind(struct model_slot *slot, struct model_slot *new)
{
	*slot = *new;
	slot->used = true;
	if (slot->view != NONE)
		model_get_view(slot->view);
}

static inline void model_unbind(struct model_slot *slot)
{
	slot->used = false;
	if (slot->view != NONE)
		model_put_view(slot->view);
}

/*
 * Accesses
 */

enum model_found {
	FOUND,		/* a word */
	FAULT,		/* KVM_EXIT_MEMORY_FAULT, or SIGBUS for the host */
	NOTHING,	/* no memory: KVM_EXIT_MMIO */
	REFUSED,	/* SIGSEGV, for the host */
};

/* What a guest finds at @gfn, and where the model has its word. */
static inline enum model_found model_guest_access(int vm, int gfn, bool write,
						  uint32_t **word)
{
	struct model_vm *v = &model->vms[vm];
	struct model_slot *s = model_find_slot(v, gfn);
	struct model_view *view;

	if (!s)
		return v->private[gfn] ? FAULT : NOTHING;

	*word = &v->shared[gfn];
	if (s->view == NONE)
		return v->private[gfn] ? FAULT : FOUND;
	if (!v->private[gfn] && !(model_view_inode(s->view)->flags & FLAG_MMAP))
		return FOUND;

	view = model_view(s->view);
	if (view->state != ACTIVE || (write && view->rights & READONLY))
		return FAULT;
	*word = &model->inodes[view->inode].word[s->page + gfn - s->gfn];
	return FOUND;
}

/* What the host finds at page @page of a mapping. */
static inline enum model_found model_host_access(struct model_map *map,
						 int page, bool write,
						 uint32_t **word)
{
	struct model_inode *mi = model_view_inode(map->view);

	if (write && !map->writable)
		return REFUSED;
	if (page >= mi->nr_pages || !(mi->flags & FLAG_SHARED) ||
	    model_view(map->view)->state != ACTIVE)
		return FAULT;
	*word = &mi->word[page];
	return FOUND;
}

/* How many of @nr pages the guest is going to find; errno if none. */
static inline int model_prefault(int vm, int gfn, int nr, int *done)
{
	enum model_found found = FOUND;
	uint32_t *word;

	for (*done = 0; *done < nr; (*done)++) {
		found = model_guest_access(vm, gfn + *done, false, &word);
		if (found != FOUND)
			break;
	}
	if (*done)
		return 0;
	return found == NOTHING ? ENOENT : EFAULT;
}

/*
 * The lives of VMs
 */

static inline void model_destroy_vm(int vm)
{
	struct model_vm *v = &model->vms[vm];
	int i;

	for (i = 0; i < NR_VIEWS; i++) {
		if (model->views[i].used && model->views[i].vm == vm)
			model_disown(&model->views[i]);
	}
	for (i = 0; i < NR_SLOTS; i++) {
		if (v->slots[i].used)
			model_unbind(&v->slots[i]);
	}
	v->used = false;
}

static inline bool model_same_slots(struct model_vm *a, struct model_vm *b)
{
	struct model_slot *s, *t;
	int nr = 0, i;

	for (i = 0; i < NR_SLOTS; i++) {
		nr += a->slots[i].used - b->slots[i].used;
		s = &a->slots[i];
		if (!s->used)
			continue;
		t = model_find_slot(b, s->gfn);
		if (!t || t->gfn != s->gfn || t->nr != s->nr)
			return false;
		if (s->view == NONE && t->view == NONE)
			continue;
		if (s->view == NONE || t->view == NONE || t->page != s->page ||
		    model_view_inode(t->view) != model_view_inode(s->view))
			return false;
	}
	return !nr;
}

/* Does each view of the one have its counterpart in the other VM? */
static inline bool model_views_pair(int dst, int src)
{
	struct model_view *v;
	int unpaired = 0;

	for (v = model->views; v < model->views + NR_VIEWS; v++) {
		if (!v->used)
			continue;
		if (v->vm == dst) {
			if (v->state != PENDING || model_nr_active(v->inode) != 1)
				return false;
			unpaired++;
		} else if (v->vm == src) {
			if (v->state != ACTIVE ||
			    model->inodes[v->inode].pending != dst)
				return false;
			unpaired--;
		}
	}
	return !unpaired;
}

static inline bool model_has_private(const struct model_vm *vm)
{
	return memchr(vm->private, true, sizeof(vm->private));
}

/* @dst lives, and is this process's. */
static inline int model_move_errno(int dst, int src)
{
	struct model_vm *d = &model->vms[dst], *s = &model->vms[src];
	bool ok = dst != src && d->protected && s->protected && !s->dead &&
		  model_same_slots(d, s) && !model_has_private(d) &&
		  model_views_pair(dst, src);

	return ok ? 0 : EINVAL;
}

/* Return how many views have got memory that way. */
static inline int model_move(int dst, int src)
{
	struct model_vm *d = &model->vms[dst], *s = &model->vms[src];
	struct model_view *v, *w;
	int nr = 0;

	for (v = model->views; v < model->views + NR_VIEWS; v++) {
		if (!v->used || v->vm != dst)
			continue;
		nr++;
		for (w = model->views; w < model->views + NR_VIEWS; w++) {
			if (w->used && w->inode == v->inode)
				w->state = w == v ? ACTIVE : REVOKED;
		}
		model->inodes[v->inode].pending = NONE;
	}
	memcpy(d->private, s->private, sizeof(d->private));
	memset(s->private, 0, sizeof(s->private));
	s->dead = true;
	return nr;
}

/* Everything of a process but its descriptors of guest_memfds on their way. */
static inline void model_end_process(int process)
{
	int i;

	for (i = 0; i < NR_MAPS; i++) {
		if (model->maps[i].used && model->maps[i].process == process) {
			model->maps[i].used = false;
			model_put_view(model->maps[i].view);
		}
	}
	for (i = 0; i < NR_PINS; i++)
		model->pins[i].used &= model->pins[i].process != process;
	for (i = 0; i < NR_FDS; i++) {
		if (model->fds[i].used && model->fds[i].process == process) {
			model->fds[i].used = false;
			model_put_view(model->fds[i].view);
		}
	}
	for (i = 0; i < NR_VMS; i++) {
		if (model->vms[i].used && model->vms[i].process == process)
			model_destroy_vm(i);
	}
}

#endif /* SELFTEST_KVM_GMEM_FUZZ_MODEL_H */
