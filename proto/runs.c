/*
 * Places and dtypes. See runs.h.
 */
#include "proto/runs.h"

#include "proto/convert.h"

enum { WIDTH_MAX = 8, WIDTH_COUNT = 4 };

/* A walk over the runs, or over the parts of them that lie in a range. */
struct walk {
	const struct runs *runs;
	uint64_t begin, end; /* the range */
	uint64_t at;         /* where the next run begins */
	unsigned next;       /* counts widths and, within each, dtypes */
};

struct span {
	enum dtype dtype;
	uint64_t offset; /* where its run begins */
	uint64_t bytes;  /* of the run that lie in the range */
};

/* The next run that has bytes in the range. */
static bool span_next(struct walk *walk, struct span *ret_span)
{
	while (walk->next < WIDTH_COUNT * DTYPE_COUNT && walk->at < walk->end) {
		const uint64_t width = WIDTH_MAX >> walk->next / DTYPE_COUNT, run = walk->at;
		const enum dtype dtype = (enum dtype)(walk->next++ % DTYPE_COUNT);
		uint64_t begin, end;

		if (dtype_bytes(dtype) != width)
			continue;
		walk->at += walk->runs->bytes[dtype];
		begin = run > walk->begin ? run : walk->begin;
		end = walk->at < walk->end ? walk->at : walk->end;
		if (begin >= end)
			continue;
		*ret_span = (struct span){.dtype = dtype, .offset = run, .bytes = end - begin};
		return true;
	}
	return false;
}

enum dtype runs_wire_dtype(enum dtype wire, enum dtype kept)
{
	return wire != RUNS_AS_KEPT && dtype_is_float(kept) && dtype_bytes(kept) > dtype_bytes(wire) ? wire : kept;
}

bool runs_is_boundary(const struct runs *runs, uint64_t offset)
{
	struct walk walk = {.runs = runs, .begin = offset, .end = offset + 1};
	struct span span;

	return !span_next(&walk, &span) || (offset - span.offset) % dtype_bytes(span.dtype) == 0;
}

uint64_t runs_wire_bytes(const struct runs *runs, enum dtype wire, uint64_t offset, uint64_t bytes)
{
	struct walk walk = {.runs = runs, .begin = offset, .end = offset + bytes};
	struct span span;
	uint64_t sum = 0;

	while (span_next(&walk, &span))
		sum += span.bytes / dtype_bytes(span.dtype) * dtype_bytes(runs_wire_dtype(wire, span.dtype));
	return sum;
}

void runs_narrow(const struct runs *runs, enum dtype wire, uint64_t offset, uint64_t bytes, const uint8_t *source,
                 uint8_t *target)
{
	struct walk walk = {.runs = runs, .begin = offset, .end = offset + bytes};
	struct span span;

	while (span_next(&walk, &span)) {
		const enum dtype dtype = runs_wire_dtype(wire, span.dtype);
		const uint64_t count = span.bytes / dtype_bytes(span.dtype);

		/* What is too large becomes infinite here: the guards look at it where it is averaged. */
		(void)convert_elements(span.dtype, source, dtype, target, count);
		source += span.bytes;
		target += count * dtype_bytes(dtype);
	}
}

void runs_widen(const struct runs *runs, enum dtype wire, uint64_t offset, uint64_t bytes, const uint8_t *source,
                uint8_t *target)
{
	struct walk walk = {.runs = runs, .begin = offset, .end = offset + bytes};
	struct span span;

	while (span_next(&walk, &span)) {
		const enum dtype dtype = runs_wire_dtype(wire, span.dtype);
		const uint64_t count = span.bytes / dtype_bytes(span.dtype);

		(void)convert_elements(dtype, source, span.dtype, target, count);
		source += count * dtype_bytes(dtype);
		target += span.bytes;
	}
}
