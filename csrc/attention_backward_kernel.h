// Attention backward. A work item is one head: it recomputes the probabilities from lse a query tile and a chunk of
// keys at a time, and keeps the head's dK and dV in its own buffer, so nothing is shared and nothing is atomic.
//
//   P = exp(scale Q K^T - lse)     dP = dO V^T     dS = P (dP - delta), delta = rowsum(dO O)
//   dQ = scale dS K                dK = scale dS^T Q               dV = P^T dO
//
// A row of P is divided by its sum, which is 1 but for the rounding of lse: float32's lse near 10 is off by up to 5e-7,
// and that would be the largest error of all. A tile's P and dS therefore wait, all keys of them, for the row's sum.

#pragma once

#include "attention_kernel.h"

namespace {

// Room for one item. Rows that end up as vector columns are padded to a whole number of vectors: `width`.
struct BackwardScratch {
  float *k, *v;                                    // keys x dim
  float *grad_k, *grad_v, *segment_k, *segment_v;  // keys x width: of all queries, and of a segment of them
  float *qt, *grad_outt, *grad_qt, *q, *grad_out;  // dim x tile (three), tile x width (two)
  float *p, *ds;                                   // keys x tile

  BackwardScratch(fermt::Carver carver, int64_t keys, int64_t dim, int64_t width, size_t* bytes = nullptr) {
    float** const of_dim[] = {&k, &v};
    for (float** part : of_dim) *part = carver.floats(keys * dim);
    float** const of_width[] = {&grad_k, &grad_v, &segment_k, &segment_v};
    for (float** part : of_width) *part = carver.floats(keys * width);
    float** const columns[] = {&qt, &grad_outt, &grad_qt};
    for (float** part : columns) *part = carver.floats(dim * kQueryTile);
    float** const rows[] = {&q, &grad_out};
    for (float** part : rows) *part = carver.floats(width * kQueryTile);
    float** const scores[] = {&p, &ds};
    for (float** part : scores) *part = carver.floats(keys * kQueryTile);
    if (bytes) *bytes = carver.used;
  }
};

// out[j][:] += columns-of-queries[j] @ rows: `keys` rows of `width` floats, summed over the tile's queries.
inline void add_product_over_queries(const float* scores, int64_t keys, const float* rows, int64_t width, float* out) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= width; column += 2 * kLanes)
    product<2, 1>(scores, keys, kQueryTile, 1, rows + column, width, kQueryTile, [=](int64_t j, int c, Vec sum) {
      float* to = out + j * width + column + c * kLanes;
      store(to, load(to) + sum);
    });
  for (; column < width; column += kLanes)
    product<1, 1>(scores, keys, kQueryTile, 1, rows + column, width, kQueryTile, [=](int64_t j, int, Vec sum) {
      float* to = out + j * width + column;
      store(to, load(to) + sum);
    });
}

template <class T, int Dim>
inline void attention_backward_tile(const fermt_attention_backward_args& a, const BackwardScratch& s, int64_t b,
                                    int64_t h, const QueryGroup& group, int64_t query, int64_t count, int64_t width) {
  const int64_t dim = Dim > 0 ? Dim : a.shape.head_dim;
  const T* out = at<T>(a.out, b, h, query);
  const T* grad_out = at<T>(a.grad_out, b, h, query);
  const float* lse = a.lse + (b * a.shape.heads + h) * a.shape.tokens + query;

  pack_columns(at<T>(a.q, b, h, query), a.q.strides[2], count, dim, 1.0f, s.qt);
  pack_columns(grad_out, a.grad_out.strides[2], count, dim, 1.0f, s.grad_outt);
  pack_rows(at<T>(a.q, b, h, query), a.q.strides[2], count, dim, width, s.q);
  pack_rows(grad_out, a.grad_out.strides[2], count, dim, width, s.grad_out);
  memset(s.q + count * width, 0, sizeof(float) * (kQueryTile - count) * width);
  memset(s.grad_out + count * width, 0, sizeof(float) * (kQueryTile - count) * width);
  memset(s.grad_qt, 0, sizeof(float) * dim * kQueryTile);

  float delta_of[kQueryTile] = {}, offset_of[kQueryTile] = {};  // missing queries: p = 1 against gradients of 0
  for (int64_t i = 0; i < count; ++i) {
    double row = 0;
    for (int64_t d = 0; d < dim; ++d)
      row += static_cast<double>(s.grad_out[i * width + d]) * to_float(out[i * a.out.strides[2] + d]);
    delta_of[i] = static_cast<float>(row);
    offset_of[i] = static_cast<float>(lse[i] * kLog2E);
  }
  Vec delta[kQueryVectors], offset[kQueryVectors], sum[kQueryVectors] = {};
  for (int c = 0; c < kQueryVectors; ++c) {
    delta[c] = load(delta_of + c * kLanes);
    offset[c] = load(offset_of + c * kLanes);
  }

  const Vec factor = splat(static_cast<float>(a.shape.scale * kLog2E));
  const int64_t keys = group.key_stop - group.key_start;
  const float *k = s.k + group.key_start * dim, *v = s.v + group.key_start * dim;
  for (int64_t start = 0; start < keys; start += kKeyChunk) {
    const int64_t chunk = keys - start < kKeyChunk ? keys - start : kKeyChunk;
    float *p = s.p + start * kQueryTile, *ds = s.ds + start * kQueryTile;
    product_over_dims<Dim>(k + start * dim, chunk, s.qt, dim, p, [](int64_t, int, Vec) {});
    product_over_dims<Dim>(v + start * dim, chunk, s.grad_outt, dim, ds, [](int64_t, int, Vec) {});
    for (int c = 0; c < kQueryVectors; ++c) {
      Vec totals[4] = {};
      for (int64_t j = 0; j < chunk; ++j) {
        const int64_t at = j * kQueryTile + c * kLanes;
        const Vec probability = exp2_nonpositive(load(p + at) * factor - offset[c]);
        totals[j % 4] += probability;
        store(p + at, probability);
        store(ds + at, probability * (load(ds + at) - delta[c]));
      }
      sum[c] += (totals[0] + totals[1]) + (totals[2] + totals[3]);
    }
  }

  float divided[kQueryTile];
  for (int c = 0; c < kQueryVectors; ++c) store(divided + c * kLanes, 1.0f / sum[c]);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < dim; ++d) {
      s.q[i * width + d] *= divided[i];
      s.grad_out[i * width + d] *= divided[i];
    }
  for (int64_t start = 0; start < keys; start += kKeyChunk) {
    const int64_t chunk = keys - start < kKeyChunk ? keys - start : kKeyChunk;
    const float *p = s.p + start * kQueryTile, *ds = s.ds + start * kQueryTile;
    add_product_over_keys(k + start * dim, dim, 1, dim, ds, chunk, s.grad_qt);
    add_product_over_queries(ds, chunk, s.q, width, s.segment_k + (group.key_start + start) * width);
    add_product_over_queries(p, chunk, s.grad_out, width, s.segment_v + (group.key_start + start) * width);
  }

  const float scale = static_cast<float>(a.shape.scale);
  for (int64_t i = 0; i < dim * kQueryTile; i += kLanes)
    store(s.grad_qt + i, load(s.grad_qt + i) * (load(divided + i % kQueryTile) * scale));
  unpack_columns(s.grad_qt, count, dim, at<T>(a.grad_q, b, h, query), a.grad_q.strides[2]);
}

