/*
 * From the service to the edges. See outside.h.
 */
#include "daemon/outside.h"

#include <sys/random.h>

#include "daemon/clocks.h"
#include "daemon/edge/attach.h"
#include "daemon/edge/files.h"
#include "daemon/edge/memory.h"
#include "daemon/edge/transport.h"
#include "daemon/edge/workers.h"

static void memory_wanted(void *context, struct segment_order *order)
{
	memory_make(((struct daemon *)context)->maker, order);
}

static void memory_unwanted(void *context, struct memory *memory)
{
	struct daemon *daemon = context;

	if (daemon->transport)
		transport_withdraw(daemon->transport, memory->base, memory->bytes);
	memory_drop(daemon->maker, memory);
}

static void withdraw(void *context, const uint8_t *base, uint64_t bytes)
{
	transport_withdraw(((struct daemon *)context)->transport, base, bytes);
}

static void reply(void *context, const struct exchange *exchange, const struct reply *reply,
                  const struct attachment *attachment)
{
	static const struct attachment nothing = { .fd = -1 };
	struct daemon *daemon = context;

	if (!attachment)
		attachment = &nothing;
	if (exchange->peer.attach)
		attach_reply(daemon->attach, exchange, reply, attachment->body, attachment->body_bytes, attachment->fd);
	else
		transport_reply(daemon->transport, exchange, reply, attachment->body, attachment->body_bytes);
}

static void identify(void *context, uint64_t peer, const char *name)
{
	transport_identify(((struct daemon *)context)->transport, peer, name);
}

static void apply_start(void *context, struct apply *apply)
{
	workers_submit(((struct daemon *)context)->workers, apply);
}

static void file_write(void *context, struct file_order *order)
{
	files_write(((struct daemon *)context)->files, order);
}

static uint64_t number_random(void *context)
{
	uint64_t number = 0;

	(void)context;
	while (number == 0)
		if (getrandom(&number, sizeof number, 0) != sizeof number)
			number = 0;
	return number;
}

static void event_tell(void *context, const struct event *event)
{
	struct daemon *daemon = context;

	voice_event(&daemon->voice, event, clocks_now().monotonic_ms);
}

struct host outside_table(struct daemon *daemon)
{
	return (struct host){
		.context = daemon,
		.memory_make = memory_wanted,
		.memory_drop = memory_unwanted,
		.withdraw = withdraw,
		.identify = identify,
		.reply = reply,
		.apply_start = apply_start,
		.file_write = file_write,
		.random = number_random,
		.event = event_tell,
	};
}
