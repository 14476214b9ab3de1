// Continuous-time attention in tiles of 64 queries by 64 keys; the maths is in ../README.md.
//
// Compiled once per instruction set, with CT_NAMESPACE, CT_WIDTH and CT_ROWS set. One thread works
// on one (subject, head) at a time and nothing is shared, so results do not depend on the number
// of threads. Memory grows with the number of positions, never with its square.
#include "ct_attention.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "geometry.h"
#include "simd.h"

namespace CT_NAMESPACE {

namespace {

constexpr float HIDDEN = -1e30f; // logit of a key that a query does not see
static_assert(SUB % W == 0, "a square holds whole vectors");

// Calls visit(rectangle) on a tile, whole or in squares, such that few pairs are EXACT.
template <typename Visit>
void each_rectangle(const Geometry& g, int64_t i, int64_t j, Visit visit) {
  const Rectangle whole = rectangle(g, i, j, TILE);
  if (whole.kind != Kind::EXACT) return visit(whole);
  for (int row = 0; row < whole.rows; row += SUB)
    for (int column = 0; column < whole.columns; column += SUB)
      visit(rectangle(g, i + row, j + column, SUB));
}

// The decay of one head: e^(-slowest * gap) times sum_r weight_r e^(-excess_r * gap). The first
// factor stays in the exponent; slowest is 0 where the kernel is wanted whole.
struct Head {
  int rates;
  const float* weight;
  float slowest, total;
  float unseen;  // the kernel to a key that is not seen: HIDDEN stays HIDDEN times 1
  float reach;   // days beyond a query's nearest key after which no key matters
  const float* excess;

  Head(const ct_arguments& x, int64_t at, float* excess)
      : rates(int(x.rates)), weight(x.weight + at), slowest(0), total(0),
        unseen(x.variant == CT_LOGITMUL ? 1 : 0), reach(INFINITY), excess(excess) {
    if (x.variant == CT_LOGBIAS) slowest = *std::min_element(x.rate + at, x.rate + at + rates);
    for (int r = 0; r < rates; ++r) excess[r] = x.rate[at + r] - slowest, total += weight[r];
  }
};

// The largest norm of a head's rows; infinite if one is not finite.
float longest(const ct_view& x, int64_t b, int64_t h, int64_t n, int64_t channels) {
  const float* row = x.data + b * x.subject + h * x.head;
  float most = 0;
  for (int64_t i = 0; i < n; ++i, row += x.position) {
    float squares = 0;
    for (int64_t c = 0; c < channels; ++c) squares += row[c] * row[c];
    if (!std::isfinite(squares)) return INFINITY;
    most = std::max(most, squares);
  }
  return std::sqrt(most);
}

// Days beyond its nearest key after which a key weighs less than 2^-32 / keys of it.
float reach_of(const ct_arguments& x, int64_t b, int64_t h, float slowest) {
  if (!(slowest > 0)) return INFINITY;
  const float logit = longest(x.q, b, h, x.queries, x.channels) *
                      longest(x.k, b, h, x.keys, x.channels) / std::sqrt(float(x.channels));
  return ((32 + std::log2(float(x.keys))) * std::log(2.0f) + 2 * logit) / slowest;
}

// Whether no key of a tile can matter to any of its queries.
bool is_far(const Geometry& g, const Head& head, int64_t i, int64_t j) {
  if (!std::isfinite(head.reach)) return false;
  const Rectangle r = rectangle(g, i, j, TILE);
  if (r.kind != Kind::PAST && r.kind != Kind::FUTURE) return false;
  float past = INFINITY, future = -INFINITY;
  for (int64_t s = i / SUB; s * SUB < i + r.rows; ++s)
    past = std::min(past, g.past_low[s]), future = std::max(future, g.future_high[s]);
  return (r.kind == Kind::PAST ? past - r.anchor : r.anchor - future) > head.reach;
}

// Buffers of one thread for one tile; all of them [.., TILE].
struct Scratch {
  std::vector<float> logits, kernel, g, dp, left, right, weighted, back, q;
  std::vector<float> row, column, days, excess;

