/*
 * The attach socket: see attach.h. All descriptors are close-on-exec from birth, and every wait is a poll with what is
 * left of the deadline.
 */
#include "client/attach.h"

#include "client/wait.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	CONNECT_RETRY_MS = 5,
	DESCRIPTOR_COUNT_MAX = 4, /* room for more than the one expected, so that none is lost unseen */
};

static int attach_errno(const char *path, int error, struct reason *reason)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return reason_set(reason, -EACCES,
		                  "uid %u may not connect to %s: join the socket's group, or set EMAD_SOCKET to a daemon "
		                  "of your own",
		                  (unsigned)geteuid(), path);
	case ENOENT:
	case ECONNREFUSED:
	case ENOTSOCK:
	case EPROTOTYPE:
		return reason_set(reason, STATUS_EAWAY,
		                  "no daemon answers at %s (%s): start one with 'systemctl start emad', or set EMAD_SOCKET",
		                  path, strerrordesc_np(error));
	}
	return reason_set(reason, -error, "%s: %s", path, strerrordesc_np(error));
}

int attach_open(const char *path, int64_t deadline_ms, int *ret_connection, struct reason *reason)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return reason_set(reason, STATUS_EARGUMENT, "the socket path %s has %zu bytes, %zu are possible", path,
		                  strlen(path), sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return reason_set(reason, -errno, "no socket for %s: %s", path, strerrordesc_np(errno));
	for (;;) {
		if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
			break;
		error = errno;
		if (error == EINTR)
			continue;
		if (error != EAGAIN) {
			close(fd);
			return attach_errno(path, error, reason);
		}
		/* The listener's queue is full. There is nothing to poll for: the kernel offers a new try only. */
		if (wait_left_ms(deadline_ms) == 0) {
			close(fd);
			return reason_set(reason, STATUS_ETIMEOUT,
			                  "%s: too many connections wait for the daemon, and it took none in time", path);
		}
		poll(NULL, 0, CONNECT_RETRY_MS);
	}
	*ret_connection = fd;
	return 0;
}

/* Waits for events on the connection; what there is to hear after a hang-up is still heard. */
static int attach_poll(int connection, short events, int64_t deadline_ms, struct reason *reason)
{
	struct pollfd poller = {.fd = connection, .events = events};
	int count;

	for (;;) {
		count = poll(&poller, 1, wait_left_ms(deadline_ms));
		if (count > 0)
			return 0;
		if (count < 0 && errno != EINTR)
			return reason_set(reason, -errno, "cannot wait for the daemon: %s", strerrordesc_np(errno));
		if (wait_left_ms(deadline_ms) == 0)
			return reason_set(reason, STATUS_ETIMEOUT, "the daemon did not answer in time");
	}
}

static int attach_gone(int error, struct reason *reason)
{
	return reason_set(reason, STATUS_EAWAY, "the daemon ended the connection%s%s: it may be restarting, try again",
	                  error ? ": " : "", error ? strerrordesc_np(error) : "");
}

static int attach_send(int connection, const uint8_t *message, size_t message_bytes, int64_t deadline_ms,
                       struct reason *reason)
{
	int code;

	while (send(connection, message, message_bytes, MSG_NOSIGNAL) < 0) {
		switch (errno) {
		case EINTR:
			continue;
		case EAGAIN:
			code = attach_poll(connection, POLLOUT, deadline_ms, reason);
			if (code)
				return code;
			continue;
		case EPIPE:
		case ECONNRESET:
		case ENOTCONN:
			return attach_gone(errno, reason);
		}
		return reason_set(reason, -errno, "cannot send %zu bytes to the daemon: %s", message_bytes,
		                  strerrordesc_np(errno));
	}
	return 0;
}

/* Keeps the first descriptor that came with a datagram, closes all others. */
static int attach_take_fd(struct msghdr *header)
{
	int kept = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (kept < 0)
				kept = fd;
			else
				close(fd);
		}
	}
	return kept;
}

static int attach_receive(int connection, int64_t deadline_ms, struct attach_answer *answer, struct reason *reason)
{
	union {
		char bytes[CMSG_SPACE(DESCRIPTOR_COUNT_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = answer->bytes, .iov_len = ATTACH_REPLY_BYTES_MAX};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t count;
	int code, fd;

	for (;;) {
		code = attach_poll(connection, POLLIN, deadline_ms, reason);
		if (code)
			return code;
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		count = recvmsg(connection, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (count >= 0)
			break;
		if (errno == ECONNRESET)
			return attach_gone(errno, reason);
		if (errno != EINTR && errno != EAGAIN)
			return reason_set(reason, -errno, "cannot hear the daemon: %s", strerrordesc_np(errno));
	}
	fd = attach_take_fd(&header);
	if (count == 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		if (fd >= 0)
			close(fd);
		if (count == 0)
			return attach_gone(0, reason);
		if (header.msg_flags & MSG_CTRUNC)
			return reason_set(reason, -EMFILE,
			                  "the daemon's file descriptor could not be taken: raise the limit of open files "
			                  "(ulimit -n), or close views");
		return reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer is longer than %d bytes",
		                  ATTACH_REPLY_BYTES_MAX);
	}
	answer->count = (size_t)count;
	answer->fd = fd;
	return 0;
}

int attach_call(int connection, const uint8_t *message, size_t message_bytes, int64_t deadline_ms,
                struct attach_answer *answer, struct reason *reason)
{
	int code = attach_send(connection, message, message_bytes, deadline_ms, reason);

	return code ? code : attach_receive(connection, deadline_ms, answer, reason);
}

bool attach_hung_up(int connection)
{
	struct pollfd poller = {.fd = connection, .events = POLLRDHUP};

	return poll(&poller, 1, 0) > 0 && (poller.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
}

void attach_close(int connection)
{
	if (connection < 0)
		return;
	(void)shutdown(connection, SHUT_RDWR);
	close(connection);
}
