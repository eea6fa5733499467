/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault injection: what a thread needs in a system call fails; a sweep over all
 * that can fail in one, one after the other; and operations to sweep, with what
 * must be true before and after.
 */
#ifndef SELFTEST_KVM_GMEM_FAIL_UTIL_H
#define SELFTEST_KVM_GMEM_FAIL_UTIL_H

#include "gmem_model_util.h"

static int gmem_fail_fd;	/* of the thread that opened it */

/* False if the kernel cannot.  A second call does nothing. */
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

	if (gmem_fail_fd > 0)
		return true;

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
 * @partly: how often a part of the operation was done
 */
struct gmem_sweep {
	int nth;
	bool failed;
	bool repeat;
	int by_memory, by_hook, partly;
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
 * memory gives, and ERANGE means that a part was done.
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
	s->by_memory += err == ENOMEM;
	s->partly += err == ERANGE;
	s->by_hook += err && err == other_err;
	TEST_ASSERT(!err || err == ENOMEM || err == ERANGE || err == other_err,
		    "failure of step %d: %s", s->nth, strerror(err));
}

/*
 * Operations
 */

/*
 * The memory, in pages: what the guest has written, which is private where there
 * is such a thing; what the host has written, shared; and what is free for the
 * operation: private, without contents, and with the host's words behind it,
 * which show when it is shared.
 */
#define NR	  128
#define TEST_SIZE (NR * PAGE_SIZE)
#define NR_GUESTS 32
#define FREE	  48
#define NR_FREE	  (NR - FREE)
#define AT	  (FREE * PAGE_SIZE)

/* What operations work on, and leave as it was */
struct subject {
	struct gmem_usage usage;
	struct gmem_vm g;	/* whose memory must not change */
	struct gmem_vm other, dst;
	struct kvm_vm *vm;	/* that the operation is done to */
	long pages;		/* that guests have, without @extra */
	long extra;		/* those that the operation begins with */
	int next_fd;		/* the lowest that is free */

	/* The operation's arguments and results */
	int file, fd, err;
	void *mem;
	uint64_t flags, gpa, size, offset;
	uint64_t before, after;
	long page, moved;
};

/**
 * struct operation - something that can fail
 * @set_up: what it needs before each round
 * @run: nothing but the operation: 0 or an errno, ERANGE if a part was done
 * @check: whether @err is true; leaves what @run may be called with once more
 * @clean_up: undo what @run did when it did not fail, and @set_up
 * @other_err: the errno of a failure that is not one of memory
 * @min: at least so many failures are ENOMEM
 * @never: it cannot fail, whatever else does
 */
struct operation {
	void (*set_up)(struct subject *s);
	int (*run)(struct subject *s);
	void (*check)(struct subject *s, int err);
	void (*clean_up)(struct subject *s);
	int other_err;
	int min;
	bool never;
};

static inline void subject_begin(struct subject *s)
{
	gmem_usage_get(&s->usage);
	gmem_model_begin();
}

/* Nothing is left behind. */
static inline void subject_end(struct subject *s)
{
	gmem_vm_free(&s->g);
	gmem_model_end();
	gmem_usage_check(&s->usage);
}

static inline int next_fd(void)
{
	int fd = open("/", O_RDONLY);

	close(fd);
	return fd;
}

static inline void check_rest(struct subject *s)
{
	if (s->g.vm)
		gmem_check_pages(&s->g, 0, FREE, false);
	gmem_model_settle(s->pages + s->extra);
	TEST_ASSERT(!gmem_violations("all"), "%ld violations",
		    gmem_violations("all"));
}

static inline void sweep_round(struct gmem_sweep *sweep, struct subject *s,
			       const struct operation *op)
{
	int err;

	if (op->set_up)
		op->set_up(s);

	gmem_fail_nth(sweep->nth);
	err = op->run(s);
	gmem_sweep_judge(sweep, err, op->other_err);
	TEST_ASSERT(!err || !op->never, "step %d: %s", sweep->nth,
		    strerror(err));

	if (err) {
		if (op->check)
			op->check(s, err);
		check_rest(s);
		err = op->run(s);
		TEST_ASSERT(!err, "again, after step %d: %s", sweep->nth,
			    strerror(err));
	}

	if (op->check)
		op->check(s, 0);
	if (op->clean_up)
		op->clean_up(s);
	check_rest(s);
	TEST_ASSERT(next_fd() == s->next_fd, "step %d leaves a descriptor",
		    sweep->nth);
}

static inline struct gmem_sweep do_sweep(struct subject *s,
					 const struct operation *op)
{
	struct gmem_sweep sweep;
	bool again = false;

	/* A second look may be spoilt like the first one, but not all of it. */
	do {
		gmem_sweep_begin(&sweep);
		s->next_fd = next_fd();
		while (gmem_sweep_next(&sweep))
			sweep_round(&sweep, s, op);
		again = !again && sweep.by_memory < op->min;
	} while (again);

	TEST_ASSERT(sweep.by_memory >= op->min,
		    "%d failures for memory, not %d", sweep.by_memory, op->min);
	return sweep;
}

static inline void log_sweep(struct __test_metadata *_metadata,
			     const struct gmem_sweep *sweep)
{
	TH_LOG("%d rounds: %d failed for memory, %d otherwise, %d in part",
	       sweep->nth, sweep->by_memory, sweep->by_hook, sweep->partly);
}

/* Sweep an operation, of which the members are named. */
#define SWEEP(s, ...)							\
({									\
	struct gmem_sweep __sweep;					\
									\
	__sweep = do_sweep(s, &(struct operation){ __VA_ARGS__ });	\
	log_sweep(_metadata, &__sweep);					\
	__sweep;							\
})

#endif /* SELFTEST_KVM_GMEM_FAIL_UTIL_H */
