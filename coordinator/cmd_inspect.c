/*
 * weft inspect: what a GGUF file holds, also when weft cannot run it: shape, types and sizes,
 * KV cache, tokenizer, chat template, and with --check whether all weights are finite. Facts are
 * gathered once and shown as text or as JSON.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/app.h"
#include "coordinator/block_check.h"
#include "coordinator/output.h"

/* Bytes of an architecture's name in a key; the longest published one has 20. */
#define ARCH_MAX 64
#define KEY_MAX 128

struct type_facts {
    uint64_t tensors, bytes, parameters;
};

struct special {
    const char *name; /* "bos" */
    const char *key;
    bool present;
    uint32_t id;
    struct weft_gguf_string text; /* size 0 when the id is not in the vocabulary */
};

#define SPECIALS 6

struct facts {
    const char *path;
    const struct weft_model_file *file;
    const struct weft_gguf *g; /* its keys and tensors */
    uint64_t bytes;            /* of all its parts */
    char arch[ARCH_MAX], name[WEFT_QUOTE_SIZE];
    bool runs;
    const struct weft_model *model; /* when it does */
    weft_err why;                   /* when it does not */
    /* 0: the file does not say */
    uint32_t layers, dim, heads, kv_heads, head_dim, ffn, vocab, context;
    uint64_t kv_position_bytes; /* as f16, all layers */
    struct type_facts types[WEFT_TENSOR_TYPE_COUNT], total;
    bool have_tokenizer, tokenizer_runs;
    char tokenizer[WEFT_QUOTE_SIZE];
    weft_err tokenizer_why;
    uint64_t tokens, merges;     /* merges: 0 without the key */
    char pre[WEFT_QUOTE_SIZE];   /* pre-tokenizer; "": not named */
    char tokenizer_warning[256]; /* "": none */
    struct special specials[SPECIALS];
    uint64_t template_bytes; /* 0: none */
    weft_err template_why;   /* code 0: weft understands it */
    bool checked;
    struct weft_block_check check;
};

/* ------------------------------------------------------------------ gathering */

/* Text of a file for a terminal: printable, cut to fit. buf holds WEFT_QUOTE_SIZE bytes. */
static void copy_printable(char *buf, size_t n, struct weft_gguf_string s)
{
    char quoted[WEFT_QUOTE_SIZE];
    weft_quote(quoted, sizeof quoted, s.data, (size_t)s.size);
    snprintf(buf, n, "%.*s", (int)(strlen(quoted) - 2), quoted + 1); /* without its quotes */
}

/* "llama" + "block_count": the key's number, `absent` without the key, 0 when it is no number (such
 * as one per layer). */
static uint32_t arch_u32(const struct facts *f, const char *rest, uint32_t absent)
{
    char key[KEY_MAX];
    uint32_t value = 0;
    snprintf(key, sizeof key, "%s.%s", f->arch, rest);
    if (weft_gguf_kv(f->g, key) == NULL)
        return absent;
    return weft_gguf_u32(f->g, key, &value, NULL) == 0 ? value : 0;
}

static void gather_shape(struct facts *f)
{
    f->layers = arch_u32(f, "block_count", 0);
    f->dim = arch_u32(f, "embedding_length", 0);
    f->heads = arch_u32(f, "attention.head_count", 0);
    f->kv_heads = arch_u32(f, "attention.head_count_kv", f->heads);
    f->head_dim = arch_u32(f, "attention.key_length", f->heads > 0 ? f->dim / f->heads : 0);
    f->ffn = arch_u32(f, "feed_forward_length", 0);
    f->context = arch_u32(f, "context_length", 0);
    const struct weft_gguf_tensor *embed = weft_gguf_tensor(f->g, "token_embd.weight");
    if (embed != NULL && embed->dims[1] <= UINT32_MAX)
        f->vocab = (uint32_t)embed->dims[1];
    /* K and V of 2 bytes an element; each factor is below 2^32, the limits keep the product small.
     */
    if (f->layers <= WEFT_LAYERS_MAX && f->kv_heads <= WEFT_HEADS_MAX &&
        f->head_dim <= WEFT_DIM_MAX)
        f->kv_position_bytes = (uint64_t)f->layers * f->kv_heads * f->head_dim * 2 * 2;
}