  Scratch(int64_t rates, int64_t channels)
      : logits(TILE * TILE), kernel(TILE * TILE), g(TILE * TILE), dp(TILE * TILE),
        left(2 * rates * TILE), right(rates * TILE), weighted(rates * TILE),
        back(2 * rates * TILE), q(TILE * channels), row(TILE), column(TILE), days(TILE), excess(rates) {}
};

vi positions(int64_t first) {
  vi found;
  for (int n = 0; n < W; ++n) found[n] = int32_t(first) + n;
  return found;
}

// Rank-R factors of a PAST or FUTURE rectangle. left: e^(-excess a_i) [R, rows], then times a_i;
// right: e^(-excess b_j) [R, columns]; row and column: slowest times the days beyond the nearest
// key's; days: b_j. a and b are days from the anchor to query and key.
void factorise(const Geometry& g, const Head& head, const Rectangle& r, Scratch& s) {
  const bool past = r.kind == Kind::PAST;
  const float sign = past ? 1.0f : -1.0f;
  const float* nearest = past ? g.nearest_past.data() : g.nearest_future.data();
  for (int n = 0; n < r.rows; n += W) {
    const vf a = (load(&g.tq[r.i + n]) - r.anchor) * sign;
    const vf further = (load(nearest + r.i + n) - r.anchor) * sign;
    store(&s.row[n], maximum(further, vf{}) * head.slowest);
    for (int m = 0; m < head.rates; ++m) {
      const vf u = exponential(a * -head.excess[m]);
      store(&s.left[m * TILE + n], u);
      store(&s.left[(head.rates + m) * TILE + n], u * a);
      store(&s.weighted[m * TILE + n], u * head.weight[m]);
    }
  }
  for (int n = 0; n < r.columns; n += W) {
    const vf b = maximum((r.anchor - load(&g.tk[r.j + n])) * sign, vf{});
    store(&s.days[n], b);
    store(&s.column[n], b * head.slowest);
    for (int m = 0; m < head.rates; ++m)
      store(&s.right[m * TILE + n], exponential(b * -head.excess[m]));
  }
}

struct Pair {
  vi seen;
  vf gap, further;
};

// Days between query i and the W keys from j on, and days beyond its nearest key's.
Pair pair(const Geometry& g, int64_t i, int64_t j) {
  const vi key = positions(j);
  const vf t = all(g.tq[i]), keys = load(&g.tk[j]);
  const vi timed = key >= int32_t(g.statics);
  const vf further = keys <= t ? g.nearest_past[i] - keys : keys - g.nearest_future[i];
  return {key < g.sees[i], choose(timed, magnitude(t - keys), vf{}),
          choose(timed, maximum(further, vf{}), vf{})};
}

// Takes slowest * gap off the logits of a rectangle and writes its kernel, both at [0, 0].
void decay(const Geometry& g, const Head& head, const Rectangle& r, Scratch& s, float* logits,
           float* kernel) {
  const int columns = int(up(r.columns, W));
  if (r.kind == Kind::PAST || r.kind == Kind::FUTURE) {
    factorise(g, head, r, s);
    product<false>(r.rows, columns, head.rates, s.weighted.data(), 1, TILE, s.right.data(), TILE,
                   kernel, TILE);
    for (int row = 0; row < r.rows; ++row)
      for (int n = 0; n < columns; n += W) {
        float* at = logits + row * TILE + n;
        store(at, load(at) - (s.row[row] + load(&s.column[n])));
      }
  } else if (r.kind == Kind::EXACT) {
    for (int row = 0; row < r.rows; ++row)
      for (int n = 0; n < columns; n += W) {
        const Pair p = pair(g, r.i + row, r.j + n);
        vf mixed = vf{};
        for (int m = 0; m < head.rates; ++m)
          mixed += exponential(p.gap * -head.excess[m]) * head.weight[m];
        float* at = logits + row * TILE + n;
        store(at, choose(p.seen, load(at) - p.further * head.slowest, all(HIDDEN)));
        store(kernel + row * TILE + n, choose(p.seen, mixed, all(head.unseen)));
      }
  } else {
    const bool hidden = r.kind == Kind::HIDDEN_ALL;
    for (int row = 0; row < r.rows; ++row)
      for (int n = 0; n < columns; n += W) {
        if (hidden) store(logits + row * TILE + n, all(HIDDEN));
        store(kernel + row * TILE + n, all(hidden ? head.unseen : head.total));
      }
  }
  for (int row = 0; row < r.rows; ++row)
    for (int n = r.columns; n < columns; ++n)
      logits[row * TILE + n] = HIDDEN, kernel[row * TILE + n] = head.unseen;
}

// Adds sum G c_r and sum G c_r gap of a rectangle, c_r the r-th exponential; `decay` came before.
void rate_sums(const Geometry& g, const Head& head, const Rectangle& r, Scratch& s,
               const float* grad, double* weight_sums, double* rate_sums) {
  const int columns = int(up(r.columns, W)), rates = head.rates;
  if (r.kind == Kind::HIDDEN_ALL) return;
  if (r.kind == Kind::PAST || r.kind == Kind::FUTURE) {
    product<false>(2 * rates, columns, r.rows, s.left.data(), TILE, 1, grad, TILE, s.back.data(),
                   TILE);
    for (int m = 0; m < rates; ++m) {
      vf plain = vf{}, timed = vf{};
      for (int n = 0; n < columns; n += W) {
        const vf v = load(&s.right[m * TILE + n]), c = load(&s.back[m * TILE + n]);
        plain += v * c;
        timed += v * (load(&s.back[(rates + m) * TILE + n]) + c * load(&s.days[n]));
      }
      weight_sums[m] += sum(plain), rate_sums[m] += sum(timed);
    }
    return;
  }
  for (int row = 0; row < r.rows; ++row)
    for (int n = 0; n < columns; n += W) {
      const vf here = load(grad + row * TILE + n);
      const vf gap = r.kind == Kind::STATIC ? vf{} : pair(g, r.i + row, r.j + n).gap;
      for (int m = 0; m < rates; ++m) {
        const vf part = here * exponential(gap * -head.excess[m]);
        weight_sums[m] += sum(part), rate_sums[m] += sum(part * gap);
      }
    }
}

// Copies positions [first, first + n) of a view, times `scale`, into rows of `width` floats.
void copy_rows(const ct_view& x, int64_t b, int64_t h, int64_t first, int64_t n, int64_t channels,
               int64_t width, float scale, float* to) {
  const float* from = x.data + b * x.subject + h * x.head + first * x.position;
  for (int64_t i = 0; i < n; ++i, from += x.position, to += width) {
    for (int64_t c = 0; c < channels; ++c) to[c] = from[c] * scale;
    for (int64_t c = channels; c < width; ++c) to[c] = 0;
  }
}

// The same transposed, one [channels, TILE] panel per TILE positions.
void copy_panels(const ct_view& x, int64_t b, int64_t h, int64_t n, int64_t channels, float* to) {
  const float* from = x.data + b * x.subject + h * x.head;
  for (int64_t j = 0; j < up(n, TILE); ++j) {
    float* panel = to + j / TILE * TILE * channels + j % TILE;
    for (int64_t c = 0; c < channels; ++c)
      panel[c * TILE] = j < n ? from[j * x.position + c] : 0;
  }
}

float* row_of(const ct_view& x, int64_t b, int64_t h, int64_t position) {
  return x.data + b * x.subject + h * x.head + position * x.position;
}

// What a thread keeps for one (subject, head) of the forward pass.
template <ct_variant V>
struct Forward {
  Scratch s;
  std::vector<float> k_panels, v, sums, peak, total;

