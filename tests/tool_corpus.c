/*
 * Writes the binary seeds of the fuzzers: tool_corpus tests/corpus. Text seeds are written by hand.
 * The same bytes each time, so that a change of a format shows in the diff.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"
#include "coordinator/vocab.h"
#include "proto/frame.h"
#include "tests/gguf_splitter.h"

static const char *folder;

static void save(const char *name, const void *data, size_t size, const void *more,
                 size_t more_size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size ||
        (more_size > 0 && fwrite(more, 1, more_size, f) != more_size) || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

/* ---- models ---- */

static void add_texts(struct gguf_writer *w)
{
    static const char *const tokens[] = {"<unk>",         "<s>", "</s>", "\n",
                                         WEFT_SPACE_MARK, "h",   "i",    "hi"};
    static const float scores[] = {0, 0, 0, 0, -1, -2, -2, -1};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 4};
    gguf_writer_str(w, "tokenizer.ggml.model", "llama");
    gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, sizeof tokens / sizeof tokens[0]);
    gguf_writer_array(w, "tokenizer.ggml.scores", WEFT_GGUF_F32, 8, scores, sizeof scores);
    gguf_writer_array(w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, 8, types, sizeof types);
    gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    gguf_writer_str(w, "tokenizer.chat_template",
                    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
}

static void save_model(const char *name, const struct gguf_writer_llama *options, bool texts)
{
    struct gguf_writer w;
    size_t size;
    gguf_writer_llama(&w, options);
    if (texts)
        add_texts(&w);
    uint8_t *file = gguf_writer_finish(&w, &size);
    save(name, file, size, NULL, 0);
    free(file);
    gguf_writer_done(&w);
}

/* Two parts behind one another. */
static void save_split(const char *name, const struct gguf_writer_llama *options, bool keys_alone)
{
    struct gguf_writer w;
    struct weft_gguf g = {0};
    struct gguf_split_files parts;
    size_t sizes[3];
    gguf_writer_llama(&w, options);
    uint8_t *whole = gguf_writer_finish(&w, &sizes[2]);
    if (weft_gguf_open(whole, sizes[2], &g, NULL) < 0)
        abort();
    gguf_split_of(&g, 2, keys_alone, &parts);
    uint8_t *first = gguf_writer_finish(&parts.parts[0], &sizes[0]);
    uint8_t *second = gguf_writer_finish(&parts.parts[1], &sizes[1]);
    save(name, first, sizes[0], second, sizes[1]);
    free(first);
    free(second);
    gguf_split_done(&parts);
    weft_gguf_done(&g);
    free(whole);
    gguf_writer_done(&w);
}

