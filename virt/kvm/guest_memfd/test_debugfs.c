// SPDX-License-Identifier: GPL-2.0
/*
 * The ownership model's books, knobs and experiments in debugfs.
 */

/**
 * DOC: Ownership model, debugfs
 *
 * In kvm_gmem/model:
 *
 * pages
 *   How many pages the model knows: assigned, or reclaimed and not freed yet.
 * owners
 *   One line for each owner.
 * transitions, violations
 *   What happened how often.  To write zeroes all.
 * tied
 *   VMs that are made while this is Y are as SNP's: no memory outlives its VM,
 *   and none is shared.
 * clear
 *   While this is Y, pages are cleared as TDX's are when they are reclaimed.
 * provoke
 *   Takes the name of a violation, and does that with a page of its own.  EIO if
 *   the model did not notice.
 * populate
 *   Takes "VM_FD GFN NPAGES UADDR FAIL_AT", and populates the VM's memory from the
 *   writer's.  UADDR 0: with zeroes.  Page FAIL_AT fails, -1: none.
 * record
 *   1 starts to remember the pfns that are reclaimed, and forgets those before.
 * scan
 *   Takes a number of 8 bytes, allocates pages, as they come, until it has got
 *   those that were recorded, and looks for the number in these.
 * restore
 *   To write frees what was leaked.
 * delay
 *   Delays at functions: see test_delay.c.
 * fail_bind, fail_grab, fail_prepare, fail_reclaim, fail_move
 *   Fault attributes: see Documentation/fault-injection/.
 */

#include <linux/debugfs.h>
#include <linux/fault-inject.h>
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/seq_file.h>

#include "gmem.h"
#include "test.h"

static const char * const gmem_test_violation_names[] = {
	[GMEM_TEST_UNPREPARED]		= "unprepared",
	[GMEM_TEST_SECOND_OWNER]	= "second-owner",
	[GMEM_TEST_WRONG_GFN]		= "wrong-gfn",
	[GMEM_TEST_FREE_ASSIGNED]	= "free-assigned",
	[GMEM_TEST_OWNER_REUSED]	= "owner-reused",
	[GMEM_TEST_MOVED_OWNER]		= "moved-owner",
	[GMEM_TEST_NOT_ASSIGNED]	= "not-assigned",
	[GMEM_TEST_MAPPED]		= "mapped",
};

static const char * const gmem_test_transition_names[] = {
	[GMEM_TEST_ASSIGNED]	= "assigned",
	[GMEM_TEST_INHERITED]	= "inherited",
	[GMEM_TEST_SHARED]	= "shared",
	[GMEM_TEST_REBOUND]	= "rebound",
	[GMEM_TEST_MOVED]	= "moved",
	[GMEM_TEST_UNDONE]	= "undone",
	[GMEM_TEST_RECLAIMED]	= "reclaimed",
	[GMEM_TEST_LEAKED]	= "leaked",
	[GMEM_TEST_FREED]	= "freed",
};

static bool gmem_test_tied_knob;
static bool gmem_test_clear_knob;
static struct dentry *gmem_test_dir;

bool gmem_test_tied(void)
{
	return READ_ONCE(gmem_test_tied_knob);
}

bool kvm_gmem_test_must_clear(void)
{
	return READ_ONCE(gmem_test_clear_knob);
}

/* Fault points */

#ifdef CONFIG_FAULT_INJECTION
static struct fault_attr gmem_test_faults[GMEM_NR_FAIL_POINTS] = {
	[0 ... GMEM_NR_FAIL_POINTS - 1] = FAULT_ATTR_INITIALIZER,
};

static const char * const gmem_test_fault_names[] = {
	[GMEM_FAIL_BIND]	= "fail_bind",
	[GMEM_FAIL_GRAB]	= "fail_grab",
	[GMEM_FAIL_PREPARE]	= "fail_prepare",
	[GMEM_FAIL_RECLAIM]	= "fail_reclaim",
	[GMEM_FAIL_MOVE]	= "fail_move",
};

bool kvm_gmem_test_should_fail(enum gmem_fail_point point)
{
	struct fault_attr *attr = &gmem_test_faults[point];

	/* Not by fail-nth: what fails costs a page. */
	if (point == GMEM_FAIL_RECLAIM && !attr->probability)
		return false;

	return should_fail(attr, 1);
}

