// SPDX-License-Identifier: GPL-2.0
/*
 * Linux 7's set_memory_region_test part by part, with a result for each: on
 * 6.12 the program as a whole stops at the one that is left out here, see
 * vm/test-7.2.skip.
 */
#define main whole_program
#include "set_memory_region_test.c"
#undef main

#include "kselftest_harness.h"

#define LOOPS 10

/* Seconds for each: far more than it takes on an emulated CPU. */
#define LIMIT 90

FIXTURE(memory_region) {
};

FIXTURE_SETUP(memory_region)
{
}

FIXTURE_TEARDOWN(memory_region)
{
}

TEST_F_TIMEOUT(memory_region, none_at_all, LIMIT)
{
	test_zero_memory_regions();
}

TEST_F_TIMEOUT(memory_region, invalid_flags, LIMIT)
{
	test_invalid_memory_region_flags();
}

TEST_F_TIMEOUT(memory_region, maximum_number, LIMIT)
{
	test_add_max_memory_regions();
}

TEST_F_TIMEOUT(memory_region, add_guest_memfd, LIMIT)
{
	test_add_private_memory_region();
}

TEST_F_TIMEOUT(memory_region, add_overlapping_guest_memfd, LIMIT)
{
	test_add_overlapping_private_memory_regions();
}

TEST_F_TIMEOUT(memory_region, move_in_use, LIMIT)
{
	for (int i = 0; i < LOOPS; i++)
		test_move_memory_region(false);
}

TEST_F_TIMEOUT(memory_region, delete_in_use, LIMIT)
{
	for (int i = 0; i < LOOPS; i++)
		test_delete_memory_region(false);
}

FIXTURE(without_slot_zap_quirk) {
};

FIXTURE_SETUP(without_slot_zap_quirk)
{
	if (!(kvm_check_cap(KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_SLOT_ZAP_ALL))
		SKIP(return, "the quirk cannot be disabled");
}

FIXTURE_TEARDOWN(without_slot_zap_quirk)
{
}

TEST_F_TIMEOUT(without_slot_zap_quirk, move_in_use, LIMIT)
{
	for (int i = 0; i < LOOPS; i++)
		test_move_memory_region(true);
}

TEST_F_TIMEOUT(without_slot_zap_quirk, delete_in_use, LIMIT)
{
	for (int i = 0; i < LOOPS; i++)
		test_delete_memory_region(true);
}

TEST_HARNESS_MAIN
