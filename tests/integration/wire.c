/*
 * Sockets, frames and datagrams. See wire.h.
 */
#include "tests/integration/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/integration/harness.h"

const uint8_t wire_handshake[WIRE_HANDSHAKE_BYTES] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

enum { REPLY_BYTES_MAX = 64 * 1024 * 1024 };

int wire_dial(const char *directory, const char *name, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0), error;

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

static int wait_for(int fd, short events, long long deadline_ms)
{
	struct pollfd poller = {.fd = fd, .events = events};
	long long left_ms = deadline_ms - harness_now_ms();
	int count = poll(&poller, 1, left_ms > 0 ? (int)left_ms : 0);

	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	return count == 0 ? -ETIMEDOUT : 0;
}

int wire_write(int fd, const void *bytes, size_t count, int timeout_ms)
{
	long long deadline_ms = harness_now_ms() + timeout_ms;

	while (count > 0) {
		ssize_t sent = send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
		int error;

		if (sent >= 0) {
			bytes = (const char *)bytes + sent;
			count -= (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return errno == EPIPE ? -ECONNRESET : -errno;
		error = wait_for(fd, POLLOUT, deadline_ms);
		if (error)
			return error;
	}
	return 0;
}

int wire_read(int fd, void *bytes, size_t count, int timeout_ms)
{
	long long deadline_ms = harness_now_ms() + timeout_ms;

	while (count > 0) {
		int error = wait_for(fd, POLLIN, deadline_ms);
		ssize_t got;

		if (error)
			return error;
		got = recv(fd, bytes, count, MSG_DONTWAIT);
		if (got == 0)
			return -ECONNRESET;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (got > 0) {
			bytes = (char *)bytes + got;
			count -= (size_t)got;
		}
	}
	return 0;
}

bool wire_closes(int fd, int timeout_ms)
{
	long long deadline_ms = harness_now_ms() + timeout_ms;
	char waste[65536];

	while (wait_for(fd, POLLIN, deadline_ms) == 0) {
		ssize_t got = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);

		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			return true;
	}
	return false;
}

static void store_be(uint8_t *bytes, uint64_t value, int count)
{
	while (count-- > 0) {
		bytes[count] = (uint8_t)value;
		value >>= 8;
	}
}

size_t wire_frame(const struct request *request, const void *body, size_t body_bytes, uint32_t request_id, uint8_t *bytes,
                  size_t capacity)
{
	size_t message_bytes = 0;

	if (capacity < 13 || request_encode(request, bytes + 13, capacity - 13, &message_bytes, NULL) != 0 ||
	    message_bytes + body_bytes > capacity - 13) {
		fprintf(stderr, "a request does not fit into %zu bytes\n", capacity);
		exit(EXIT_FAILURE);
	}
	if (body_bytes > 0)
		memcpy(bytes + 13 + message_bytes, body, body_bytes);
	bytes[0] = 1;
	store_be(bytes + 1, 4 + message_bytes + body_bytes, 8);
	store_be(bytes + 9, request_id | UINT32_C(0x80000000), 4);
	return 13 + message_bytes + body_bytes;
}

int wire_open(struct wire *wire, const char *directory, bool attach)
{
	uint8_t theirs[WIRE_HANDSHAKE_BYTES];
	int error = 0;

	*wire = (struct wire){.attach = attach, .passed = -1};
	wire->fd = wire_dial(directory, attach ? "attach.sock" : "emad.sock", attach ? SOCK_SEQPACKET : SOCK_STREAM);
	if (wire->fd < 0)
		return wire->fd;
	if (unpacked_create(&wire->unpacked) != 0)
		error = -ENOMEM;
	if (!error && !attach)
		error = wire_write(wire->fd, wire_handshake, sizeof(wire_handshake), 5000);
	if (!error && !attach)
		error = wire_read(wire->fd, theirs, sizeof(theirs), 60000);
	if (error)
		wire_close(wire);
	return error;
}

void wire_close(struct wire *wire)
{
	if (wire->fd >= 0)
		close(wire->fd);
	unpacked_destroy(wire->unpacked);
	free(wire->bytes);
	*wire = (struct wire){.fd = -1, .passed = -1};
}

int wire_ask(struct wire *wire, const struct request *request, const void *body, size_t body_bytes, int timeout_ms)
{
	size_t capacity = WIRE_FRAME_BYTES_MAX + body_bytes, used;
	uint8_t *frame = malloc(capacity);
	int error;

	if (!frame)
		return -ENOMEM;
	used = wire_frame(request, body, body_bytes, ++wire->request_id, frame, capacity);
	error = wire->attach ? wire_write(wire->fd, frame + 13, used - 13, timeout_ms)
	                     : wire_write(wire->fd, frame, used, timeout_ms);
	free(frame);
	return error;
}

/* One datagram with its descriptor. */
static int datagram_read(struct wire *wire, size_t *ret_bytes, int timeout_ms)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {.iov_base = wire->bytes, .iov_len = REPLY_BYTES_MAX};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int error = wait_for(wire->fd, POLLIN, harness_now_ms() + timeout_ms);
	struct cmsghdr *header;
	ssize_t count;

	if (error)
		return error;
	count = recvmsg(wire->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (count <= 0)
		return count < 0 ? -errno : -ECONNRESET;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&wire->passed, CMSG_DATA(header), sizeof(int));
	*ret_bytes = (size_t)count;
	return 0;
}

static int frame_read(struct wire *wire, size_t *ret_bytes, int timeout_ms)
{
	uint8_t prefix[13];
	uint64_t bytes = 0;
	int error = wire_read(wire->fd, prefix, sizeof(prefix), timeout_ms);

	for (int i = 1; i < 9; i++)
		bytes = bytes << 8 | prefix[i];
	if (error)
		return error;
	if (prefix[0] != 1 || bytes < 8 || bytes > REPLY_BYTES_MAX)
		return -EBADMSG;
	*ret_bytes = (size_t)bytes - 4;
	return wire_read(wire->fd, wire->bytes, (size_t)bytes - 4, timeout_ms);
}

int wire_hear(struct wire *wire, int timeout_ms)
{
	const uint8_t *header;
	size_t header_bytes, bytes = 0;
	int error;

	wire->passed = -1;
	if (!wire->bytes)
		wire->bytes = malloc(REPLY_BYTES_MAX);
	if (!wire->bytes)
		return -ENOMEM;
	error = wire->attach ? datagram_read(wire, &bytes, timeout_ms) : frame_read(wire, &bytes, timeout_ms);
	if (error)
		return error;
	if (message_split(wire->bytes, bytes, &header, &header_bytes, &wire->body, &wire->body_bytes, NULL) != 0 ||
	    reply_decode(wire->unpacked, header, header_bytes, &wire->reply, NULL) != 0)
		return -EBADMSG;
	return (int)wire->reply.status;
}

int wire_call(struct wire *wire, const struct request *request, const void *body, size_t body_bytes, int timeout_ms)
{
	int error = wire_ask(wire, request, body, body_bytes, timeout_ms);

	return error ? error : wire_hear(wire, timeout_ms);
}

struct request wire_register(const char *model, uint64_t client)
{
	struct request request = {.operation = OP_REGISTER};

	request_set(&request, model, text_of(model));
	request_set(&request, client, client);
	request_set(&request, sequence, 1);
	request_set(&request, rank, 0);
	request_set(&request, world, 1);
	request.profiles.count = 1;
	request.profiles.items[0] = text_of("ema=constant:decay=0");
	request.present |= REQUEST_HAS(profiles);
	return request;
}
