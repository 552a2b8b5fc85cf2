// The product that linears and attention scores share: dot products of kQueries rows in float32 with kTile
// rows of weights or cached keys, by one block of kThreads threads.
//
// Order. Dimension k belongs to group (k / 16) % 4; a group adds its products one after another in the order
// of k, and the result is (g0 + g2) + (g1 + g3). That is the same in every instantiation, so a row has the
// same bits alone and in a batch. The four groups are four quarters of the block: with one row there are 64
// results and 256 threads to compute them.
//
// Few queries: a thread owns one key and all queries, and keys stream through two stages of 256 bytes a key.
// Many: a thread owns 8 x 8 results, 16 loads of 16 bytes from shared memory for 256 multiply-adds. Rows in
// shared memory are 16 bytes longer than their contents, so that neighbouring keys lie in different banks.
#pragma once

#include <type_traits>

#include "kernels/cuda/device.cuh"

namespace sessa::cuda {

// Of a stage of int8 keys: the scales of their groups of 64.
template <class T, int kDepth>
struct StageScales {};
template <int kDepth>
struct StageScales<Int8, kDepth> {
  float scales[kTile][kDepth / 64];
};
struct NoScale {};

// T: float, Bf16 or Int8. kFew: at most kQueriesPerThread queries; otherwise 64 of them, 8 a thread.
template <class T, int kQueriesPerThread, bool kFew>
struct DotTile {
  static constexpr int kQueries = kFew ? kQueriesPerThread : 64;
  static constexpr int kKeysPerThread = kFew ? 1 : 8;
  static constexpr int kKeyThreads = kTile / kKeysPerThread;
  static constexpr int kDepth = kFew ? 256 / sizeof(T) : 64;  // dimensions of a stage, a multiple of 64
  static constexpr int kStages = kFew ? 2 : 1;
  static constexpr int kUnroll = kFew ? 4 : 1;  // more would cost 216 registers for the 8 x 8
  static constexpr int kGroupUnroll = std::is_same_v<T, Int8> ? 1 : kDepth / 64;
  // Blocks on a multiprocessor: 80, 128 or 255 registers. Without the bound one row of int8 takes 108.
  static constexpr int kMinBlocks = !kFew ? 1 : std::is_same_v<T, Int8> && kQueriesPerThread == 1 ? 3 : 2;
  static constexpr int kGroupThreads = kThreads / 4;
  static constexpr int kChunk = 16 / sizeof(T);  // elements of a 16-byte copy
  static_assert(kFew || kQueriesPerThread == 8);

  struct Stage : StageScales<T, kDepth> {
    alignas(16) T keys[kTile][kDepth + kChunk];
    alignas(16) float queries[kQueries][kDepth + 4];
  };
  union Shared {
    Stage stages[kStages];
    float sums[2][kQueries][kTile];  // of groups; sums[0] is the result
  };

  // The dot products over dimensions [begin, end), begin a multiple of 64, to shared.sums[0]. query(i), i <
  // kQueries: the row's float32 values, or null; key(j), j < kTile: the row's, aligned to 16 bytes and zero
  // up to Padded(dim), or null, but for key(0). Null rows count as zeros. All threads call it, and again only
  // after a barrier. Of int8: scale(j, i), of the i-th group of dimensions of key(j), which is zero up to
  // whole groups.
  template <class Query, class Key, class Scale = NoScale>
  static __device__ void Run(Shared& shared, int begin, int end, int dim, const Query& query, const Key& key,
                             const Scale& scale = {}) {
    constexpr bool kScaled = std::is_same_v<T, Int8>;
    const int thread = threadIdx.x, group = thread / kGroupThreads;
    const int key0 = thread % kGroupThreads % kKeyThreads, query0 = thread % kGroupThreads / kKeyThreads;
    // A thread copies the same chunk of a few keys in each stage.
    constexpr int kChunks = kDepth / kChunk, kKeyStep = kThreads / kChunks, kCopies = kTile / kKeyStep;
    const int chunk = thread % kChunks;
    const T* const any = key(0);  // for copies of nothing
    const T* rows[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) rows[i] = key(thread / kChunks + i * kKeyStep);

    const auto load = [&](int at, Stage& stage) {
      const int k = at + chunk * kChunk;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const bool valid = rows[i] != nullptr && k < end && k < Padded(dim);
        CopyAsync(&stage.keys[thread / kChunks + i * kKeyStep][chunk * kChunk], valid ? rows[i] + k : any,
                  valid);
      }
      CommitCopies();
      if constexpr (kScaled) {
        constexpr int kGroups = kDepth / 64;
        for (int i = thread; i < kTile * kGroups; i += kThreads) {
          const int k = at + i % kGroups * 64;
          stage.scales[i / kGroups][i % kGroups] =
              key(i / kGroups) != nullptr && k < dim ? scale(i / kGroups, k / 64) : 0.0f;
        }
      }
      for (int i = thread; i < kQueries * kDepth; i += kThreads) {
        const float* row = query(i / kDepth);
        const int k = at + i % kDepth;
        stage.queries[i / kDepth][i % kDepth] = row != nullptr && k < end && k < dim ? row[k] : 0.0f;
      }
    };

