#include "kernels/softmax.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::ScalableTag<float> kF;
constexpr float kInfinity = std::numeric_limits<float>::infinity(),
                kLargest = std::numeric_limits<float>::max();

// NaN does not count.
float Largest(const float* x, size_t n) {
  const size_t lanes = hn::Lanes(kF);
  auto best = hn::Set(kF, -kInfinity);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::LoadU(kF, x + i);
    best = hn::IfThenElse(v > best, v, best);
  }
  float result = hn::GetLane(hn::MaxOfLanes(kF, best));
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

float CleanAndMax(float* x, size_t n) {
  const size_t lanes = hn::Lanes(kF);
  const auto nothing = hn::Set(kF, -kInfinity), largest = hn::Set(kF, kLargest);
  auto best = nothing;
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::LoadU(kF, x + i);
    const auto clean = hn::Min(hn::IfThenElse(hn::IsNaN(v), nothing, v), largest);
    hn::StoreU(clean, kF, x + i);
    best = hn::Max(best, clean);
  }
  float result = hn::GetLane(hn::MaxOfLanes(kF, best));
  for (; i < n; ++i) {
    x[i] = x[i] != x[i] ? -kInfinity : std::min(x[i], kLargest);
    result = std::max(result, x[i]);
  }
  return result;
}

void ExpDifference(const float* x, size_t n, float shift, float scale, float* y) {
  const size_t lanes = hn::Lanes(kF);
  const auto s = hn::Set(kF, shift), factor = hn::Set(kF, scale), lowest = hn::Set(kF, -104.0f);
  const auto exp = [&](auto v) {
    const auto power = (v - s) * factor;
    // Exp's conversion to an integer is not defined for what is far below.
    return hn::IfThenElseZero(power > lowest, hn::Exp(kF, hn::Max(power, lowest)));
  };
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(exp(hn::LoadU(kF, x + i)), kF, y + i);
  if (i < n) {
    HWY_ALIGN float tail[hn::MaxLanes(kF)] = {};
    std::copy(x + i, x + n, tail);
    hn::Store(exp(hn::Load(kF, tail)), kF, tail);
    std::copy(tail, tail + (n - i), y + i);
  }
}

}  // namespace sessa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa {

HWY_EXPORT(Largest);
HWY_EXPORT(CleanAndMax);
HWY_EXPORT(ExpDifference);

float CleanAndMax(absl::Span<float> x) { return HWY_DYNAMIC_DISPATCH(CleanAndMax)(x.data(), x.size()); }
void ExpDifference(absl::Span<const float> x, float shift, float scale, float* y) {
  HWY_DYNAMIC_DISPATCH(ExpDifference)(x.data(), x.size(), shift, scale, y);
}

int32_t ArgMax(absl::Span<const float> x) {
  const float best =
      std::min(HWY_DYNAMIC_DISPATCH(Largest)(x.data(), x.size()), std::numeric_limits<float>::max());
  if (best == -std::numeric_limits<float>::infinity()) return -1;
  return static_cast<int32_t>(std::find_if(x.begin(), x.end(), [&](float v) { return v >= best; }) -
                              x.begin());
}

double Sum(absl::Span<const float> x) {
  constexpr size_t kSums = 16;  // independent, so that they can be vectors
  double sums[kSums] = {};
  const size_t whole = x.size() / kSums * kSums;
  for (size_t i = 0; i < whole; i += kSums) {
    for (size_t j = 0; j < kSums; ++j) sums[j] += x[i + j];
  }
  double sum = 0;
  for (double s : sums) sum += s;
  for (size_t i = whole; i < x.size(); ++i) sum += x[i];
  return sum;
}

}  // namespace sessa
#endif  // HWY_ONCE
