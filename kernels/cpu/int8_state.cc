#include "kernels/cpu/int8_state.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_state.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/int8_state-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// q [kStateGroup] of `columns` values, zeros behind them; their exponent.
int Quantize(const float* x, int columns, int8_t* q) {
  alignas(64) float padded[kStateGroup] = {};
  if (columns < kStateGroup) x = std::copy_n(x, columns, padded) - columns;
  VF group[kGroupVectors];
  for (int v = 0; v < kGroupVectors; ++v) group[v] = hn::LoadU(kF, x + v * kLanes);
  const int exponent = QuantizeGroup(group);
  for (int v = 0; v < kGroupVectors; ++v) {
    hn::StoreU(hn::DemoteTo(hn::Rebind<int8_t, decltype(kI32)>(), hn::NearestInt(group[v])),
               hn::Rebind<int8_t, decltype(kI32)>(), q + v * kLanes);
  }
  return exponent;
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(Quantize);

namespace {

// Where a token's columns of a block lie: the first one, and from one to the next.
struct Places {
  Places(PagedShape::Use use, int columns, int token)
      : first(use == PagedShape::Use::kKey ? token : token * columns),
        step(use == PagedShape::Use::kKey ? kPanel : 1) {}
  int first, step;
};

}  // namespace

void StoreInt8(const float* x, int dim, PagedShape::Use use, int8_t* panel, int token) {
  int8_t q[kStateGroup];
  for (int g = 0; g < Int8Groups(dim); ++g, panel += kInt8BlockBytes) {
    const int columns = Int8Columns(dim, g), first = g * kStateGroup;
    const Places places(use, columns, token);
    panel[kPanel * columns + token] =
        static_cast<int8_t>(HWY_DYNAMIC_DISPATCH(Quantize)(x + first, std::min(columns, dim - first), q));
    for (int c = 0; c < columns; ++c) panel[places.first + c * places.step] = q[c];
  }
}

void LoadInt8(const int8_t* panel, int dim, PagedShape::Use use, int token, float* x) {
  for (int g = 0; g < Int8Groups(dim); ++g, panel += kInt8BlockBytes) {
    const int columns = Int8Columns(dim, g), first = g * kStateGroup;
    const Places places(use, columns, token);
    const float scale = ScaleOf(panel[kPanel * columns + token]);
    for (int c = 0; c < std::min(columns, dim - first); ++c)
      x[first + c] = static_cast<float>(panel[places.first + c * places.step]) * scale;
  }
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