  Forward(const ct_arguments& x, int64_t width)
      : s(x.rates, x.channels), k_panels(up(x.keys, TILE) * x.channels), v(up(x.keys, TILE) * width),
        sums(TILE * width), peak(TILE), total(TILE) {}

  void run(const ct_arguments& x, const Geometry& g, int64_t b, int64_t h, int64_t width) {
    const int64_t at = (b * x.heads + h) * x.rates;
    Head head(x, at, s.excess.data());
    head.reach = reach_of(x, b, h, head.slowest);
    copy_panels(x.k, b, h, x.keys, x.channels, k_panels.data());
    copy_rows(x.v, b, h, 0, x.keys, x.channels, width, 1, v.data());
    std::fill(v.begin() + x.keys * width, v.end(), 0.0f);
    for (int64_t i = 0; i < x.queries; i += TILE) {
      const int rows = int(std::min<int64_t>(TILE, x.queries - i));
      copy_rows(x.q, b, h, i, rows, x.channels, x.channels, 1 / std::sqrt(float(x.channels)),
                s.q.data());
      std::fill(sums.begin(), sums.end(), 0.0f);
      std::fill(peak.begin(), peak.end(), HIDDEN);
      std::fill(total.begin(), total.end(), 0.0f);
      int64_t end = 0;
      for (int row = 0; row < rows; row += SUB) end = std::max(end, g.sees_high[(i + row) / SUB]);
      for (int64_t j = 0; j < end; j += TILE)
        if (!is_far(g, head, i, j)) tile(x, g, head, i, j, rows, width);
      for (int row = 0; row < rows; ++row) {
        const bool any = peak[row] > HIDDEN && total[row] > 0;
        const float over = any ? 1 / total[row] : 0;
        float* to = row_of(x.out, b, h, i + row);
        for (int64_t c = 0; c < x.channels; ++c) to[c] = sums[row * width + c] * over;
        // A query that sees nothing: e^(logit - lse) is 0 in the backward pass.
        x.lse[(b * x.heads + h) * x.queries + i + row] =
            any ? peak[row] + std::log(total[row]) : -HIDDEN;
      }
    }
  }

