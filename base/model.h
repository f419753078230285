/*
 * The model as weft sees it: shape, tensors by role, and the shards they are cut into.
 *
 * Invariant: a struct weft_model that weft_model_from_gguf or weft_model_check accepted has a
 * consistent shape, every tensor its layers need, of supported types and exactly the expected
 * dimensions. Daemons get it over the wire and check it again; they never see the file.
 */
#ifndef WEFT_BASE_MODEL_H
#define WEFT_BASE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/gguf.h"

#define WEFT_LAYERS_MAX 1024
#define WEFT_DIM_MAX 65536u /* a row of f32 activations fits one frame */
#define WEFT_HEADS_MAX 1024 /* heads * head_dim is also at most WEFT_DIM_MAX */
#define WEFT_FFN_MAX (1u << 20)
#define WEFT_VOCAB_MAX (1u << 20)
#define WEFT_CONTEXT_MAX (1u << 24)
#define WEFT_EXPERTS_MAX 1024u
#define WEFT_PIECES_MAX 4096u /* of one exact sum; WEFT_FFN_MAX has as many */
#define WEFT_FFN_PIECE 256u   /* columns of one FFN shard, design 1.5 (c) */

/* Roles of tensors. The first ones stand once per model, the others once per layer. Which of them
 * an architecture has is in base/arch.c. A file may keep q, k and v, or gate and up, in one tensor:
 * each is then a run of its rows. */
enum weft_role {
    WEFT_ROLE_EMBED,       /* token_embd.weight   [vocab, dim] */
    WEFT_ROLE_OUTPUT_NORM, /* output_norm.weight  [dim] F32 */
    WEFT_ROLE_OUTPUT,      /* output.weight       [vocab, dim]; absent when tied */
    WEFT_ROLE_ROPE_FREQS,  /* rope_freqs.weight   [rope_dim / 2] F32, optional */
    WEFT_ROLE_ROPE_LONG,   /* rope_factors_long.weight, and */
    WEFT_ROLE_ROPE_SHORT,  /* rope_factors_short.weight [rope_dim / 2] F32, of longrope */
    WEFT_ROLE_GLOBAL_COUNT,
    WEFT_ROLE_ATTN_NORM = WEFT_ROLE_GLOBAL_COUNT, /* [dim] F32 */
    WEFT_ROLE_ATTN_Q,                             /* [heads * head_dim, dim] */
    WEFT_ROLE_ATTN_K,                             /* [kv_heads * head_dim, dim] */
    WEFT_ROLE_ATTN_V,                             /* [kv_heads * head_dim, dim] */
    WEFT_ROLE_ATTN_O,                             /* [dim, heads * head_dim] */
    WEFT_ROLE_ATTN_Q_BIAS, /* biases: F32, as long as their matrix has rows */
    WEFT_ROLE_ATTN_K_BIAS,
    WEFT_ROLE_ATTN_V_BIAS,
    WEFT_ROLE_ATTN_O_BIAS,
    WEFT_ROLE_ATTN_Q_NORM,    /* [head_dim] or [heads * head_dim] F32 */
    WEFT_ROLE_ATTN_K_NORM,    /* [head_dim] or [kv_heads * head_dim] F32 */
    WEFT_ROLE_ATTN_POST_NORM, /* [dim] F32 */
    WEFT_ROLE_FFN_NORM,       /* [dim] F32 */
    WEFT_ROLE_FFN_GATE,       /* [ffn, dim] */
    WEFT_ROLE_FFN_UP,         /* [ffn, dim] */
    WEFT_ROLE_FFN_DOWN,       /* [dim, ffn] */
    WEFT_ROLE_FFN_GATE_BIAS,
    WEFT_ROLE_FFN_UP_BIAS,
    WEFT_ROLE_FFN_DOWN_BIAS,
    WEFT_ROLE_FFN_POST_NORM, /* [dim] F32 */
    WEFT_ROLE_ROUTER,        /* ffn_gate_inp.weight [experts, dim] */
    WEFT_ROLE_EXPERT_GATE,   /* ffn_gate_exps.weight [experts, expert_ffn, dim], here as rows */
    WEFT_ROLE_EXPERT_UP,     /* ffn_up_exps.weight   [experts, expert_ffn, dim] */
    WEFT_ROLE_EXPERT_DOWN,   /* ffn_down_exps.weight [experts, dim, expert_ffn] */
    WEFT_ROLE_SHARED_ROUTER, /* ffn_gate_inp_shexp.weight [1, dim]: gate of the shared expert, */
    WEFT_ROLE_SHARED_GATE,   /* whose matrices have the shapes of a plain FFN */
    WEFT_ROLE_SHARED_UP,
    WEFT_ROLE_SHARED_DOWN,
    WEFT_ROLE_COUNT,
    WEFT_ROLE_LAYER_COUNT = WEFT_ROLE_COUNT - WEFT_ROLE_GLOBAL_COUNT
};

