/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the guest and its VMM must agree on: where things are in guest physical
 * memory, what the guest does and reports, and the pattern that it writes.
 *
 *	0	+-----------------------------+
 *		| page tables, parameters,    |	shared: the VMM fills it before
 *		| code, stack                 |	the guest starts
 *	2 MiB	+-----------------------------+
 *		| the guest's data            |	private from the guest's first
 *		+-----------------------------+	request on
 *		| one page behind the data:   |	a mailbox is shared again later,
 *		| mailbox or ledger           |	a ledger stays private
 *		+-----------------------------+
 *
 * In a plain VM nothing is private, and nothing is to be converted.
 */
#ifndef SAMPLES_KVM_GUEST_H
#define SAMPLES_KVM_GUEST_H

#include <linux/types.h>

#define GUEST_PAGE_SIZE		0x1000ULL
#define GUEST_PAGE_TABLES	0x1000ULL
#define GUEST_PARAMS		0x8000ULL
#define GUEST_CODE		0x10000ULL	/* guest.lds links it there */
#define GUEST_STACK_TOP		0x80000ULL
#define GUEST_DATA		0x200000ULL

/* The guest's program: guest_image.S carries it in the VMM's executable. */
extern const char guest_image[], guest_image_end[];

/* What the guest writes into its mailbox. */
#define GUEST_MESSAGE	"Hello, host! I am the guest, and this page is shared."

/* The guest reports an event by writing its number to this I/O port. */
#define GUEST_PORT		0x10

enum guest_role {
	GUEST_TALKS,		/* fill the data, share the mailbox */
	GUEST_COUNTS,		/* fill the data, verify it and count */
	GUEST_COUNTS_PLAIN,	/* the same in a plain VM */
	GUEST_COUNTS_ON,	/* the same with the data that is there */
	GUEST_WATCHES,		/* read data that another guest fills */
};

enum guest_event {
	GUEST_VERIFIED,		/* all data is there, and was read once */
	GUEST_MAILBOX_SHARED,	/* the mailbox is shared, nothing is in it */
	GUEST_MAILBOX_WRITTEN,	/* the mailbox holds the guest's message */
	GUEST_COUNTED,		/* params->count says how far */
	GUEST_DONE,		/* a whole pass began after params->stop */
	GUEST_WROTE,		/* a watching guest could write */
	GUEST_BAD_DATA,		/* params->bad_addr holds a wrong value */
	GUEST_BAD_COUNT,	/* the guest's copies of its count differ */
	GUEST_CANNOT_CONVERT,	/* the VMM refused a conversion */
};

/*
 * At GUEST_PARAMS, in shared memory. Both sides may write at any time, so each
 * takes what it reads here with a grain of salt.
 */
struct guest_params {
	/* From the VMM to the guest. */
	__u64 role;		/* enum guest_role */
	__u64 seed;
	__u64 data;		/* its address */
	__u64 data_size;	/* a multiple of 1 MiB */
	__u64 stop;		/* start no further pass over the data */

	/* From the guest to the VMM. */
	__u64 checksum;		/* of the last pass over the data */
	__u64 progress;		/* bytes verified, the VMM may reset it */
	__u64 passes;		/* over the data, after the first */
	__u64 count;
	__u64 bad_addr;
};

/* In the page behind the data of a guest that counts. */
struct guest_ledger {
	__u64 count;
	__u64 checksum;		/* of the data, when it was filled */
	__u64 tsc;		/* the time of the last count */
};

/* The value at @offset: an odd multiplier, so no two offsets share one. */
static inline __u64 guest_pattern(__u64 seed, __u64 offset)
{
	return (offset ^ seed) * 0x9e3779b97f4a7c15ULL;
}

/* The rotation makes the sum depend on the order of the values. */
static inline __u64 guest_checksum(__u64 sum, __u64 value)
{
	return (sum << 1 | sum >> 63) + value;
}

#endif /* SAMPLES_KVM_GUEST_H */
