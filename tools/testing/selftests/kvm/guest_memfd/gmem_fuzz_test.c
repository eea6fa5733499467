// SPDX-License-Identifier: GPL-2.0
/*
 * Random sequences of everything that can be done to guest_memfds, by several
 * VMs and two processes, of which each step is compared with a model.
 *
 * A sequence follows from its seed, and is run by a child that begins with
 * nothing.  What it leaves behind when it ends is a failure, too.  One that
 * fails is run again and again with less in it, for a short list of what it
 * takes.
 *
 *	gmem_fuzz_test [--seconds N]		as a test, with a limit of time
 *	gmem_fuzz_test --fresh [--seconds N]	new seeds, and no KTAP
 *	gmem_fuzz_test --seed N [--steps N]	one sequence, with all that it does
 *	gmem_fuzz_test --fresh --seed N		the sequences from that seed on
 */
#include <getopt.h>

#include "gmem_fuzz_ops.h"

#define SEQUENCE_STEPS	300
#define NR_FIXED_SEEDS	400
#define LAST_STEPS	12	/* to be shown of a failure */
#define STEP_SECONDS	120
#define REDUCE_MS	40000
#define PROGRESS_MS	10000
#define LEAK_MS		5000
#define QUICK_LEAK_MS	500	/* when it is known that there is a leak */

static int budget_seconds = 25;
static int nr_steps = SEQUENCE_STEPS;

/*
 * Sequences
 */

static struct fuzz_op ops[MAX_STEPS];
static bool left_out[MAX_STEPS];
static int child_socket;

/* To the parent, which gets them in this order. */
static bool op_send(const struct fuzz_op *op)
{
	int fd = pick_fd(op->arg[0]), i = FIND_FREE(model->fds);

	if (!self || fd == NONE || i == NONE)
		return false;
	say("send fd %d to the parent (fd %d)", fd, i);
	gmem_send_fd(child_socket, model->fds[fd].fd);
	count(true);
	model_get_view(model->fds[fd].view);
	model->fds[i] = (struct model_fd) {
		.used = true,
		.in_flight = ++fuzz->nr_sent,
		.view = model->fds[fd].view,
	};
	return true;
}

#define NR_FIRST	2
#define TYPE_CREATE_VM	0
#define TYPE_CREATE	1

static const struct {
	const char *name;
	bool (*fn)(const struct fuzz_op *op);	/* NULL: run_child() */
	int weight;
} types[] = {
	[TYPE_CREATE_VM] = { "create vm", op_create_vm, 5 },
	[TYPE_CREATE]	 = { "create", op_create, 6 },
	{ "destroy vm", op_destroy_vm, 2 },
	{ "set attributes", op_set_attributes, 11 },
	{ "mirror", op_mirror, 5 },
	{ "move", op_move, 5 },
	{ "hand over", op_hand_over, 3 },
	{ "link", op_link, 10 },
	{ "dup", op_dup, 2 },
	{ "close", op_close, 6 },
	{ "fallocate", op_fallocate, 10 },
	{ "other", op_other, 1 },
	{ "bind", op_bind, 14 },
	{ "unbind", op_unbind, 5 },
	{ "guest access", op_guest_access, 18 },
	{ "prefault", op_prefault, 5 },
	{ "check", op_check, 5 },
	{ "mmap", op_mmap, 5 },
	{ "munmap", op_munmap, 2 },
	{ "host access", op_host_access, 8 },
	{ "pin", op_pin, 4 },
	{ "unpin", op_unpin, 2 },
	{ "fork", NULL, 2 },
	{ "send", op_send, 5 },
};

static uint32_t random_u32(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z >> 32;
}

/* Something to begin with comes first. */
static int random_type(uint64_t *state, int step)
{
	int i, sum = 0, number;

	if (step < 2 * NR_FIRST)
		return step < NR_FIRST ? TYPE_CREATE_VM : TYPE_CREATE;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		sum += types[i].weight;
	number = random_u32(state) % sum;
	for (i = 0; number >= types[i].weight; i++)
		number -= types[i].weight;
	return i;
}

/* Those with odd seeds use huge folios, if there are any. */
static void make_sequence(uint64_t seed)
{
	int i, j;

	unit = seed % 2 && gmem_may_be_huge() ? LARGE_UNIT : PAGE_SIZE;
	for (i = 0; i < nr_steps; i++) {
		ops[i].type = random_type(&seed, i);
		for (j = 0; j < NR_ARGS; j++)
			ops[i].arg[j] = random_u32(&seed);
	}
	memset(left_out, 0, sizeof(left_out));
}

static int run_child(int step);

/* Returns the step that comes next.  A child has no children. */
static int run_step(int step)
{
	const struct fuzz_op *op = &ops[step];

	fuzz->step = step;
	fuzz->type = op->type;
	if (!has_living_vm() && CHANCE(0, 4)) {
		/* There is not much to be done without one. */
		fuzz->type = TYPE_CREATE_VM;
		fuzz->nr_done += op_create_vm(op);
	} else if (types[op->type].fn) {
		fuzz->nr_done += types[op->type].fn(op);
	} else if (!self) {
		fuzz->nr_done++;
		return run_child(step);
	}
	return step + 1;
}

