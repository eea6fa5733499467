// SPDX-License-Identifier: GPL-2.0
/*
 * The memory: guest_memfd's pseudo-filesystem and its inodes.
 */

/**
 * DOC: Inodes
 *
 * Inodes live on a filesystem that cannot be mounted, and have no name in it.
 * They are made by anon_inode_make_secure_inode(), so that security modules see
 * them (as "[kvm-gmem]") and decide.
 *
 * Evicting an inode calls into both kvm.ko and the vendor module.  What pins
 * them is the filesystem type's owner: a file holds the mount until its inode
 * is gone, the mount its superblock, that the type.  (file_operations.owner
 * could not do it: fput() drops that before the inode.)  The mount is there
 * only while there are files, or nothing could ever be unloaded.
 *
 * Folios are never migrated, written back or dropped by mm: the ways out of the
 * file are those of reclaim.c.  They are charged to the memory cgroup of the task
 * that first touches them, or whose mapping they are touched by.  They count as up
 * to date once they hold what the guest is to find: zeroes, or what
 * kvm_gmem_populate() has put there.
 */

#include <linux/anon_inodes.h>
#include <linux/fs_context.h>
#include <linux/module.h>
#include <linux/mount.h>

#include "gmem.h"

/* "GMEM", as in Linux 7.2's <linux/magic.h>. */
#define GUEST_MEMFD_MAGIC	0x474d454d

static struct kmem_cache *kvm_gmem_inode_cache;
static struct vfsmount *kvm_gmem_mnt;
static int kvm_gmem_mnt_users;

static struct inode *kvm_gmem_super_alloc_inode(struct super_block *sb)
{
	struct gmem_inode *gi;

	gi = alloc_inode_sb(sb, kvm_gmem_inode_cache, GFP_KERNEL);
	if (!gi)
		return NULL;

	mutex_init(&gi->views_lock);
	gi->nr_active = 0;
	gi->pending = NULL;
	gi->flags = 0;
	kvm_gmem_init_deferred(gi);
	kvm_gmem_init_policy(&gi->vfs_inode);
	return &gi->vfs_inode;
}

static void kvm_gmem_super_free_inode(struct inode *inode)
{
	kmem_cache_free(kvm_gmem_inode_cache, GMEM_I(inode));
}

/* No view is left, hence nothing maps the pages, or can. */
static void kvm_gmem_super_evict_inode(struct inode *inode)
{
	pgoff_t end = i_size_read(inode) >> PAGE_SHIFT;

	kvm_gmem_cancel_deferred(GMEM_I(inode));
	kvm_gmem_isolate_broken(inode, 0, end);
	kvm_gmem_reclaim_pages(inode, 0, end);
	truncate_inode_pages_final(inode->i_mapping);
	kvm_gmem_free_policy(inode);
	clear_inode(inode);
}

static const struct super_operations kvm_gmem_super_operations = {
	.statfs		= simple_statfs,
	.alloc_inode	= kvm_gmem_super_alloc_inode,
	.free_inode	= kvm_gmem_super_free_inode,
	.evict_inode	= kvm_gmem_super_evict_inode,
	.drop_inode	= generic_delete_inode,
};

/* The link in /proc/PID/fd reads as it did when this was an anon inode. */
static char *kvm_gmem_dname(struct dentry *dentry, char *buffer, int buflen)
{
	static const char name[] = "anon_inode:[kvm-gmem]";

	if (buflen < sizeof(name))
		return ERR_PTR(-ENAMETOOLONG);

	return memcpy(buffer + buflen - sizeof(name), name, sizeof(name));
}

static const struct dentry_operations kvm_gmem_dentry_operations = {
	.d_dname	= kvm_gmem_dname,
};

static int kvm_gmem_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct inode *root;

	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = GUEST_MEMFD_MAGIC;
	sb->s_op = &kvm_gmem_super_operations;
	sb->s_time_gran = 1;

	/* There has to be one, though nothing is in it. */
	root = new_inode(sb);
	if (!root)
		return -ENOMEM;

	root->i_ino = 1;
	root->i_mode = S_IFDIR;
	simple_inode_init_ts(root);
	sb->s_root = d_make_root(root);
	if (!sb->s_root)
		return -ENOMEM;

	sb->s_d_op = &kvm_gmem_dentry_operations;
	return 0;
}