/* Metadata alone: byte-level BPE. */
static void save_vocabulary(const char *name)
{
    static const char *const tokens[] = {"<s>", "t",        "h",          "e",
                                         "th",  "\xC4\xA0", "\xC4\xA0th", "<|end|>"};
    static const char *const merges[] = {"t h", "\xC4\xA0 th", "th e"};
    static const int32_t types[] = {3, 1, 1, 1, 1, 1, 1, 4};
    struct gguf_writer w;
    size_t size;
    gguf_writer_init(&w);
    gguf_writer_str(&w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_str(&w, "tokenizer.ggml.pre", "qwen2");
    gguf_writer_strings(&w, "tokenizer.ggml.tokens", tokens, sizeof tokens / sizeof tokens[0]);
    gguf_writer_array(&w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, 8, types, sizeof types);
    gguf_writer_strings(&w, "tokenizer.ggml.merges", merges, sizeof merges / sizeof merges[0]);
    gguf_writer_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_writer_str(&w, "tokenizer.chat_template",
                    "{% for m in messages %}{{ m.content }} the{% endfor %}");
    uint8_t *file = gguf_writer_finish(&w, &size);
    save(name, file, size, NULL, 0);
    free(file);
    gguf_writer_done(&w);
}

static void save_models(void)
{
    const struct gguf_writer_llama small = {
        .layers = 1, .dim = 4, .heads = 2, .kv_heads = 1, .ffn = 8, .vocab = 8, .context = 16};
    struct gguf_writer_llama o = small;
    o.rope_freqs = true;
    save_model("gguf/f32", &o, false);
    o = small;
    o.tied = true;
    o.layers = 2;
    o.type = WEFT_F16;
    save_model("gguf/f16-tied-texts", &o, true);
    o = small;
    o.dim = o.ffn = 32;
    o.type = WEFT_Q4_0;
    save_model("gguf/q4_0", &o, false);
    o = small;
    save_split("gguf/split", &o, false);
    save_split("gguf/split-keys-alone", &o, true);
    save_vocabulary("gguf/bpe-vocabulary");
}

/* ---- frames ---- */

static void save_frame(const char *name, const Weft__Envelope *env, const char *payload)
{
    uint8_t *head;
    size_t size;
    weft_err err = {0};
    const size_t n = strlen(payload);
    if (weft_frame_encode(env, (uint32_t)n, &head, &size, &err) < 0) {
        fprintf(stderr, "%s: %s\n", name, err.text);
        exit(1);
    }
    save(name, head, size, payload, n);
    free(head);
}

static void save_deploy(Weft__Epoch *epoch)
{
    /* all tensors of a tied model of one layer: vocabulary, width and inner width 8, two heads */
    static const uint32_t shapes[][3] = {
        {WEFT_ROLE_EMBED, 8, 8},  {WEFT_ROLE_OUTPUT_NORM, 1, 8}, {WEFT_ROLE_ATTN_NORM, 1, 8},
        {WEFT_ROLE_ATTN_Q, 8, 8}, {WEFT_ROLE_ATTN_K, 8, 8},      {WEFT_ROLE_ATTN_V, 8, 8},
        {WEFT_ROLE_ATTN_O, 8, 8}, {WEFT_ROLE_FFN_NORM, 1, 8},    {WEFT_ROLE_FFN_GATE, 8, 8},
        {WEFT_ROLE_FFN_UP, 8, 8}, {WEFT_ROLE_FFN_DOWN, 8, 8}};
    enum { N = sizeof shapes / sizeof shapes[0] };
    Weft__Tensor tensors[N], *list[N];
    for (size_t i = 0; i < N; i++) {
        tensors[i] = (Weft__Tensor)WEFT__TENSOR__INIT;
        tensors[i].role = shapes[i][0];
        tensors[i].rows = shapes[i][1];
        tensors[i].cols = shapes[i][2];
        list[i] = &tensors[i];
    }
    Weft__Model model = WEFT__MODEL__INIT;
    model.arch = (char *)"llama";
    model.name = (char *)"tiny";
    model.n_layers = 1;
    model.dim = model.ffn_dim = model.vocab = 8;
    model.n_heads = model.n_kv_heads = 2;
    model.head_dim = model.rope_dim = 4;
    model.context_max = 16;
    model.rope_base = 10000;
    model.norm_eps = 1e-5f;
    model.tied = true;
    Weft__Traits traits = WEFT__TRAITS__INIT;
    traits.embed_scale = traits.residual_scale = traits.logit_scale = traits.attn_scale = 1;
    traits.rope_factor = traits.rope_magnitude = traits.expert_scale = 1;
    traits.rope_original = 16;
    model.traits = &traits;
    model.n_tensors = N;
    model.tensors = list;
    Weft__ShardRun run = WEFT__SHARD_RUN__INIT, *runs[] = {&run};
    run.kind = 5;
    run.count = 2;
    Weft__Member member = WEFT__MEMBER__INIT, *members[] = {&member};
    member.name = (char *)"pi5-a";
    member.address = (char *)"192.168.1.4:7117";
    member.n_shards = 1;
    member.shards = runs;
    Weft__Stage stage = WEFT__STAGE__INIT, *stages[] = {&stage};
    stage.n_layers = 1;
    stage.embed = stage.head = true;
    stage.n_members = 1;
    stage.members = members;
    uint32_t mine[] = {0};
    Weft__Deploy deploy = WEFT__DEPLOY__INIT;
    deploy.epoch = epoch;
    deploy.model = &model;
    deploy.n_stages = deploy.n_mine = 1;
    deploy.stages = stages;
    deploy.mine = mine;
    deploy.context = 16;
    deploy.sessions = 1;
    deploy.batch_rows = 4;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_DEPLOY;
    env.deploy = &deploy;
    save_frame("frame/deploy", &env, "");
}

/* What came with the capability "sampling". */
static void save_sampling(Weft__Epoch *epoch, Weft__Begin *begin)
{
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    Weft__LogitBias bias = WEFT__LOGIT_BIAS__INIT, *biases[] = {&bias};
    bias.id = 7;
    bias.bias = -1;
    begin->sampling->mirostat = 2;
    begin->sampling->mirostat_tau = 5;
    begin->sampling->n_bias = 1;
    begin->sampling->bias = biases;
    begin->logprobs = true;
    begin->top_logprobs = 2;
    begin->answer = 1;
    env.body_case = WEFT__ENVELOPE__BODY_BEGIN;
    env.begin = begin;
    save_frame("frame/begin-sampling", &env, "root ::= \"x\"");

    Weft__Logprob logprob = WEFT__LOGPROB__INIT, *top[] = {&logprob, &logprob};
    logprob.id = 7;
    logprob.logprob = -0.5f;
    Weft__Token token = WEFT__TOKEN__INIT;
    token.epoch = epoch;
    token.session = token.turn = 1;
    token.id = 7;
    token.mirostat_mu = 9.5f;
    token.logprob = &logprob;
    token.n_top = 2;
    token.top = top;
    env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
    env.token = &token;
    save_frame("frame/token", &env, "");

    Weft__Vocabulary vocabulary = WEFT__VOCABULARY__INIT;
    vocabulary.epoch = epoch;
    vocabulary.count = vocabulary.vocab = vocabulary.text_bytes = 2;
    env.body_case = WEFT__ENVELOPE__BODY_VOCABULARY;
    env.vocabulary = &vocabulary;
    save_frame("frame/vocabulary", &env, "\002");
}

static void save_frames(void)
{
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    Weft__Epoch epoch = WEFT__EPOCH__INIT;
    epoch.coordinator = 7;
    epoch.counter = 1;
    save_deploy(&epoch);

    char *capabilities[] = {(char *)"q8", (char *)"kv-f16"};
    Weft__Hello hello = WEFT__HELLO__INIT;
    hello.version = hello.version_min = 1;
    hello.software = (char *)"weft";
    hello.name = (char *)"pi5-a";
    hello.n_capabilities = 2;
    hello.capabilities = capabilities;
    hello.epoch = &epoch;
    env.body_case = WEFT__ENVELOPE__BODY_HELLO;
    env.hello = &hello;
    save_frame("frame/hello", &env, "");

    Weft__Fault fault = WEFT__FAULT__INIT;
    fault.code = WEFT_ESTALE;
    fault.text = (char *)"epoch 1, expected 2";
    env.body_case = WEFT__ENVELOPE__BODY_FAULT;
    env.fault = &fault;
    save_frame("frame/fault", &env, "");

    Weft__Segment segment = WEFT__SEGMENT__INIT, *segments[] = {&segment, &segment};
    segment.session = segment.turn = segment.rows = 1;
    Weft__Step step = WEFT__STEP__INIT;
    step.epoch = &epoch;
    step.n_segments = 2;
    step.segments = segments;
    step.total_rows = 2;
    env.body_case = WEFT__ENVELOPE__BODY_STEP;
    env.step = &step;
    save_frame("frame/step", &env, "0123456789abcdef");

    Weft__ShardRun run = WEFT__SHARD_RUN__INIT, *runs[] = {&run};
    run.kind = 1;
    run.count = 8;
    Weft__Shard shard = WEFT__SHARD__INIT;
    shard.epoch = &epoch;
    shard.run = &run;
    shard.total = 16;
    env.body_case = WEFT__ENVELOPE__BODY_SHARD;
    env.shard = &shard;
    save_frame("frame/shard", &env, "0123456789abcdef");

    Weft__Missing missing = WEFT__MISSING__INIT;
    missing.epoch = &epoch;
    missing.n_shards = 1;
    missing.shards = runs;
    env.body_case = WEFT__ENVELOPE__BODY_MISSING;
    env.missing = &missing;
    save_frame("frame/missing", &env, "");

    uint32_t ids[] = {1, 2, 3};
    Weft__Sampling sampling = WEFT__SAMPLING__INIT;
    sampling.temperature = 0.5f;
    Weft__Begin begin = WEFT__BEGIN__INIT;
    begin.epoch = &epoch;
    begin.session = begin.turn = 1;
    begin.sampling = &sampling;
    begin.n_stop_ids = begin.n_history = 3;
    begin.stop_ids = begin.history = ids;
    env.body_case = WEFT__ENVELOPE__BODY_BEGIN;
    env.begin = &begin;
    save_frame("frame/begin", &env, "");
    save_sampling(&epoch, &begin);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: tool_corpus tests/corpus\n");
        return 2;
    }
    folder = argv[1];
    save_models();
    save_frames();
    return 0;
}
