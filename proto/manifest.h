/*
 * The manifest: the tensors of a model, and the pieces of them that one rank holds.
 *
 * Every rank sends the whole list of tensors (name, dtype, global shape, parameter or buffer) and its own pieces:
 * boxes (offset, extent) of those tensors. An unsharded model is the case "one rank, each box the whole tensor".
 * The pieces lie in the rank's stage in `stage order`: widest dtype first, then dtype, then the order of the manifest,
 * so that every piece is naturally aligned and pieces of one dtype form long flat runs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"
#include "proto/limits.h"
#include "proto/runs.h"
#include "proto/status.h"

enum {
	/*
	 * Pieces of one tensor that one rank may hold. A flat range of a tensor of d dimensions is at most 2d - 1
	 * boxes; the bound keeps the check for overlaps affordable whatever a client sends.
	 */
	TENSOR_PIECE_COUNT_MAX = 2 * DIMENSION_COUNT_MAX,
	PIECE_COUNT_MAX = 4 * TENSOR_COUNT_MAX, /* of one rank, in all tensors */
};

struct tensor {
	char *name; /* owned; canonical */
	enum dtype dtype;
	bool is_buffer; /* state that is not trained (running means, counters) */
	uint32_t dimension_count;
	uint64_t extents[DIMENSION_COUNT_MAX];
	uint64_t element_count;
};

/* A box of one tensor, held by one rank. */
struct piece {
	uint32_t tensor; /* index */
	uint64_t offsets[DIMENSION_COUNT_MAX];
	uint64_t extents[DIMENSION_COUNT_MAX];
	uint64_t element_count;
	uint64_t stage_offset; /* bytes from the stage's data; set by manifest_finish */
};

struct manifest_key;

struct manifest {
	uint32_t share_count; /* holders beside the first */
	uint32_t tensor_count;
	uint32_t tensor_capacity;
	struct tensor *tensors; /* owned */
	uint32_t piece_count;
	uint32_t piece_capacity;
	struct piece *pieces; /* owned; in manifest order */
	uint64_t stage_bytes; /* all pieces; set by manifest_finish */
	struct runs runs;     /* of the stage; set by manifest_finish */
	struct manifest_key *keys; /* owned; the tensors in the order of their names' hashes; set by manifest_finish */
};

int manifest_create(struct manifest **ret_manifest);

/* One more holder of a finished manifest; each calls manifest_destroy. Of one thread. */
struct manifest *manifest_share(struct manifest *manifest);

/* The last holder's call frees it. NULL is allowed. */
void manifest_destroy(struct manifest *manifest);

/*
 * Adds a tensor; its name is made canonical. STATUS_ENAME, STATUS_ELIMIT, STATUS_EMANIFEST (shape too large) with a
 * sentence naming the tensor and both numbers; -ENOMEM.
 */
int manifest_add_tensor(struct manifest *manifest, const char *name, size_t name_bytes, enum dtype dtype,
                        bool is_buffer, const uint64_t *extents, uint32_t dimension_count, struct reason *reason);

/*
 * Adds a piece of the tensor added last: dimension_count offsets and extents of that tensor, or both NULL for the whole
 * tensor. STATUS_EMANIFEST where it sticks out of the tensor, STATUS_ELIMIT, -ENOMEM.
 */
int manifest_add_piece(struct manifest *manifest, const uint64_t *offsets, const uint64_t *extents,
                       struct reason *reason);

/* The box of a piece is the whole tensor. */
bool piece_is_whole(const struct piece *piece, const struct tensor *tensor);

/*
 * Checks the whole (at least one tensor, no two tensors of one name) and lays out the stage. Must be called once after
 * the last addition, before anything below.
 */
int manifest_finish(struct manifest *manifest, struct reason *reason);

/*
 * The body of a register request: a msgpack array of tensors, each an array
 *
 *     [name, dtype's number, flags (bit 0: buffer), [extents...], pieces]
 *
 * where pieces is nil for one piece that is the whole tensor, else an array of [[offsets...], [extents...]].
 * The encoder allocates *ret_bytes (free with free()). The decoder finishes the manifest; STATUS_EPROTOCOL where the
 * bytes are not such an array, else as manifest_add_tensor, manifest_add_piece and manifest_finish.
 */
int manifest_encode(const struct manifest *manifest, uint8_t **ret_bytes, size_t *ret_count, struct reason *reason);
int manifest_decode(const uint8_t *bytes, size_t count, struct manifest **ret_manifest, struct reason *reason);

/*
 * 0 when both list the same tensors (pieces are not compared), else STATUS_EMANIFEST and the first difference:
 * "tensor 3 'head.weight': shape [10,64] here, [12,64] in the model".
 */
int manifest_compare(const struct manifest *here, const struct manifest *model, struct reason *reason);

/*
 * 0 when the pieces of all ranks together cover every element of every tensor exactly once, else STATUS_EMANIFEST
 * naming the tensor and the ranks: an overlap or the number of elements that nobody holds. -ENOMEM.
 * The ranks' lists of tensors must be equal (manifest_compare).
 */
int manifest_tiling_check(const struct manifest *const *ranks, uint32_t rank_count, struct reason *reason);

/* The index of the tensor of a canonical name, or -1. */
int64_t manifest_find(const struct manifest *manifest, const char *name);