/*
 * An O_PATH descriptor keeps the superblock without a file: then the next mount
 * gets the same one.
 */
static int kvm_gmem_get_tree(struct fs_context *fc)
{
	return get_tree_single(fc, kvm_gmem_fill_super);
}

static const struct fs_context_operations kvm_gmem_context_operations = {
	.get_tree	= kvm_gmem_get_tree,
};

static int kvm_gmem_init_fs_context(struct fs_context *fc)
{
	fc->ops = &kvm_gmem_context_operations;
	fc->global = true;
	fc->sb_flags |= SB_NOUSER;
	fc->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;
	return 0;
}

static struct file_system_type kvm_gmem_fs_type = {
	.name			= "guest_memfd",
	.init_fs_context	= kvm_gmem_init_fs_context,
	.kill_sb		= kill_anon_super,
};

/* Each call that succeeds wants a kvm_gmem_mnt_put(). */
struct vfsmount *kvm_gmem_mnt_get(void)
{
	int r = simple_pin_fs(&kvm_gmem_fs_type, &kvm_gmem_mnt,
			      &kvm_gmem_mnt_users);

	return r ? ERR_PTR(r) : kvm_gmem_mnt;
}

void kvm_gmem_mnt_put(void)
{
	simple_release_fs(&kvm_gmem_mnt, &kvm_gmem_mnt_users);
}

/*
 * Refuse every change of attributes: a size that changes would pull memory from
 * under bindings, and there is no use for a mode or an owner.
 */
static int kvm_gmem_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
			    struct iattr *attr)
{
	return -EINVAL;
}

static const struct inode_operations kvm_gmem_iops = {
	.setattr	= kvm_gmem_setattr,
};

/*
 * mm, which sees a clean page that nothing maps, asks before it drops one from
 * the page cache (soft offlining does that).  But it is all that there is of a
 * guest's memory, and SPTEs, which hold no reference, may map it.  Huge folios
 * are not clean: then it asks before it splits one.
 */
static bool kvm_gmem_release_folio(struct folio *folio, gfp_t gfp)
{
	return folio_test_large(folio);
}

static const struct address_space_operations kvm_gmem_aops = {
	.dirty_folio		= noop_dirty_folio,
	.error_remove_folio	= kvm_gmem_error_folio,
	.release_folio		= kvm_gmem_release_folio,
};

struct inode *kvm_gmem_alloc_inode(struct super_block *sb, loff_t size,
				   u64 flags)
{
	struct inode *inode;

	inode = anon_inode_make_secure_inode(sb, "[kvm-gmem]", NULL);
	if (IS_ERR(inode))
		return inode;

	inode->i_op = &kvm_gmem_iops;
	inode->i_mode |= S_IFREG;
	inode->i_size = size;
	inode->i_mapping->a_ops = &kvm_gmem_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	mapping_set_inaccessible(inode->i_mapping);
	mapping_set_release_always(inode->i_mapping);
	kvm_gmem_init_huge(inode);
	GMEM_I(inode)->flags = flags;
	/* No huge pages from mm: see mmap.c. */
	atomic_set(&inode->i_writecount, 1);
	return inode;
}

static void kvm_gmem_inode_ctor(void *p)
{
	struct gmem_inode *gi = p;

	inode_init_once(&gi->vfs_inode);
}

int kvm_gmem_inode_init(struct module *module)
{
	kvm_gmem_inode_cache =
		kmem_cache_create("kvm_gmem_inode", sizeof(struct gmem_inode),
				  0, SLAB_ACCOUNT, kvm_gmem_inode_ctor);
	if (!kvm_gmem_inode_cache)
		return -ENOMEM;

	kvm_gmem_fs_type.owner = module;
	return 0;
}

void kvm_gmem_inode_exit(void)
{
	/* Inodes are freed after a grace period. */
	rcu_barrier();
	kmem_cache_destroy(kvm_gmem_inode_cache);
}

/*
 * anon_inode_make_secure_inode() is exported to kvm.ko alone.  6.12 says so
 * with a namespace that has to be imported like any other.
 */
MODULE_INFO(import_ns, "module:kvm");
