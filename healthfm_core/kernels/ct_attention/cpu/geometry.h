// What times and visibility make of a subject's tiles: which are seen, and how their decay is found.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ct_attention.h"

namespace CT_NAMESPACE {

namespace {

constexpr int TILE = 64;
constexpr int SUB = 16;  // side of the squares an uneven tile is cut into

int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Times and visibility of one subject; every array is padded to whole tiles.
struct Geometry {
  int64_t queries, keys, statics;
  std::vector<float> tq, tk;
  // Time of the nearest visible key as seen from the past and from the future: a key at t <= t_i
  // is nearest - t days further than the nearest one, whatever their distance, with one rounding.
  std::vector<float> nearest_past, nearest_future;
  std::vector<int32_t> sees;
  std::vector<float> q_low, q_high, k_low, k_high;  // per SUB positions
  std::vector<int64_t> sees_low, sees_high;
  std::vector<float> past_low, future_high;  // of the nearest keys, where a query sees any

  Geometry(const ct_arguments& x, int64_t subject)
      : queries(x.queries), keys(x.keys), statics(std::min(x.n_static[subject], x.keys)) {
    const float* q = x.tq_days + subject * queries;
    const float* k = x.tk_days + subject * keys;
    tq.assign(q, q + queries);
    tk.assign(k, k + keys);
    tq.resize(up(queries, TILE), queries ? q[queries - 1] : 0);
    tk.resize(up(keys, TILE), keys ? k[keys - 1] : 0);
    const bool sorted = std::is_sorted(tk.begin() + statics, tk.begin() + keys);
    nearest_past.resize(tq.size());
    nearest_future.resize(tq.size());
    sees.resize(tq.size());
    for (int64_t i = 0; i < queries; ++i) {
      sees[i] = int32_t(std::clamp<int64_t>(x.kv_end[subject * queries + i], 0, keys));
      find_nearest(i, sorted);
    }
    summarise();
  }

 private:
  void find_nearest(int64_t i, bool sorted) {
    const float t = tq[i];
    float past = -INFINITY, future = INFINITY;
    const auto first = tk.begin() + statics, last = tk.begin() + std::max<int64_t>(sees[i], statics);
    if (sees[i] > 0 && statics > 0) {
      past = t;
    } else if (sorted) {
      const auto after = std::upper_bound(first, last, t);
      if (after != first) past = *(after - 1);
      if (after != last) future = *after;
    } else {
      for (auto key = first; key != last; ++key)
        if (*key <= t)
          past = std::max(past, *key);
        else
          future = std::min(future, *key);
    }
    const float gap = std::min(t - past, future - t);
    nearest_past[i] = t - past <= gap ? past : t - gap;
    nearest_future[i] = future - t <= gap ? future : t + gap;
    if (!std::isfinite(gap)) nearest_past[i] = nearest_future[i] = t;
  }

  void summarise() {
    for (int64_t start = 0; start < queries; start += SUB) {
      const int64_t end = std::min(start + SUB, queries);
      const auto times = std::minmax_element(tq.begin() + start, tq.begin() + end);
      const auto ends = std::minmax_element(sees.begin() + start, sees.begin() + end);
      q_low.push_back(*times.first), q_high.push_back(*times.second);
      sees_low.push_back(*ends.first), sees_high.push_back(*ends.second);
      float past = INFINITY, future = -INFINITY;
      for (int64_t i = start; i < end; ++i)
        if (sees[i] > 0) {
          past = std::min(past, nearest_past[i]);
          future = std::max(future, nearest_future[i]);
        }
      past_low.push_back(past), future_high.push_back(future);
    }
    for (int64_t start = 0; start < keys; start += SUB) {
      const int64_t end = std::min(start + SUB, keys);
      const auto times = std::minmax_element(tk.begin() + start, tk.begin() + end);
      k_low.push_back(*times.first), k_high.push_back(*times.second);
    }
  }
};

// How the decay between a rectangle's queries and keys is found.
enum class Kind { HIDDEN_ALL, STATIC, PAST, FUTURE, EXACT };

struct Rectangle {
  Kind kind;
  int64_t i, j;       // first query and key
  int rows, columns;  // columns: those that exist; buffers hold whole vectors of them
  float anchor;       // a time between keys and queries (PAST and FUTURE)
};

Rectangle rectangle(const Geometry& g, int64_t i, int64_t j, int side) {
  Rectangle r{Kind::EXACT, i, j, int(std::min<int64_t>(side, g.queries - i)),
              int(std::min<int64_t>(side, g.keys - j)), 0};
  float q_low = INFINITY, q_high = -INFINITY, k_low = INFINITY, k_high = -INFINITY;
  int64_t sees_low = g.keys, sees_high = 0;
  for (int64_t s = i / SUB; s * SUB < i + r.rows; ++s) {
    q_low = std::min(q_low, g.q_low[s]), q_high = std::max(q_high, g.q_high[s]);
    sees_low = std::min(sees_low, g.sees_low[s]), sees_high = std::max(sees_high, g.sees_high[s]);
  }
  for (int64_t s = j / SUB; s * SUB < j + r.columns; ++s)
    k_low = std::min(k_low, g.k_low[s]), k_high = std::max(k_high, g.k_high[s]);
  const int64_t end = j + r.columns;
  if (sees_high <= j)
    r.kind = Kind::HIDDEN_ALL;
  else if (sees_low < end)
    r.kind = Kind::EXACT;
  else if (end <= g.statics)
    r.kind = Kind::STATIC;
  else if (j < g.statics)
    r.kind = Kind::EXACT;
  else if (k_high <= q_low)
    r.kind = Kind::PAST, r.anchor = k_high;
  else if (k_low >= q_high)
    r.kind = Kind::FUTURE, r.anchor = k_low;
  return r;
}

}  // namespace

}  // namespace CT_NAMESPACE
