// Picks the instruction set once, by what the processor says it has.
#include "ct_attention.h"

#define CT_DECLARE(name)                       \
  namespace name {                             \
  int forward(const ct_arguments* arguments);  \
  int backward(const ct_arguments* arguments); \
  }

CT_DECLARE(generic)
#if defined(__x86_64__)
CT_DECLARE(avx2)
CT_DECLARE(avx512)
#endif

namespace {

struct Implementation {
  int (*forward)(const ct_arguments*);
  int (*backward)(const ct_arguments*);
  const char* name;
};

Implementation chosen() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
    return {avx512::forward, avx512::backward, "avx512"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {avx2::forward, avx2::backward, "avx2"};
#endif
  return {generic::forward, generic::backward, "generic"};
}

const Implementation implementation = chosen();

}  // namespace

extern "C" {
int ct_attention_forward(const ct_arguments* arguments) {
  return implementation.forward(arguments);
}
int ct_attention_backward(const ct_arguments* arguments) {
  return implementation.backward(arguments);
}
const char* ct_attention_instructions() { return implementation.name; }
int64_t ct_attention_arguments_size() { return sizeof(ct_arguments); }
}
