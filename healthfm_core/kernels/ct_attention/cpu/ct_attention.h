// The C interface of the compiled kernel: plain pointers, so that it fits every version of torch.
#pragma once

#include <cstdint>

#define CT_EXPORT __attribute__((visibility("default")))

extern "C" {

// What the decay does; ../README.md, "Ablation arms". Without decay: one rate of 0.
enum ct_variant { CT_LOGBIAS, CT_POSTMUL, CT_LOGITMUL };

// Float32 [subjects, heads, positions, channels]; strides in elements, channels are contiguous.
struct ct_view {
  float* data;
  int64_t subject, head, position;
};

// What kernels/ct_attention/__init__.py says of the arguments, and where results go.
struct ct_arguments {
  int64_t subjects, heads, queries, keys, channels, rates, threads, variant;
  ct_view q, k, v, out;
  const float *tq_days, *tk_days;     // [subjects, queries], [subjects, keys]
  const int64_t *kv_end, *n_static;   // [subjects, queries], [subjects]
  const float *rate, *weight;         // [subjects, heads, rates]
  float* lse;                         // [subjects, heads, queries]
  ct_view d_out, dq, dk, dv;
  float *d_rate, *d_weight;           // [subjects, heads, rates]
};

// Both return 0, or 1 when memory ran out.
CT_EXPORT int ct_attention_forward(const ct_arguments* arguments);
CT_EXPORT int ct_attention_backward(const ct_arguments* arguments);

// The instruction set the two above use on this processor: "avx512", "avx2" or "generic".
CT_EXPORT const char* ct_attention_instructions();

// sizeof(ct_arguments): tells a caller whether it was built from the same header.
CT_EXPORT int64_t ct_attention_arguments_size();
}
