/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fixture of the tests of host mappings: an ordinary VM whose memory the host
 * maps.
 */
#ifndef SELFTEST_KVM_GMEM_MMAP_PLAIN_H
#define SELFTEST_KVM_GMEM_MMAP_PLAIN_H

#include "gmem_mmap_util.h"

#define TEST_SIZE SZ_1M
#define HALF	  (TEST_SIZE / 2)
#define NR_PAGES  ((long)(TEST_SIZE / PAGE_SIZE))

FIXTURE(plain)
{
	struct gmem_usage usage;
	struct gmem_vm g;	/* the host's mapping is g.shared */
};

FIXTURE_SETUP(plain)
{
	gmem_usage_get(&self->usage);
	gmem_plain_create(&self->g, TEST_SIZE);
}

FIXTURE_TEARDOWN(plain)
{
	gmem_vm_free(&self->g);
	gmem_usage_check(&self->usage);
}

#endif /* SELFTEST_KVM_GMEM_MMAP_PLAIN_H */
