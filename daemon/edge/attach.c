/*
 * Datagrams and descriptors. See attach.h.
 */
#include "daemon/edge/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	DATAGRAM_BYTES_MAX = MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX,
	ACCEPT_PAUSE_MS = 100, /* after a failed accept, for want of file descriptors perhaps */
	GROUP_COUNT_MAX = 1024, /* of a peer; more are looked up by its user */
};

struct attached {
	uv_poll_t poll;
	struct attach *attach;
	struct attached *next;
	int fd;
	bool closing;
	struct peer peer;
};

struct attach {
	struct attach_options options;
	uv_poll_t poll;
	uv_timer_t pause; /* runs while nothing is accepted */
	int fd;
	bool closing;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct attached *peers; /* owned */
	uint32_t peer_count;
	uint64_t peer_next;
	uint8_t datagram[DATAGRAM_BYTES_MAX + 1];
};

/* Only here is the peer reported as gone, because peer_close may be called in the middle of a reply. */
static void on_closed(uv_handle_t *handle)
{
	struct attached *peer = handle->data;
	struct attach *attach = peer->attach;
	struct attached **link = &attach->peers;

	while (*link != peer)
		link = &(*link)->next;
	*link = peer->next;
	attach->peer_count--;
	if (!attach->closing)
		attach->options.gone(attach->options.context, peer->peer.id);
	close(peer->fd);
	free(peer);
}

static void peer_close(struct attached *peer)
{
	if (peer->closing)
		return;
	peer->closing = true;
	uv_close((uv_handle_t *)&peer->poll, on_closed);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct attached *peer = poll->data;
	struct attach *attach = peer->attach;
	struct exchange exchange = { .peer = peer->peer };
	const uint8_t *header, *body;
	size_t header_bytes, body_bytes;
	ssize_t count;

	(void)events;
	count = status < 0 ? 0 : recv(peer->fd, attach->datagram, sizeof attach->datagram, MSG_DONTWAIT | MSG_TRUNC);
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (count <= 0) {
		peer_close(peer);
		return;
	}
	if (count > DATAGRAM_BYTES_MAX || message_split(attach->datagram, (size_t)count, &header, &header_bytes, &body,
	                                                &body_bytes, NULL) != 0) {
		attach->options.counters->violations++;
		peer_close(peer);
		return;
	}
	attach->options.request(attach->options.context, &exchange, header, header_bytes, body, body_bytes);
}

/* Who the peer is, and what it is let into. The kernel keeps what it was when it connected. */
static void peer_classify(struct attached *peer)
{
	const struct attach_options *options = &peer->attach->options;
	struct ucred credentials = { .pid = -1, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t credential_bytes = sizeof credentials;
	gid_t groups[GROUP_COUNT_MAX];
	socklen_t group_bytes = sizeof groups;
	bool known = getsockopt(peer->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &group_bytes) == 0;

	(void)getsockopt(peer->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &credential_bytes);
	peer->peer.uid = credentials.uid == (uid_t)-1 ? -1 : (int64_t)credentials.uid;
	peer->peer.pid = credentials.pid;
	peer->peer.refused = options->classify(options->context, peer->peer.uid,
	                                       credentials.gid == (gid_t)-1 ? -1 : (int64_t)credentials.gid,
	                                       known ? groups : NULL, known ? group_bytes / sizeof groups[0] : 0);
}

void attach_reconfigure(struct attach *attach, uint32_t connection_count_max)
{
	attach->options.connection_count_max = connection_count_max;
	for (struct attached *peer = attach->peers; peer; peer = peer->next)
		peer_classify(peer);
}

static void on_connection(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct attach *attach = timer->data;

	(void)uv_poll_start(&attach->poll, UV_READABLE, on_connection);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct attach *attach = poll->data;
	struct attached *peer;
	int fd = accept4(attach->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)status;
	(void)events;
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
			(void)uv_poll_stop(&attach->poll);
			(void)uv_timer_start(&attach->pause, on_pause_over, ACCEPT_PAUSE_MS, 0);
		}
		return;
	}
	peer = attach->peer_count < attach->options.connection_count_max ? calloc(1, sizeof *peer) : NULL;
	if (!peer || uv_poll_init(attach->options.loop, &peer->poll, fd) != 0) {
		attach->options.counters->connections_refused++;
		free(peer);
		close(fd);
		return;
	}
	attach->options.counters->connections_accepted++;
	peer->attach = attach;
	peer->fd = fd;
	peer->poll.data = peer;
	peer->peer = (struct peer){ .id = attach->peer_next++, .attach = true };
	peer_classify(peer);
	peer->next = attach->peers;
	attach->peers = peer;
	attach->peer_count++;
	(void)uv_poll_start(&peer->poll, UV_READABLE | UV_DISCONNECT, on_readable);
}

