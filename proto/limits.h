/*
 * Limits that are part of the formats: both sides refuse what is larger, with both numbers. Limits that an operator
 * may set are fields of the daemon's configuration.
 */
#pragma once

enum {
	MODEL_NAME_BYTES_MAX = 200,   /* "run42/net" */
	PROFILE_NAME_BYTES_MAX = 64,  /* "ema" */
	TENSOR_NAME_BYTES_MAX = 512,  /* "encoder.layers.0.attn.q_proj.weight" */
	SCHEDULE_BYTES_MAX = 256,     /* "yolo:decay=0.999,tau=2000" */
	ATTRIBUTES_BYTES_MAX = 32768, /* JSON object of plain attributes */
	METADATA_BYTES_MAX = 4096,    /* JSON object that a push leaves with its version */
	HISTORY_BYTES_MAX = 8192,     /* JSON array of a profile's changes */
	PROFILE_COUNT_MAX = 16,
	RULE_COUNT_MAX = 16,      /* of one profile */
	PATTERN_BYTES_MAX = 128,  /* of one rule */
	PROFILE_BYTES_MAX = 2560, /* a specification with all its rules */
	TENSOR_COUNT_MAX = 100000,
	DIMENSION_COUNT_MAX = 16,
	WORLD_MAX = 1024, /* ranks of one model */
	STAGE_COUNT_MAX = 8,
	SLOT_COUNT_MAX = 16,
	MESSAGE_HEADER_BYTES_MAX = 65536,         /* the msgpack map */
	MESSAGE_BODY_BYTES_MAX = 64 * 1024 * 1024, /* the raw bytes behind it */
	CHUNK_BYTES_MAX = 1024 * 1024, /* of a snapshot or an image, in one message */
	FETCH_RANGE_COUNT_MAX = 1024,  /* of one request for parts of an image */
	PACK_DEPTH_MAX = 8,
};
