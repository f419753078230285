/*
 * Block check, see block_check.h. Runs before the loop, so it may take its time.
 */
#include "coordinator/block_check.h"

#include <inttypes.h>
#include <string.h>

#include "base/tensor_check.h"

/* Bytes looked at while the system fetches the next ones: large enough for the read-ahead of disks,
 * small enough to show progress on slow ones. */
#define PIECE_BYTES ((uint64_t)4 << 20)

/* Where the reading of a file stands. */
struct reading {
    const struct weft_mapping *maps;
    struct weft_progress *progress;
    struct weft_io *io;
    uint64_t total_bytes;
    struct weft_block_check *ret;
};

static void note(struct weft_block_check *c, const struct weft_gguf_tensor *t, uint64_t first,
                 const struct weft_block_fault *fault)
{
    const uint64_t per_row = t->dims[0] / weft_tensor_type_info(t->type)->block_elems;
    const uint64_t block = first + fault->block;
    c->shown[c->n_shown++] = (struct weft_bad_block){
        .tensor = t,
        .row = block / per_row,
        .block = block % per_row,
        .field = fault->field,
        .found = fault->found,
    };
}

static void read_tensor(struct reading *r, const struct weft_gguf_tensor *t)
{
    struct weft_block_check *c = r->ret;
    const struct weft_mapping *map = &r->maps[t->part];
    const uint64_t block_bytes = weft_tensor_type_info(t->type)->block_bytes;
    const uint64_t n_blocks = t->bytes / block_bytes, piece = PIECE_BYTES / block_bytes;
    for (uint64_t first = 0; first < n_blocks; first += piece) {
        struct weft_block_fault faults[WEFT_BAD_BLOCKS_SHOWN];
        const uint64_t n = n_blocks - first < piece ? n_blocks - first : piece;
        const uint64_t offset = t->offset + first * block_bytes, size = n * block_bytes;
        const size_t room = WEFT_BAD_BLOCKS_SHOWN - c->n_shown;
        weft_mapping_fetch(map, offset + size, PIECE_BYTES);
        const uint64_t bad = weft_tensor_check_blocks(t->type, map->data + offset, n, faults, room);
        for (uint64_t i = 0; i < bad && i < room; i++)
            note(c, t, first, &faults[i]);
        c->bad_blocks += bad;
        c->bytes += size;
        weft_progress_update(r->progress, 0, "check", c->bytes, r->total_bytes,
                             r->io->now_ns(r->io));
    }
    c->tensors++;
}

void weft_block_check(const struct weft_model_file *file, struct weft_progress *progress,
                      struct weft_io *io, struct weft_block_check *ret)
{
    const struct weft_gguf *g = &file->gguf;
    struct reading r = {.maps = file->maps, .progress = progress, .io = io, .ret = ret};
    *ret = (struct weft_block_check){0};
    for (uint64_t i = 0; i < g->n_tensors; i++)
        if (weft_tensor_checkable(g->tensors[i].type))
            r.total_bytes += g->tensors[i].bytes;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        if (weft_tensor_checkable(g->tensors[i].type))
            read_tensor(&r, &g->tensors[i]);
        else
            ret->unknown[g->tensors[i].type]++;
    }
}

/* ------------------------------------------------------------------ what was found */

static void add_name(const struct weft_gguf_tensor *t, struct weft_str *out)
{
    weft_str_add(out, t->name.data, (size_t)t->name.size);
}

/* "blk.0.ffn_down.weight row 3 block 7: d is NaN" */
static void add_bad_block(const struct weft_bad_block *b, struct weft_str *out)
{
    const bool plain = weft_tensor_type_info(b->tensor->type)->block_elems == 1;
    add_name(b->tensor, out);
    weft_str_addf(out, " row %" PRIu64 " %s %" PRIu64 ": %s is %s", b->row,
                  plain ? "element" : "block", b->block, b->field, b->found);
}

int weft_block_check_error(const struct weft_block_check *c, weft_err *err)
{
    struct weft_str first = {0};
    if (c->bad_blocks == 0)
        return 0;
    add_bad_block(&c->shown[0], &first);
    int r = weft_fail(err, WEFT_EMODEL,
                      "%" PRIu64 " block%s with NaN or infinity, the first is tensor %s; download "
                      "or convert the model again",
                      c->bad_blocks, c->bad_blocks == 1 ? "" : "s",
                      first.data != NULL ? first.data : "?");
    weft_str_done(&first);
    return r;
}

void weft_block_check_text(const struct weft_block_check *c, struct weft_str *out)
{
    char size[32];
    weft_str_addf(out, "checked       %" PRIu64 " tensor%s, %s: ", c->tensors,
                  c->tensors == 1 ? "" : "s", weft_format_size(size, sizeof size, c->bytes));
    if (c->bad_blocks == 0)
        weft_str_adds(out, "no NaN, no infinity\n");
    else
        weft_str_addf(out, "%" PRIu64 " block%s with NaN or infinity\n", c->bad_blocks,
                      c->bad_blocks == 1 ? "" : "s");
    for (uint32_t i = 0; i < c->n_shown; i++) {
        weft_str_adds(out, "  ");
        add_bad_block(&c->shown[i], out);
        weft_str_adds(out, "\n");
    }
    if (c->bad_blocks > c->n_shown)
        weft_str_addf(out, "  and %" PRIu64 " more\n", c->bad_blocks - c->n_shown);
    for (uint32_t i = 0; i < WEFT_TENSOR_TYPE_COUNT; i++)
        if (c->unknown[i] > 0)
            weft_str_addf(out, "not checked   %" PRIu64 " tensor%s of type %s\n", c->unknown[i],
                          c->unknown[i] == 1 ? "" : "s", weft_tensor_type_info(i)->name);
}

void weft_block_check_json(const struct weft_block_check *c, struct weft_str *out)
{
    const char *between = "";
    weft_str_addf(out,
                  "{\"tensors\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"bad_blocks\": %" PRIu64
                  ", \"first_bad_blocks\": [",
                  c->tensors, c->bytes, c->bad_blocks);
    for (uint32_t i = 0; i < c->n_shown; i++) {
        const struct weft_bad_block *b = &c->shown[i];
        weft_str_adds(out, i > 0 ? ", {\"tensor\": " : "{\"tensor\": ");
        weft_str_add_json(out, b->tensor->name.data, (size_t)b->tensor->name.size);
        weft_str_addf(out,
                      ", \"type\": \"%s\", \"row\": %" PRIu64 ", \"block\": %" PRIu64
                      ", \"field\": \"%s\", \"found\": \"%s\"}",
                      weft_tensor_type_info(b->tensor->type)->name, b->row, b->block, b->field,
                      b->found);
    }
    weft_str_adds(out, "], \"tensors_not_checked\": {");
    for (uint32_t i = 0; i < WEFT_TENSOR_TYPE_COUNT; i++) {
        if (c->unknown[i] == 0)
            continue;
        weft_str_addf(out, "%s\"%s\": %" PRIu64, between, weft_tensor_type_info(i)->name,
                      c->unknown[i]);
        between = ", ";
    }
    weft_str_adds(out, "}}");
}
