/*
 * Asking the daemon, with the error printed where it fails.
 */
#pragma once

#include "client/emactl/emactl.h"
#include "client/emactl/facts.h"

/* Connects as the common options say: 0, or an exit status. The caller calls emad_client_close. */
int ask_connect(const struct emactl *emactl, struct emad_client **ret_client);

/*
 * Connects, asks for JSON, parses it and disconnects: 0, or an exit status. model NULL: asks with question; else asks
 * about that model. The caller calls json_decref.
 */
typedef int ask_question(struct emad_client *client, int timeout_ms, char **ret_json);
int ask_json(const struct emactl *emactl, ask_question *question, const char *model, json_t **ret_answer);