 private:
  void tile(const ct_arguments& x, const Geometry& g, const Head& head, int64_t i, int64_t j,
            int rows, int64_t width) {
    const int columns = int(up(std::min<int64_t>(TILE, x.keys - j), W));
    product<false>(rows, columns, int(x.channels), s.q.data(), int(x.channels), 1,
                   &k_panels[j * x.channels], TILE, s.logits.data(), TILE);
    each_rectangle(g, i, j, [&](const Rectangle& r) {
      const int64_t at = (r.i - i) * TILE + r.j - j;
      decay(g, head, r, s, &s.logits[at], &s.kernel[at]);
    });
    for (int row = 0; row < rows; ++row) {
      float* logits = &s.logits[row * TILE];
      const float* kernel = &s.kernel[row * TILE];
      if (V == CT_LOGITMUL)
        for (int n = 0; n < columns; n += W) store(logits + n, load(logits + n) * load(kernel + n));
      vf highest = all(HIDDEN);
      for (int n = 0; n < columns; n += W) highest = maximum(highest, load(logits + n));
      const float before = peak[row], now = std::max(before, largest(highest));
      vf added = vf{};
      for (int n = 0; n < columns; n += W) {
        const vf e = exponential(load(logits + n) - now);
        const vf p = V == CT_LOGITMUL ? e : e * load(kernel + n);
        store(logits + n, p);
        added += V == CT_POSTMUL ? e : p;
      }
      if (now > before) {
        const float shrink = std::exp(before - now);
        total[row] *= shrink, peak[row] = now;
        for (int64_t c = 0; c < width; c += W)
          store(&sums[row * width + c], load(&sums[row * width + c]) * shrink);
      }
      total[row] += sum(added);
    }
    product<true>(rows, int(width), columns, s.logits.data(), TILE, 1, &v[j * width], int(width),
                  sums.data(), int(width));
  }
};

// What a pair adds to the gradients: p to dv, logit to dq and dk, kernel to those of the decay.
struct Terms {
  vf p, logit, kernel;
};

template <ct_variant V>
inline Terms terms(vf logit, vf kernel, float lse, vf dp, float inner) {
  const vf e = exponential((V == CT_LOGITMUL ? logit * kernel : logit) - lse);
  if (V == CT_POSTMUL) return {e * kernel, e * (dp * kernel - inner), e * dp};
  const vf grad = e * (dp - inner);
  if (V == CT_LOGITMUL) return {e, grad * kernel, grad * logit};
  return {e * kernel, grad * kernel, grad};
}

// What a thread keeps for one (subject, head) of the backward pass.
template <ct_variant V>
struct Backward {
  Scratch s;
  std::vector<float> k, k_panels, v_panels, q, d_out, dq, inner, dk, dv;
  std::vector<double> weight_sums, decay_sums;

