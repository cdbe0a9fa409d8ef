/*
 * Reading a range: see range.h. Where memory is shared it is a short view; over the network these bytes alone travel.
 */
#include "client/range.h"

#include "client/error.h"
#include "client/remote.h"
#include "client/remote_view.h"
#include "client/view.h"

#include <inttypes.h>
#include <string.h>

int range_check(const struct emad_range *range, uint64_t image_bytes, struct reason *reason)
{
	if (range->offset <= image_bytes && range->bytes <= image_bytes - range->offset)
		return 0;
	return reason_set(reason, STATUS_EARGUMENT, "%" PRIu64 " bytes from byte %" PRIu64 " on: the image has %" PRIu64,
	                  range->bytes, range->offset, image_bytes);
}

static int range_copy(struct emad_client *client, const char *model, const char *profile, const struct emad_range *range,
                      struct emad_view_info *ret_facts, struct reason *reason)
{
	const struct emad_view_options options = {.min_step = range->min_step, .timeout_ms = range->timeout_ms};
	struct emad_view_info facts;
	struct emad_view *view;
	int code = view_open(client, model, profile, &options, &view, reason);

	if (code)
		return code;
	view_facts(view, &facts);
	code = range_check(range, facts.image_bytes, reason);
	if (code == 0 && range->bytes > 0)
		memcpy(range->buffer, facts.image + range->offset, range->bytes);
	if (code == 0)
		code = view_check(view, reason);
	emad_view_close(view);
	if (code)
		return code;
	facts.image = NULL;
	facts.fd = -1;
	facts.fd_offset = 0;
	*ret_facts = facts;
	return 0;
}

static int range_fetch(struct emad_client *client, const char *model, const char *profile, const struct emad_range *range,
                       struct emad_view_info *ret_facts, struct reason *reason)
{
	const struct emad_view_options options = {.min_step = range->min_step, .timeout_ms = range->timeout_ms};
	struct request request;
	int code = view_request(client, model, profile, &options, &request, reason);

	if (code)
		return code;
	return remote_view_range(client, &request, range, client_deadline(client_timeout(client, range->timeout_ms)), ret_facts,
	                         reason);
}

int emad_image_read(struct emad_client *client, const char *model, const char *profile, const struct emad_range *range,
                    struct emad_view_info *ret_info)
{
	struct reason reason = {.text = ""};
	struct emad_view_info facts;
	int code = client_check(client, &reason);

	if (code == 0 && (!range || (range->bytes > 0 && !range->buffer)))
		code = reason_set(&reason, STATUS_EARGUMENT, "%s is NULL", range ? "the range's buffer" : "range");
	if (code == 0)
		code = remote_is(client) ? range_fetch(client, model, profile, range, &facts, &reason)
					 : range_copy(client, model, profile, range, &facts, &reason);
	if (code == 0 && ret_info)
		*ret_info = facts;
	return error_report(code, &reason);
}
