/*
 * Views inside the library: opening with a sentence beside the code, for view.c's entry points and for export.c.
 */
#pragma once

#include "client/client.h"
#include "proto/safetensors.h"

/* The request for a version; what it names must live as long. STATUS_EARGUMENT, STATUS_ENAME. */
int view_request(const struct emad_client *client, const char *model, const char *profile,
                 const struct emad_view_options *options, struct request *ret_request, struct reason *reason);

int view_open(struct emad_client *client, const char *model, const char *profile, const struct emad_view_options *options,
              struct emad_view **ret_view, struct reason *reason);
int view_check(struct emad_view *view, struct reason *reason);
int view_info(struct emad_view *view, struct emad_view_info *ret_info, struct reason *reason);
/* The same but for tensor_count: nothing is parsed. */
void view_facts(const struct emad_view *view, struct emad_view_info *ret_facts);
/* How far the weights of its snapshot were from the average before it. */
double view_drift(const struct emad_view *view);
/* The image's header; borrowed until the view is closed. */
int view_tensors(struct emad_view *view, const struct safetensors **ret_tensors, struct reason *reason);
