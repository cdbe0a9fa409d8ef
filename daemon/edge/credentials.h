/*
 * Credentials: files with keys, certificates and tokens. A plain name is that of one that the service manager hands
 * over ($CREDENTIALS_DIRECTORY).
 */
#pragma once

#include <stdbool.h>

#include "proto/status.h"

/*
 * Reads a file as text, to be freed with free(). A secret one must not be readable by others than its owner and its
 * group. -errno or STATUS_EARGUMENT with a sentence that begins with key: the name of the setting.
 */
int credential_read(const char *key, const char *name, bool is_secret, char **ret_text, struct reason *reason);