static void gather_tensors(struct facts *f)
{
    for (uint64_t i = 0; i < f->g->n_tensors; i++) {
        const struct weft_gguf_tensor *t = &f->g->tensors[i];
        const uint64_t parameters = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        struct type_facts *both[] = {&f->types[t->type], &f->total};
        for (size_t k = 0; k < 2; k++) {
            both[k]->tensors++;
            both[k]->bytes += t->bytes;
            both[k]->parameters += parameters;
        }
    }
}

static void gather_specials(struct facts *f, const struct weft_gguf_kv *tokens)
{
    static const struct special known[SPECIALS] = {
        {.name = "bos", .key = "tokenizer.ggml.bos_token_id"},
        {.name = "eos", .key = "tokenizer.ggml.eos_token_id"},
        {.name = "eot", .key = "tokenizer.ggml.eot_token_id"},
        {.name = "eom", .key = "tokenizer.ggml.eom_token_id"},
        {.name = "unknown", .key = "tokenizer.ggml.unknown_token_id"},
        {.name = "padding", .key = "tokenizer.ggml.padding_token_id"},
    };
    memcpy(f->specials, known, sizeof known);
    for (size_t i = 0; i < SPECIALS; i++) {
        struct special *s = &f->specials[i];
        struct weft_gguf_string text;
        uint64_t pos = 0;
        s->present = weft_gguf_u32(f->g, s->key, &s->id, NULL) == 0;
        if (!s->present || tokens == NULL || s->id >= tokens->count)
            continue;
        for (uint64_t k = 0; weft_gguf_next_string(tokens, &pos, &text); k++)
            if (k == s->id)
                s->text = text;
    }
}

static void gather_tokenizer(struct facts *f)
{
    const struct weft_gguf_kv *tokens = weft_gguf_kv(f->g, "tokenizer.ggml.tokens");
    const struct weft_gguf_kv *merges = weft_gguf_kv(f->g, "tokenizer.ggml.merges");
    struct weft_gguf_string kind, pre;
    struct weft_tokenizer *t = NULL;
    f->have_tokenizer = weft_gguf_str(f->g, "tokenizer.ggml.model", &kind, NULL) == 0;
    if (!f->have_tokenizer) {
        (void)weft_fail(&f->tokenizer_why, WEFT_EUNSUPPORTED, "the file has no tokenizer");
        return;
    }
    copy_printable(f->tokenizer, sizeof f->tokenizer, kind);
    f->tokens = tokens != NULL && tokens->type == WEFT_GGUF_ARRAY ? tokens->count : 0;
    f->merges = merges != NULL && merges->type == WEFT_GGUF_ARRAY ? merges->count : 0;
    if (weft_gguf_str(f->g, "tokenizer.ggml.pre", &pre, NULL) == 0)
        copy_printable(f->pre, sizeof f->pre, pre);
    gather_specials(f, tokens);
    f->tokenizer_runs = weft_tokenizer_open(f->g, &t, &f->tokenizer_why) == 0;
    if (f->tokenizer_runs)
        snprintf(f->tokenizer, sizeof f->tokenizer, "%s",
                 weft_tokenizer_kind_name(weft_tokenizer_kind(t)));
    if (f->tokenizer_runs && weft_tokenizer_warning(t) != NULL)
        snprintf(f->tokenizer_warning, sizeof f->tokenizer_warning, "%s",
                 weft_tokenizer_warning(t));
    weft_tokenizer_close(t);
}

static void gather_template(struct facts *f)
{
    struct weft_gguf_string source;
    struct weft_template *t = NULL;
    if (weft_gguf_str(f->g, "tokenizer.chat_template", &source, NULL) < 0)
        return;
    f->template_bytes = source.size;
    (void)!weft_template_open_gguf(f->g, &t, &f->template_why);
    weft_template_close(t);
}

