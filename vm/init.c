// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of the test VM: sets the machine up, loads KVM, runs the
 * jobs one after the other, checks that each left nothing behind, and stops
 * the machine.
 *
 * A job is a file in /jobs with the name NUMBER.JOB; its NUL-separated strings
 * are the time limit in seconds and the program with its arguments.  Jobs run
 * in the order of their numbers, all of the same length.
 *
 * Three channels lead out of the VM:
 *   ttyS0           the kernel's console;
 *   ttyS1           the programs' output, and their input if interactive;
 *   ttyS2           the verdict, one line per fact:
 *
 *	result JOB exit N	the program ended
 *	result JOB signal N	a signal killed it
 *	result JOB timeout	it ran out of time and was killed
 *	result JOB stuck	... and could not be killed
 *	leak JOB TEXT		it left something behind
 *	leak - TEXT		found after all jobs
 *	error TEXT		the VM could not be set up
 *	end			the last line: nothing got lost
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define GMEM		"/sys/kernel/debug/kvm_gmem"
#define MODEL		GMEM "/model"
#define MAX_ARGS	64

/* How long a killed program may take to die, and its memory to come back. */
#define KILL_SECONDS	20
#define SETTLE_SECONDS	5

/* kmemleak reports only objects that are older than 5 seconds. */
#define KMEMLEAK_AGE	6

struct job {
	char data[8192];
	int timeout;
	char *argv[MAX_ARGS + 1];
};

static const char * const kvm_modules[] = { "kvm_amd", "kvm_intel", "kvm" };

static int verdict_fd;

/* What has been said is out when this returns, whatever comes after. */
#define verdict(fmt, ...) do {						\
	dprintf(verdict_fd, fmt "\n", ##__VA_ARGS__);			\
	tcdrain(verdict_fd);						\
} while (0)

static void stop(void)
{
	verdict("end");
	tcdrain(STDOUT_FILENO);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void fail(const char *what, const char *arg)
{
	verdict("error %s %s: %s", what, arg, strerror(errno));
	stop();
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Read a small file as a string: empty when it is not there. */
static ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = 0, got = 0;

	if (fd >= 0) {
		while (got < (ssize_t)size - 1 &&
		       (n = read(fd, buf + got, size - 1 - got)) > 0)
			got += n;
		close(fd);
	}
	buf[got] = 0;
	return fd < 0 ? -1 : got;
}

/* The number in a file: 0 when it is not there. */
static long read_long(const char *path)
{
	char text[32];

	read_file(path, text, sizeof(text));
	return atol(text);
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

/* A line on the console, between the kernel's own. */
static void note(const char *what, const char *job)
{
	char line[300];

	snprintf(line, sizeof(line), "<4>vm: %s %s\n", what, job);
	write_file("/dev/kmsg", line);
}

static void note_lines(const char *what, char *text)
{
	char *line;

	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		note(what, line);
}

static void mount_one(const char *type, const char *dir, bool required)
{
	mkdir(dir, 0755);
	if (mount(type, dir, type, 0, NULL) && errno != EBUSY && required)
		fail("mount", dir);
}

static void mount_all(void)
{
	mount_one("devtmpfs", "/dev", true);
	mount_one("proc", "/proc", true);
	mount_one("sysfs", "/sys", true);
	mount_one("tmpfs", "/dev/shm", true);
	mount_one("devpts", "/dev/pts", false);
	mount_one("debugfs", "/sys/kernel/debug", true);
	mount_one("tracefs", "/sys/kernel/tracing", false);
	mount_one("cgroup2", "/sys/fs/cgroup", false);
	symlink("/proc/self/fd", "/dev/fd");
	chmod("/dev/shm", 01777);
}

/* Output leaves as it was written unless it is @cooked for a terminal. */
static int open_tty(const char *path, bool cooked)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios tio;

	if (fd < 0)
		fail("open", path);

	tcgetattr(fd, &tio);
	tio.c_cflag |= CLOCAL;
	cfsetspeed(&tio, B115200);
	if (!cooked) {
		tio.c_oflag &= ~OPOST;
		tio.c_lflag &= ~(ECHO | ICANON);
	}
	tcsetattr(fd, TCSANOW, &tio);
	return fd;
}

static void open_channels(bool interactive)
{
	int fd;

	verdict_fd = open_tty("/dev/ttyS2", false);
	fd = open_tty("/dev/ttyS1", interactive);
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
}

static void loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd >= 0) {
		ioctl(fd, SIOCSIFFLAGS, &ifr);
		close(fd);
	}
}

