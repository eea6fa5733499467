/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the fuzzer's operations pick what they are about: a random number says
 * which of those that there are, and of which kind.  Most should be such that
 * something happens, but not all.
 */
#ifndef SELFTEST_KVM_GMEM_FUZZ_PICK_H
#define SELFTEST_KVM_GMEM_FUZZ_PICK_H

#include "gmem_fuzz_calls.h"

/* The first that is set in @mask, of @nr bits, from a random one on. */
static int pick(uint32_t number, int nr, uint32_t mask)
{
	int i;

	for (i = 0; i < nr; i++) {
		if (mask >> (number + i) % nr & 1)
			return (number + i) % nr;
	}
	return NONE;
}

enum vm_kind {
	ANY,
	OWN,		/* this process's */
	ALIVE,		/* and not moved away */
	PROTECTED,	/* and software-protected */
	BUSY,		/* or with memslots */
	LEFT,		/* this process's, moved away */
};

static bool vm_is(const struct model_vm *v, enum vm_kind kind)
{
	bool alive = v->process == self && !v->dead;

	switch (kind) {
	case ANY:
		return true;
	case OWN:
		return v->process == self;
	case ALIVE:
		return alive;
	case PROTECTED:
		return alive && v->protected;
	case BUSY:
		return alive && FIND_FREE(v->slots) != 0;
	case LEFT:
		return v->process == self && v->dead;
	}
	return false;
}

static int pick_vm_of(uint32_t number, enum vm_kind kind)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_VMS; i++)
		mask |= (model->vms[i].used && vm_is(&model->vms[i], kind)) << i;
	return pick(number, NR_VMS, mask);
}

/* Mostly one of that kind, or one that works. */
static int pick_vm_mostly(uint32_t number, enum vm_kind kind)
{
	int vm = NONE;

	if (number >> 16 & 7)
		vm = pick_vm_of(number, kind);
	if (vm == NONE && number >> 20 & 7)
		vm = pick_vm_of(number, ALIVE);
	return vm != NONE ? vm : pick_vm_of(number, ANY);
}

static int pick_vm(uint32_t number)
{
	return pick_vm_mostly(number, ALIVE);
}

static int pick_fd(uint32_t number)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_FDS; i++)
		mask |= fd_is_usable(i) << i;
	return pick(number, NR_FDS, mask);
}

static int pick_own_fd(uint32_t number)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_FDS; i++)
		mask |= (fd_is_usable(i) && model->fds[i].process == self) << i;
	return pick(number, NR_FDS, mask);
}

/* Mostly one of the VM's. */
static int pick_vm_fd(uint32_t number, int vm)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_FDS && number >> 16 & 7; i++)
		mask |= (fd_is_usable(i) &&
			 model_view(model->fds[i].view)->vm == vm) << i;
	return mask ? pick(number, NR_FDS, mask) : pick_fd(number);
}

/* One that can be linked. */
static int pick_link(uint32_t number, int vm, uint64_t flags)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_FDS; i++)
		mask |= (fd_is_usable(i) &&
			 !model_link_errno(vm, model->fds[i].view, flags)) << i;
	return pick(number, NR_FDS, mask);
}

/* One that can be mapped. */
static int pick_mappable_fd(uint32_t number)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_FDS; i++)
		mask |= (fd_is_usable(i) &&
			 model_view_inode(model->fds[i].view)->flags &
			 FLAG_MMAP) << i;
	return pick(number, NR_FDS, mask);
}

static int pick_map(uint32_t number)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_MAPS; i++)
		mask |= map_is_usable(i) << i;
	return pick(number, NR_MAPS, mask);
}

static int pick_own_map(uint32_t number)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_MAPS; i++)
		mask |= (map_is_usable(i) && model->maps[i].process == self) << i;
	return pick(number, NR_MAPS, mask);
}

static int pick_own_pin(uint32_t number)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_PINS; i++)
		mask |= (model->pins[i].used && model->pins[i].process == self) << i;
	return pick(number, NR_PINS, mask);
}

static int pick_slot(uint32_t number, const struct model_vm *v)
{
	uint32_t mask = 0;
	int i;

	for (i = 0; i < NR_SLOTS; i++)
		mask |= v->slots[i].used << i;
	return pick(number, NR_SLOTS, mask);
}

#endif /* SELFTEST_KVM_GMEM_FUZZ_PICK_H */