/* Makes a socket that listens at the path. -errno. */
static int listener_make(struct attach *attach, const struct sockaddr_un *address)
{
	attach->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (attach->fd < 0)
		return -errno;
	(void)unlink(address->sun_path);
	if (bind(attach->fd, (const struct sockaddr *)address, sizeof *address) != 0 ||
	    chmod(address->sun_path, attach->options.socket_mode) != 0 || listen(attach->fd, 128) != 0)
		return -errno;
	return 0;
}

/* Makes the path lead to the socket that was handed over. -errno. */
static int listener_adopt(struct attach *attach, const struct sockaddr_un *address)
{
	struct sockaddr_un given = { .sun_family = AF_UNIX };
	socklen_t given_bytes = sizeof given - 1;
	int flags;

	attach->fd = attach->options.listener_fd;
	flags = fcntl(attach->fd, F_GETFL);
	if (flags < 0 || fcntl(attach->fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    getsockname(attach->fd, (struct sockaddr *)&given, &given_bytes) != 0)
		return -errno;
	if (strcmp(given.sun_path, address->sun_path) == 0) {
		attach->path[0] = '\0'; /* not ours to remove */
		return 0;
	}
	(void)unlink(address->sun_path);
	return symlink(given.sun_path, address->sun_path) == 0 ? 0 : -errno;
}

int attach_start(const struct attach_options *options, const char *path, struct attach **ret_attach,
                 struct reason *reason)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct attach *attach = calloc(1, sizeof *attach);
	int error = 0;

	if (!attach)
		error = reason_set(reason, -ENOMEM, "cannot listen at '%s': not enough memory", path);
	else if (strlen(path) >= sizeof address.sun_path)
		error = reason_set(reason, -ENAMETOOLONG, "the socket path '%s' is longer than %zu bytes", path,
		                   sizeof address.sun_path - 1);
	if (error) {
		if (options->listener_fd >= 0)
			close(options->listener_fd);
		free(attach);
		return error;
	}
	strcpy(address.sun_path, path);
	strcpy(attach->path, path);
	attach->options = *options;
	attach->peer_next = ATTACH_PEER_FIRST;
	error = options->listener_fd >= 0 ? listener_adopt(attach, &address) : listener_make(attach, &address);
	if (!error)
		error = uv_poll_init(options->loop, &attach->poll, attach->fd);
	if (error)
		goto fail;
	attach->poll.data = attach;
	(void)uv_timer_init(options->loop, &attach->pause);
	attach->pause.data = attach;
	(void)uv_poll_start(&attach->poll, UV_READABLE, on_connection);
	*ret_attach = attach;
	return 0;
fail:
	error = reason_set(reason, error, "cannot listen at '%s': %s", path, strerror(-error));
	if (attach->fd >= 0)
		close(attach->fd);
	free(attach);
	return error;
}

static struct attached *peer_find(const struct attach *attach, uint64_t id)
{
	struct attached *peer = attach->peers;

	while (peer && (peer->peer.id != id || peer->closing))
		peer = peer->next;
	return peer;
}

void attach_reply(struct attach *attach, const struct exchange *exchange, const struct reply *reply, const void *body,
                  size_t body_bytes, int fd)
{
	struct attached *peer = peer_find(attach, exchange->peer.id);
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof fd)];
	} control = { .header = { .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	uint8_t header[4096];
	size_t header_bytes;
	struct iovec parts[2];
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (!peer)
		return;
	if (reply_encode(reply, header, sizeof header, &header_bytes, NULL) != 0) {
		peer_close(peer);
		return;
	}
	parts[0] = (struct iovec){ header, header_bytes };
	parts[1] = (struct iovec){ (void *)(uintptr_t)body, body_bytes };
	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
	}
	if (sendmsg(peer->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		peer_close(peer);
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct attach *attach = handle->data;

	close(attach->fd);
	attach->fd = -1;
}

void attach_stop(struct attach *attach)
{
	if (!attach)
		return;
	attach->closing = true;
	if (attach->path[0])
		(void)unlink(attach->path);
	uv_close((uv_handle_t *)&attach->pause, NULL);
	uv_close((uv_handle_t *)&attach->poll, on_listener_closed);
	for (struct attached *peer = attach->peers; peer; peer = peer->next)
		peer_close(peer);
}

void attach_finish(struct attach *attach)
{
	free(attach);
}