    float acc[kQueriesPerThread][kKeysPerThread] = {};
    const int num_stages = CeilDiv(end - begin, kDepth);
    if constexpr (kStages > 1) load(begin, shared.stages[0]);
    for (int s = 0; s < num_stages; ++s) {
      Stage& stage = shared.stages[s % kStages];
      if constexpr (kStages == 1) {
        load(begin + s * kDepth, stage);
        WaitForCopies<0>();
      } else if (s + 1 < num_stages) {
        load(begin + (s + 1) * kDepth, shared.stages[(s + 1) % kStages]);
        WaitForCopies<1>();
      } else {
        WaitForCopies<0>();
      }
      __syncthreads();
#pragma unroll kGroupUnroll
      for (int k0 = 0; k0 < kDepth; k0 += 64) {
#pragma unroll kUnroll
        for (int kk = 0; kk < 16; kk += 4) {
          const int k = k0 + group * 16 + kk;
          float4 b[kKeysPerThread];
#pragma unroll
          for (int j = 0; j < kKeysPerThread; ++j) {
            b[j] = Load4(&stage.keys[key0 + j * kKeyThreads][k]);
            if constexpr (kScaled) {  // 16 bits: exact
              const float unit = stage.scales[key0 + j * kKeyThreads][k0 / 64];
              b[j] = {b[j].x * unit, b[j].y * unit, b[j].z * unit, b[j].w * unit};
            }
          }
#pragma unroll
          for (int i = 0; i < kQueriesPerThread; ++i) {
            const float4 a = Load4(&stage.queries[query0 + i * (kQueries / kQueriesPerThread)][k]);
#pragma unroll
            for (int j = 0; j < kKeysPerThread; ++j) {
              acc[i][j] =
                  fmaf(a.w, b[j].w, fmaf(a.z, b[j].z, fmaf(a.y, b[j].y, fmaf(a.x, b[j].x, acc[i][j]))));
            }
          }
        }
      }
      __syncthreads();
    }

    Join(shared.sums, acc);
  }

  // The sums of the groups, joined to sums[0]; a barrier ends it. Requires one since sums was used otherwise.
  static __device__ void Join(float (&sums)[2][kQueries][kTile],
                              float (&acc)[kQueriesPerThread][kKeysPerThread]) {
    const int thread = threadIdx.x, group = thread / kGroupThreads;
    const int key0 = thread % kGroupThreads % kKeyThreads, query0 = thread % kGroupThreads / kKeyThreads;
    const auto sum_at = [&](int which, int i, int j) -> float& {
      return sums[which][query0 + i * (kQueries / kQueriesPerThread)][key0 + j * kKeyThreads];
    };
    const auto each = [&](const auto& body) {
#pragma unroll
      for (int i = 0; i < kQueriesPerThread; ++i) {
#pragma unroll
        for (int j = 0; j < kKeysPerThread; ++j) body(i, j);
      }
    };
    if (group >= 2) each([&](int i, int j) { sum_at(group - 2, i, j) = acc[i][j]; });
    __syncthreads();
    if (group < 2) each([&](int i, int j) { acc[i][j] += sum_at(group, i, j); });
    if (group == 1) each([&](int i, int j) { sum_at(1, i, j) = acc[i][j]; });
    __syncthreads();
    if (group == 0) each([&](int i, int j) { sum_at(0, i, j) = acc[i][j] + sum_at(1, i, j); });
    __syncthreads();
  }
};

}  // namespace sessa::cuda
