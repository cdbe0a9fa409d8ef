/*
 * Telling people: what concerns the service or one of its models becomes an event of the host's.
 */
#include "daemon/core/service_state.h"

#include <stdarg.h>
#include <stdio.h>

static void event_tell(const struct service *service, struct event event, const char *format, va_list arguments)
{
	char text[768];

	vsnprintf(text, sizeof text, format, arguments);
	event.text = text;
	event.origin = format;
	service->host.event(service->host.context, &event);
}

void service_event(const struct service *service, enum event_severity severity, const char *model, int error,
                   const char *format, ...)
{
	const struct event event = {
		.severity = severity,
		.model = model,
		.error = error ? status_name(error) : NULL,
		.step = UINT64_MAX,
		.pid = -1,
	};
	va_list arguments;

	va_start(arguments, format);
	event_tell(service, event, format, arguments);
	va_end(arguments);
}

void service_event_about(const struct service *service, const struct event *about, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	event_tell(service, *about, format, arguments);
	va_end(arguments);
}
