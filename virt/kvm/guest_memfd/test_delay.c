// SPDX-License-Identifier: GPL-2.0
/*
 * Delays at chosen functions, for the tests of races.
 */

/**
 * DOC: Ownership model, delays
 *
 * kvm_gmem/model/delay takes "FUNCTION MICROSECONDS".  From then on each call of
 * that function, anywhere in the kernel, begins with a busy wait of random length
 * below that, 1 to 10000: whoever else may come between the caller and the
 * function gets the time to do so.  To write an empty line removes all delays.
 * To read lists them, and how often each took place.
 *
 * Fails with ENOENT if there is no such function (it may have been inlined),
 * EEXIST if it has a delay, EINVAL if the line is anything else.
 */

#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hash.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "gmem.h"
#include "test.h"

#define GMEM_TEST_MAX_DELAY_US 10000

struct gmem_test_delay {
	struct list_head node;
	struct kprobe probe;
	unsigned int max_us;
	atomic_long_t hits;
	char function[KSYM_NAME_LEN];
};

static LIST_HEAD(gmem_test_delays);
static DEFINE_MUTEX(gmem_test_delay_lock);

/* As in an NMI no lock can be taken here: random numbers have one. */
static int gmem_test_wait(struct kprobe *probe, struct pt_regs *regs)
{
	struct gmem_test_delay *delay;

	delay = container_of(probe, struct gmem_test_delay, probe);
	atomic_long_inc(&delay->hits);
	udelay(hash_64(ktime_get_mono_fast_ns(), 32) % delay->max_us);
	return 0;
}

static int gmem_test_add_delay(const char *function, unsigned int max_us)
{
	struct gmem_test_delay *delay;
	int r;

	lockdep_assert_held(&gmem_test_delay_lock);

	list_for_each_entry(delay, &gmem_test_delays, node)
		if (!strcmp(delay->function, function))
			return -EEXIST;

	delay = kzalloc(sizeof(*delay), GFP_KERNEL);
	if (!delay)
		return -ENOMEM;

	strscpy(delay->function, function);
	delay->max_us = max_us;
	delay->probe.symbol_name = delay->function;
	delay->probe.pre_handler = gmem_test_wait;

	r = register_kprobe(&delay->probe);
	if (r) {
		kfree(delay);
		return r;
	}

	list_add_tail(&delay->node, &gmem_test_delays);
	return 0;
}

static void gmem_test_remove_delays(void)
{
	struct gmem_test_delay *delay, *next;

	lockdep_assert_held(&gmem_test_delay_lock);

	list_for_each_entry_safe(delay, next, &gmem_test_delays, node) {
		unregister_kprobe(&delay->probe);
		list_del(&delay->node);
		kfree(delay);
	}
}

static int gmem_test_delay_show(struct seq_file *m, void *unused)
{
	struct gmem_test_delay *delay;

	guard(mutex)(&gmem_test_delay_lock);

	list_for_each_entry(delay, &gmem_test_delays, node)
		seq_printf(m, "%s %u %ld\n", delay->function, delay->max_us,
			   atomic_long_read(&delay->hits));
	return 0;
}

static ssize_t gmem_test_delay_write(struct file *file, const char __user *buf,
				     size_t len, loff_t *pos)
{
	char *line __free(kfree) = memdup_user_nul(buf, min(len, PAGE_SIZE));
	char *us, *function;
	unsigned int max_us;
	int r;

	if (IS_ERR(line))
		return PTR_ERR(line);

	us = strim(line);
	function = strsep(&us, " ");

	guard(mutex)(&gmem_test_delay_lock);

	if (!*function) {
		gmem_test_remove_delays();
		return len;
	}

	if (!us || kstrtouint(us, 0, &max_us) || !max_us ||
	    max_us > GMEM_TEST_MAX_DELAY_US || strlen(function) >= KSYM_NAME_LEN)
		return -EINVAL;

	r = gmem_test_add_delay(function, max_us);
	return r ?: len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(gmem_test_delay);

void gmem_test_delay_init(struct dentry *dir)
{
	debugfs_create_file("delay", 0600, dir, NULL, &gmem_test_delay_fops);
}

/* After the file is gone. */
void gmem_test_delay_exit(void)
{
	guard(mutex)(&gmem_test_delay_lock);
	gmem_test_remove_delays();
}
