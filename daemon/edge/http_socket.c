/*
 * Internet addresses, and sockets at them. See http_socket.h.
 */
#include "daemon/edge/http_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union place {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un path;
};

static socklen_t place_fill(const struct address *address, union place *place)
{
	memset(place, 0, sizeof *place);
	if (address->is_v6) {
		place->v6.sin6_family = AF_INET6;
		place->v6.sin6_port = htons(address->port);
		memcpy(&place->v6.sin6_addr, address->bytes, 16);
		return sizeof place->v6;
	}
	place->v4.sin_family = AF_INET;
	place->v4.sin_port = htons(address->port);
	memcpy(&place->v4.sin_addr, address->bytes, 4);
	return sizeof place->v4;
}

static void place_name(const union place *place, char *name, size_t capacity, bool *ret_is_loopback)
{
	struct address address = { .is_v6 = place->any.sa_family == AF_INET6 };
	char host[INET6_ADDRSTRLEN] = "?";

	*ret_is_loopback = false;
	if (place->any.sa_family == AF_UNIX) {
		snprintf(name, capacity, "%.*s", (int)capacity - 1,
		         place->path.sun_path[0] ? place->path.sun_path : "a socket");
		return;
	}
	if (address.is_v6) {
		memcpy(address.bytes, &place->v6.sin6_addr, 16);
		(void)inet_ntop(AF_INET6, &place->v6.sin6_addr, host, sizeof host);
		snprintf(name, capacity, "[%s]:%d", host, ntohs(place->v6.sin6_port));
	} else {
		memcpy(address.bytes, &place->v4.sin_addr, 4);
		(void)inet_ntop(AF_INET, &place->v4.sin_addr, host, sizeof host);
		snprintf(name, capacity, "%s:%d", host, ntohs(place->v4.sin_port));
	}
	*ret_is_loopback = address_is_loopback(&address);
}

int http_socket_listen(const struct address *address, int waiting_count_max, int *ret_fd, struct reason *reason)
{
	static const int yes = 1;
	union place place;
	socklen_t place_bytes = place_fill(address, &place);
	char name[80];
	bool is_loopback;
	int fd = socket(place.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;

	place_name(&place, name, sizeof name, &is_loopback);
	if (fd < 0)
		goto fail;
	/* A port whose last connections are still being forgotten is free. One that somebody listens at is not. */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (address->is_v6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
	if (bind(fd, &place.any, place_bytes) == 0 && listen(fd, waiting_count_max) == 0) {
		*ret_fd = fd;
		return 0;
	}
fail:
	error = -errno;
	if (fd >= 0)
		close(fd);
	return reason_set(reason, error, "cannot listen at %s (http-listen): %s%s", name, strerror(-error),
	                  error == -EADDRINUSE ? ": another program does; 'ss -ltnp' shows which. Choose another port, "
	                                         "or port 0 for any that is free, or leave http-listen empty" : "");
}

void http_socket_name(int fd, char *name, size_t capacity, bool *ret_is_loopback)
{
	union place place;
	socklen_t bytes = sizeof place;

	memset(&place, 0, sizeof place);
	(void)getsockname(fd, &place.any, &bytes);
	place_name(&place, name, capacity, ret_is_loopback);
	/* One that was handed over may block. */
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}
