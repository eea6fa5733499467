// SPDX-License-Identifier: GPL-2.0
/*
 * gmem_handover_race_test with memory that has huge folios.
 */
#define NR_PAGES 1024

#include "gmem_handover_race_test.c"
