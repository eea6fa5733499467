/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests that ask the ownership model (CONFIG_KVM_GMEM_TEST) what
 * became of the pages that guests had, that let its fault points fail, and that
 * populate memory through it.
 */
#ifndef SELFTEST_KVM_GMEM_MODEL_UTIL_H
#define SELFTEST_KVM_GMEM_MODEL_UTIL_H

#include "gmem_link_util.h"

#define GMEM_DEBUGFS "/sys/kernel/debug/kvm_gmem/"
#define GMEM_MODEL   GMEM_DEBUGFS "model/"

/* How long pages that left a file may take to be free */
#define GMEM_SETTLE_MS 10000

#define GMEM_MAX_OWNERS 8

static inline void gmem_require_model(void)
{
	gmem_require_link();
	__TEST_REQUIRE(!access(GMEM_MODEL, F_OK),
		       "needs a kernel with CONFIG_KVM_GMEM_TEST");
}

static inline int __gmem_model_write(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), GMEM_MODEL "%s", name);
	return __gmem_write_file(path, text);
}

static inline void gmem_model_write(const char *name, const char *text)
{
	int err = __gmem_model_write(name, text);

	TEST_ASSERT(!err, "cannot write '%s' to the model's %s: %s", text, name,
		    strerror(err));
}

/* Whether there are delays already, which are not for a test to change. */
static inline bool gmem_model_has_delays(void)
{
	int fd = open(GMEM_MODEL "delay", O_RDONLY);
	bool has;
	char c;

	TEST_ASSERT(fd >= 0, "cannot open the model's delay");
	has = read(fd, &c, 1) == 1;
	close(fd);
	return has;
}

/*
 * What happened to pages, since gmem_model_begin()
 */

struct gmem_transitions {
	long assigned, inherited, shared, rebound, moved, undone;
	long reclaimed, leaked, freed;
};

static inline long gmem_transition(const char *name)
{
	return gmem_read_long(GMEM_MODEL "transitions", name);
}

static inline struct gmem_transitions gmem_get_transitions(void)
{
	return (struct gmem_transitions){
		.assigned = gmem_transition("assigned"),
		.inherited = gmem_transition("inherited"),
		.shared = gmem_transition("shared"),
		.rebound = gmem_transition("rebound"),
		.moved = gmem_transition("moved"),
		.undone = gmem_transition("undone"),
		.reclaimed = gmem_transition("reclaimed"),
		.leaked = gmem_transition("leaked"),
		.freed = gmem_transition("freed"),
	};
}

static inline long gmem_leaked_pages(void)
{
	return gmem_read_long(GMEM_DEBUGFS "leaked_pages", "");
}

static inline long gmem_model_pages(void)
{
	return gmem_read_long(GMEM_MODEL "pages", "");
}

/*
 * Wait until the model knows @pages pages.  A page that has left its file is
 * free once nobody refers to it, the kernel's per-CPU batches included.
 */
static inline void __gmem_model_settle(int line, long pages)
{
	uint64_t end = gmem_now_ms() + GMEM_SETTLE_MS;
	long now;

	do {
		now = gmem_model_pages();
		if (now == pages)
			return;
		/* Empties the batches. */
		gmem_write_file("/proc/sys/vm/drop_caches", "1");
		usleep(1000);
	} while (gmem_now_ms() < end);

	TEST_FAIL("line %d: the model has %ld pages, not %ld", line, now,
		  pages);
}

#define gmem_model_settle(pages) __gmem_model_settle(__LINE__, pages)

/* Count of violation @name, or of "all" of them. */
static inline long gmem_violations(const char *name)
{
	char line[128], word[64];
	long nr, sum = 0;
	int found = 0;
	FILE *f;

	f = fopen(GMEM_MODEL "violations", "r");
	TEST_ASSERT(f, "cannot open " GMEM_MODEL "violations");
	while (fgets(line, sizeof(line), f)) {
		TEST_ASSERT(sscanf(line, "%63s %ld", word, &nr) == 2,
			    "violations: bad line '%s'", line);
		if (strcmp(name, "all") && strcmp(name, word))
			continue;
		sum += nr;
		found++;
	}
	fclose(f);
	TEST_ASSERT(found, "no violation is called '%s'", name);
	return sum;
}

static inline void gmem_assert_model(int line, long pages,
				     struct gmem_transitions want)
{
	struct gmem_transitions now;

