/*
 * Writes down what a stock llama.cpp program computes, for the routing pass: loaded by LD_PRELOAD, it stands before public
 * functions of llama.h and changes nothing of the program's files.
 *
 * Every forward pass becomes lines of JSON in the file that MOE_CAP_TRACE names: one for each evaluation of a layer's
 * top-k tensor (`ffn_moe_topk-<layer>`, int32 [top_k, tokens], a strided view of an argsort), then one for the pass with
 * its tokens, sequences, positions, the log-probability of each token after those before it, and the greedy choice after
 * it, with and without the tokens that end a text. Logits are asked for at every position, because
 * llama.cpp computes the last layer only where they are.
 *
 * gcc -O2 -shared -fPIC moe_cap_llama_recorder.c -o libmoe_cap_llama_recorder.so -Iinclude -Iggml/include -ldl -lm
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#define TOPK "ffn_moe_topk-"
#define MOST_TOKENS 65536 /* of one batch; a longer one ends the program */
#define MOST_CHOICES 256

#define NEXT(name)                                                   \
    static __typeof__(&name) next;                                   \
    if (!next) next = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

static FILE *trace;

/* The tokens of the batch being built. llama-server builds one batch at a time and processes it. */
static struct {
    int count;
    int32_t token[MOST_TOKENS], sequence[MOST_TOKENS], position[MOST_TOKENS];
} batch;

static void fail(const char *what) {
    fprintf(stderr, "moe_cap_llama_recorder: %s\n", what);
    abort();
}

static void write_numbers(const char *name, const int32_t *numbers, int count) {
    fprintf(trace, "\"%s\":[", name);
    for (int i = 0; i < count; i++) fprintf(trace, i ? ",%d" : "%d", numbers[i]);
    fputs("]", trace);
}

static bool on_tensor(struct ggml_tensor *tensor, bool ask, void *data) {
    (void) data;
    if (strncmp(tensor->name, TOPK, strlen(TOPK)) != 0) return !ask;
    if (ask) return true;
    const int64_t choices = tensor->ne[0], tokens = tensor->ne[1];
    if (choices > MOST_CHOICES) fail("more experts per token than there is room for");
    fprintf(trace, "{\"layer\":%d,\"experts\":[", atoi(tensor->name + strlen(TOPK)));
    for (int64_t row = 0; row < tokens; row++) {
        int32_t ids[MOST_CHOICES];
        ggml_backend_tensor_get(tensor, ids, row * tensor->nb[1], choices * sizeof(int32_t));
        fputs(row ? ",[" : "[", trace);
        for (int64_t i = 0; i < choices; i++) fprintf(trace, i ? ",%d" : "%d", ids[i]);
        fputs("]", trace);
    }
    fputs("]}\n", trace);
    return true;
}

/* The last row of logits of the pass before: a long prompt is cut, and its next part continues there. */
static struct {
    float *logits;
    int32_t sequence, position;
} before = {NULL, -1, -1};

static int32_t best_token(const struct llama_vocab *vocabulary, const float *logits, int size, bool may_end) {
    int32_t best = -1;
    for (int token = 0; token < size; token++)
        if ((best < 0 || logits[token] > logits[best]) && (may_end || !llama_vocab_is_eog(vocabulary, token))) best = token;
    return best;
}

static double log_probability(const float *logits, int size, int32_t token) {
    double highest = logits[0], sum = 0;
    for (int i = 1; i < size; i++)
        if (logits[i] > highest) highest = logits[i];
    for (int i = 0; i < size; i++) sum += exp(logits[i] - highest);
    return logits[token] - highest - log(sum);
}

