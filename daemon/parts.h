/*
 * The daemon's parts, and what it remembers of its own course. Loop thread only, but for the functions that threads call
 * (threads.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "daemon/core/config.h"
#include "daemon/core/service.h"
#include "daemon/core/web.h"
#include "daemon/edge/accounts.h"
#include "daemon/edge/runtime.h"
#include "daemon/edge/systemd.h"
#include "daemon/edge/waker.h"
#include "daemon/network_files.h"
#include "daemon/options.h"
#include "daemon/voice.h"

struct attach;
struct files;
struct http;
struct memory_maker;
struct transport;
struct workers;

struct daemon {
	const struct options *options;
	struct config *config; /* owned; the core borrows from it */
	struct accounts accounts;
	uv_loop_t loop;
	struct waker wake;
	uv_timer_t due, status, drain, watchdog;
	uv_signal_t terminate, interrupt, hangup;
	struct runtime runtime;
	struct transport *transport;
	struct attach *attach;
	struct memory_maker *maker;
	struct workers *workers;
	struct files *files; /* NULL: nothing is kept on disk */
	struct http *http;   /* NULL: nothing is served by HTTP */
	char http_token[WEB_TOKEN_BYTES_MAX + 1];
	struct service *service;
	struct service_facts facts;
	struct network_files *network; /* owned; the core borrows from it */
	char state_dir[CONFIG_PATH_BYTES_MAX];
	int state_lock_fd; /* the files thread's, once that runs */
	char segments_dir[CONFIG_PATH_BYTES_MAX];
	struct systemd_handed handed;
	int attach_listener_fd; /* -1: none */
	struct voice voice;
	uint64_t drain_due_ms;
	bool listening; /* the sockets are there */
	bool reloaded;  /* and the service manager does not know it yet */
	bool unkept;    /* said that segments will not be there after a restart */
	bool stopping;
	bool hurried; /* a second signal: what was accepted is not waited for */
	int error;    /* why it must end while it runs */
	struct reason *reason;
};
