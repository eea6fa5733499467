/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * guest_memfd's interface, as far as Linux 6.12's <linux/kvm.h>, which includes
 * this, does not have it: what Linux 7.2 has, and the hard link.
 */
#ifndef _UAPI_LINUX_GUEST_MEMFD_H
#define _UAPI_LINUX_GUEST_MEMFD_H

#include <linux/types.h>

/**
 * DOC: Flags
 *
 * %KVM_CHECK_EXTENSION of %KVM_CAP_GUEST_MEMFD_FLAGS returns the flags that
 * &kvm_create_guest_memfd.flags may have, for the VM, or all on /dev/kvm.
 */
#define KVM_CAP_GUEST_MEMFD_FLAGS	244

/* mmap() works.  The guest finds the file's pages, whatever is private. */
#define GUEST_MEMFD_FLAG_MMAP		(1ULL << 0)
/* All of the memory is shared.  Not for VMs that have private memory. */
#define GUEST_MEMFD_FLAG_INIT_SHARED	(1ULL << 1)

/**
 * DOC: The hard link
 *
 * A guest_memfd is a VM's view of memory.  %KVM_LINK_GUEST_MEMFD gives another
 * VM a view of the same memory, as link(2) gives a file another name.  What a
 * view is good for depends on its state:
 *
 * *active*
 *	The guest can use the memory, fallocate() works.  Views begin like this,
 *	unless they are the result of a handover link.
 * *pending*
 *	The view of a handover link, while an active view of the memory is there.
 *	Memslots can be bound to it, and that is all: a guest that touches the
 *	memory exits with %KVM_EXIT_MEMORY_FAULT, %KVM_PRE_FAULT_MEMORY fails
 *	with %EFAULT, fallocate() with %EPERM.  Nothing of it has an effect on
 *	the memory.
 * *revoked*
 *	A move has given the memory to another VM.  The view's own is dead, and
 *	fallocate() fails with %EPERM for ever.
 *
 * A pending view becomes active by a move (%KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM),
 * which revokes all others, or when the last active view of a living VM goes:
 * its VM is destroyed, or it is closed and no memslot or mapping has it.
 *
 * A VM that is destroyed leaves its views without a VM.  They still name the
 * memory: an active one can be linked from, and fallocate() works.
 */

/**
 * DOC: Capability
 *
 * %KVM_CHECK_EXTENSION of %KVM_CAP_GUEST_MEMFD_LINK returns 0 if there is no
 * %KVM_LINK_GUEST_MEMFD, or the flags that it takes, with bit 0 set, which is
 * no flag.
 */
#define KVM_CAP_GUEST_MEMFD_LINK		0x676d0001

/*
 * The number that the RFC of 2025 used.  If Linux ever uses it for something
 * else, it changes here and nowhere else.
 */
#define KVM_LINK_GUEST_MEMFD	_IOWR(KVMIO, 0xd6, struct kvm_link_guest_memfd)

/* Both views are active. */
#define KVM_LINK_GUEST_MEMFD_SHARE		(1ULL << 1)
/* The guest cannot write.  Implies NO_FALLOCATE.  Only with SHARE. */
#define KVM_LINK_GUEST_MEMFD_READONLY		(1ULL << 2)
/* fallocate() fails with EPERM.  Only with SHARE. */
#define KVM_LINK_GUEST_MEMFD_NO_FALLOCATE	(1ULL << 3)

/**
 * struct kvm_link_guest_memfd - argument of %KVM_LINK_GUEST_MEMFD
 * @fd: descriptor of a guest_memfd of any VM, or of one that is gone
 * @flags: 0 for a handover link, or %KVM_LINK_GUEST_MEMFD_SHARE and what goes
 *	   with it
 * @reserved: must be 0
 *
 * A VM ioctl, on the VM that is to have the new view.
 *
 * A handover link (no flags) has all rights.  It is pending, or active at once
 * if the memory has no active view of a living VM.
 *
 * With %KVM_LINK_GUEST_MEMFD_SHARE the new view is active beside the others.
 * %KVM_LINK_GUEST_MEMFD_READONLY: a guest that writes exits with
 * %KVM_EXIT_MEMORY_FAULT.  Memory attributes stay each VM's own.
 *
 * What fails changes nothing.  The errors are
 *
 * * %EINVAL: an unknown flag, or one that needs %KVM_LINK_GUEST_MEMFD_SHARE
 *   without it; @reserved is not 0; @fd is not open or no guest_memfd; its view
 *   is pending or revoked; this VM has a view of that memory already, or could
 *   not have created it with its flags; the type of this VM, or of @fd's, ties
 *   memory to one VM and may not share
 * * %EPERM: more rights were asked for than @fd's view has: that of a
 *   %KVM_LINK_GUEST_MEMFD_READONLY view can only be linked with the same flag,
 *   that of a %KVM_LINK_GUEST_MEMFD_NO_FALLOCATE view with either
 * * %EBUSY: the memory has a pending view
 * * %EIO: this VM is dead, or belongs to another process
 * * %EINTR: killed while others had a lock
 * * %EFAULT, %EMFILE, %ENFILE, %ENOMEM
 *
 * Return: a new file descriptor, without close-on-exec, or -1 and errno
 */
struct kvm_link_guest_memfd {
	__u64 fd;
	__u64 flags;
	__u64 reserved[6];
};

#endif /* _UAPI_LINUX_GUEST_MEMFD_H */