/*
 * As modprobe does: the words of the kernel's command line that are for the
 * module in file @path, "kvm_amd.npt=0" as "npt=0".
 */
static void read_params(const char *path, char *params, size_t size)
{
	const char *name = strrchr(path, '/') + 1;
	size_t len = strcspn(name, "."), used = 0;
	char text[4096], *word, *rest = text;

	params[0] = 0;
	read_file("/proc/cmdline", text, sizeof(text));
	while ((word = strsep(&rest, "\n ")))
		if (!strncmp(word, name, len) && word[len] == '.' &&
		    used < size)
			used += snprintf(params + used, size - used, "%s ",
					 word + len + 1);
}

/* Load the modules that @list names, one path a line, in that order. */
static void load_modules(const char *list)
{
	char text[4096], params[1024], *path;
	int fd;

	read_file(list, text, sizeof(text));
	for (path = strtok(text, "\n"); path; path = strtok(NULL, "\n")) {
		read_params(path, params, sizeof(params));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, params, 0) &&
			       errno != EEXIST))
			fail("load", path);
		close(fd);
	}
}

static bool cpu_has(const char *flag)
{
	char text[16384];

	read_file("/proc/cpuinfo", text, sizeof(text));
	return strstr(text, flag);
}

static void load_kvm(void)
{
	load_modules("/modules/common.list");
	if (cpu_has(" svm")) {
		load_modules("/modules/svm.list");
	} else if (cpu_has(" vmx")) {
		load_modules("/modules/vmx.list");
	} else {
		errno = ENODEV;
		fail("load", "kvm-amd or kvm-intel");
	}
}

/* The vendor's module holds kvm: it goes first. */
static void unload_kvm(void)
{
	size_t i;

	for (i = 0; i < sizeof(kvm_modules) / sizeof(*kvm_modules); i++)
		if (syscall(SYS_delete_module, kvm_modules[i], O_NONBLOCK) &&
		    errno != ENOENT)
			verdict("leak - %s cannot be unloaded: %s",
				kvm_modules[i], strerror(errno));
}

/* Each VM, vCPU and guest_memfd holds a reference to a KVM module. */
static long kvm_refs(void)
{
	char path[64];
	long refs = 0;
	size_t i;

	for (i = 0; i < sizeof(kvm_modules) / sizeof(*kvm_modules); i++) {
		snprintf(path, sizeof(path), "/sys/module/%s/refcnt",
			 kvm_modules[i]);
		refs += read_long(path);
	}
	return refs;
}

/* guest_memfd's pages are unevictable: one that leaked stays in this sum. */
static long unevictable_kb(void)
{
	char text[8192], *line;

	/* Fold in what is still kept per CPU: pages (4: quietly), counters. */
	write_file("/proc/sys/vm/drop_caches", "4");
	write_file("/proc/sys/vm/drop_caches", "1");
	write_file("/proc/sys/vm/stat_refresh", "1");
	read_file("/proc/meminfo", text, sizeof(text));
	line = strstr(text, "Unevictable:");
	return line ? atol(line + strlen("Unevictable:")) : 0;
}

/* Pages that guest_memfd keeps because their owner could not be taken away. */
static long pages_kept(void)
{
	return read_long(GMEM "/leaked_pages");
}

/*
 * The ownership model, where the modules have it, knows the pages that are a
 * guest's or have not been freed yet, and whose they are.
 */
static long model_pages(void)
{
	return read_long(MODEL "/pages");
}

/* One line each */
static long model_owners(void)
{
	char text[16384], *line = text;
	long nr = 0;

	read_file(MODEL "/owners", text, sizeof(text));
	while ((line = strchr(line, '\n'))) {
		line++;
		nr++;
	}
	return nr;
}

/*
 * What a job must leave as it found it.  unevictable_kb() comes before the
 * model's: a page is not freed while a CPU still keeps it.
 */
