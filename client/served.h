/*
 * In which dtype averages are asked for: the numbers of enum emad_served_dtype, and the names that people type.
 */
#pragma once

#include "client/emad.h"
#include "proto/dtype.h"
#include "proto/status.h"

/* The dtype of a name that people type. STATUS_EARGUMENT with the nearest and all of them. */
int served_parse(const char *name, enum emad_served_dtype *ret_dtype, struct reason *reason);

/* The same for snapshots on their way, which go as F32, F16 and BF16 alone. */
int served_parse_wire(const char *name, enum dtype *ret_dtype, struct reason *reason);

/* STATUS_EARGUMENT when it is none of the enum's numbers. */
int served_check(enum emad_served_dtype served, struct reason *reason);

/* The dtype in which a tensor that is kept in one is served: integers and bools always as they are. */
enum dtype served_dtype(enum emad_served_dtype served, enum dtype kept);
