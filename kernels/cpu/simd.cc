#include "kernels/cpu/simd.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/cpu/gemm-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// erfc by the Chebyshev fit of Numerical Recipes ("erfcc", 1.2e-7 relative), so float-exact for our purpose.
template <class V>
HWY_INLINE V Erf(V x) {
  const V one = hn::Set(kF, 1.0f);
  const V z = hn::Abs(x);
  const V t = one / hn::MulAdd(z, hn::Set(kF, 0.5f), one);
  V p = hn::Set(kF, 0.17087277f);
  for (float c : {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f, 0.09678418f, 0.37409196f,
                  1.00002368f, -1.26551223f}) {
    p = hn::MulAdd(p, t, hn::Set(kF, c));
  }
  const V erfc = t * hn::Exp(kF, hn::NegMulAdd(z, z, p));
  return hn::CopySign(one - erfc, x);
}

void LayerNormRow(const float* x, const float* weight, const float* bias, float eps, int d, float* y) {
  // Two passes in double: a row is read from L1, and the sums stay exact whatever the mean.
  double sum = 0, squares = 0;
  for (int i = 0; i < d; ++i) sum += x[i];
  const double mean = sum / d;
  for (int i = 0; i < d; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float scale = static_cast<float>(1.0 / std::sqrt(squares / d + eps)), shift = static_cast<float>(mean);
  for (int i = 0; i < d; ++i) y[i] = (x[i] - shift) * scale * weight[i] + bias[i];
}

void GeluRow(float* x, int n) {
  const int lanes = static_cast<int>(hn::Lanes(kF));
  const auto half = hn::Set(kF, 0.5f), one = hn::Set(kF, 1.0f), root = hn::Set(kF, 0.70710678f);
  auto gelu = [&](auto v) { return v * half * (one + Erf(v * root)); };
  int i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(gelu(hn::LoadU(kF, x + i)), kF, x + i);
  if (i < n) {
    float tail[kPanel] = {};
    std::copy(x + i, x + n, tail);
    hn::StoreU(gelu(hn::LoadU(kF, tail)), kF, tail);
    std::copy(tail, tail + (n - i), x + i);
  }
}

void MultiplyRow(const float* a, const float* b, int n, float* y) {
  for (int i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

void AddRow(const float* a, int n, float* y) {
  for (int i = 0; i < n; ++i) y[i] += a[i];
}

float DotRow(const float* a, const float* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return static_cast<float>(sum);
}

void PackRows(const float* a, int64_t lda, int m, int k, int first, int last, float* packed) {
  for (int tile = first; tile < last; ++tile) {
    float* out = packed + static_cast<int64_t>(tile) * k * kRowTile;
    const int rows = std::min(kRowTile, m - tile * kRowTile);
    for (int r = 0; r < kRowTile; ++r) {
      const float* in = a + static_cast<int64_t>(tile * kRowTile + std::min(r, rows - 1)) * lda;
      for (int i = 0; i < k; ++i) out[i * kRowTile + r] = r < rows ? in[i] : 0.0f;
    }
  }
}

// Two panels at a time. Many rows: the panels are widened to float once and the rows come packed. Few rows: the panels are
// read as they are, four at a time for a single row, so that enough independent chains hide the latency of an FMA.
template <class T>
void LinearTyped(const float* a, int64_t lda, const float* packed, int m, int k, const T* panels, int n, const float* bias,
                 int first, int last, float* c, int64_t ldc, float* scratch) {
  const int64_t panel_size = static_cast<int64_t>(k) * kPanel;
  const bool wide = packed != nullptr && m >= kPackedRows;
  const int group = m <= 4 ? 4 : 2;
  float out[kRowTile * 4 * kPanel];
  for (int p = first; p < last; p += group) {
    const int count = std::min(group, last - p);
    const T* b = panels + p * panel_size;
    if (wide) {
      for (int i = 0; i < count; ++i) Widen(b + i * panel_size, panel_size, scratch + i * panel_size);
    }
    for (int r = 0; r < m; r += kRowTile) {
      const int rows = std::min(kRowTile, m - r);
      if (wide) {
        Product(packed + static_cast<int64_t>(r) * k, 1, kRowTile, rows, scratch, panel_size, kPanel, count, k, out,
                count * kPanel, /*accumulate=*/false);
      } else {
        Product(a + r * lda, lda, 1, rows, b, panel_size, kPanel, count, k, out, count * kPanel, false);
      }
      const int columns = std::min(n - p * kPanel, count * kPanel);
      for (int i = 0; i < rows; ++i) {
        float* y = c + (r + i) * ldc + p * kPanel;
        const float* x = out + i * count * kPanel;
        if (bias != nullptr) {
          for (int j = 0; j < columns; ++j) y[j] = x[j] + bias[p * kPanel + j];
        } else {
          std::copy(x, x + columns, y);
        }
      }
    }
  }
}

void LinearPanels(const float* a, int64_t lda, const float* packed, int m, int k, const void* panels, DType dtype, int n,
                  const float* bias, int first, int last, float* c, int64_t ldc, float* scratch) {
  if (dtype == DType::kF32) {
    LinearTyped(a, lda, packed, m, k, static_cast<const float*>(panels), n, bias, first, last, c, ldc, scratch);
  } else {
    LinearTyped(a, lda, packed, m, k, static_cast<const hwy::bfloat16_t*>(panels), n, bias, first, last, c, ldc, scratch);
  }
}

// One tile's scores become probabilities relative to the new maximum; the row's state is rescaled. Returns nothing visible
// -> all zero. `s` has kTile floats; the sum runs in a fixed order.
HWY_INLINE void SoftmaxRow(float* s, int visible, float scale, int width, float* max, float* sum, float* acc) {
  if (visible <= 0) {
    std::fill(s, s + kTile, 0.0f);
    return;
  }
  const int lanes = static_cast<int>(hn::Lanes(kF));
  float top = *max;
  for (int i = 0; i < kTile; ++i) {
    s[i] = i < visible ? s[i] * scale : -1e30f;
  }
  auto peak = hn::Set(kF, top);
  for (int i = 0; i < kTile; i += lanes) peak = hn::Max(peak, hn::LoadU(kF, s + i));
  top = hn::GetLane(hn::MaxOfLanes(kF, peak));
  if (top > *max) {
    // exp(-inf) is a plain 0 by our own hand: the first tile of a chain has nothing to rescale.
    const float c = std::isinf(*max) ? 0.0f : std::exp(*max - top);
    *sum *= c;
    const auto factor = hn::Set(kF, c);
    for (int i = 0; i < width; i += lanes) hn::StoreU(hn::LoadU(kF, acc + i) * factor, kF, acc + i);
    *max = top;
  }
  const auto shift = hn::Set(kF, top);
  float total = 0;
  for (int i = 0; i < kTile; i += lanes) {
    hn::StoreU(hn::Exp(kF, hn::LoadU(kF, s + i) - shift), kF, s + i);
  }
  for (int i = 0; i < visible; ++i) total += s[i];
  *sum += total;
}

template <class T>
void AttendTyped(const AttendArgs& args, const PagedState& cache, SoftmaxState state) {
  const int width = RoundUp(args.value_dim, kPanel);
  const int horizon = *std::max_element(args.visible, args.visible + args.m);
  float scores[kTile * kTile];
  for (int tile = args.first; tile < args.last; tile += args.step) {
    const int begin = tile * kTile, tokens = std::min(kTile, horizon - begin);
    if (tokens <= 0) break;
    for (int t = 0; t < tokens; t += kPanel) {
      const int position = begin + t, in_page = position % cache.page_size;
      const int64_t page = cache.pages[position / cache.page_size] - cache.page_offset;
      const T* panel = static_cast<const T*>(cache.keys) + page * cache.key_page_stride +
                       static_cast<int64_t>(in_page / kPanel) * args.dim * kPanel;
      for (int r = 0; r < args.m; r += kRowTile) {
        Product(args.q + r * args.ldq, args.ldq, 1, std::min(kRowTile, args.m - r), panel, 0, kPanel, 1, args.dim,
                scores + r * kTile + t, kTile, false);
      }
    }
    const bool last = args.probabilities != nullptr && tile + args.step >= args.last;
    for (int r = 0; r < args.m; ++r) {
      float* row = scores + r * kTile;
      std::fill(row + RoundUp(tokens, kPanel), row + kTile, 0.0f);
      SoftmaxRow(row, std::min(kTile, args.visible[r] - begin), args.scale, width, state.max + r, state.sum + r,
                 state.acc + r * state.acc_stride);
    }
    if (last) std::copy(scores, scores + args.m * kTile, args.probabilities);
    const int values = last ? std::min(tokens, args.value_limit - begin) : tokens;
    for (int t = 0; t < values; t += kPanel) {
      const int position = begin + t, in_page = position % cache.page_size;
      const int64_t page = cache.pages[position / cache.page_size] - cache.page_offset;
      const T* rows = static_cast<const T*>(cache.values) + page * cache.value_page_stride + in_page * cache.value_row_stride;
      const int depth = std::min(kPanel, values - t);
      for (int n = 0; n < width; n += 2 * kPanel) {
        const int panels = std::min(2, (width - n) / kPanel);
        for (int r = 0; r < args.m; r += kRowTile) {
          Product(scores + r * kTile + t, kTile, 1, std::min(kRowTile, args.m - r), rows + n, kPanel, cache.value_row_stride,
                  panels, depth, state.acc + r * state.acc_stride + n, state.acc_stride, /*accumulate=*/true);
        }
      }
    }
  }
}

void AttendTiles(const AttendArgs& args, const PagedState& cache, SoftmaxState state) {
  if (cache.dtype == DType::kF32) {
    AttendTyped<float>(args, cache, state);
  } else {
    AttendTyped<hwy::bfloat16_t>(args, cache, state);
  }
}

void FeedbackSolve(const SolveArgs& args, int begin, int end) {
  constexpr int kSlab = 2 * kPanel;
  alignas(64) float rounded[kTile * kSlab];  // s as the cache will hold it
  alignas(64) float acc[kTile * kSlab];
  alignas(64) float base[kTile * kSlab];
  float own[kTile], share[kTile];            // weight of the own chain; gamma over the joined denominator
  for (int c0 = begin; c0 < end; c0 += kSlab) {
    const int width = std::min(kSlab, end - c0);
    for (int r = 0; r < args.m; ++r) {
      float top = -std::numeric_limits<float>::infinity(), denominator = 0;
      for (int g = 0; g < kGroups; ++g) top = std::max(top, args.max[g * args.group_stride + r]);
      float* b = base + r * kSlab;
      std::fill(b, b + kSlab, 0.0f);
      std::fill(acc + r * kSlab, acc + (r + 1) * kSlab, 0.0f);
      own[r] = 0;
      for (int i = 1; i <= kGroups; ++i) {  // the own chain comes last
        const int g = (args.group + i) % kGroups;
        const float max = args.max[g * args.group_stride + r];
        if (std::isinf(max)) continue;
        const float w = std::exp(max - top);
        denominator = std::fma(w, args.sum[g * args.group_stride + r], denominator);
        const float* x = args.acc + g * args.acc_group_stride + r * args.acc_stride + c0;
        if (g == args.group) {
          own[r] = w;
          std::copy(x, x + width, acc + r * kSlab);
        } else {
          for (int j = 0; j < width; ++j) b[j] = std::fma(w, x[j], b[j]);
        }
      }
      share[r] = denominator > 0 ? args.gamma[r] / denominator : 0.0f;
    }
    for (int r0 = 0; r0 < args.m; r0 += kRowTile) {
      const int rows = std::min(kRowTile, args.m - r0);
      const float* p = args.probabilities + r0 * kTile + args.first_column;
      if (r0 > 0) Product(p, kTile, 1, rows, rounded, kPanel, kSlab, 2, r0, acc + r0 * kSlab, kSlab, true);
      for (int r = r0; r < r0 + rows; ++r) {
        const float* row = args.probabilities + r * kTile + args.first_column;
        float* x = acc + r * kSlab;
        if (r > r0) Product(row + r0, kTile, 1, 1, rounded + r0 * kSlab, kPanel, kSlab, 2, r - r0, x, kSlab, true);
        float s[kSlab];
        for (int j = 0; j < width; ++j) {
          s[j] = std::fma(share[r], std::fma(own[r], x[j], base[r * kSlab + j]), args.f[r * args.ldf + c0 + j]);
          args.s[r * args.lds + c0 + j] = s[j];
        }
        std::fill(s + width, s + kSlab, 0.0f);
        RoundTo(s, kSlab, args.dtype, rounded + r * kSlab);
      }
    }
  }
}

void Store(const float* x, int n, DType dtype, void* y) {
  if (dtype == DType::kF32) {
    std::memcpy(y, x, n * sizeof(float));
  } else {
    for (int i = 0; i < n; ++i) static_cast<uint16_t*>(y)[i] = Bf16Bits(x[i]);
  }
}

void Load(const void* x, int n, DType dtype, float* y) {
  if (dtype == DType::kF32) {
    std::memcpy(y, x, n * sizeof(float));
  } else {
    Widen(static_cast<const hwy::bfloat16_t*>(x), n, y);
  }
}

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(PackRows);
HWY_EXPORT(LinearPanels);
HWY_EXPORT(LayerNormRow);
HWY_EXPORT(GeluRow);
HWY_EXPORT(MultiplyRow);
HWY_EXPORT(AddRow);
HWY_EXPORT(DotRow);
HWY_EXPORT(Store);
HWY_EXPORT(Load);
HWY_EXPORT(AttendTiles);
HWY_EXPORT(FeedbackSolve);
HWY_EXPORT(TargetName);

void PackRows(const float* a, int64_t lda, int m, int k, int first, int last, float* packed) {
  HWY_DYNAMIC_DISPATCH(PackRows)(a, lda, m, k, first, last, packed);
}
void LinearPanels(const float* a, int64_t lda, const float* packed, int m, int k, const void* panels, DType dtype, int n,
                  const float* bias, int first, int last, float* c, int64_t ldc, float* scratch) {
  HWY_DYNAMIC_DISPATCH(LinearPanels)(a, lda, packed, m, k, panels, dtype, n, bias, first, last, c, ldc, scratch);
}
void LayerNormRow(const float* x, const float* weight, const float* bias, float eps, int d, float* y) {
  HWY_DYNAMIC_DISPATCH(LayerNormRow)(x, weight, bias, eps, d, y);
}
void GeluRow(float* x, int n) { HWY_DYNAMIC_DISPATCH(GeluRow)(x, n); }
void MultiplyRow(const float* a, const float* b, int n, float* y) { HWY_DYNAMIC_DISPATCH(MultiplyRow)(a, b, n, y); }
void AddRow(const float* a, int n, float* y) { HWY_DYNAMIC_DISPATCH(AddRow)(a, n, y); }
float DotRow(const float* a, const float* b, int n) { return HWY_DYNAMIC_DISPATCH(DotRow)(a, b, n); }
void Store(const float* x, int n, DType dtype, void* y) { HWY_DYNAMIC_DISPATCH(Store)(x, n, dtype, y); }
void Load(const void* x, int n, DType dtype, float* y) { HWY_DYNAMIC_DISPATCH(Load)(x, n, dtype, y); }
void AttendTiles(const AttendArgs& args, const PagedState& cache, SoftmaxState state) {
  HWY_DYNAMIC_DISPATCH(AttendTiles)(args, cache, state);
}
void FeedbackSolve(const SolveArgs& args, int begin, int end) { HWY_DYNAMIC_DISPATCH(FeedbackSolve)(args, begin, end); }
const char* TargetName() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

}  // namespace sessa::cpu
#endif  // HWY_ONCE