static const struct fact {
	long (*count)(void);
	const char *what;
} facts[] = {
	{ kvm_refs, "references to KVM" },
	{ unevictable_kb, "kB of unevictable memory" },
	{ pages_kept, "pages that guest_memfd keeps for good" },
	{ model_pages, "pages in the ownership model" },
	{ model_owners, "owners in the ownership model" },
};

#define NR_FACTS (sizeof(facts) / sizeof(*facts))

static void measure(long *counts)
{
	size_t i;

	for (i = 0; i < NR_FACTS; i++)
		counts[i] = facts[i].count();
}

static bool left_behind(const long *before, const long *after)
{
	size_t i;

	for (i = 0; i < NR_FACTS; i++)
		if (after[i] > before[i])
			return true;
	return false;
}

/* Files and memory go away asynchronously: give them some time. */
static void check_baseline(const char *job, const long *before)
{
	double deadline = now() + SETTLE_SECONDS;
	long after[NR_FACTS];
	char owners[4096];
	size_t i;

	measure(after);
	while (left_behind(before, after) && now() < deadline) {
		usleep(100000);
		measure(after);
	}
	if (!left_behind(before, after))
		return;

	for (i = 0; i < NR_FACTS; i++)
		if (after[i] > before[i])
			verdict("leak %s %ld %s", job, after[i] - before[i],
				facts[i].what);
	read_file(MODEL "/owners", owners, sizeof(owners));
	note_lines("owner:", owners);
}

/* The ownership model counts what must never happen: a line for each kind. */
static void check_violations(const char *job)
{
	char text[4096], name[64], *line;
	long count;

	if (read_file(MODEL "/violations", text, sizeof(text)) < 0)
		return;
	if (!text[0])
		verdict("leak %s " MODEL "/violations is empty", job);
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (sscanf(line, "%63s %ld", name, &count) != 2 || count)
			verdict("leak %s violation %s", job, line);
}

/* What one job did, or a knob that it left on, is not the next one's fault. */
static void reset_model(void)
{
	write_file(MODEL "/tied", "N");
	write_file(MODEL "/clear", "N");
	write_file(MODEL "/record", "0");
	write_file(MODEL "/fail_prepare/probability", "0");
	write_file(MODEL "/fail_reclaim/probability", "0");
	write_file(MODEL "/fail_move/probability", "0");
	write_file(MODEL "/restore", "1");
	write_file(MODEL "/transitions", "0");
	write_file(MODEL "/violations", "0");
}

/* In the end, nothing is left of any guest. */
static void check_model(void)
{
	if (model_pages())
		verdict("leak - %ld pages in the ownership model",
			model_pages());
	if (model_owners())
		verdict("leak - %ld owners in the ownership model",
			model_owners());
	check_violations("-");
}

/* Two scans: an object is reported when both of them miss it. */
static void check_kmemleak(void)
{
	char text[16384], *line;

	if (access(KMEMLEAK, W_OK))
		return;

	sleep(KMEMLEAK_AGE);
	if (write_file(KMEMLEAK, "scan") || write_file(KMEMLEAK, "scan"))
		verdict("leak - unknown, as kmemleak is off");
	if (read_file(KMEMLEAK, text, sizeof(text)) <= 0)
		return;

	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		note("kmemleak:", line);
		if (!strncmp(line, "unreferenced object", 19))
			verdict("leak - %s", line);
	}
}

static void read_job(const char *file, struct job *job)
{
	char path[300], *s, *end;
	int argc = 0;

	snprintf(path, sizeof(path), "/jobs/%s", file);
	end = job->data + read_file(path, job->data, sizeof(job->data));
	job->timeout = atoi(job->data);
	for (s = job->data + strlen(job->data) + 1;
	     s < end && argc < MAX_ARGS; s += strlen(s) + 1)
		job->argv[argc++] = s;
	job->argv[argc] = NULL;
}

