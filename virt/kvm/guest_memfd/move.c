// SPDX-License-Identifier: GPL-2.0
/*
 * The move: one VM becomes another VM's successor.
 */

/**
 * DOC: Moves
 *
 * A move gives the memory and the memory attributes of the source to the
 * destination, which has linked all of that memory and bound it to memslots that
 * are the source's.  What else makes up a guest, above all the state of its
 * vCPUs, userspace moves itself, before: the source is dead afterwards.
 *
 * First everything is checked.  What comes then cannot fail, and costs the same
 * whatever the size of the memory: attributes are one pointer, and a view is a
 * few words.  (What the destination has mapped as shared before is zapped, but
 * that should be nothing.)  The source's page tables are as large as its memory
 * was used, so they are left to a work item, which gives the destination time to
 * run its guest, and the source's VMM to exit, which is all the same.  That is
 * harmless: no vCPU of a dead VM enters the guest, and a page that leaves the file
 * is zapped from them as from any other VM's.
 *
 * Locking: kvm->lock of both VMs, in the order of their addresses; then each
 * vcpu->mutex of either; then slots_lock of both.  The two kvm->lock make the order
 * of what comes inside of them free of conflicts.
 *
 * A vcpu->mutex is held while the guest runs.  Whoever wants a kvm->lock must not
 * have to wait for that, without end and deaf to signals.  So if one cannot be had,
 * the move lets go of all locks, waits for that one, and begins anew.  A fatal
 * signal ends this wait, and that for any other of the locks.  So does the end of
 * the vCPU's VM, for kvm_vm_dead() gets even those that sleep out of KVM_RUN.
 */

#include <linux/file.h>

#include "gmem.h"
#include "../kvm_mm.h"

/*
 * A vCPU's mutex nests in its VM's lock, like any number of its siblings.
 * Lockdep has to be told, since there is no way to try to lock like that.
 */
static bool kvm_gmem_trylock_vcpu(struct kvm_vcpu *vcpu)
{
	if (!mutex_trylock(&vcpu->mutex))
		return false;

	mutex_release(&vcpu->mutex.dep_map, _RET_IP_);
	mutex_acquire_nest(&vcpu->mutex.dep_map, 0, 0, &vcpu->kvm->lock.dep_map,
			   _RET_IP_);
	return true;
}

/* Unlock the first @nr vCPUs. */
static void kvm_gmem_unlock_vcpus(struct kvm *kvm, unsigned long nr)
{
	while (nr--)
		mutex_unlock(&kvm_get_vcpu(kvm, nr)->mutex);
}

/* Lock all vCPUs; or none, and return one that is in use. */
static struct kvm_vcpu *kvm_gmem_trylock_vcpus(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	lockdep_assert_held(&kvm->lock);

	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (!kvm_gmem_trylock_vcpu(vcpu)) {
			kvm_gmem_unlock_vcpus(kvm, i);
			return vcpu;
		}
	}

	return NULL;
}

static void kvm_gmem_unlock_all_vcpus(struct kvm *kvm)
{
	kvm_gmem_unlock_vcpus(kvm, atomic_read(&kvm->online_vcpus));
}

static int kvm_gmem_lock_vms(struct kvm *dst, struct kvm *src)
{
	struct kvm *first = min(dst, src);
	struct kvm *second = max(dst, src);

	if (mutex_lock_killable(&first->lock))
		return -EINTR;

	if (mutex_lock_killable_nested(&second->lock, SINGLE_DEPTH_NESTING)) {
		mutex_unlock(&first->lock);
		return -EINTR;
	}

	return 0;
}

static int kvm_gmem_lock_slots(struct kvm *dst, struct kvm *src)
{
	lockdep_assert_held(&dst->lock);
	lockdep_assert_held(&src->lock);

	if (mutex_lock_killable(&dst->slots_lock))
		return -EINTR;

	if (mutex_lock_killable_nested(&src->slots_lock,
				       SINGLE_DEPTH_NESTING)) {
		mutex_unlock(&dst->slots_lock);
		return -EINTR;
	}

	return 0;
}