static void write_pass(struct llama_context *context) {
    static int32_t greedy[MOST_TOKENS], unended[MOST_TOKENS];
    const struct llama_vocab *vocabulary = llama_model_get_vocab(llama_get_model(context));
    const int size = llama_vocab_n_tokens(vocabulary);
    if (!before.logits && !(before.logits = malloc(size * sizeof(float)))) fail("no memory for a row of logits");
    fputs("{\"logprobs\":[", trace);
    for (int i = 0; i < batch.count; i++) {
        const float *logits = llama_get_logits_ith(context, i);
        if (!logits) fail("a position has no logits");
        greedy[i] = best_token(vocabulary, logits, size, true);
        unended[i] = best_token(vocabulary, logits, size, false);
        const bool continues = before.sequence == batch.sequence[i] && before.position + 1 == batch.position[i];
        if (i) fputs(",", trace);
        if (continues) fprintf(trace, "%.9g", log_probability(before.logits, size, batch.token[i]));
        else fputs("null", trace);
        memcpy(before.logits, logits, size * sizeof(float));
        before.sequence = batch.sequence[i];
        before.position = batch.position[i];
    }
    fputs("],", trace);
    write_numbers("tokens", batch.token, batch.count);
    fputs(",", trace);
    write_numbers("sequences", batch.sequence, batch.count);
    fputs(",", trace);
    write_numbers("positions", batch.position, batch.count);
    fputs(",", trace);
    write_numbers("greedy", greedy, batch.count);
    fputs(",", trace);
    write_numbers("greedy_unended", unended, batch.count);
    fputs("}\n", trace);
    fflush(trace);
}

struct llama_context *llama_init_from_model(struct llama_model *model, struct llama_context_params params) {
    NEXT(llama_init_from_model);
    const char *path = getenv("MOE_CAP_TRACE");
    if (!path) fail("MOE_CAP_TRACE is not set");
    if (!trace && !(trace = fopen(path, "w"))) fail("the trace cannot be written");
    if (params.cb_eval) fail("the program has an evaluation callback of its own");
    params.cb_eval = on_tensor;
    params.n_outputs_max = 0;
    params.n_outputs_max_per_seq = 0;
    return next(model, params);
}

void llama_batch_ext_clear(struct llama_batch_ext *built) {
    NEXT(llama_batch_ext_clear);
    batch.count = 0;
    next(built);
}

struct llama_batch_ext *llama_batch_ext_init(struct llama_context *context) {
    NEXT(llama_batch_ext_init);
    batch.count = 0;
    return next(context);
}

int32_t llama_batch_ext_add_token(struct llama_batch_ext *built, llama_seq_id sequence, llama_token token) {
    NEXT(llama_batch_ext_add_token);
    const int32_t index = next(built, sequence, token);
    if (index < 0) return index;
    if (index != batch.count || index >= MOST_TOKENS) fail("batches are built side by side, or are too long");
    batch.token[index] = token;
    batch.sequence[index] = sequence;
    batch.position[index] = -1;
    batch.count = index + 1;
    if (!llama_batch_ext_set_output_logits(built, index, true)) fail("logits cannot be asked for");
    return index;
}

bool llama_batch_ext_set_pos(struct llama_batch_ext *built, int32_t index, const llama_pos *position) {
    NEXT(llama_batch_ext_set_pos);
    if (index >= 0 && index < batch.count) batch.position[index] = position[0];
    return next(built, index, position);
}

bool llama_batch_ext_set_output_logits(struct llama_batch_ext *built, int32_t index, bool value) {
    NEXT(llama_batch_ext_set_output_logits);
    (void) value;
    return next(built, index, true);
}

int32_t llama_process(struct llama_context *context, enum llama_process_type type, struct llama_batch_ext *built) {
    NEXT(llama_process);
    const int32_t status = next(context, type, built);
    llama_synchronize(context);
    if (status == 0 && type == LLAMA_PROCESS_TYPE_DECODE) write_pass(context);
    return status;
}

/* Programs from before llama_batch_ext. */
int32_t llama_decode(struct llama_context *context, struct llama_batch given) {
    NEXT(llama_decode);
    if (given.n_tokens > MOST_TOKENS) fail("a batch is too long");
    static int8_t everywhere[MOST_TOKENS];
    memset(everywhere, 1, sizeof everywhere);
    given.logits = everywhere;
    batch.count = given.n_tokens;
    for (int i = 0; i < given.n_tokens; i++) {
        batch.token[i] = given.token ? given.token[i] : -1;
        batch.sequence[i] = given.seq_id ? given.seq_id[i][0] : 0;
        batch.position[i] = given.pos ? given.pos[i] : -1;
    }
    const int32_t status = next(context, given);
    llama_synchronize(context);
    if (status == 0) write_pass(context);
    return status;
}