struct weft_tensor {
    uint32_t type;   /* weft_tensor_type */
    uint32_t rows;   /* output features, of all experts; 1 for vectors */
    uint32_t cols;   /* row length */
    uint16_t part;   /* file of a split model that it lies in; 0 in a daemon */
    uint64_t offset; /* from the start of that file; 0 in a daemon */
    uint64_t bytes;  /* 0: the tensor is absent (optional or tied) */
};

struct weft_layer_tensors {
    struct weft_tensor role[WEFT_ROLE_LAYER_COUNT]; /* index: role - WEFT_ROLE_GLOBAL_COUNT */
};

/* How positions beyond those of the training are turned into angles. */
enum weft_rope_scaling {
    WEFT_ROPE_PLAIN,    /* also with rope_freqs, which divide the frequencies (Llama 3) */
    WEFT_ROPE_LINEAR,   /* arXiv:2306.15595 */
    WEFT_ROPE_YARN,     /* arXiv:2309.00071 */
    WEFT_ROPE_LONGROPE, /* arXiv:2402.13753 */
    WEFT_ROPE_SCALING_COUNT
};

/* Numbers that some architectures have; what others do not use is 0 or, for a factor, 1. */
struct weft_traits {
    float embed_scale, residual_scale, logit_scale; /* factors */
    float attn_scale;                               /* of the scores; never 0 */
    float attn_softcap, logit_softcap;              /* c * tanh(x / c) */
    uint32_t window;        /* positions that a query of a windowed layer sees */
    uint32_t window_period; /* every so manieth layer is not windowed; 0: all are */
    uint32_t rope_skip;     /* every so manieth layer turns nothing */
    enum weft_rope_scaling rope_scaling;
    float rope_factor;      /* of linear and YaRN */
    float rope_magnitude;   /* factor of cos and sin */
    float rope_window_base; /* of windowed layers, which scale nothing */
    float yarn_extrapolation, yarn_fast, yarn_slow;
    uint32_t rope_original; /* positions of the training that YaRN and longrope stretch */
    uint32_t n_experts, n_experts_used, expert_ffn; /* a mixture of experts */
    bool expert_renormalise; /* the weights of the experts used sum up to 1 */
    float expert_scale;      /* factor of their weights */
};

struct weft_model {
    char arch[32];  /* "llama": names a description, base/arch.h */
    char name[128]; /* general.name, or the file's name; UTF-8 without control characters */
    uint64_t id[2]; /* see weft_model_from_gguf */
    uint32_t n_layers, dim, n_heads, n_kv_heads, head_dim, vocab;
    uint32_t ffn_dim;     /* of the FFN or the shared expert; 0: experts only */
    uint32_t context_max; /* positions the model was trained for */
    uint32_t rope_dim;    /* even, <= head_dim */
    float rope_base, norm_eps;
    bool tied; /* the output head is the embedding */
    struct weft_traits traits;
    struct weft_tensor global[WEFT_ROLE_GLOBAL_COUNT];
    struct weft_layer_tensors *layers; /* [n_layers], owned (malloc) */
};

/* What a model of this shape has whose architecture and file say nothing else. */
struct weft_traits weft_traits_plain(const struct weft_model *m);
bool weft_traits_equal(const struct weft_traits *a, const struct weft_traits *b);

/* Reads shape and tensors. The id is a 128-bit hash of the header (metadata and tensor table), size
 * and modification time of every file, and of samples of the data: equal ids mean shards need not
 * be sent again. -WEFT_EMODEL (what is malformed or missing), -WEFT_EUNSUPPORTED (architecture or
 * type, with the list of what is supported). `maps` [g->n_parts] may be NULL (then without time).
 */
int weft_model_from_gguf(const struct weft_gguf *g, const struct weft_mapping *maps,
                         struct weft_model *ret, weft_err *err) WEFT_MUST_USE;
/* The same checks for a model that came over the wire (bytes must equal rows * row size). */
int weft_model_check(const struct weft_model *m, weft_err *err) WEFT_MUST_USE;
void weft_model_done(struct weft_model *m); /* accepts zeroed */

/* Never NULL; bytes is 0 where the tensor is absent. The layer is ignored for roles of the model.
 */
const struct weft_tensor *weft_model_tensor(const struct weft_model *m, enum weft_role role,
                                            uint32_t layer);
/* "blk.3.attn_q.weight"; buf needs WEFT_GGUF_NAME_MAX + 1 bytes. */
char *weft_role_tensor_name(char *buf, enum weft_role role, uint32_t layer);
/* "attn_q", "token_embd", "attn_q.bias": the name without layer and ".weight". */
const char *weft_role_name(enum weft_role role);
/* False for norms, biases and factors of rotation: vectors of F32. */
bool weft_role_matrix(enum weft_role role);
/* True for the three tensors that hold a matrix of each expert, one behind the other. */
bool weft_role_experts(enum weft_role role);
/* Whether a layer sees only the last traits.window positions, and whether it turns its queries and
 * keys by their positions. */
