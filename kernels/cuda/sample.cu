// A token for each row of logits, so that a step's logits need not leave the device. Grid: rows, a block of
// 1024 threads each. Shared memory: 25 KiB.
//
// Everything that is added up is an integer: counts, and weights in units of 2^-42 of the best one's. So no
// order of arrival changes a sum, and a number below the sum always meets a weight that is not 0 (Find). The
// best k, and the nucleus of top_p, are cut by a histogram over the distance from the best score, as the host
// does it; within the bucket of the cut, which holds few, each candidate is compared with each, or, when it
// holds many, histograms over the bits of the scores narrow it first (a radix selection).
//
// Bytes read for a row of V logits: 4 V at temperature 0; 4 V more for the draw, and twice that for each of
// top_k and top_p. Edits copy the row: 8 V more. All but the first 4 V from the L2 cache. In flight: 32 KiB a
// multiprocessor (kReadAhead), enough for the 64 bytes a clock that one gets of the L2 cache: by estimate 6
// us for 150k logits.
#include <limits>

#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

using Sum = unsigned long long;

constexpr int kSampleThreads = 1024, kWarps = kSampleThreads / kWarpLanes;
constexpr int kReadAhead = 8;  // scores of a thread in flight
constexpr int kBuckets = 2048;
constexpr float kBucketsForOne = 64;  // for a difference of 1; the last bucket holds all that are far below
constexpr int kFewCandidates = 512;
constexpr float kUnits = 1ull << 42;  // of a weight of 1: 2^21 of them are less than 2^63
constexpr Sum kNothing = ~Sum{0};

struct Shared {
  unsigned low[kBuckets], high[kBuckets];  // of sums: atomics of 64 bits would be loops here
  Sum of_warp[kWarps];
  Sum ranks[kFewCandidates], values[kFewCandidates];
  Sum cut;
  unsigned num_candidates;
};

// The order of scores, best first, as unsigned numbers.
__device__ __forceinline__ unsigned OrderOf(float score) {
  const unsigned bits = __float_as_uint(score + 0.0f);  // -0 is 0
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
}
__device__ __forceinline__ float ScoreOf(unsigned order) {
  return __uint_as_float((order & 0x80000000u) != 0 ? order : ~order & 0x7fffffffu);
}
// The order of candidates: of equals the lowest id first.
__device__ __forceinline__ Sum RankOf(float score, int id) {
  return Sum{OrderOf(score)} << 32 | static_cast<unsigned>(id);
}

// use(read(i), i) for a thread's share: i = begin, begin + stride, ... below end. Reads go ahead of the uses,
// as the compiler moves none past an atomic; none is conditional (beyond the end the last is read again), as
// each condition would have to be kept.
template <class Read, class Use>
__device__ __forceinline__ void ForEach(int begin, int end, int stride, const Read& read, const Use& use) {
  for (; begin < end; begin += kReadAhead * stride) {
    decltype(read(begin)) values[kReadAhead];
#pragma unroll
    for (int j = 0; j < kReadAhead; ++j) values[j] = read(min(begin + j * stride, end - 1));
#pragma unroll
    for (int j = 0; j < kReadAhead; ++j) {
      const int i = begin + j * stride;
      if (i < end) use(values[j], i);
    }
  }
}
// Of a row's scores, by the block.
template <class Read, class Use>
__device__ __forceinline__ void ForEachScore(int V, const Read& score_of, const Use& use) {
  ForEach(static_cast<int>(threadIdx.x), V, kSampleThreads, score_of, use);
}

// Leaves what each warp has in shared.of_warp.
__device__ __forceinline__ void Share(Shared& shared, Sum of_warp) {
  __syncthreads();
  if (threadIdx.x % kWarpLanes == 0) shared.of_warp[threadIdx.x / kWarpLanes] = of_warp;
  __syncthreads();
}

__device__ __forceinline__ Sum WarpSum(Sum x) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
  return x;
}

__device__ Sum BlockMin(Shared& shared, Sum x) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) x = min(x, __shfl_xor_sync(0xffffffffu, x, mask));
  Share(shared, x);
  for (int w = 0; w < kWarps; ++w) x = min(x, shared.of_warp[w]);
  return x;
}

