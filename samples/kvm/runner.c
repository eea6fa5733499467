// SPDX-License-Identifier: GPL-2.0
/* The thread that runs a vCPU, and listens to its guest: see runner.h. */
#include <err.h>
#include <errno.h>
#include <unistd.h>

#include "runner.h"
#include "story.h"

/* The guest reports each number once, whoever its VMM is. */
static void follow_count(struct runner *runner)
{
	__u64 count = runner->params->count;

	if (count != runner->count + 1)
		errx(1, "NOT proven: the guest counted from %llu to %llu",
		     runner->count, count);
	__atomic_store_n(&runner->count, count, __ATOMIC_RELAXED);
}

static void *run_vcpu(void *arg)
{
	struct runner *runner = arg;
	int event;

	runner->started_at = now_ns();
	for (;;) {
		event = vmm_run(&runner->vmm);
		if (event == VMM_STOPPED || event == GUEST_DONE)
			break;
		check_event(&runner->vmm, runner->params, event, GUEST_COUNTED);
		follow_count(runner);
	}
	runner->stopped_at = now_ns();
	return NULL;
}

void start_runner(struct runner *runner)
{
	errno = pthread_create(&runner->thread, NULL, run_vcpu, runner);
	if (errno)
		err(1, "pthread_create");
}

__u64 read_count(const struct runner *runner)
{
	return __atomic_load_n(&runner->count, __ATOMIC_RELAXED);
}

void wait_for_next_count(const struct runner *runner)
{
	__u64 count = read_count(runner);

	while (read_count(runner) == count)
		usleep(100);
}

void stop_runner(struct runner *runner, struct handover *handover)
{
	vmm_stop(&runner->vmm, runner->thread);
	pthread_join(runner->thread, NULL);

	save_state(&runner->vmm, &handover->state);
	handover->stopped_at = runner->stopped_at;
	handover->count = runner->count;
}

void finish_runner(struct runner *runner)
{
	ask_for_last_pass(runner->params);
	pthread_join(runner->thread, NULL);
}
