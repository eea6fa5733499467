/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault injection: what a thread needs in a system call fails, and a sweep over
 * all that can fail in one, one after the other.
 */
#ifndef SELFTEST_KVM_GMEM_FAIL_UTIL_H
#define SELFTEST_KVM_GMEM_FAIL_UTIL_H

#include "gmem_util.h"

static int gmem_fail_fd;

/* False if the kernel cannot. */
static inline bool gmem_fail_init(void)
{
	static const struct {
		const char *file, *value;
	} settings[] = {
		{ "failslab/ignore-gfp-wait", "0" },
		{ "failslab/verbose", "0" },
		{ "fail_page_alloc/ignore-gfp-wait", "0" },
		{ "fail_page_alloc/verbose", "0" },
		/* Pages, too, not just what is larger */
		{ "fail_page_alloc/min-order", "0" },
		{ "fail_page_alloc/ignore-gfp-highmem", "0" },
	};
	char path[128];
	int i;

	gmem_fail_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (gmem_fail_fd < 0)
		return false;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s",
			 settings[i].file);
		gmem_write_file(path, settings[i].value);
	}
	return true;
}

/*
 * Let the @nth allocation, or other thing that can be made to fail, that this
 * thread does from now on fail, or none if it is 0.
 */
static inline void gmem_fail_nth(int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", nth);

	TEST_ASSERT(pwrite(gmem_fail_fd, text, len, 0) == len,
		    "cannot write to fail-nth");
}

/* Has it failed?  If not, it will not any more. */
static inline bool gmem_has_failed(void)
{
	char text[16] = {};

	TEST_ASSERT(pread(gmem_fail_fd, text, sizeof(text) - 1, 0) > 0,
		    "cannot read fail-nth");
	gmem_fail_nth(0);
	return !atoi(text);
}

/**
 * struct gmem_sweep - one operation, again and again, with one failure in each
 * @nth: what fails in this round
 * @failed: something did, in this round
 * @repeat: the next round fails at the same place
 * @by_memory: how many failures were -ENOMEM
 * @by_hook: how many were those of another kind that was expected
 */
struct gmem_sweep {
	int nth;
	bool failed;
	bool repeat;
	int by_memory, by_hook;
};

static inline void gmem_sweep_begin(struct gmem_sweep *s)
{
	TEST_ASSERT(gmem_fail_init(), "no fault injection");
	*s = (struct gmem_sweep){ .failed = true };
}

/* What fails in this round is one further on than in the last one. */
static inline bool gmem_sweep_next(struct gmem_sweep *s)
{
	if (!s->repeat)
		s->nth++;
	return s->failed;
}

/*
 * The round has ended with @err.  @other_err is what a failure that is not one of
 * memory gives.
 *
 * An allocation that nobody missed when it failed was a checker's or a cache's
 * own.  Those come once in a while, and hide what else would have been the nth:
 * so have a second look there.
 */
static inline void gmem_sweep_judge(struct gmem_sweep *s, int err, int other_err)
{
	s->failed = gmem_has_failed();
	s->repeat = s->failed && !err && !s->repeat;
	TEST_ASSERT(!err || s->failed, "nothing failed, but: %s",
		    strerror(err));
	TEST_ASSERT(!err || err == ENOMEM || err == other_err,
		    "failure of step %d: %s", s->nth, strerror(err));
	s->by_memory += err == ENOMEM;
	s->by_hook += err && err == other_err && err != ENOMEM;
}

#endif /* SELFTEST_KVM_GMEM_FAIL_UTIL_H */
