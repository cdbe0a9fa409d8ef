/*
 * Requests and answers: encoding, the daemon's limits, decoding. Everything between an entry point and a socket.
 */
#include "client/client.h"

#include "client/attach.h"
#include "client/wait.h"
#include "proto/name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int client_process_check(pid_t opened_by, struct reason *reason)
{
	pid_t here = getpid();

	if (here == opened_by)
		return 0;
	return reason_set(reason, STATUS_EFORKED,
	                  "this handle belongs to process %d and cannot be used in its child %d: open one there after exec "
	                  "(in Python: multiprocessing's 'spawn' or 'forkserver')",
	                  (int)opened_by, (int)here);
}

int client_check(const struct emad_client *client, struct reason *reason)
{
	if (!client)
		return reason_set(reason, STATUS_EARGUMENT, "the client is NULL");
	return client_process_check(client->pid, reason);
}

int client_timeout(const struct emad_client *client, int timeout_ms)
{
	return timeout_ms < 0 ? client->timeout_ms : timeout_ms;
}

int64_t client_deadline(int timeout_ms)
{
	return wait_deadline(timeout_ms) + WAIT_MARGIN_MS;
}

int client_model_check(const char *model, struct reason *reason)
{
	if (!model)
		return reason_set(reason, STATUS_EARGUMENT, "the model's name is NULL");
	return model_name_check(model, strlen(model), reason);
}

void client_stamp(struct emad_client *client, struct request *request)
{
	request_set(request, client, client->id);
	request_set(request, sequence, atomic_fetch_add_explicit(&client->sequence, 1, memory_order_relaxed) + 1);
}

uint64_t client_stamp_min(const struct emad_client *client)
{
	return atomic_load_explicit(&client->sequence, memory_order_relaxed) + 1;
}

/* Allocates *ret_bytes. */
static int call_encode(const struct request *request, uint8_t **ret_bytes, size_t *ret_count, struct reason *reason)
{
	const size_t capacity = MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX;
	uint8_t *bytes = malloc(capacity);
	int code;

	if (!bytes)
		return -ENOMEM;
	code = request_encode(request, bytes, capacity, ret_count, reason);
	if (code) {
		free(bytes);
		return code;
	}
	*ret_bytes = bytes;
	return 0;
}

/* What the daemon would cut off without a word is refused here with both numbers. */
static int call_limits_check(const struct emad_client *client, size_t header_bytes, size_t body_bytes,
                             struct reason *reason)
{
	uint64_t header_bytes_max = atomic_load_explicit(&client->header_bytes_max, memory_order_relaxed);
	uint64_t body_bytes_max = atomic_load_explicit(&client->body_bytes_max, memory_order_relaxed);

	if (header_bytes > header_bytes_max)
		return reason_set(reason, STATUS_ELIMIT,
		                  "the request's header has %zu bytes, the daemon reads at most %" PRIu64
		                  ": shorten attributes or profiles",
		                  header_bytes, header_bytes_max);
	if (body_bytes > body_bytes_max)
		return reason_set(reason, STATUS_ELIMIT,
		                  "the request's body has %zu bytes, the daemon reads at most %" PRIu64
		                  ": raise the daemon's limit, or register fewer tensors",
		                  body_bytes, body_bytes_max);
	return 0;
}

static int answer_decode(struct client_answer *answer, const uint8_t *bytes, size_t count, struct reason *reason)
{
	const uint8_t *header;
	size_t header_bytes;
	int code;

	code = message_split(bytes, count, &header, &header_bytes, &answer->body, &answer->body_bytes, reason);
	if (code)
		return code;
	code = unpacked_create(&answer->unpacked);
	if (code)
		return code;
	code = reply_decode(answer->unpacked, header, header_bytes, &answer->reply, reason);
	if (code)
		return code;
	if (!(answer->reply.present & REPLY_HAS(status)) || answer->reply.status > 0 || answer->reply.status < -20000)
		return reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer has no valid status");
	return 0;
}