	__gmem_model_settle(line, pages);
	now = gmem_get_transitions();
	TEST_ASSERT(!memcmp(&now, &want, sizeof(now)),
		    "line %d: now (expected): assigned %ld (%ld) inherited %ld (%ld) shared %ld (%ld) rebound %ld (%ld) moved %ld (%ld) undone %ld (%ld) reclaimed %ld (%ld) leaked %ld (%ld) freed %ld (%ld)",
		    line, now.assigned, want.assigned, now.inherited,
		    want.inherited, now.shared, want.shared, now.rebound,
		    want.rebound, now.moved, want.moved, now.undone,
		    want.undone, now.reclaimed, want.reclaimed, now.leaked,
		    want.leaked, now.freed, want.freed);
	TEST_ASSERT(!gmem_violations("all"), "line %d: %ld violations", line,
		    gmem_violations("all"));
}

/*
 * The model settles at @pages pages, and no transition happened but those that
 * are named, as in ASSERT_MODEL(0, .assigned = 1, .reclaimed = 1, .freed = 1).
 */
#define ASSERT_MODEL(pages, ...)					\
	gmem_assert_model(__LINE__, pages,				\
			  (struct gmem_transitions){ __VA_ARGS__ })

/*
 * Owners: the VMs that were given pages, and those that are gone but left some
 */

struct gmem_owner {
	int number;
	bool gone;
	long pages;
};

static inline int gmem_get_owners(struct gmem_owner *owners)
{
	char line[512], state[8];
	struct gmem_owner *o;
	int nr = 0;
	FILE *f;

	f = fopen(GMEM_MODEL "owners", "r");
	TEST_ASSERT(f, "cannot open " GMEM_MODEL "owners");
	while (fgets(line, sizeof(line), f)) {
		TEST_ASSERT(nr < GMEM_MAX_OWNERS, "too many owners");
		o = &owners[nr++];
		TEST_ASSERT(sscanf(line, "%d %7s pages %ld", &o->number, state,
				   &o->pages) == 3,
			    "owners: bad line '%s'", line);
		o->gone = !strcmp(state, "gone");
	}
	fclose(f);
	return nr;
}

static inline int gmem_count_owners(void)
{
	struct gmem_owner owners[GMEM_MAX_OWNERS];

	return gmem_get_owners(owners);
}

/* The only owner with pages that is (or is not) gone, or else one without. */
static inline struct gmem_owner gmem_find_owner(bool gone)
{
	struct gmem_owner owners[GMEM_MAX_OWNERS], *found = NULL;
	int i, nr = gmem_get_owners(owners);

	for (i = 0; i < nr; i++) {
		if (owners[i].gone != gone)
			continue;
		TEST_ASSERT(!found || !found->pages || !owners[i].pages,
			    "more than one owner is %s",
			    gone ? "gone" : "there");
		if (!found || owners[i].pages)
			found = &owners[i];
	}
	TEST_ASSERT(found, "no owner is %s", gone ? "gone" : "there");
	return *found;
}

/*
 * Fault points: "bind", "grab", "prepare", "reclaim" and "move"
 */

static inline bool gmem_has_fault_points(void)
{
	return !access(GMEM_MODEL "fail_prepare", F_OK);
}

static inline void gmem_fault_write(const char *point, const char *file,
				    long val)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "fail_%s/%s", point, file);
	snprintf(text, sizeof(text), "%ld", val);
	gmem_model_write(path, text);
}

/* Let @point fail @times times (-1: always), after @skip successes. */
static inline void gmem_fault_on(const char *point, long skip, long times)
{
	gmem_fault_write(point, "interval", 1);
	gmem_fault_write(point, "space", skip + 1);
	gmem_fault_write(point, "times", times);
	gmem_fault_write(point, "probability", 100);
}

static inline void gmem_fault_off(const char *point)
{
	gmem_fault_write(point, "probability", 0);
}

/*
 * Populate, by way of the model: from @src, or with zeroes if it is NULL.  Page
 * @fail_at fails, -1: none.  ERANGE: some pages were populated, but not all.
 */
static inline int __gmem_populate(struct gmem_vm *g, uint64_t offset, long nr,
				  const void *src, long fail_at)
{
	char text[128];

	snprintf(text, sizeof(text), "%d 0x%llx %ld 0x%lx %ld", g->vm->fd,
		 (GMEM_GPA + offset) / PAGE_SIZE, nr, (uintptr_t)src, fail_at);
	return __gmem_model_write("populate", text);
}

