/*
 * Bytes in parts. See transport_flow.h.
 */
#include "daemon/edge/transport_flow.h"

/* Begins the operation for what is left, within what is left of its time. */
static void rest_begin(struct flow *flow)
{
	nng_iov parts[] = { flow->rest, flow->more };
	uint64_t now_ms = nng_clock();

	if (flow->due_ms == 0)
		nng_aio_set_timeout(flow->pending.aio, NNG_DURATION_INFINITE);
	else
		nng_aio_set_timeout(flow->pending.aio, flow->due_ms > now_ms ? (nng_duration)(flow->due_ms - now_ms) : 1);
	(void)nng_aio_set_iov(flow->pending.aio, flow->more.iov_len > 0 ? 2 : 1, parts);
	if (flow->sends)
		nng_stream_send(flow->stream, flow->pending.aio);
	else
		nng_stream_recv(flow->stream, flow->pending.aio);
}

int flow_result(const struct flow *flow)
{
	int code = nng_aio_result(flow->pending.aio);

	return code == 0 && nng_aio_count(flow->pending.aio) == 0 ? NNG_ETIMEDOUT : code;
}

/* Counts what an operation has done. True when there is more to do and nothing in the way. */
static bool rest_advance(struct flow *flow)
{
	size_t count;

	if (flow_result(flow) != 0)
		return false;
	count = nng_aio_count(flow->pending.aio);
	flow->done_bytes += count;
	if (count > flow->rest.iov_len)
		count = flow->rest.iov_len;
	flow->rest.iov_buf = (uint8_t *)flow->rest.iov_buf + count;
	flow->rest.iov_len -= count;
	return flow->rest.iov_len > 0;
}

/*
 * Goes on, unless the connection is being closed: an operation that begins on a closed stream may never end. Hence the
 * lock, with which that is decided.
 */
static bool rest_resume(struct flow *flow)
{
	pthread_mutex_t *lock = &flow->pending.list->lock;
	bool resumes;

	pthread_mutex_lock(lock);
	resumes = !flow->closed;
	if (resumes)
		rest_begin(flow);
	pthread_mutex_unlock(lock);
	return resumes;
}

/* NNG's threads. */
static void part_ended(void *argument)
{
	struct flow *flow = argument;

	if (!flow->rests && rest_advance(flow) && flow->whole && rest_resume(flow))
		return;
	pending_end(&flow->pending);
}

int flow_init(struct flow *flow, struct pending_list *list, nng_stream *stream, bool sends)
{
	flow->stream = stream;
	flow->sends = sends;
	return pending_init(&flow->pending, list, part_ended, flow);
}

void flow_finish(struct flow *flow)
{
	pending_finish(&flow->pending);
}

void flow_begin(struct flow *flow, nng_iov bytes, nng_iov more, uint64_t due_ms, bool whole)
{
	flow->rest = bytes;
	flow->more = more;
	flow->done_bytes = 0;
	flow->due_ms = due_ms;
	flow->whole = whole;
	flow->rests = false;
	flow->pending.under_way = true;
	rest_begin(flow);
}

void flow_rest(struct flow *flow, uint32_t ms)
{
	flow->rests = true;
	flow->pending.under_way = true;
	nng_sleep_aio((nng_duration)ms, flow->pending.aio);
}

void flow_close(struct flow *flow)
{
	pthread_mutex_lock(&flow->pending.list->lock);
	flow->closed = true;
	pthread_mutex_unlock(&flow->pending.list->lock);
}

void flow_abort(struct flow *flow)
{
	if (!flow->pending.under_way)
		return;
	nng_aio_abort(flow->pending.aio, NNG_ECANCELED);
	nng_aio_wait(flow->pending.aio);
}