  Backward(const ct_arguments& x, int64_t width)
      : s(x.rates, 0), k(up(x.keys, TILE) * width), k_panels(up(x.keys, TILE) * x.channels),
        v_panels(up(x.keys, TILE) * x.channels), q(x.queries * width), d_out(x.queries * width),
        dq(x.queries * width), inner(x.queries), dk(TILE * width), dv(TILE * width),
        weight_sums(x.rates), decay_sums(x.rates) {}

  void run(const ct_arguments& x, const Geometry& g, int64_t b, int64_t h, int64_t width) {
    const int64_t at = (b * x.heads + h) * x.rates;
    Head head(x, at, s.excess.data());
    head.reach = reach_of(x, b, h, head.slowest);
    const float scale = 1 / std::sqrt(float(x.channels));
    copy_panels(x.k, b, h, x.keys, x.channels, k_panels.data());
    copy_panels(x.v, b, h, x.keys, x.channels, v_panels.data());
    copy_rows(x.k, b, h, 0, x.keys, x.channels, width, 1, k.data());
    std::fill(k.begin() + x.keys * width, k.end(), 0.0f);
    copy_rows(x.q, b, h, 0, x.queries, x.channels, width, scale, q.data());
    copy_rows(x.d_out, b, h, 0, x.queries, x.channels, width, 1, d_out.data());
    for (int64_t i = 0; i < x.queries; ++i) {
      const float* out = row_of(x.out, b, h, i);
      double dot = 0;
      for (int64_t c = 0; c < x.channels; ++c) dot += double(out[c]) * d_out[i * width + c];
      inner[i] = float(dot);
    }
    std::fill(dq.begin(), dq.end(), 0.0f);
    std::fill(weight_sums.begin(), weight_sums.end(), 0.0);
    std::fill(decay_sums.begin(), decay_sums.end(), 0.0);
    const float* lse = x.lse + (b * x.heads + h) * x.queries;
    for (int64_t j = 0; j < x.keys; j += TILE) {
      std::fill(dk.begin(), dk.end(), 0.0f);
      std::fill(dv.begin(), dv.end(), 0.0f);
      for (int64_t i = 0; i < x.queries; i += TILE)
        if (!is_far(g, head, i, j)) tile(x, g, head, lse, i, j, width);
      for (int64_t n = 0; n < std::min<int64_t>(TILE, x.keys - j); ++n) {
        std::copy_n(&dk[n * width], x.channels, row_of(x.dk, b, h, j + n));
        std::copy_n(&dv[n * width], x.channels, row_of(x.dv, b, h, j + n));
      }
    }
    for (int64_t i = 0; i < x.queries; ++i) {
      float* to = row_of(x.dq, b, h, i);
      for (int64_t c = 0; c < x.channels; ++c) to[c] = dq[i * width + c] * scale;
    }
    for (int64_t m = 0; m < x.rates; ++m) {
      x.d_weight[at + m] = float(weight_sums[m]);
      x.d_rate[at + m] = float(-head.weight[m] * decay_sums[m]);
    }
  }