/* Fails only for what is no GGUF at all, or broken. */
static int gather(struct weft_app *app, struct facts *f, weft_err *err)
{
    struct weft_gguf_string text;
    int r = weft_app_open_model(app, err);
    if (r < 0)
        return r;
    f->path = app->model_path;
    f->file = &app->model_file;
    f->g = &f->file->gguf;
    f->bytes = weft_model_file_bytes(f->file);
    if (weft_gguf_str(f->g, "general.architecture", &text, NULL) == 0)
        copy_printable(f->arch, sizeof f->arch, text);
    if (weft_gguf_str(f->g, "general.name", &text, NULL) == 0)
        copy_printable(f->name, sizeof f->name, text);
    f->runs = weft_model_from_gguf(f->g, f->file->maps, &app->model, &f->why) == 0;
    app->have_model = f->runs;
    f->model = f->runs ? &app->model : NULL;
    if (f->g->n_tensors == 0) {
        f->why = (weft_err){0};
        (void)weft_fail(&f->why, WEFT_EUNSUPPORTED, "the file has no tensors, only metadata");
    }
    gather_shape(f);
    gather_tensors(f);
    gather_tokenizer(f);
    gather_template(f);
    /* Malformed counts as much as what is no GGUF: scripts should see it. */
    if (!f->runs && f->g->n_tensors > 0 && f->why.code == WEFT_EMODEL) {
        *err = f->why;
        weft_err_prefix(err, "%s", f->path);
        return -WEFT_EMODEL;
    }
    return 0;
}

/* Reads the whole file. A model with bad blocks loads, but cannot be computed with. */
static int check(struct weft_app *app, struct facts *f, weft_err *err)
{
    struct weft_progress *progress = weft_progress_open(app->err_tty, 1);
    weft_block_check(f->file, progress, app->io, &f->check);
    weft_progress_close(progress);
    f->checked = true;
    int r = weft_block_check_error(&f->check, err);
    if (r < 0 && f->runs) {
        f->runs = false;
        (void)weft_fail(&f->why, WEFT_EMODEL, "weights with NaN or infinity");
    }
    if (r < 0)
        weft_err_prefix(err, "%s", f->path);
    return r;
}

/* ------------------------------------------------------------------ text */

/* "1.10 billion", "3.8 million". */
static void format_count(char *buf, size_t n, uint64_t count)
{
    if (count >= 1000000000)
        snprintf(buf, n, "%.2f billion", (double)count * 1e-9);
    else if (count >= 1000000)
        snprintf(buf, n, "%.1f million", (double)count * 1e-6);
    else
        snprintf(buf, n, "%llu", (unsigned long long)count);
}

static void text_shape(const struct facts *f, struct weft_str *out)
{
    char one[32], all[32];
    if (f->layers > 0)
        weft_str_addf(out, "layers        %u\n", f->layers);
    if (f->dim > 0)
        weft_str_addf(out, "width         %u", f->dim);
    if (f->dim > 0 && f->ffn > 0)
        weft_str_addf(out, ", FFN %u", f->ffn);
    if (f->dim > 0)
        weft_str_adds(out, "\n");
    if (f->heads > 0)
        weft_str_addf(out, "heads         %u of %u", f->heads, f->head_dim);
    if (f->heads > 0 && f->kv_heads > 0)
        weft_str_addf(out, ", %u for keys and values", f->kv_heads);
    if (f->heads > 0)
        weft_str_adds(out, "\n");
    if (f->vocab > 0)
        weft_str_addf(out, "vocabulary    %u\n", f->vocab);
    if (f->context > 0)
        weft_str_addf(out, "context       %u positions\n", f->context);
    if (f->kv_position_bytes == 0)
        return;
    weft_str_addf(out, "KV cache      %s per position as f16",
                  weft_format_size(one, sizeof one, f->kv_position_bytes));
    if (f->context > 0 && f->context <= WEFT_CONTEXT_MAX)
        weft_str_addf(out, ", %s for %u",
                      weft_format_size(all, sizeof all, f->kv_position_bytes * f->context),
                      f->context);
    weft_str_adds(out, "\n");
}