// Adds a segment's dK and dV to those of all queries, and empties it.
inline void flush_segment(const BackwardScratch& s, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store(s.grad_k + i, load(s.grad_k + i) + load(s.segment_k + i));
    store(s.grad_v + i, load(s.grad_v + i) + load(s.segment_v + i));
  }
  memset(s.segment_k, 0, sizeof(float) * count);
  memset(s.segment_v, 0, sizeof(float) * count);
}

template <class T>
inline fermt_status attention_backward_item(const fermt_attention_backward_args& a, int64_t b, int64_t h) {
  const int64_t tokens = a.shape.tokens, dim = a.shape.head_dim, width = round_up(dim, kLanes);
  size_t bytes = 0;
  BackwardScratch(fermt::Carver{}, tokens, dim, width, &bytes);
  char* base = static_cast<char*>(fermt::thread_scratch(bytes, fermt::kItemScratch));
  if (!base) return FERMT_OUT_OF_MEMORY;
  const BackwardScratch scratch(fermt::Carver{base}, tokens, dim, width);
  pack_rows(at<T>(a.k, b, h, 0), a.k.strides[2], tokens, dim, dim, scratch.k);
  pack_rows(at<T>(a.v, b, h, 0), a.v.strides[2], tokens, dim, dim, scratch.v);
  float* const sums[] = {scratch.grad_k, scratch.grad_v, scratch.segment_k, scratch.segment_v};
  for (float* sum : sums) memset(sum, 0, sizeof(float) * tokens * width);
  const auto tile = dim == 16 ? attention_backward_tile<T, 16> : attention_backward_tile<T, 0>;
  for (int is_search = 0; is_search < 2; ++is_search) {
    const QueryGroup group = query_group(a.shape, !is_search);
    for (int64_t i = group.query_start; i < group.query_stop; i += kQueryTile) {
      if (i > group.query_start && (i - group.query_start) % kSegment == 0) flush_segment(scratch, tokens * width);
      const int64_t left = group.query_stop - i, count = left < kQueryTile ? left : kQueryTile;
      if (group.key_stop - group.key_start > 1) {
        tile(a, scratch, b, h, group, i, count, width);
        continue;
      }
      for (int64_t j = i; j < i + count; ++j) {
        memset(at<T>(a.grad_q, b, h, j), 0, sizeof(T) * dim);
        if (group.key_start == group.key_stop) continue;
        float* grad_v = scratch.segment_v + group.key_start * width;  // the soft-max over one key is 1
        for (int64_t d = 0; d < dim; ++d) grad_v[d] += to_float(at<T>(a.grad_out, b, h, j)[d]);
      }
    }
  }
  flush_segment(scratch, tokens * width);
  const float scale = static_cast<float>(a.shape.scale);
  for (int64_t j = 0; j < tokens; ++j) {
    float *grad_k = scratch.grad_k + j * width, *grad_v = scratch.grad_v + j * width;
    for (int64_t d = 0; d < dim; ++d) grad_k[d] *= scale;
    row_from_float(grad_k, dim, at<T>(a.grad_k, b, h, j));
    row_from_float(grad_v, dim, at<T>(a.grad_v, b, h, j));
  }
  return FERMT_OK;
}

fermt_status attention_backward(const fermt_attention_backward_args& a) {
  const auto item = a.shape.dtype == FERMT_FLOAT32 ? attention_backward_item<float> : attention_backward_item<BFloat16>;
  return fermt::run_items(a.parallel_for, a.shape.batch * a.shape.heads,
                          [&](int64_t index) { return item(a, index / a.shape.heads, index % a.shape.heads); });
}

}  // namespace