 private:
  void tile(const ct_arguments& x, const Geometry& g, const Head& head, const float* lse,
            int64_t i, int64_t j, int64_t width) {
    const int rows = int(std::min<int64_t>(TILE, x.queries - i));
    int64_t end = 0;
    for (int row = 0; row < rows; row += SUB) end = std::max(end, g.sees_high[(i + row) / SUB]);
    if (end <= j) return;
    const int columns = int(up(std::min<int64_t>(TILE, x.keys - j), W));
    const int channels = int(x.channels);
    product<false>(rows, columns, channels, &q[i * width], int(width), 1,
                   &k_panels[j * channels], TILE, s.logits.data(), TILE);
    product<false>(rows, columns, channels, &d_out[i * width], int(width), 1,
                   &v_panels[j * channels], TILE, s.dp.data(), TILE);
    each_rectangle(g, i, j, [&](const Rectangle& r) {
      const int64_t at = (r.i - i) * TILE + r.j - j;
      decay(g, head, r, s, &s.logits[at], &s.kernel[at]);
      const int whole = int(up(r.columns, W));
      for (int row = 0; row < r.rows; ++row)
        for (int n = 0; n < whole; n += W) {
          const int64_t here = at + row * TILE + n;
          const Terms t = terms<V>(load(&s.logits[here]), load(&s.kernel[here]), lse[r.i + row],
                                   load(&s.dp[here]), inner[r.i + row]);
          store(&s.logits[here], t.p);
          store(&s.g[here], t.kernel);
          store(&s.dp[here], t.logit);
        }
      rate_sums(g, head, r, s, &s.g[at], weight_sums.data(), decay_sums.data());
    });
    product<true>(columns, int(width), rows, s.logits.data(), 1, TILE, &d_out[i * width],
                  int(width), dv.data(), int(width));
    product<true>(columns, int(width), rows, s.dp.data(), 1, TILE, &q[i * width], int(width),
                  dk.data(), int(width));
    product<true>(rows, int(width), columns, s.dp.data(), TILE, 1, &k[j * width], int(width),
                  &dq[i * width], int(width));
  }
};

template <typename Pass>
int run(const ct_arguments* arguments) {
  const ct_arguments& x = *arguments;
  const int64_t width = up(x.channels, W), jobs = x.subjects * x.heads;
  const int threads = int(std::max<int64_t>(1, std::min(x.threads, jobs)));
  try {
    std::vector<Geometry> subjects;
    subjects.reserve(x.subjects);
    for (int64_t b = 0; b < x.subjects; ++b) subjects.emplace_back(x, b);
    std::vector<std::unique_ptr<Pass>> passes;
    for (int n = 0; n < threads; ++n) passes.push_back(std::make_unique<Pass>(x, width));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; ++thread)
      for (int64_t job = thread; job < jobs; job += threads)
        passes[thread]->run(x, subjects[job / x.heads], job / x.heads, job % x.heads, width);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

template <template <ct_variant> typename Pass>
int run_variant(const ct_arguments* arguments) {
  if (arguments->variant == CT_POSTMUL) return run<Pass<CT_POSTMUL>>(arguments);
  if (arguments->variant == CT_LOGITMUL) return run<Pass<CT_LOGITMUL>>(arguments);
  return run<Pass<CT_LOGBIAS>>(arguments);
}

}  // namespace

int forward(const ct_arguments* arguments);
int backward(const ct_arguments* arguments);
int forward(const ct_arguments* arguments) { return run_variant<Forward>(arguments); }
int backward(const ct_arguments* arguments) { return run_variant<Backward>(arguments); }

}  // namespace CT_NAMESPACE
