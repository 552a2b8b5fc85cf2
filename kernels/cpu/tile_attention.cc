#include "kernels/cpu/tile_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/tile_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tile_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/state_tiles-inl.h"
#include "kernels/cpu/tile_few_rows-inl.h"
#include "kernels/cpu/tile_int8-inl.h"
#include "kernels/cpu/tile_many_rows-inl.h"
#include "kernels/cpu/tile_softmax-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

template <int kTerms, class Products>
void AttendGroups(const AttendArgs& args, const PagedState& cache, SoftmaxState state, Products* products) {
  const int horizon = *std::max_element(args.visible, args.visible + args.m),
            width = RoundUp(args.value_dim, kPanel);
  const bool keep = args.probabilities != nullptr;
  using Tile = typename Products::Tile;
  using Tiles = Group<Tile>;
  using GroupSoftmax = Softmax<Products::kNative, kTerms, Tile>;
  alignas(64) float scores[2][kTile * kScoreStride];
  GroupSoftmax softmax(args, state);
  Meanwhile<GroupSoftmax> meanwhile;
  Tiles groups[3];                                    // in turn
  const auto group_from = [&](Tiles* group, int t) {  // tiles are cut by their place in the chain
    group->count = group->summed = 0;
    do {
      const int tokens = t < args.last ? std::clamp(horizon - t * kTile, 0, kTile) : 0;
      if (tokens == 0) break;
      group->Add(products->TileAt(cache, t * kTile, tokens, group->count), t * kTile);
      group->summed += !keep || t + args.step < args.last;
      t += args.step;
    } while (t / args.step % kJointTiles != 0);
    return group;
  };
  const auto after = [&](Tiles* group, const Tiles& before) {
    if (before.count > 0) return group_from(group, before.begin[before.count - 1] / kTile + args.step);
    group->count = 0;
    return group;
  };
  int now = 0;
  const auto score = [&](const Tiles& group, bool beside_softmax) {
    int steps = 0;
    for (int i = 0; i < group.count; ++i) steps += products->ScoreSteps(group.tile[i]);
    meanwhile.Start(&softmax, beside_softmax ? args.m : 0, std::max(1, steps));
    for (int i = 0; i < group.count; ++i) {
      meanwhile.lines.Start(products->ScoreSteps(group.tile[i]));
      meanwhile.lines.Values(group.tile[i], width);
      products->FetchKeys(cache, group, i);
      products->Scores(group.tile[i], &meanwhile, scores[now] + i * kTile);
    }
  };
  // While the unit takes the scores of the next group, the vectors make probabilities of this one's.
  Tiles *group = &groups[0], *next = group_from(&groups[1], args.first), *then = after(&groups[2], *next);
  score(*next, /*beside_softmax=*/false);
  while (next->count > 0) {
    Tiles* const spare = group;
    group = next, next = then, then = after(spare, *next);
    softmax.Start(group, scores[now]);
    now = 1 - now;
    score(*next, /*beside_softmax=*/true);
    softmax.Finish();
    meanwhile.lines.Start(products->ValueSteps(*group));
    for (int i = 0; i < then->count; ++i) meanwhile.lines.Keys(then->tile[i]);
    products->FetchValues(cache, *group);
    products->AddValues(*group, softmax.probabilities(), softmax.weights(), &meanwhile.lines);
  }
  products->Finish(state);
  if (args.ends) softmax.ScaleMaxima();
  if (group->summed == group->count) return;
  const int tokens =
      std::min(group->tile[group->summed].tokens, args.value_limit - group->begin[group->summed]);
  if (tokens <= 0) return;
  const int begin = group->begin[group->summed], own_tokens = group->tile[group->summed].tokens;
  if (cache.dtype == DType::kI8) {
    const Int8Tile own(cache, args.dim, begin, own_tokens);
    WideBlock wide;
    HWY_NAMESPACE::AddValues(args.probabilities, args.m, own, tokens, &wide, state.acc, state.acc_stride);
  } else {
    const TileOfState<Value> own(cache, args.dim, begin, own_tokens);
    alignas(64) float wide[kTile * 2 * kPanel];
    HWY_NAMESPACE::AddValues<Value>(args.probabilities, args.m, own, {}, tokens, width, wide, state.acc,
                                    state.acc_stride);
  }
}

template <class Unit, int kTerms>
void AttendManyRows(const uint16_t* q, const AttendArgs& args, const PagedState& cache, SoftmaxState state,
                    float* scratch) {
  const int width = RoundUp(args.value_dim, kPanel);
  if (cache.dtype == DType::kI8) {
    NarrowedRows<ManyRows<Unit, kTerms>> products(args, q, width, state, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  } else {
    ManyRows<Unit, kTerms> products(args, q, width, state, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  }
}

#if HWY_TARGET == HWY_AVX3
template <int kRows, int kTerms>
void AttendFewRows(const uint16_t* q, const AttendArgs& args, const PagedState& cache, SoftmaxState state,
                   float* scratch) {
  const int width = RoundUp(args.value_dim, kPanel);
  if (cache.dtype == DType::kI8) {
    Int8FewRows<kRows, kTerms> products(args, q, width, state, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  } else {
    FewRows<kRows, kTerms> products(args, q, width, state, scratch);
    AttendGroups<kTerms>(args, cache, state, &products);
  }
}
#endif

void AttendOnTiles(const TileQueries& queries, const AttendArgs& args, const PagedState& cache,
                   SoftmaxState state, float* scratch) {
  const uint16_t* q = queries.rows;
#if HWY_TARGET == HWY_AVX3
  if (queries.unit == MatrixUnit::kAmx) {
    if (queries.terms == 3) {
      return args.m == 1 ? AttendFewRows<1, 3>(q, args, cache, state, scratch)
                         : AttendManyRows<Amx, 3>(q, args, cache, state, scratch);
    }
    switch (args.m) {
      case 1: return AttendFewRows<1, 1>(q, args, cache, state, scratch);
      case 2: return AttendFewRows<2, 1>(q, args, cache, state, scratch);
      case 3: return AttendFewRows<3, 1>(q, args, cache, state, scratch);
      case 4: return AttendFewRows<4, 1>(q, args, cache, state, scratch);
      default: return AttendManyRows<Amx, 1>(q, args, cache, state, scratch);
    }
  }
#endif
  std::vector<uint16_t> spread;  // a single row's tiles lie side by side (TileStride)
  if (args.m == 1) {
    spread.resize(TiledSize(1, args.dim, queries.terms));
    for (int i = 0; i < TileSteps(args.dim) * queries.terms; ++i)
      std::copy_n(q + i * kTileDepth, kTileDepth, &spread[i * kTileValues]);
    q = spread.data();
  }
  queries.terms == 1 ? AttendManyRows<TileModel, 1>(q, args, cache, state, scratch)
                     : AttendManyRows<TileModel, 3>(q, args, cache, state, scratch);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(AttendOnTiles);

void AttendOnTiles(const TileQueries& queries, const AttendArgs& args, const PagedState& cache,
                   SoftmaxState state, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendOnTiles)(queries, args, cache, state, scratch);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