/* The memslot that @iter is at, or the next one that is userspace's; or NULL. */
static struct kvm_memory_slot *kvm_gmem_user_slot(struct kvm_memslot_iter *iter)
{
	while (kvm_memslot_iter_is_valid(iter, ULONG_MAX)) {
		if (iter->slot->id < KVM_USER_MEM_SLOTS)
			return iter->slot;

		kvm_memslot_iter_next(iter);
	}

	return NULL;
}

static bool kvm_gmem_same_slot(struct kvm_memory_slot *a,
			       struct kvm_memory_slot *b)
{
	if (a->base_gfn != b->base_gfn || a->npages != b->npages ||
	    a->flags != b->flags)
		return false;

	if (!(a->flags & KVM_MEM_GUEST_MEMFD))
		return true;

	return file_inode(a->gmem.file) == file_inode(b->gmem.file) &&
	       a->gmem.pgoff == b->gmem.pgoff;
}

/* Whether a guest finds the same memory at the same gfns in both VMs. */
static bool kvm_gmem_same_slots(struct kvm *dst, struct kvm *src, int as_id)
{
	struct kvm_memslot_iter dst_iter, src_iter;
	struct kvm_memory_slot *a, *b;

	kvm_memslot_iter_start(&dst_iter, __kvm_memslots(dst, as_id), 0);
	kvm_memslot_iter_start(&src_iter, __kvm_memslots(src, as_id), 0);

	for (;;) {
		a = kvm_gmem_user_slot(&dst_iter);
		b = kvm_gmem_user_slot(&src_iter);
		if (!a || !b)
			return a == b;

		if (!kvm_gmem_same_slot(a, b))
			return false;

		kvm_memslot_iter_next(&dst_iter);
		kvm_memslot_iter_next(&src_iter);
	}
}

/*
 * Whether the views of the two VMs are pairs, a pending one and the memory's only
 * active one.  That they are as many on either side makes them pairs: a VM has
 * one view of an inode at most.
 *
 * This stays true without the inodes' locks.  No link can be made to memory that
 * has a pending view, and no view be added to a VM whose slots_lock is held.
 * Views may be closed, if no memslot is bound to them: then memory goes, or goes
 * over, by itself, or others may link to it: see kvm_gmem_revoke_view().
 */
static bool kvm_gmem_views_pair(struct kvm *dst, struct kvm *src)
{
	struct gmem_file *view;
	struct gmem_inode *gi;
	long unpaired = 0;

	scoped_guard(spinlock, &dst->gmem.lock) {
		list_for_each_entry(view, &dst->gmem.views, kvm_node) {
			gi = GMEM_I(file_inode(view->file));
			if (READ_ONCE(view->state) != GMEM_VIEW_PENDING ||
			    READ_ONCE(gi->nr_active) != 1)
				return false;
			unpaired++;
		}
	}

	scoped_guard(spinlock, &src->gmem.lock) {
		list_for_each_entry(view, &src->gmem.views, kvm_node) {
			gi = GMEM_I(file_inode(view->file));
			if (READ_ONCE(view->state) != GMEM_VIEW_ACTIVE ||
			    READ_ONCE(gi->pending) != dst)
				return false;
			unpaired--;
		}
	}

	return !unpaired;
}

static int kvm_gmem_check_move(struct kvm *dst, struct kvm *src)
{
	int i;

	lockdep_assert_held(&dst->slots_lock);
	lockdep_assert_held(&src->slots_lock);

	/* Not before: a vCPU that runs can be the end of its VM. */
	if (dst->vm_dead)
		return -EIO;
	if (src->vm_dead)
		return -EINVAL;

	for (i = 0; i < kvm_arch_nr_memslot_as_ids(dst); i++) {
		if (!kvm_gmem_same_slots(dst, src, i))
			return -EINVAL;
	}

	if (!kvm_range_has_memory_attributes(dst, 0, ULONG_MAX, ~0, 0))
		return -EINVAL;

	if (!kvm_gmem_views_pair(dst, src))
		return -EINVAL;

	return 0;
}

/* Nothing in here can fail, or takes longer if there is more memory. */
static void kvm_gmem_commit_move(struct kvm *dst, struct kvm *src)
{
	kvm_vm_dead(src);
	kvm_mem_attributes_move(dst, src);
	kvm_gmem_revoke_vm(src);
	queue_delayed_work(system_unbound_wq, &src->gmem.zap_work, HZ);
}

