// Vectors of CT_WIDTH floats by the compiler's own vector types, an exponential, a matrix product.
#pragma once

#include <cstdint>
#include <cstring>

namespace CT_NAMESPACE {

constexpr int W = CT_WIDTH;
typedef float vf __attribute__((vector_size(4 * CT_WIDTH)));
typedef int32_t vi __attribute__((vector_size(4 * CT_WIDTH)));
typedef float vf_unaligned __attribute__((vector_size(4 * CT_WIDTH), aligned(4), may_alias));

static inline vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
static inline void store(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }
static inline vf all(float x) { return x - vf{}; }
static inline vf choose(vi mask, vf yes, vf no) {
  return reinterpret_cast<vf>((reinterpret_cast<vi>(yes) & mask) |
                              (reinterpret_cast<vi>(no) & ~mask));
}
static inline vf maximum(vf a, vf b) { return a > b ? a : b; }
static inline vf magnitude(vf x) {
  return reinterpret_cast<vf>(reinterpret_cast<vi>(x) & 0x7fffffff);
}
static inline float sum(vf x) {
  float total = 0;
  for (int i = 0; i < W; ++i) total += x[i];
  return total;
}
static inline float largest(vf x) {
  float found = x[0];
  for (int i = 1; i < W; ++i) found = x[i] > found ? x[i] : found;
  return found;
}

// e^x for x <= 88 to 2 units in the last place; 0 below -87, where float32 has no normal number.
static inline vf exponential(vf x) {
  const vf shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vf held = maximum(x, all(-87.0f));
  const vf turned = held * 1.44269504088896341f + shift;
  const vf n = turned - shift;
  const vf r = (held - n * 0.693359375f) - n * -2.12194440e-4f;
  vf p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const vf e = p * (r * r) + (r + 1.0f);
  const vi scaled = reinterpret_cast<vi>(e) + (reinterpret_cast<vi>(turned) << 23);
  return reinterpret_cast<vf>(scaled & (x > all(-87.0f)));
}

// Rows of one register block of the product below.
constexpr int MR = CT_ROWS;

template <int M, int N, bool ADD>
static inline void block(int depth, const float* a, int am, int ak, const float* b, int ldb,
                         float* c, int ldc) {
  vf acc[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) acc[m][n] = ADD ? load(c + m * ldc + n * W) : vf{};
  for (int k = 0; k < depth; ++k) {
    vf right[N];
    for (int n = 0; n < N; ++n) right[n] = load(b + k * ldb + n * W);
    for (int m = 0; m < M; ++m) {
      const float left = a[m * am + k * ak];
      for (int n = 0; n < N; ++n) acc[m][n] += left * right[n];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) store(c + m * ldc + n * W, acc[m][n]);
}

template <int N, bool ADD>
static inline void panel(int rows, int depth, const float* a, int am, int ak, const float* b,
                         int ldb, float* c, int ldc) {
  int m = 0;
  for (; m + MR <= rows; m += MR)
    block<MR, N, ADD>(depth, a + m * am, am, ak, b, ldb, c + m * ldc, ldc);
  for (; m + 4 <= rows; m += 4)
    block<4, N, ADD>(depth, a + m * am, am, ak, b, ldb, c + m * ldc, ldc);
  for (; m < rows; ++m)
    block<1, N, ADD>(depth, a + m * am, am, ak, b, ldb, c + m * ldc, ldc);
}

// c = (ADD ? c : 0) + a b. a(m, k) lies at a[m*am + k*ak]; b and c are row-major with row lengths
// ldb and ldc; `columns` is a multiple of W.
template <bool ADD>
static inline void product(int rows, int columns, int depth, const float* a, int am, int ak,
                           const float* b, int ldb, float* c, int ldc) {
  int n = 0;
  for (; n + 2 * W <= columns; n += 2 * W)
    panel<2, ADD>(rows, depth, a, am, ak, b + n, ldb, c + n, ldc);
  for (; n < columns; n += W) panel<1, ADD>(rows, depth, a, am, ak, b + n, ldb, c + n, ldc);
}

}  // namespace CT_NAMESPACE
