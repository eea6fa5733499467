/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests of memory failure: which frame a page is in, breaking a
 * frame, and giving it back to the machine.
 */
#ifndef SELFTEST_KVM_GMEM_POISON_UTIL_H
#define SELFTEST_KVM_GMEM_POISON_UTIL_H

#include "gmem_util.h"

/* A trace instance of our own, which finds page frames. */
#define TRACE	    "/sys/kernel/tracing/instances/gmem_poison"
#define TRACE_EVENT TRACE "/events/filemap/mm_filemap_add_to_page_cache/enable"
#define POISON	    "/sys/kernel/debug/hwpoison/corrupt-pfn"
#define UNPOISON    "/sys/kernel/debug/hwpoison/unpoison-pfn"

/* Frames to give back to the machine */
static unsigned long poisoned[512];
static int nr_poisoned;

static inline bool can_poison(void)
{
	return !access(POISON, W_OK) &&
	       !access("/sys/kernel/tracing/instances", W_OK);
}

static inline void trace_start(void)
{
	TEST_ASSERT(!mkdir(TRACE, 0700) || errno == EEXIST,
		    "cannot create %s", TRACE);
	gmem_write_file(TRACE_EVENT, "1");
}

static inline void trace_stop(void)
{
	gmem_write_file(TRACE_EVENT, "0");
	rmdir(TRACE);
}

/* Allocate a page of a guest_memfd and tell which frame it got. */
static inline unsigned long allocate_pfn(int fd, off_t offset)
{
	unsigned long ino, pfn, pgoff, found = 0;
	char line[512], *p;
	struct stat st;
	FILE *trace;

	TEST_ASSERT(!fstat(fd, &st), "fstat() failed");
	close(open(TRACE "/trace", O_WRONLY | O_TRUNC));
	gmem_allocate(fd, offset, PAGE_SIZE);

	trace = fopen(TRACE "/trace", "r");
	TEST_ASSERT(trace, "cannot open " TRACE "/trace");
	while (fgets(line, sizeof(line), trace)) {
		p = strstr(line, " ino ");
		if (p && sscanf(p, " ino %lx pfn=%lx ofs=%lu", &ino, &pfn,
				&pgoff) == 3 &&
		    ino == st.st_ino && pgoff == offset)
			found = pfn;
	}
	fclose(trace);
	TEST_ASSERT(found, "no frame for offset 0x%lx in the trace", offset);
	return found;
}

/* Tell which frame the host has mapped at @addr. */
static inline unsigned long mapped_pfn(void *addr)
{
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	TEST_ASSERT(fd >= 0, "cannot open /proc/self/pagemap");
	TEST_ASSERT(pread(fd, &entry, 8, (uintptr_t)addr / PAGE_SIZE * 8) == 8,
		    "cannot read /proc/self/pagemap");
	close(fd);
	TEST_ASSERT(entry >> 63, "no page is mapped at %p", addr);
	return entry & (BIT_ULL(55) - 1);
}

static inline int write_number(const char *path, unsigned long nr)
{
	char text[32];

	snprintf(text, sizeof(text), "0x%lx", nr);
	return __gmem_write_file(path, text);
}

/* @pfn is or might be poisoned from now on. */
static inline void note_poisoned(unsigned long pfn)
{
	TEST_ASSERT(nr_poisoned < ARRAY_SIZE(poisoned), "too many bad pages");
	poisoned[nr_poisoned++] = pfn;
}

/* As gmem_race_goes_on(), if each round poisons a page. */
static inline bool may_poison_more(uint64_t start, int rounds, int min)
{
	return nr_poisoned < ARRAY_SIZE(poisoned) &&
	       gmem_race_goes_on(start, rounds, min);
}

/* Fails with EBUSY if the page was in use: it is lost, but not out of the way. */
static inline int poison(unsigned long pfn)
{
	note_poisoned(pfn);
	return write_number(POISON, pfn);
}

/* A poisoned page belongs to the memory failure code even when it is freed. */
static inline void unpoison_all(void)
{
	while (nr_poisoned)
		write_number(UNPOISON, poisoned[--nr_poisoned]);
}

#endif /* SELFTEST_KVM_GMEM_POISON_UTIL_H */
