/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests that have a memory cgroup of their own, whose name is
 * the program's.
 */
#ifndef SELFTEST_KVM_GMEM_CGROUP_UTIL_H
#define SELFTEST_KVM_GMEM_CGROUP_UTIL_H

#include "gmem_util.h"

#define GMEM_CGROUPS "/sys/fs/cgroup/"

/* Can there be memory cgroups? */
static inline bool gmem_cgroup_can(void)
{
	return !__gmem_write_file(GMEM_CGROUPS "cgroup.subtree_control",
				  "+memory");
}

/* The path of the cgroup's file @name */
static inline const char *gmem_cgroup_file(const char *name)
{
	static __thread char path[256];

	snprintf(path, sizeof(path), GMEM_CGROUPS "%s/%s",
		 program_invocation_short_name, name);
	return path;
}

static inline void gmem_cgroup_create(void)
{
	const char *path = gmem_cgroup_file("");

	TEST_ASSERT(!mkdir(path, 0755) || errno == EEXIST, "cannot create %s",
		    path);
}

/* Fails if somebody is in it. */
static inline int __gmem_cgroup_remove(void)
{
	return rmdir(gmem_cgroup_file("")) ? errno : 0;
}

static inline void gmem_cgroup_enter(void)
{
	gmem_write_file(gmem_cgroup_file("cgroup.procs"), "0");
}

/* As in "32M" */
static inline void gmem_cgroup_limit(const char *limit)
{
	gmem_write_file(gmem_cgroup_file("memory.max"), limit);
}

static inline long gmem_cgroup_stat(const char *what)
{
	return gmem_read_long(gmem_cgroup_file("memory.stat"), what);
}

/* The same, if it is to be @want: it may be two seconds old. */
static inline long gmem_cgroup_await_stat(const char *what, long want)
{
	uint64_t end = gmem_now_ms() + 5000;
	long now;

	do {
		now = gmem_cgroup_stat(what);
		if (now == want)
			break;
		usleep(10000);
	} while (gmem_now_ms() < end);

	return now;
}

static inline long gmem_cgroup_event(const char *what)
{
	return gmem_read_long(gmem_cgroup_file("memory.events"), what);
}

#endif /* SELFTEST_KVM_GMEM_CGROUP_UTIL_H */