/* All but those that are left out. */
static void run_steps(int step, int end)
{
	while (step < end) {
		alarm(STEP_SECONDS);
		step = left_out[step] ? step + 1 : run_step(step);
	}
}

static void receive_fds(int socket)
{
	int i, number;

	for (number = 1; number <= fuzz->nr_sent; number++) {
		for (i = 0; i < NR_FDS; i++) {
			if (model->fds[i].in_flight == number)
				break;
		}
		model->fds[i].fd = gmem_receive_fd(socket);
		model->fds[i].in_flight = 0;
	}
	fuzz->nr_sent = 0;
}

/* Have a child do what follows @step; returns the first that is not its. */
static int run_child(int step)
{
	const struct fuzz_op *op = &ops[step];
	int end = min(step + 3 + ARG(0, 20), nr_steps);
	bool killed = ARG(1, 2);
	int sockets[2], status;
	pid_t pid;

	say("a child does what follows, up to step %d, and %s", end - 1,
	    killed ? "is killed" : "exits");
	MUST(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair()");
	pid = gmem_fork();
	if (!pid) {
		self = 1;
		child_socket = sockets[1];
		run_steps(step + 1, end);
		if (killed)
			raise(SIGKILL);
		_exit(0);
	}

	MUST(waitpid(pid, &status, 0) == pid, "waitpid()");
	if (fuzz->failed)
		_exit(1);
	if (status != (killed ? SIGKILL : 0))
		fail("a child ended with wait status 0x%x", status);
	fuzz->step = step;
	fuzz->type = op->type;
	count(true);
	receive_fds(sockets[0]);
	close(sockets[0]);
	close(sockets[1]);
	model_end_process(1);
	return end;
}

/* One thing after the other, or with the process. */
static void end_sequence(bool slowly)
{
	int i;

	fuzz->step = nr_steps;
	call_check();
	for (i = 0; i < NR_FDS && slowly; i++) {
		if (fd_is_usable(i)) {
			say("; ");
			call_close(i);
		}
	}
	for (i = 0; i < NR_VMS && slowly; i++) {
		if (model->vms[i].used) {
			say("; ");
			call_destroy_vm(i);
		}
	}
	_exit(0);
}

/*
 * Returns whether all was well.  If not, then fuzz->failure says what was not,
 * and fuzz->step when.
 */
static bool run_sequence(int leak_ms)
{
	struct gmem_usage base, now;
	int status;
	pid_t pid;

	gmem_usage_get(&base);
	memset(fuzz, 0, offsetof(struct fuzz, log));
	memset(fuzz->log, 0, (nr_steps + 1) * LINE_SIZE);
	pid = gmem_fork();
	if (!pid) {
		run_steps(0, nr_steps);
		end_sequence(ops[0].arg[0] & 1);
	}

	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	if (fuzz->failed)
		return false;
	if (status) {
		snprintf(fuzz->failure, LINE_SIZE, "wait status 0x%x", status);
		return false;
	}
	if (!gmem_usage_is_back(&base, &now, leak_ms)) {
		snprintf(fuzz->failure, LINE_SIZE,
			 "left behind: %ld pages, %ld unevictable, %d VMs, %ld module references",
			 now.pages - base.pages,
			 now.unevictable - base.unevictable, now.vms - base.vms,
			 now.refcnt - base.refcnt);
		return false;
	}
	return true;
}

/*
 * What to do about a failure
 */

static void show_steps(int first, int last)
{
	int i;

	for (i = max(first, 0); i <= last; i++) {
		if (fuzz->log[i][0])
			printf("# %5d %s\n", i, fuzz->log[i]);
	}
}

/* Leave the steps out, if what remains fails. */
static bool leave_out(int first, int nr)
{
	bool before[MAX_STEPS];
	int i, changes = 0;

	memcpy(before, left_out, sizeof(before));
	for (i = first; i < first + nr && i < nr_steps; i++) {
		changes += !left_out[i];
		left_out[i] = true;
	}
	if (!changes)
		return false;
	if (!run_sequence(QUICK_LEAK_MS))
		return true;
	memcpy(left_out, before, sizeof(before));
	return false;
}

/* Leave out what can be. */
static void reduce(void)
{
	uint64_t end = gmem_now_ms() + REDUCE_MS;
	bool again = true;
	int chunk, i;

	for (chunk = nr_steps / 2; chunk || again; chunk /= 2) {
		chunk = max(chunk, 1);
		again = false;
		for (i = nr_steps - 1; i >= 0; i -= chunk) {
			if (gmem_now_ms() > end)
				return;
			again |= leave_out(max(i - chunk + 1, 0), chunk);
		}
	}
}

static void report(uint64_t seed)
{
	char failure[LINE_SIZE];
	int i, nr = 0;

	printf("# seed %lu, step %d: %s\n", seed, fuzz->step, fuzz->failure);
	show_steps(fuzz->step - LAST_STEPS + 1, fuzz->step);
	printf("# to see it all: gmem_fuzz_test --seed %lu --steps %d\n", seed,
	       nr_steps);
	fflush(stdout);

	/* What has come after it does not matter. */
	for (i = fuzz->step + 1; i < nr_steps; i++)
		left_out[i] = true;
	snprintf(failure, sizeof(failure), "%s", fuzz->failure);
	reduce();
	for (i = 0; i < nr_steps; i++)
		nr += !left_out[i];
	if (run_sequence(QUICK_LEAK_MS)) {
		printf("# and not again: %s\n", failure);
		return;
	}
	printf("# these %d steps are enough for: %s\n", nr, fuzz->failure);
	show_steps(0, nr_steps);
	fflush(stdout);
}

/*
 * Many sequences
 */

static void fuzz_init(void)
{
	gmem_require_link();
	gmem_trap_init();
	fuzz = mmap(NULL, sizeof(*fuzz), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(fuzz != MAP_FAILED, "no memory");
	model = &fuzz->model;
}

static long nr_steps_done, nr_handed_over;
static struct {
	long ok, refused;
} totals[ARRAY_SIZE(types)];

static void add_up(void)
{
	int i;

	nr_handed_over += fuzz->nr_handed_over;
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		totals[i].ok += fuzz->nr_ok[i];
		totals[i].refused += fuzz->nr_refused[i];
	}
}

/* How often a call has succeeded, and how often it was refused. */
static void show_totals(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		printf("%s%s %ld/%ld", i % 6 ? ", " : i ? "\n#   " : "#   ",
		       types[i].name, totals[i].ok, totals[i].refused);
	printf("\n#   views that moves made the owners: %ld\n", nr_handed_over);
}

static void show_progress(uint64_t seed, long steps)
{
	static uint64_t last;

	if (steps && gmem_now_ms() - last < PROGRESS_MS)
		return;
	last = gmem_now_ms();
	printf("# seed %lu, after %ld steps\n", seed, steps);
	fflush(stdout);
}

/* Sequences with the seeds from @seed on.  Returns whether all was well. */
static bool run_sequences(uint64_t seed, int max, int seconds)
{
	uint64_t start = gmem_now_ms(), first = seed;
	long steps = 0, accesses = 0;
	bool ok;

	do {
		show_progress(seed, steps);
		make_sequence(seed);
		ok = run_sequence(LEAK_MS);
		steps += fuzz->nr_done;
		accesses += fuzz->nr_accesses;
		add_up();
		if (!ok)
			break;
	} while (++seed - first < max && gmem_now_ms() - start < seconds * 1000);

	nr_steps_done += steps;
	printf("# seeds %lu to %lu: %ld steps, %ld accesses, %lu ms\n", first,
	       ok ? seed - 1 : seed, steps, accesses, gmem_now_ms() - start);
	show_totals();
	fflush(stdout);
	if (!ok)
		report(seed);
	return ok;
}

static uint64_t fresh_seed(void)
{
	return time(NULL) * 1000ull;
}

FIXTURE(fuzz) {};

FIXTURE_SETUP(fuzz)
{
}

FIXTURE_TEARDOWN(fuzz)
{
}

TEST_F(fuzz, same_seeds_each_time)
{
	int i;

	EXPECT_TRUE(run_sequences(1, NR_FIXED_SEEDS, budget_seconds / 2));

	/* On a slow machine not everything comes up. */
	for (i = 0; i < ARRAY_SIZE(types) && nr_steps_done > 2000; i++) {
		EXPECT_LT(0, totals[i].ok)
			TH_LOG("%s has never succeeded", types[i].name);
	}
	if (nr_steps_done > 2000)
		EXPECT_LT(0, nr_handed_over);
}

TEST_F(fuzz, fresh_seeds)
{
	EXPECT_TRUE(run_sequences(fresh_seed(), INT_MAX, budget_seconds / 2));
}

/* One sequence, of which everything is shown. */
static int replay(uint64_t seed)
{
	bool ok;

	make_sequence(seed);
	ok = run_sequence(LEAK_MS);
	show_steps(0, nr_steps);
	if (!ok)
		report(seed);
	return !ok;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "steps", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 'S' },
		{ "fresh", no_argument, NULL, 'f' },
		{}
	};
	bool fresh = false, has_seed = false;
	uint64_t seed = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			budget_seconds = atoi(optarg);
			break;
		case 'n':
			nr_steps = atoi(optarg);
			break;
		case 'S':
			seed = strtoull(optarg, NULL, 0);
			has_seed = true;
			break;
		case 'f':
			fresh = true;
			break;
		default:
			return 2;
		}
	}
	TEST_ASSERT(nr_steps > 0 && nr_steps <= MAX_STEPS, "--steps 1 to %d",
		    MAX_STEPS);

	fuzz_init();
	if (fresh)
		return !run_sequences(has_seed ? seed : fresh_seed(), INT_MAX,
				      budget_seconds);
	if (has_seed)
		return replay(seed);
	argc = 1;
	optind = 1;
	return test_harness_run(argc, argv);
}