static inline void gmem_populate(struct gmem_vm *g, uint64_t offset, long nr,
				 const void *src)
{
	int err = __gmem_populate(g, offset, nr, src, -1);

	TEST_ASSERT(!err, "populate of %ld pages at 0x%lx: %s", nr, offset,
		    strerror(err));
}

/*
 * Pages of which one word says which it is
 */

#define GMEM_WORD 0x600d000000000000ull

/* By the guest */
static inline void gmem_guest_touch_pages(uint64_t first, uint64_t nr)
{
	uint64_t i;

	for (i = first; i < first + nr; i++)
		WRITE_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE),
			   GMEM_WORD + i);
}

static inline void gmem_guest_do_write_pages(uint64_t first, uint64_t nr)
{
	gmem_guest_touch_pages(first, nr);
	GUEST_UCALL_NONE();
}

static inline void gmem_guest_do_check_pages(uint64_t first, uint64_t nr,
					     uint64_t zero)
{
	uint64_t i, word;

	for (i = first; i < first + nr; i++) {
		word = READ_ONCE(*(uint64_t *)(GMEM_GPA + i * PAGE_SIZE));
		__GUEST_ASSERT(word == (zero ? 0 : GMEM_WORD + i),
			       "page %lu holds 0x%lx", i, word);
	}
	GUEST_UCALL_NONE();
}

static inline void gmem_write_pages(struct gmem_vm *g, long first, long nr)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, gmem_guest_do_write_pages, first, nr,
					0, 0), 0);
}

/* The guest finds in its pages what was put there, or @zero. */
static inline void gmem_check_pages(struct gmem_vm *g, long first, long nr,
				    bool zero)
{
	TEST_ASSERT_EQ(__gmem_guest_run(g, gmem_guest_do_check_pages, first, nr,
					zero, 0), 0);
}

static inline void gmem_prefault_pages(struct gmem_vm *g, long first, long nr)
{
	uint64_t end = GMEM_GPA + (first + nr) * PAGE_SIZE;
	uint64_t left = nr * PAGE_SIZE;

	while (left) {
		TEST_ASSERT_EQ(__gmem_pre_fault(g->vcpu, end - left, left, 0,
						&left), 0);
	}
}

/* @nr such pages to populate from; goes with munmap(). */
static inline void *gmem_create_source(long nr)
{
	void *src = gmem_mmap(nr * PAGE_SIZE);
	long i;

	for (i = 0; i < nr; i++)
		*(uint64_t *)(src + i * PAGE_SIZE) = GMEM_WORD + i;
	return src;
}

/* A VM that has @from's memory by a link, all of it private. */
static inline void gmem_vm_create_other(struct gmem_vm *g, struct gmem_vm *from,
					uint64_t flags)
{
	gmem_vm_create_linked(g, from->size, from->fd, flags);
	vm_mem_set_private(g->vm, GMEM_GPA, from->size);
}

/* Destroy the VM, and return its descriptor. */
static inline int gmem_vm_free_keep_fd(struct gmem_vm *g)
{
	int fd = g->fd;

	g->fd = -1;
	gmem_vm_free(g);
	return fd;
}

/*
 * The beginning and the end of each test
 */

static inline void gmem_model_set_defaults(void)
{
	const char * const points[] = {
		"bind", "grab", "prepare", "reclaim", "move",
	};
	int i;

	gmem_model_write("tied", "N");
	gmem_model_write("clear", "N");
	for (i = 0; gmem_has_fault_points() && i < ARRAY_SIZE(points); i++) {
		gmem_fault_off(points[i]);
		gmem_fault_write(points[i], "verbose", 0);
	}
}

/* Forget what a test before this one did, and might have left if it failed. */
static inline void gmem_model_begin(void)
{
	/* From now on that is done without a message. */
	gmem_write_file("/proc/sys/vm/drop_caches", "4");
	gmem_model_set_defaults();
	gmem_model_write("restore", "1");
	gmem_model_settle(0);
	gmem_model_write("transitions", "0");
	gmem_model_write("violations", "0");
}

/* All memory is gone, in good order. */
static inline void gmem_model_end(void)
{
	gmem_model_set_defaults();
	gmem_model_settle(0);
	TEST_ASSERT(!gmem_count_owners(), "an owner is left");
	TEST_ASSERT(!gmem_leaked_pages(), "leaked pages are left");
	TEST_ASSERT(!gmem_violations("all"), "%ld violations",
		    gmem_violations("all"));
}

#endif /* SELFTEST_KVM_GMEM_MODEL_UTIL_H */