static void gmem_test_init_faults(struct dentry *dir)
{
	int i;

	for (i = 0; i < GMEM_NR_FAIL_POINTS; i++)
		fault_create_debugfs_attr(gmem_test_fault_names[i], dir,
					  &gmem_test_faults[i]);
}
#else
bool kvm_gmem_test_should_fail(enum gmem_fail_point point)
{
	return false;
}

static void gmem_test_init_faults(struct dentry *dir)
{
}
#endif /* CONFIG_FAULT_INJECTION */

/* Books */

static int gmem_test_pages_get(void *unused, u64 *val)
{
	*val = gmem_test_nr_pages();
	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(gmem_test_pages_fops, gmem_test_pages_get, NULL,
			 "%llu\n");

static int gmem_test_owners_show(struct seq_file *m, void *unused)
{
	struct gmem_test_owner *owner;
	int i;

	guard(spinlock_irqsave)(&gmem_test_lock);

	list_for_each_entry(owner, &gmem_test_owners, node) {
		seq_printf(m, "%d %s pages %lu", owner->number,
			   owner->kvm ? "vm" : "gone", owner->nr_pages);
		for (i = 0; i < GMEM_TEST_NR_TRANSITIONS; i++)
			seq_printf(m, " %s %lu", gmem_test_transition_names[i],
				   owner->count[i]);
		seq_putc(m, '\n');
	}

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(gmem_test_owners);

static void gmem_test_show(struct seq_file *m, const char * const *names,
			   atomic_long_t *counts, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		seq_printf(m, "%s %ld\n", names[i],
			   atomic_long_read(&counts[i]));
}

static int gmem_test_transitions_show(struct seq_file *m, void *unused)
{
	gmem_test_show(m, gmem_test_transition_names, gmem_test_transitions,
		       GMEM_TEST_NR_TRANSITIONS);
	return 0;
}

static ssize_t gmem_test_transitions_write(struct file *file,
					   const char __user *buf, size_t len,
					   loff_t *pos)
{
	int i;

	for (i = 0; i < GMEM_TEST_NR_TRANSITIONS; i++)
		atomic_long_set(&gmem_test_transitions[i], 0);
	return len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(gmem_test_transitions);

static int gmem_test_violations_show(struct seq_file *m, void *unused)
{
	gmem_test_show(m, gmem_test_violation_names, gmem_test_violations,
		       GMEM_TEST_NR_VIOLATIONS);
	return 0;
}

static ssize_t gmem_test_violations_write(struct file *file,
					  const char __user *buf, size_t len,
					  loff_t *pos)
{
	int i;

	for (i = 0; i < GMEM_TEST_NR_VIOLATIONS; i++)
		atomic_long_set(&gmem_test_violations[i], 0);
	return len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(gmem_test_violations);

/* Provocations */

/* Do @what to @page, which is nobody's.  True: @page was freed. */
static bool gmem_test_misbehave(enum gmem_test_violation what,
				struct page *page, struct gmem_test_owner *a,
				struct gmem_test_owner *b)
{
	kvm_pfn_t pfn = page_to_pfn(page);

	if (what != GMEM_TEST_UNPREPARED && what != GMEM_TEST_NOT_ASSIGNED)
		gmem_test_assign(a, 1, pfn, GMEM_TEST_CLAIM_NONE);

	switch (what) {
	case GMEM_TEST_UNPREPARED:
		gmem_test_map(a, 1, pfn, 1);
		break;
	case GMEM_TEST_SECOND_OWNER:
		gmem_test_assign(b, 1, pfn, GMEM_TEST_CLAIM_NONE);
		break;
	case GMEM_TEST_WRONG_GFN:
		gmem_test_assign(a, 2, pfn, GMEM_TEST_CLAIM_NONE);
		break;
	case GMEM_TEST_FREE_ASSIGNED:
		__free_page(page);
		return true;
	case GMEM_TEST_MOVED_OWNER:
		gmem_test_assign(b, 1, pfn, GMEM_TEST_CLAIM_REVOKED);
		break;
	case GMEM_TEST_MAPPED:
		gmem_test_map(a, 1, pfn, 1);
		fallthrough;
	case GMEM_TEST_NOT_ASSIGNED:
		kvm_gmem_test_reclaim(pfn, pfn + 1);
		break;
	default:
		/* OWNER_REUSED comes when the owner goes. */
		break;
	}

	return false;
}

static int gmem_test_provoke(enum gmem_test_violation what)
{
	long before = atomic_long_read(&gmem_test_violations[what]);
	struct gmem_test_owner *a, *b;
	struct page *page;
	bool freed;

	page = alloc_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;

	/* Any address will do for a VM that nobody looks into. */
	a = gmem_test_new_owner((struct kvm *)&a, what == GMEM_TEST_OWNER_REUSED);
	b = gmem_test_new_owner((struct kvm *)&b, false);

	freed = gmem_test_misbehave(what, page, a, b);

	gmem_test_owner_gone(a);
	gmem_test_owner_gone(b);
	if (!freed) {
		gmem_test_undo(page_to_pfn(page));
		__free_page(page);
	}

	return atomic_long_read(&gmem_test_violations[what]) == before + 1 ?
	       0 : -EIO;
}

static ssize_t gmem_test_provoke_write(struct file *file,
				       const char __user *buf, size_t len,
				       loff_t *pos)
{
	char name[32];
	int i, r;

	if (len >= sizeof(name))
		return -EINVAL;
	if (copy_from_user(name, buf, len))
		return -EFAULT;
	name[len] = '\0';

	i = sysfs_match_string(gmem_test_violation_names, name);
	if (i < 0)
		return i;

	r = gmem_test_provoke(i);
	return r ?: len;
}

static const struct file_operations gmem_test_provoke_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= gmem_test_provoke_write,
};

/* Populate */

struct gmem_test_populate {
	long nr;
	long fail_at;
};

static int gmem_test_populate_page(struct kvm *kvm, gfn_t gfn, kvm_pfn_t pfn,
				   struct kvm_gmem_source *src, void *opaque)
{
	struct gmem_test_populate *p = opaque;
	int r;

	r = gmem_test_assign(gmem_test_vm_owner(kvm), gfn, pfn,
			     GMEM_TEST_CLAIM_NONE);
	if (r)
		return r;

	if (src->data)
		memcpy_to_page(pfn_to_page(pfn), 0, src->data, PAGE_SIZE);

	if (p->nr++ != p->fail_at)
		return 0;

	gmem_test_undo(pfn);
	return -EIO;
}

static long gmem_test_populate(struct kvm *kvm, gfn_t gfn, long npages,
			       unsigned long uaddr, long fail_at)
{
	struct gmem_test_populate p = { .fail_at = fail_at };
	long r;

	guard(mutex)(&kvm->slots_lock);

	r = kvm_gmem_populate(kvm, gfn, (void __user *)uaddr, npages,
			      gmem_test_populate_page, &p);
	if (r >= 0 && r < npages)
		r = -ERANGE;
	return r;
}

static ssize_t gmem_test_populate_write(struct file *file,
					const char __user *buf, size_t len,
					loff_t *pos)
{
	long long fd, gfn, npages, uaddr, fail_at;
	char text[128];
	long r;

	if (len >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, buf, len))
		return -EFAULT;
	text[len] = '\0';

	if (sscanf(text, "%lli %lli %lli %lli %lli", &fd, &gfn, &npages, &uaddr,
		   &fail_at) != 5)
		return -EINVAL;

	CLASS(fd, f)(fd);
	if (fd_empty(f) || !file_is_kvm(fd_file(f)))
		return -EBADF;

	r = gmem_test_populate(fd_file(f)->private_data, gfn, npages, uaddr,
			       fail_at);
	return r < 0 ? r : len;
}

static const struct file_operations gmem_test_populate_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= gmem_test_populate_write,
};

/* What freed pages have in them */

/* By pfn */
static DEFINE_XARRAY(gmem_test_recorded);
static bool gmem_test_recording;
static u64 gmem_test_nr_recorded, gmem_test_nr_seen, gmem_test_nr_found;

/* serializes recording and scanning */
static DEFINE_MUTEX(gmem_test_record_lock);

void gmem_test_record(kvm_pfn_t pfn)
{
	if (!READ_ONCE(gmem_test_recording))
		return;

	guard(mutex)(&gmem_test_record_lock);

	if (!xa_store(&gmem_test_recorded, pfn, xa_mk_value(0),
		      GFP_KERNEL | __GFP_NOFAIL))
		gmem_test_nr_recorded++;
}

static int gmem_test_record_get(void *unused, u64 *val)
{
	*val = READ_ONCE(gmem_test_recording);
	return 0;
}

static int gmem_test_record_set(void *unused, u64 val)
{
	guard(mutex)(&gmem_test_record_lock);

	if (val) {
		xa_destroy(&gmem_test_recorded);
		gmem_test_nr_recorded = 0;
		gmem_test_nr_seen = 0;
		gmem_test_nr_found = 0;
	}
	WRITE_ONCE(gmem_test_recording, val);
	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(gmem_test_record_fops, gmem_test_record_get,
			 gmem_test_record_set, "%llu\n");

static bool gmem_test_page_has(struct page *page, u64 pattern)
{
	u64 *data = kmap_local_page(page);
	bool has = false;
	size_t i;

	for (i = 0; i < PAGE_SIZE / sizeof(*data) && !has; i++)
		has = data[i] == pattern;

	kunmap_local(data);
	return has;
}

static void gmem_test_scan_page(struct page *page, u64 pattern)
{
	if (!xa_load(&gmem_test_recorded, page_to_pfn(page)))
		return;

	gmem_test_nr_seen++;
	gmem_test_nr_found += gmem_test_page_has(page, pattern);
}

static void gmem_test_scan(u64 pattern)
{
	struct page *page, *next;
	LIST_HEAD(pages);

	guard(mutex)(&gmem_test_record_lock);

	gmem_test_nr_seen = 0;
	gmem_test_nr_found = 0;

	while (gmem_test_nr_seen < gmem_test_nr_recorded &&
	       !signal_pending(current)) {
		page = alloc_page(GFP_HIGHUSER | __GFP_NORETRY | __GFP_NOWARN);
		if (!page)
			break;

		list_add(&page->lru, &pages);
		gmem_test_scan_page(page, pattern);
		cond_resched();
	}

	list_for_each_entry_safe(page, next, &pages, lru)
		__free_page(page);
}

static int gmem_test_scan_show(struct seq_file *m, void *unused)
{
	guard(mutex)(&gmem_test_record_lock);

	seq_printf(m, "recorded %llu seen %llu found %llu\n",
		   gmem_test_nr_recorded, gmem_test_nr_seen,
		   gmem_test_nr_found);
	return 0;
}

static ssize_t gmem_test_scan_write(struct file *file, const char __user *buf,
				    size_t len, loff_t *pos)
{
	u64 pattern;
	int r;

	r = kstrtou64_from_user(buf, len, 0, &pattern);
	if (r)
		return r;

	gmem_test_scan(pattern);
	return len;
}
DEFINE_SHOW_STORE_ATTRIBUTE(gmem_test_scan);

static ssize_t gmem_test_restore_write(struct file *file,
				       const char __user *buf, size_t len,
				       loff_t *pos)
{
	gmem_test_restore();
	return len;
}

static const struct file_operations gmem_test_restore_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= gmem_test_restore_write,
};

void gmem_test_debugfs_init(struct dentry *parent)
{
	struct dentry *dir = debugfs_create_dir("model", parent);

	debugfs_create_file("pages", 0444, dir, NULL, &gmem_test_pages_fops);
	debugfs_create_file("owners", 0444, dir, NULL, &gmem_test_owners_fops);
	debugfs_create_file("transitions", 0600, dir, NULL,
			    &gmem_test_transitions_fops);
	debugfs_create_file("violations", 0600, dir, NULL,
			    &gmem_test_violations_fops);
	debugfs_create_bool("tied", 0600, dir, &gmem_test_tied_knob);
	debugfs_create_bool("clear", 0600, dir, &gmem_test_clear_knob);
	debugfs_create_file("provoke", 0200, dir, NULL, &gmem_test_provoke_fops);
	debugfs_create_file("populate", 0200, dir, NULL,
			    &gmem_test_populate_fops);
	debugfs_create_file("record", 0600, dir, NULL, &gmem_test_record_fops);
	debugfs_create_file("scan", 0600, dir, NULL, &gmem_test_scan_fops);
	debugfs_create_file("restore", 0200, dir, NULL, &gmem_test_restore_fops);
	gmem_test_init_faults(dir);
	gmem_test_delay_init(dir);
	gmem_test_dir = dir;
}

void gmem_test_debugfs_exit(void)
{
	debugfs_remove(gmem_test_dir);
	gmem_test_delay_exit();
	xa_destroy(&gmem_test_recorded);
}