bool weft_layer_windowed(const struct weft_model *m, uint32_t layer);
bool weft_layer_rotates(const struct weft_model *m, uint32_t layer);
/* Bytes of a row of `cols` elements; 0 when cols is no multiple of the block. */
uint64_t weft_row_bytes(uint32_t type, uint64_t cols);
/* True when a type can stand in a matrix of weft's kernels. */
bool weft_type_supported(uint32_t type);
/* True when any matrix of the model is quantised: then OpenBLAS is never used. */
bool weft_model_quantised(const struct weft_model *m);

/* ------------------------------------------------------------------ shards, design 1.1 */

enum weft_shard_kind {
    WEFT_SHARD_EMBED,     /* whole embedding; index space of size 1 */
    WEFT_SHARD_HEAD,      /* output-head rows; index = row (the embedding's rows when tied) */
    WEFT_SHARD_HEAD_NORM, /* output norm, with every holder of head rows */
    WEFT_SHARD_ROPE,      /* factors of rotation, with every holder of attention */
    WEFT_SHARD_NORMS,     /* norms, biases and routers of a layer, with every member */
    WEFT_SHARD_ATTN,      /* index = KV head group: q rows, k rows, v rows, o columns */
    WEFT_SHARD_FFN,    /* index = block of WEFT_FFN_PIECE columns of the FFN or the shared expert:
                          gate and up rows, down columns */
    WEFT_SHARD_EXPERT, /* index = expert: its gate, up and down */
    WEFT_SHARD_KIND_COUNT
};

/* A run of like shards: [first, first + count) of one kind in one layer (layer 0 where per model).
 */
struct weft_shard_run {
    enum weft_shard_kind kind;
    uint32_t layer, first, count;
};

/* The part of one tensor that belongs to a run: rows [row, row + n_rows), columns [col, col +
 * n_cols). */
struct weft_shard_part {
    enum weft_role role;
    uint32_t layer;
    uint32_t row, n_rows, col, n_cols;
    uint64_t bytes; /* as stored in GGUF, columns widened to whole blocks */
};
#define WEFT_SHARD_PARTS_MAX 16

const char *weft_shard_kind_name(enum weft_shard_kind kind);
/* Size of the index space of a kind: KV groups, FFN blocks, experts, rows, or 1; 0 where the model
 * has nothing of the kind. */
uint32_t weft_shard_space(const struct weft_model *m, enum weft_shard_kind kind);
/* True for kinds of which every layer has its own. */
bool weft_shard_layered(enum weft_shard_kind kind);
/* Why the shards of a kind must all be with one member of a stage; NULL: they may be divided. */
const char *weft_shard_whole(const struct weft_model *m, enum weft_shard_kind kind);
/* Expands a run; -WEFT_ESHAPE when it is outside its space. Absent optional tensors give no part.
 */
int weft_shard_parts(const struct weft_model *m, const struct weft_shard_run *run,
                     struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX], size_t *ret_count,
                     weft_err *err) WEFT_MUST_USE;
/* "blk.3 kv groups 0..7 (attn_q)" for errors and logs; returns buf. */
char *weft_shard_name(char *buf, size_t n, const struct weft_shard_run *run, enum weft_role role);

/* Copies bytes [offset, offset + size) of a part, in GGUF layout row after row, out of the mapped
 * files: all that the model was read from, in their order. The caller keeps offset + size <=
 * part->bytes. */
void weft_shard_read(const struct weft_model *m, const struct weft_mapping *files,
                     const struct weft_shard_part *part, uint64_t offset, void *buf, size_t size);

/* Numbers of a KV cache, as on the wire and in kv_names. Q8_0: an f16 scale and a byte for each of
 * at most 32 elements of a head. */
enum weft_kv { WEFT_KV_F16, WEFT_KV_F32, WEFT_KV_Q8_0, WEFT_KV_COUNT };
/* "f16", "f32", "q8_0", NULL: in the order of enum weft_kv. */
extern const char *const weft_kv_names[WEFT_KV_COUNT + 1];

/* Memory a whole layer, the embedding or the head needs once packed (kernels pad rows to 16), and
 * KV bytes of one position of one layer. */
uint64_t weft_layer_weight_bytes(const struct weft_model *m, uint32_t layer);
/* Of these, what a step of `rows` rows reads: of the experts as many as it meets on average when
 * each row chooses freely. And the parameters that a row is multiplied with. */
uint64_t weft_layer_read_bytes(const struct weft_model *m, uint32_t layer, uint32_t rows);
uint64_t weft_layer_active_params(const struct weft_model *m, uint32_t layer);
uint64_t weft_embed_weight_bytes(const struct weft_model *m);
uint64_t
weft_head_weight_bytes(const struct weft_model *m); /* with norm; the tied matrix included */
uint64_t weft_kv_position_bytes(const struct weft_model *m, enum weft_kv kv);
/* Most scratch a stage of this model takes for steps of batch_rows rows (base/scratch.c): what the
 * planner counts and what daemon/stage.c keeps within. */
uint64_t weft_stage_scratch_bound(const struct weft_model *m, uint32_t batch_rows);

#endif