/* The source of a move has lost its memory: drop the page tables, too. */
void kvm_gmem_zap_moved(struct work_struct *work)
{
	struct kvm *kvm = container_of(work, struct kvm, gmem.zap_work.work);
	int idx;

	/* An ioctl that was waiting for the move may yet change memslots. */
	idx = srcu_read_lock(&kvm->srcu);
	kvm_arch_flush_shadow_all(kvm);
	srcu_read_unlock(&kvm->srcu, idx);
}

static int kvm_gmem_move_slots(struct kvm *dst, struct kvm *src)
{
	int r;

	r = kvm_gmem_lock_slots(dst, src);
	if (r)
		return r;

	r = kvm_gmem_check_move(dst, src);
	if (!r)
		r = kvm_arch_gmem_move(dst, src);
	if (!r)
		kvm_gmem_commit_move(dst, src);

	mutex_unlock(&src->slots_lock);
	mutex_unlock(&dst->slots_lock);
	return r;
}

static int kvm_gmem_move_vcpus(struct kvm *dst, struct kvm *src,
			       struct kvm_vcpu **busy)
{
	int r = 0;

	*busy = kvm_gmem_trylock_vcpus(dst);
	if (*busy)
		return 0;

	*busy = kvm_gmem_trylock_vcpus(src);
	if (!*busy) {
		r = kvm_gmem_move_slots(dst, src);
		kvm_gmem_unlock_all_vcpus(src);
	}

	kvm_gmem_unlock_all_vcpus(dst);
	return r;
}

/* Move, or set @busy to a vCPU that has to be waited for before. */
static int kvm_gmem_try_move(struct kvm *dst, struct kvm *src,
			     struct kvm_vcpu **busy)
{
	int r;

	r = kvm_gmem_lock_vms(dst, src);
	if (r)
		return r;

	if (kvm_is_vcpu_creation_in_progress(dst) ||
	    kvm_is_vcpu_creation_in_progress(src))
		r = -EBUSY;
	else
		r = kvm_gmem_move_vcpus(dst, src, busy);

	mutex_unlock(&src->lock);
	mutex_unlock(&dst->lock);
	return r;
}

static int kvm_gmem_move_vm(struct kvm *dst, struct kvm *src)
{
	struct kvm_vcpu *busy;
	int r;

	if (dst == src || !kvm_arch_gmem_may_move(src))
		return -EINVAL;

	for (;;) {
		busy = NULL;
		r = kvm_gmem_try_move(dst, src, &busy);
		if (!busy)
			return r;

		/* It is there as long as its VM. */
		if (mutex_lock_killable(&busy->mutex))
			return -EINTR;
		mutex_unlock(&busy->mutex);
	}
}

/**
 * kvm_gmem_move - make a VM the successor of another
 * @dst: the VM, of a type for which kvm_arch_gmem_may_move() is true
 * @src_fd: file descriptor of the source VM; from here on @src
 *
 * -EINVAL means that
 *
 * * @src is @dst, or dead, or its type cannot be moved; or
 * * the memslots that userspace made differ in gfn, size or flags, or in what
 *   part of which memory is bound to them; or
 * * @dst has memory attributes; or
 * * @dst has a view that is not pending, or @src one that is not active; or
 * * a view of the one VM has no counterpart in the other, or not the only one.
 *
 * Return: 0, and the source is dead; or an errno, and both VMs are as they were:
 * -EINVAL as above; -EBADF if @src_fd is no VM; -EBUSY while one of the VMs
 * creates a vCPU; -EIO if @dst is dead; -EINTR if killed while waiting, for
 * instance for a vCPU to leave KVM_RUN
 */
int kvm_gmem_move(struct kvm *dst, u64 src_fd)
{
	if (src_fd > INT_MAX)
		return -EBADF;

	CLASS(fd, f)(src_fd);
	if (fd_empty(f) || !file_is_kvm(fd_file(f)))
		return -EBADF;

	return kvm_gmem_move_vm(dst, fd_file(f)->private_data);
}