/* What a layer can be divided into between devices, and what not. */
static void text_shards(const struct weft_model *m, struct weft_str *out)
{
    static const struct {
        enum weft_shard_kind kind;
        const char *one, *many;
    } kinds[] = {
        {WEFT_SHARD_ATTN, "KV group", "KV groups"},
        {WEFT_SHARD_FFN, "FFN block", "FFN blocks"},
        {WEFT_SHARD_EXPERT, "expert", "experts"},
    };
    const char *between = "";
    weft_str_adds(out, "shards        ");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const uint32_t space = weft_shard_space(m, kinds[i].kind);
        const char *whole = weft_shard_whole(m, kinds[i].kind);
        if (space == 0)
            continue;
        weft_str_addf(out, "%s%u %s", between, space, space == 1 ? kinds[i].one : kinds[i].many);
        if (whole != NULL)
            weft_str_addf(out, " (not to be divided: %s)", whole);
        between = ", ";
    }
    weft_str_adds(out, " a layer\n");
    if (m->traits.n_experts > 0)
        weft_str_addf(out, "experts       %u of %u a token, FFN %u each%s\n",
                      m->traits.n_experts_used, m->traits.n_experts, m->traits.expert_ffn,
                      m->ffn_dim > 0 ? ", and one for all" : "");
    if (m->traits.window > 0)
        weft_str_addf(out, "window        %u positions%s\n", m->traits.window,
                      m->traits.window_period > 0 ? " in some layers" : "");
}

static void text_types(const struct facts *f, struct weft_str *out)
{
    char size[32], count[32];
    if (f->total.tensors == 0)
        return;
    format_count(count, sizeof count, f->total.parameters);
    weft_str_addf(out, "parameters    %s\n\ntype      tensors        size\n", count);
    for (uint32_t i = 0; i < WEFT_TENSOR_TYPE_COUNT; i++)
        if (f->types[i].tensors > 0)
            weft_str_addf(out, "%-8s %8llu %11s%s\n", weft_tensor_type_info(i)->name,
                          (unsigned long long)f->types[i].tensors,
                          weft_format_size(size, sizeof size, f->types[i].bytes),
                          weft_type_supported(i) ? "" : "  not supported");
    weft_str_addf(out, "all      %8llu %11s\n\n", (unsigned long long)f->total.tensors,
                  weft_format_size(size, sizeof size, f->total.bytes));
}

static void text_tokenizer(const struct facts *f, struct weft_str *out)
{
    char quoted[WEFT_QUOTE_SIZE];
    if (!f->have_tokenizer) {
        weft_str_adds(out, "tokenizer     none\n");
        return;
    }
    weft_str_addf(out, "tokenizer     %s, %llu tokens", f->tokenizer,
                  (unsigned long long)f->tokens);
    if (f->merges > 0)
        weft_str_addf(out, ", %llu merges", (unsigned long long)f->merges);
    weft_str_adds(out, "\n");
    if (f->merges > 0 && f->pre[0] != '\0') /* SentencePiece has none, whatever the key says */
        weft_str_addf(out, "  pre         %s\n", f->pre);
    for (size_t i = 0; i < SPECIALS; i++) {
        const struct special *s = &f->specials[i];
        if (s->present)
            weft_str_addf(out, "  %-11s %u %s\n", s->name, s->id,
                          s->text.data != NULL ? weft_quote(quoted, sizeof quoted, s->text.data,
                                                            (size_t)s->text.size)
                                               : "(not in the vocabulary)");
    }
    if (f->tokenizer_warning[0] != '\0')
        weft_str_addf(out, "  warning     %s\n", f->tokenizer_warning);
    if (!f->tokenizer_runs)
        weft_str_addf(out, "  cannot run  %s\n", f->tokenizer_why.text);
}

/* Tensors that lie in a part. */
static uint64_t part_tensors(const struct weft_gguf *g, uint32_t part)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < g->n_tensors; i++)
        n += g->tensors[i].part == part;
    return n;
}