// The first of n values, value(read(i), i), at which their running sum exceeds `target`, and what it exceeds
// of it there: at most the value. target_of(sum of all), at most the sum less 1. Requires a value that is not
// 0. Each warp adds up a part; then the part that holds the target is the whole.
struct Place {
  int index;
  Sum target;
};
template <class Read, class Value, class Target>
__device__ Place Find(Shared& shared, int n, const Read& read, const Value& value, const Target& target_of) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes,
            lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  Place place = {0, 0};
  for (bool is_whole = true;; is_whole = false) {
    const int part = CeilDiv(n, kWarps), end = place.index + min(n, (warp + 1) * part);
    Sum sum = 0;
    ForEach(place.index + warp * part + lane, end, kWarpLanes, read,
            [&](auto x, int i) { sum += value(x, i); });
    Share(shared, WarpSum(sum));
    if (is_whole) {
      Sum all = 0;
      for (int w = 0; w < kWarps; ++w) all += shared.of_warp[w];
      place.target = min(target_of(all), all - 1);
    }
    int w = 0;
    for (; place.target >= shared.of_warp[w]; ++w) place.target -= shared.of_warp[w];
    place.index += w * part;
    n = min(part, n - w * part);
    if (part == 1) return place;
  }
}

__device__ __forceinline__ void Clear(Shared& shared) {
  __syncthreads();
  for (int b = static_cast<int>(threadIdx.x); b < kBuckets; b += kSampleThreads)
    shared.low[b] = shared.high[b] = 0;
  shared.num_candidates = 0;
  __syncthreads();
}
__device__ __forceinline__ void AddTo(Shared& shared, int bucket, Sum x) {
  const unsigned low = static_cast<unsigned>(x), old = atomicAdd(&shared.low[bucket], low);
  const unsigned high = static_cast<unsigned>(x >> 32) + (old + low < low ? 1 : 0);
  if (high > 0) atomicAdd(&shared.high[bucket], high);
}

// The rank of the first candidate, best first, at which the running sum of value(score, id) exceeds
// target_of(sum of all), as Find has it. Of V scores `best` is the largest.
template <class Read, class Value, class Target>
__device__ Sum Cut(Shared& shared, const Read& score_of, int V, float best, const Value& value,
                   const Target& target_of) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto bucket_of = [&](float score) {
    return static_cast<int>(min((best - score) * kBucketsForOne, kBuckets - 1.0f));
  };
  const auto in_buckets = [&](int b) { return Sum{shared.high[b]} << 32 | shared.low[b]; };
  const auto sum_of = [](Sum in_bucket, int) { return in_bucket; };
  Clear(shared);
  Sum far = 0;  // most may be: they would queue for the last bucket
  ForEachScore(V, score_of, [&](float score, int id) {
    const Sum v = value(score, id);
    if (v == 0) return;
    const int b = bucket_of(score);
    if (b < kBuckets - 1) {
      AddTo(shared, b, v);
    } else {
      far += v;
    }
  });
  far = WarpSum(far);
  if (thread % kWarpLanes == 0) AddTo(shared, kBuckets - 1, far);
  __syncthreads();
  Place cut = Find(shared, kBuckets, in_buckets, sum_of, target_of);
  const auto the_target = [&](Sum) { return cut.target; };

  // Those in question: the bits of `mask` of their order are `prefix`.
  const int bucket = cut.index;
  unsigned mask = 0, prefix = 0;
  const auto value_in_question = [&](float score, int id) -> Sum {
    return score > -INFINITY && bucket_of(score) == bucket && (OrderOf(score) & mask) == prefix
               ? value(score, id)
               : 0;
  };
  for (int shift = 21;; shift = shift == 21 ? 10 : 0) {
    Clear(shared);
    bool are_few = true;
    ForEachScore(V, score_of, [&](float score, int id) {
      const Sum v = are_few ? value_in_question(score, id) : 0;
      if (v == 0) return;
      const unsigned i = atomicAdd(&shared.num_candidates, 1u);
      are_few = i < kFewCandidates;
      if (!are_few) return;
      shared.ranks[i] = RankOf(score, id);
      shared.values[i] = v;
    });
    __syncthreads();
    const int count = static_cast<int>(shared.num_candidates);
    if (count <= kFewCandidates) {
      if (thread < count) {
        const Sum rank = shared.ranks[thread], v = shared.values[thread];
        Sum before = 0;
        for (int i = 0; i < count; ++i) before += shared.ranks[i] < rank ? shared.values[i] : 0;
        if (before <= cut.target && cut.target - before < v) shared.cut = rank;
      }
      __syncthreads();
      return shared.cut;
    }
    if (mask == ~0u) break;
    constexpr unsigned kDigit = kBuckets - 1;
    ForEachScore(V, score_of, [&](float score, int id) {
      const Sum v = value_in_question(score, id);
      if (v > 0) AddTo(shared, static_cast<int>(OrderOf(score) >> shift & kDigit), v);
    });
    __syncthreads();
    cut = Find(shared, kBuckets, in_buckets, sum_of, the_target);
    mask |= kDigit << shift;
    prefix |= static_cast<unsigned>(cut.index) << shift;
  }
  // Many equals: by their ids.
  cut = Find(shared, V, score_of, value_in_question, the_target);
  return Sum{prefix} << 32 | static_cast<unsigned>(cut.index);
}

