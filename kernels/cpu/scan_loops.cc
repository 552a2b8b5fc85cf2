#include "kernels/cpu/scan_loops.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scan_loops.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/activations-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

void ConvRow(const float* const* taps, int num_taps, const float* weight, int64_t channels, const float* bias,
             int n, float* y) {
  for (int i = 0; i < n; i += static_cast<int>(kLanes)) {
    const auto here = hn::FirstN(kF, static_cast<size_t>(std::min(n - i, static_cast<int>(kLanes))));
    auto sum = hn::Zero(kF);
    for (int k = 0; k < num_taps; ++k) {
      if (taps[k] == nullptr) continue;
      sum = hn::MulAdd(hn::MaskedLoad(here, kF, weight + k * channels + i),
                       hn::MaskedLoad(here, kF, taps[k] + i), sum);
    }
    if (bias != nullptr) sum = sum + hn::MaskedLoad(here, kF, bias + i);
    hn::BlendedStore(Silu(sum), here, kF, y + i);
  }
}

// The dimensions [p, p + lanes) of a head against kCount rows of the state, which stay in registers over all
// tokens; y is the chain over the state so far.
template <int kCount>
HWY_INLINE void ScanBlock(const ScanRows& rows, int p, int n, float* state) {
  const auto here =
      hn::FirstN(kF, static_cast<size_t>(std::min(rows.head_dim - p, static_cast<int>(kLanes))));
  VF s[kCount];
  SESSA_UNROLL
  for (int i = 0; i < kCount; ++i) s[i] = hn::MaskedLoad(here, kF, state + (n + i) * rows.head_dim + p);
  for (int t = 0; t < rows.num_rows; ++t) {
    const auto decay = hn::Set(kF, rows.decay[t * rows.step]);
    const auto x =
        hn::MaskedLoad(here, kF, rows.x + t * rows.x_stride + p) * hn::Set(kF, rows.dt[t * rows.step]);
    const float *b = rows.b + t * rows.bc_stride + n, *c = rows.c + t * rows.bc_stride + n;
    float* out = rows.y + t * rows.y_stride + p;
    auto y = n == 0 ? hn::Zero(kF) : hn::MaskedLoad(here, kF, out);
    SESSA_UNROLL
    for (int i = 0; i < kCount; ++i) {
      s[i] = hn::MulAdd(hn::Set(kF, b[i]), x, s[i] * decay);
      y = hn::MulAdd(hn::Set(kF, c[i]), s[i], y);
    }
    hn::BlendedStore(y, here, kF, out);
  }
  SESSA_UNROLL
  for (int i = 0; i < kCount; ++i) hn::BlendedStore(s[i], here, kF, state + (n + i) * rows.head_dim + p);
}

void Scan(const ScanRows& rows, float* state) {
  constexpr int kBlock = kLanes == 16 ? 16 : 8;  // rows of the state in registers
  for (int p = 0; p < rows.head_dim; p += static_cast<int>(kLanes)) {
    int n = 0;
    for (; n + kBlock <= rows.state_size; n += kBlock) ScanBlock<kBlock>(rows, p, n, state);
    for (; n < rows.state_size; ++n) ScanBlock<1>(rows, p, n, state);
  }
  const auto d = hn::Set(kF, rows.d);
  for (int t = 0; t < rows.num_rows; ++t) {
    const float *x = rows.x + t * rows.x_stride, *z = rows.z + t * rows.z_stride;
    float* y = rows.y + t * rows.y_stride;
    for (int p = 0; p < rows.head_dim; p += static_cast<int>(kLanes)) {
      const auto here =
          hn::FirstN(kF, static_cast<size_t>(std::min(rows.head_dim - p, static_cast<int>(kLanes))));
      const auto sum = hn::MulAdd(d, hn::MaskedLoad(here, kF, x + p), hn::MaskedLoad(here, kF, y + p));
      hn::BlendedStore(sum * Silu(hn::MaskedLoad(here, kF, z + p)), here, kF, y + p);
    }
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(ConvRow);
HWY_EXPORT(Scan);

void ConvRow(const float* const* taps, int num_taps, const float* weight, int64_t channels, const float* bias,
             int n, float* y) {
  HWY_DYNAMIC_DISPATCH(ConvRow)(taps, num_taps, weight, channels, bias, n, y);
}
void Scan(const ScanRows& rows, float* state) { HWY_DYNAMIC_DISPATCH(Scan)(rows, state); }

}  // namespace sessa::cpu
#endif  // HWY_ONCE