static void run_child(char **argv, bool interactive)
{
	sigset_t none;
	int fd;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (interactive) {
		ioctl(STDIN_FILENO, TIOCSCTTY, 1);
	} else {
		fd = open("/dev/null", O_RDONLY);
		dup2(fd, STDIN_FILENO);
		close(fd);
	}
	execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Wait for @pid, reaping whatever else dies.  False when time is up. */
static bool wait_for(pid_t pid, int seconds, int *status)
{
	double deadline = now() + seconds;
	struct timespec tick = { .tv_nsec = 200 * 1000 * 1000 };
	sigset_t child;
	pid_t dead;
	int st;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	while (!seconds || now() < deadline) {
		while ((dead = waitpid(-1, &st, WNOHANG)) > 0) {
			if (dead == pid) {
				*status = st;
				return true;
			}
		}
		sigtimedwait(&child, NULL, &tick);
	}
	return false;
}

/* Where each thread of process @pid is in the kernel. */
static void show_process(const char *pid)
{
	char path[300], text[4096];
	struct dirent *task;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	dir = opendir(path);
	while (dir && (task = readdir(dir))) {
		if (!isdigit(task->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stack", task->d_name);
		read_file(path, text, sizeof(text));
		note("thread", task->d_name);
		note_lines("stack:", text);
	}
	if (dir)
		closedir(dir);
}

/* Why does it not end: all processes, blocked tasks, what each CPU is at. */
static void show_stacks(const char *job)
{
	char path[300], exe[256];
	struct dirent *proc;
	DIR *dir = opendir("/proc");

	note("timeout", job);
	while (dir && (proc = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/exe", proc->d_name);
		/* Kernel threads have no program. */
		if (atoi(proc->d_name) > 1 &&
		    readlink(path, exe, sizeof(exe)) > 0)
			show_process(proc->d_name);
	}
	if (dir)
		closedir(dir);
	write_file("/proc/sysrq-trigger", "w");
	write_file("/proc/sysrq-trigger", "l");
}

/* Kill all that the job left.  False when something survives. */
static bool kill_all(void)
{
	double deadline = now() + KILL_SECONDS;

	while (now() < deadline) {
		kill(-1, SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
			return true;
		usleep(20000);
	}
	return false;
}

static void report(const char *name, bool ended, int status)
{
	if (!ended)
		show_stacks(name);

	if (!kill_all()) {
		verdict("result %s stuck", name);
		stop();
	}

	if (!ended)
		verdict("result %s timeout", name);
	else if (WIFSIGNALED(status))
		verdict("result %s signal %d", name, WTERMSIG(status));
	else
		verdict("result %s exit %d", name, WEXITSTATUS(status));
}

/*
 * With several jobs, lines that begin with the record separator tell the reader
 * of ttyS1 where a job's output begins and ends.
 */
static void mark(const char *what, const char *name)
{
	note(what, name);
	if (getenv("marks"))
		dprintf(STDOUT_FILENO, "\n\x1e%s %s\n", what, name);
	tcdrain(STDOUT_FILENO);
}

static void run_job(const char *file, bool interactive)
{
	const char *name = strchr(file, '.') + 1;
	static struct job job;
	long before[NR_FACTS];
	int status = 0;
	bool ended;
	pid_t pid;

	read_job(file, &job);
	mark("begin", name);
	measure(before);
	pid = fork();
	if (pid < 0)
		fail("fork", name);
	if (!pid)
		run_child(job.argv, interactive);

	ended = wait_for(pid, job.timeout, &status);
	report(name, ended, status);
	check_baseline(name, before);
	check_violations(name);
	reset_model();
	mark("end", name);
}

static int is_job(const struct dirent *entry)
{
	return isdigit(entry->d_name[0]) && strchr(entry->d_name, '.');
}

int main(void)
{
	bool interactive = getenv("interactive");
	struct dirent **jobs;
	sigset_t child;
	int i, n;

	mount_all();
	open_channels(interactive);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);

	setenv("PATH", "/bin:/test", 1);
	setenv("HOME", "/", 1);
	loopback_up();
	write_file(KMEMLEAK, "clear");
	load_kvm();

	/* Who measures time wants boot's last background work out of the way. */
	if (getenv("settle"))
		sleep(SETTLE_SECONDS);

	chdir("/tmp");
	n = scandir("/jobs", &jobs, is_job, alphasort);
	for (i = 0; i < n; i++)
		run_job(jobs[i]->d_name, interactive);

	check_model();
	check_kmemleak();
	unload_kvm();
	stop();
}