int client_greeted(const uint8_t *bytes, size_t count, struct reason *reason)
{
	struct client_answer answer = {.fd = -1};
	int code = answer_decode(&answer, bytes, count, reason);

	if (code == 0)
		code = client_answer_code(&answer, reason);
	client_answer_finish(&answer);
	return code;
}

int client_exchange(struct emad_client *client, const struct client_message *message, int64_t deadline_ms,
                    struct client_answer *ret_answer, struct reason *reason)
{
	struct client_answer answer = {.fd = -1};
	struct link_request raw = {.body = message->body, .body_bytes = message->body_bytes, .place = message->place,
	                           .place_bytes = message->place_bytes};
	struct link_answer received = {.bytes = NULL};
	uint8_t *head = NULL;
	int code;

	code = call_encode(message->request, &head, &raw.head_bytes, reason);
	if (code)
		return code;
	raw.head = head;
	code = call_limits_check(client, raw.head_bytes - MESSAGE_PREFIX_BYTES, raw.body_bytes, reason);
	if (code == 0)
		code = link_call(client->link, &raw, deadline_ms, &received, reason);
	free(head);
	answer.bytes = received.bytes;
	if (code == 0)
		code = answer_decode(&answer, received.bytes, received.count, reason);
	if (code) {
		client_answer_finish(&answer);
		return code;
	}
	if (received.is_placed) {
		answer.body = message->place;
		answer.body_bytes = message->place_bytes;
	}
	*ret_answer = answer;
	return 0;
}

int client_call(struct emad_client *client, const struct request *request, const void *body, size_t body_bytes,
                int64_t deadline_ms, struct client_answer *ret_answer, struct reason *reason)
{
	const struct client_message message = {.request = request, .body = body, .body_bytes = body_bytes};

	return client_exchange(client, &message, deadline_ms, ret_answer, reason);
}

int client_attach_open(const struct emad_client *client, int64_t deadline_ms, int *ret_connection,
                       struct reason *reason)
{
	if (!client->attach_path)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "%s: memory can be shared only with a daemon on this host, by an ipc:// url", client->url);
	return attach_open(client->attach_path, deadline_ms, ret_connection, reason);
}

int client_attach_call(int connection, const struct request *request, int64_t deadline_ms,
                       struct client_answer *ret_answer, struct reason *reason)
{
	struct client_answer answer = {.fd = -1};
	struct attach_answer raw = {.fd = -1};
	uint8_t *head = NULL;
	size_t head_bytes;
	int code;

	code = call_encode(request, &head, &head_bytes, reason);
	if (code)
		return code;
	answer.bytes = malloc(ATTACH_REPLY_BYTES_MAX);
	raw.bytes = answer.bytes;
	code = answer.bytes ? attach_call(connection, head, head_bytes, deadline_ms, &raw, reason) : -ENOMEM;
	free(head);
	answer.fd = raw.fd;
	if (code == 0)
		code = answer_decode(&answer, raw.bytes, raw.count, reason);
	if (code) {
		client_answer_finish(&answer);
		return code;
	}
	*ret_answer = answer;
	return 0;
}

int client_answer_code(const struct client_answer *answer, struct reason *reason)
{
	int code = (int)answer->reply.status;
	struct text sentence = answer->reply.error;

	if (code == 0)
		return 0;
	if (!(answer->reply.present & REPLY_HAS(error)) || sentence.count == 0)
		return reason_set(reason, code, "%s", status_text(code));
	return reason_set(reason, code, "%.*s", (int)sentence.count, sentence.bytes);
}

void client_answer_finish(struct client_answer *answer)
{
	if (answer->fd >= 0)
		close(answer->fd);
	unpacked_destroy(answer->unpacked);
	free(answer->bytes);
	*answer = (struct client_answer){.fd = -1};
}

void client_text_copy(struct text text, char *target, size_t capacity)
{
	size_t count = text.count;

	if (count >= capacity) {
		count = capacity - 1;
		while (count > 0 && ((unsigned char)text.bytes[count] & 0xc0) == 0x80)
			count--;
	}
	if (count > 0)
		memcpy(target, text.bytes, count);
	target[count] = '\0';
}
