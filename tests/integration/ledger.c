/*
 * What processes of a crash test have done. See ledger.h.
 */
#include "tests/integration/ledger.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct ledger *ledger_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *map;

	if (fd < 0 || ftruncate(fd, sizeof(struct ledger)) != 0) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	map = mmap(NULL, sizeof(struct ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	close(fd);
	return map;
}

void ledger_restart(struct ledger *ledger)
{
	atomic_store(&ledger->stop, 0);
	atomic_store(&ledger->pause, 0);
	atomic_store(&ledger->paused, 0);
	atomic_store(&ledger->phase, LEDGER_IDLE);
	atomic_store(&ledger->rounds, 0);
	atomic_store(&ledger->again, 0);
	atomic_store(&ledger->failed, 0);
}

void ledger_close(struct ledger *ledger)
{
	if (ledger)
		munmap(ledger, sizeof(*ledger));
}

void ledger_fail(struct ledger *ledger, const char *format, ...)
{
	va_list arguments;

	if (atomic_load(&ledger->failed))
		return;
	va_start(arguments, format);
	vsnprintf(ledger->text, sizeof(ledger->text), format, arguments);
	va_end(arguments);
	atomic_store(&ledger->failed, 1);
}

enum ledger_verdict ledger_judge(struct ledger *const *ranks, uint32_t world, uint64_t step)
{
	enum ledger_verdict verdict = LEDGER_IN;

	for (uint32_t r = 0; r < world; r++) {
		switch ((enum ledger_entry)atomic_load(&ranks[r]->entries[step])) {
		case LEDGER_NONE:
		case LEDGER_REFUSED:
		case LEDGER_LOST:
			return LEDGER_OUT;
		case LEDGER_TRIED:
			verdict = LEDGER_PERHAPS;
			break;
		case LEDGER_TAKEN:
			break;
		}
	}
	return verdict;
}

void ledger_lose(struct ledger *const *ranks, uint32_t world, uint64_t step)
{
	for (uint32_t r = 0; r < world; r++)
		for (uint64_t lost = step + 1; lost <= atomic_load(&ranks[r]->tried); lost++)
			atomic_store(&ranks[r]->entries[lost], LEDGER_LOST);
}

uint64_t ledger_taken(struct ledger *const *ranks, uint32_t world)
{
	uint64_t step = UINT64_MAX;

	for (uint32_t r = 0; r < world; r++)
		if (atomic_load(&ranks[r]->taken) < step)
			step = atomic_load(&ranks[r]->taken);
	while (step > 0 && ledger_judge(ranks, world, step) != LEDGER_IN)
		step--;
	return step;
}