// The row's scores: its logits, or a copy with the edits.
__device__ const float* Edit(const float* logits, int V, const SampleTask& task) {
  const SampleRow& row = task.row;
  if (row.num_edits == 0 && !row.only_edited) return logits;
  ForEachScore(
      V, [&](int id) { return CleanLogit(logits[id]); },
      [scores = task.scores, drop = row.only_edited](float score, int id) {
        scores[id] = drop ? -INFINITY : score;
      });
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < row.num_edits; i += kSampleThreads) {
    const SampleEdit& edit = task.edits[i];
    task.scores[edit.id] = Edited(logits[edit.id], row, edit);
  }
  __syncthreads();
  return task.scores;
}

__global__ void __launch_bounds__(kSampleThreads)
    SampleKernel(const int32_t* live, Matrix logits, const SampleTask* tasks, int32_t* tokens) {
  BeginKernel();
  if (blockIdx.x >= LiveRows(live, gridDim.x)) return;
  Shared& shared = *static_cast<Shared*>(DynamicShared());
  const SampleTask& task = tasks[blockIdx.x];
  const SampleRow& row = task.row;
  const int V = logits.cols;
  const float* x = Edit(logits.row(row.row), V, task);
  const auto score_of = [&](int id) { return CleanLogit(x[id]); };

  Sum top = kNothing;
  ForEachScore(V, score_of, [&](float score, int id) {
    if (score > -INFINITY) top = min(top, RankOf(score, id));
  });
  top = BlockMin(shared, top);
  if (top == kNothing || row.temperature == 0) {
    if (threadIdx.x == 0) tokens[blockIdx.x] = top == kNothing ? -1 : static_cast<int32_t>(top & 0xffffffffu);
    return;
  }

  const float best = ScoreOf(static_cast<unsigned>(top >> 32));
  // 0 times the scale must be 0, also when the temperature is next to nothing.
  const float scale = min(1 / row.temperature, std::numeric_limits<float>::max());
  Sum last = kNothing;  // the rank of the last candidate that is kept
  if (row.top_k > 0 && row.top_k < V) {
    last = Cut(
        shared, score_of, V, best, [](float score, int) -> Sum { return score > -INFINITY; },
        [&](Sum) { return static_cast<Sum>(row.top_k - 1); });
  }
  const auto weigh = [&](float score, int id, float least) -> Sum {
    if (!(score > -INFINITY) || RankOf(score, id) > last) return 0;
    const float weight = expf((score - best) * scale);
    return weight < least ? 0 : static_cast<Sum>(weight * kUnits);
  };
  if (row.top_p < 1) {
    last = Cut(
        shared, score_of, V, best, [&](float score, int id) { return weigh(score, id, 0); },
        [&](Sum all) {
          const Sum share = static_cast<Sum>(ceil(row.top_p * static_cast<double>(all)));
          return share > 0 ? share - 1 : 0;
        });
  }
  const Place drawn = Find(
      shared, V, score_of, [&, least = row.min_p](float score, int id) { return weigh(score, id, least); },
      [&](Sum all) { return static_cast<Sum>(row.uniform * static_cast<double>(all)); });
  if (threadIdx.x == 0) tokens[blockIdx.x] = drawn.index;
}

}  // namespace

void Sample(RowLaunch on, Matrix logits, const SampleTask* tasks, int num_tasks, int32_t* tokens) {
  Launch(on.stream, dim3(num_tasks), kSampleThreads, sizeof(Shared), SampleKernel, on.live, logits, tasks,
         tokens);
}

}  // namespace sessa::cuda
