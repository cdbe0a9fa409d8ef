/*
 * Processes of an integration test: the test program itself started again in another role, looking into /proc, and the
 * seeds that make a run repeatable.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESS_ARGUMENT_COUNT_MAX = 24 };

/* The test program itself, as a program to start. */
#define PROCESS_SELF "/proc/self/exe"

/*
 * Starts a program with the arguments (NULL-terminated, without argv[0]). Its output goes to the file of that name, or
 * where ours goes if output is NULL. Ends the test program when that is not possible.
 */
pid_t process_spawn(const char *program, const char *const *arguments, const char *output);

/* Waits for the end. The status as from waitpid, or -1 when it was still running after that time: it is killed then. */
int process_wait(pid_t pid, int timeout_ms);

/* A number of kB in /proc/PID/status: "VmRSS", "RssAnon". */
uint64_t process_memory_kib(pid_t pid, const char *name);

/* Open descriptors whose target contains the text; "" for all. */
size_t process_fd_count(pid_t pid, const char *text);

/* Processor time so far, user and system. */
uint64_t process_cpu_ms(pid_t pid);

/* A thread of that name ("emad-worker-0"); 0 when there is none. */
pid_t process_thread(pid_t pid, const char *name);

/*
 * Stops one thread of a child alone, as if it hung, and lets it go on. False, with a sentence on the standard output
 * stream, where the system does not allow that. Nobody else may wait for the child meanwhile.
 */
bool process_thread_hang(pid_t thread);
void process_thread_release(pid_t thread);

/* Waits until a hanging thread has died with its process; false when it has not in time. */
bool process_thread_reap(pid_t thread, int timeout_ms);

/* How much slower than a release build this one may be: by BUILD in the environment. */
int process_scale(void);

void process_sleep_ms(int ms);

/* A seed: EMAD_TEST_SEED if it is set, else random. It is printed with the name. */
uint64_t seed_take(const char *name);

/* The next number of the sequence, below the bound. */
uint64_t seed_next(uint64_t *seed, uint64_t bound);
