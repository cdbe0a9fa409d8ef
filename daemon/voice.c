/*
 * The log and the service manager. See voice.h.
 */
#include "daemon/voice.h"

#include "daemon/edge/log.h"
#include "daemon/edge/scribe.h"
#include "daemon/edge/systemd.h"

enum { SETTLE_MS_MAX = 200 }; /* for the log, when it says that it is ready */

void voice_init(struct voice *voice, enum event_severity severity_max)
{
	*voice = (struct voice){ .severity_max = severity_max, .journal = systemd_has_journal() };
}

int voice_start(struct voice *voice)
{
	return scribe_start(voice->journal ? systemd_journal : log_line, &voice->scribe);
}

void voice_stop(struct voice *voice, uint32_t timeout_ms)
{
	if (voice->scribe)
		(void)scribe_stop(voice->scribe, timeout_ms);
}

static void tell(const struct voice *voice, const struct event *event)
{
	if (event->severity > voice->severity_max)
		return;
	if (voice->scribe)
		scribe_tell(voice->scribe, event);
	else if (voice->journal)
		systemd_journal(event);
	else
		log_line(event);
}

void voice_event(struct voice *voice, const struct event *event, uint64_t now_ms)
{
	if (throttle_admit(&voice->throttle, event->origin, event->text, now_ms))
		tell(voice, event);
}

void voice_say_of(struct voice *voice, enum event_kind kind, enum event_severity severity, const char *text)
{
	struct event event = { .severity = severity, .kind = kind, .text = text, .step = UINT64_MAX, .pid = -1 };

	tell(voice, &event);
}

void voice_say(void *voice, enum event_severity severity, const char *text)
{
	voice_say_of(voice, EVENT_OTHER, severity, text);
}

void voice_say_left_out(struct voice *voice, uint64_t now_ms)
{
	char text[THROTTLE_TEXT_BYTES_MAX + 64];

	while (throttle_take(&voice->throttle, now_ms, text, sizeof text))
		voice_say(voice, EVENT_NOTICE, text);
}

void voice_ready(const struct voice *voice, const char *text)
{
	scribe_settle(voice->scribe, SETTLE_MS_MAX);
	systemd_ready(text);
}

bool voice_reloaded(const struct voice *voice, const char *text)
{
	scribe_settle(voice->scribe, SETTLE_MS_MAX);
	return systemd_reloaded(text);
}