static void text_parts(const struct facts *f, struct weft_str *out)
{
    char size[32];
    for (uint32_t i = 0; i < f->g->n_parts; i++) {
        const uint64_t n = part_tensors(f->g, i);
        weft_str_addf(out, "  part %-6u %s, %s, %llu tensor%s\n", i + 1, f->file->maps[i].name,
                      weft_format_size(size, sizeof size, f->file->maps[i].size),
                      (unsigned long long)n, n == 1 ? "" : "s");
    }
}

static void text_facts(const struct facts *f, struct weft_str *out)
{
    char size[32];
    weft_str_addf(out, "file          %s: GGUF version %u, %s", f->path, f->g->version,
                  weft_format_size(size, sizeof size, f->bytes));
    if (f->g->n_parts > 1)
        weft_str_addf(out, " in %u parts", f->g->n_parts);
    weft_str_adds(out, "\n");
    if (f->g->n_parts > 1)
        text_parts(f, out);
    if (f->name[0] != '\0')
        weft_str_addf(out, "name          %s\n", f->name);
    weft_str_addf(out, "architecture  %s\n", f->arch[0] != '\0' ? f->arch : "not named");
    text_shape(f, out);
    if (f->model != NULL)
        text_shards(f->model, out);
    text_types(f, out);
    text_tokenizer(f, out);
    if (f->template_bytes == 0)
        weft_str_adds(out, "chat template none: weft run --raw\n");
    else if (f->template_why.code == 0)
        weft_str_addf(out, "chat template %llu bytes\n", (unsigned long long)f->template_bytes);
    else
        weft_str_addf(out, "chat template %llu bytes, not understood: %s\n",
                      (unsigned long long)f->template_bytes, f->template_why.text);
    if (f->checked)
        weft_block_check_text(&f->check, out);
    if (f->runs && f->tokenizer_runs)
        weft_str_adds(out, "runs          yes\n");
    else
        weft_str_addf(out, "runs          no: %s\n", f->runs ? f->tokenizer_why.text : f->why.text);
}

/* ------------------------------------------------------------------ JSON */

static void json_text(const char *key, const char *text, struct weft_str *out)
{
    weft_str_addf(out, "\"%s\": ", key);
    weft_str_add_json(out, text, strlen(text));
    weft_str_adds(out, ", ");
}

static void json_tokenizer(const struct facts *f, struct weft_str *out)
{
    const char *between = "";
    weft_str_adds(out, "\"tokenizer\": ");
    if (!f->have_tokenizer) {
        weft_str_adds(out, "null");
        return;
    }
    weft_str_adds(out, "{");
    json_text("kind", f->tokenizer, out);
    weft_str_addf(out, "\"runs\": %s, ", f->tokenizer_runs ? "true" : "false");
    json_text("why_not", f->tokenizer_why.text, out);
    json_text("pre", f->pre, out);
    json_text("warning", f->tokenizer_warning, out);
    weft_str_addf(out, "\"tokens\": %llu, \"merges\": %llu, \"special_ids\": {",
                  (unsigned long long)f->tokens, (unsigned long long)f->merges);
    for (size_t i = 0; i < SPECIALS; i++) {
        if (!f->specials[i].present)
            continue;
        weft_str_addf(out, "%s\"%s\": %u", between, f->specials[i].name, f->specials[i].id);
        between = ", ";
    }
    weft_str_adds(out, "}}");
}

/* One item for a whole file. */
static void json_parts(const struct facts *f, struct weft_str *out)
{
    for (uint32_t i = 0; i < f->g->n_parts; i++) {
        weft_str_adds(out, i == 0 ? "\"parts\": [{" : ", {");
        json_text("file", f->file->maps[i].name, out);
        weft_str_addf(out, "\"bytes\": %llu, \"tensors\": %llu}",
                      (unsigned long long)f->file->maps[i].size,
                      (unsigned long long)part_tensors(f->g, i));
    }
    weft_str_adds(out, "], ");
}

