/*
 * A team: a few threads that help the calling one with a copy too large for one core, and sleep otherwise.
 *
 * One core moves only part of what a memory can, and while a synchronous push copies, the training waits. Belongs to
 * one trainer and is used by one thread at a time.
 */
#pragma once

struct team;

/* How many helpers are worth having here: one less than this process' processors, at most 3. May be 0. */
unsigned team_helper_count(void);

/* -errno; -EAGAIN when threads cannot be made. */
int team_create(unsigned helper_count, struct team **ret_team);
void team_destroy(struct team *team);

/*
 * Calls work(context) in the calling thread and in every helper at once, and returns when all have come back. What work
 * does must be shared out by itself, by a counter for example, so that a helper that comes late finds nothing to do.
 */
void team_run(struct team *team, void (*work)(void *context), void *context);