static void json_shards(const struct weft_model *m, struct weft_str *out)
{
    static const enum weft_shard_kind kinds[] = {WEFT_SHARD_ATTN, WEFT_SHARD_FFN,
                                                 WEFT_SHARD_EXPERT};
    const char *between = "";
    weft_str_adds(out, "\"shards\": {");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        weft_str_addf(out, "%s\"%s\": %u", i > 0 ? ", " : "", weft_shard_kind_name(kinds[i]),
                      weft_shard_space(m, kinds[i]));
    weft_str_adds(out, "}, \"not_divisible\": {");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *why = weft_shard_whole(m, kinds[i]);
        if (why == NULL)
            continue;
        weft_str_addf(out, "%s\"%s\": ", between, weft_shard_kind_name(kinds[i]));
        weft_str_add_json(out, why, strlen(why));
        between = ", ";
    }
    weft_str_adds(out, "}, ");
}

static void json_facts(const struct facts *f, struct weft_str *out)
{
    const char *between = "";
    weft_str_adds(out, "{");
    json_text("file", f->path, out);
    weft_str_addf(out, "\"gguf_version\": %u, \"file_bytes\": %llu, ", f->g->version,
                  (unsigned long long)f->bytes);
    json_parts(f, out);
    json_text("name", f->name, out);
    json_text("architecture", f->arch, out);
    weft_str_addf(out, "\"runs\": %s, ", f->runs && f->tokenizer_runs ? "true" : "false");
    json_text("why_not", f->runs ? f->tokenizer_why.text : f->why.text, out);
    weft_str_addf(out,
                  "\"layers\": %u, \"width\": %u, \"heads\": %u, \"kv_heads\": %u, "
                  "\"head_width\": %u, \"ffn_width\": %u, \"vocabulary\": %u, "
                  "\"context_positions\": %u, \"kv_f16_bytes_per_position\": %llu, "
                  "\"parameters\": %llu, \"tensors\": %llu, \"tensor_bytes\": %llu, \"types\": {",
                  f->layers, f->dim, f->heads, f->kv_heads, f->head_dim, f->ffn, f->vocab,
                  f->context, (unsigned long long)f->kv_position_bytes,
                  (unsigned long long)f->total.parameters, (unsigned long long)f->total.tensors,
                  (unsigned long long)f->total.bytes);
    for (uint32_t i = 0; i < WEFT_TENSOR_TYPE_COUNT; i++) {
        if (f->types[i].tensors == 0)
            continue;
        weft_str_addf(
            out, "%s\"%s\": {\"tensors\": %llu, \"bytes\": %llu, \"supported\": %s}", between,
            weft_tensor_type_info(i)->name, (unsigned long long)f->types[i].tensors,
            (unsigned long long)f->types[i].bytes, weft_type_supported(i) ? "true" : "false");
        between = ", ";
    }
    weft_str_adds(out, "}, ");
    if (f->model != NULL)
        json_shards(f->model, out);
    json_tokenizer(f, out);
    weft_str_addf(out, ", \"chat_template_bytes\": %llu, \"chat_template_runs\": %s",
                  (unsigned long long)f->template_bytes,
                  f->template_bytes > 0 && f->template_why.code == 0 ? "true" : "false");
    if (f->checked) {
        weft_str_adds(out, ", \"check\": ");
        weft_block_check_json(&f->check, out);
    }
    weft_str_adds(out, "}\n");
}

int weft_cmd_inspect(struct weft_app *app)
{
    struct facts f = {0};
    struct weft_str out = {0};
    weft_err err = {0};
    int r = gather(app, &f, &err);
    if (f.g != NULL && app->opt->check) {
        weft_err why = {0}; /* what is malformed counts more than what it holds */
        int bad = check(app, &f, &why);
        if (bad < 0 && r == 0) {
            r = bad;
            err = why;
        }
    }
    if (f.g != NULL && app->opt->json)
        json_facts(&f, &out);
    else if (f.g != NULL)
        text_facts(&f, &out);
    if (out.size > 0)
        weft_output_write(app->out, out.data, out.size);
    weft_str_done(&out);
    return r < 0 ? weft_app_fail(app, &err) : WEFT_EXIT_OK;
}
