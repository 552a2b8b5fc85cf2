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
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// Sums of a row in double, in a fixed order: lanes, then across. The tail is added last.
template <class F>
HWY_INLINE double SumRow(int n, const F& term) {
  const hn::Half<decltype(kF)> half;
  const hn::Rebind<double, decltype(half)> kD;
  const int lanes = static_cast<int>(hn::Lanes(half));
  auto even = hn::Zero(kD), odd = hn::Zero(kD);
  int i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    even = even + term.Vector(kD, i);
    odd = odd + term.Vector(kD, i + lanes);
  }
  double sum = hn::GetLane(hn::SumOfLanes(kD, even + odd));
  for (; i < n; ++i) sum += term.Scalar(i);
  return sum;
}

template <class D>
HWY_INLINE auto LoadDouble(D d, const float* x) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), x));
}

struct ValueTerm {
  const float* x;
  template <class D>
  auto Vector(D d, int i) const {
    return LoadDouble(d, x + i);
  }
  double Scalar(int i) const { return x[i]; }
};
struct SquareTerm {
  const float* x;
  double mean;
  template <class D>
  auto Vector(D d, int i) const {
    const auto y = LoadDouble(d, x + i) - hn::Set(d, mean);
    return y * y;
  }
  double Scalar(int i) const { return (x[i] - mean) * (x[i] - mean); }
};
struct ProductTerm {
  const float *a, *b;
  template <class D>
  auto Vector(D d, int i) const {
    return LoadDouble(d, a + i) * LoadDouble(d, b + i);
  }
  double Scalar(int i) const { return static_cast<double>(a[i]) * b[i]; }
};

// Two passes in double: a row is read from L1, and the sums stay exact whatever the mean.
void LayerNormRow(const float* x, const float* weight, const float* bias, float eps, int d, float* y) {
  const double mean = SumRow(d, ValueTerm{x}) / d, squares = SumRow(d, SquareTerm{x, mean});
  const float scale = static_cast<float>(1.0 / std::sqrt(squares / d + eps)),
              shift = static_cast<float>(mean);
  for (int i = 0; i < d; ++i) y[i] = (x[i] - shift) * scale * weight[i] + bias[i];
}

void RmsNormRow(const float* x, const float* weight, float eps, int d, float* y) {
  const float scale = static_cast<float>(1.0 / std::sqrt(SumRow(d, ProductTerm{x, x}) / d + eps));
  for (int i = 0; i < d; ++i) y[i] = x[i] * scale * weight[i];
}

void RotateRow(const float* cos, const float* sin, int n, float* x) {
  int i = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int kWidth = static_cast<int>(kLanes);
  for (; i + kWidth <= n; i += kWidth) {
    const VF v = hn::LoadU(kF, x + i), swapped = hn::Shuffle2301(v);
    hn::StoreU(hn::MulAdd(v, hn::LoadU(kF, cos + i), swapped * hn::LoadU(kF, sin + i)), kF, x + i);
  }
#endif
  for (; i < n; i += 2) {
    const float a = x[i], b = x[i + 1];
    x[i] = std::fma(a, cos[i], b * sin[i]);
    x[i + 1] = std::fma(b, cos[i + 1], a * sin[i + 1]);
  }
}

void MultiplyRow(const float* a, const float* b, int n, float* y) {
  for (int i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

void ApplyEpilogue(Epilogue epilogue, const float* z, int64_t ldz, int rows, int columns, float* y,
                   int64_t ldy) {
  Apply(epilogue, z, ldz, rows, columns, y, ldy);
}

float DotRow(const float* a, const float* b, int n) {
  return static_cast<float>(SumRow(n, ProductTerm{a, b}));
}

void PackRows(const float* a, int64_t lda, int m, int k, int first, int last, float* packed) {
  for (int tile = first; tile < last; ++tile) {
    float* out = packed + static_cast<int64_t>(tile) * k * kRowTile;
    const int row = FirstRowOfTile(tile, m), rows = FirstRowOfTile(tile + 1, m) - row;
    for (int r = 0; r < rows; ++r) {
      const float* in = a + (row + r) * lda;
      for (int i = 0; i < k; ++i) out[i * kRowTile + r] = in[i];
    }
  }
}

void PackPairs(const float* a, int64_t lda, int m, int k, int first, int last, Bf16Pair* packed) {
  constexpr int kBatch = 32;
  const int64_t pairs = Pairs(k);
  const bool few = m <= kFewRows;  // row after row
  const int64_t row_stride = few ? pairs : 1, step = few ? 1 : kRowTile;
  for (int tile = first; tile < last; ++tile) {
    const int row = FirstRowOfTile(tile, m), rows = FirstRowOfTile(tile + 1, m) - row;
    Bf16Pair* out = packed + tile * pairs * kRowTile;
    for (int i = 0; i < k; i += kBatch) {
      const int count = std::min(kBatch, k - i);
      for (int r = 0; r < rows; ++r) {
        const float* x = a + (row + r) * lda + i;
        float padded[kBatch] = {};
        if (count < kBatch) x = std::copy_n(x, count, padded) - count;
        Bf16Pair rounded[kBatch / 2];
        RoundToPairs(x, kBatch, rounded);
        for (int j = 0; j < Pairs(count); ++j) out[r * row_stride + (i / 2 + j) * step] = rounded[j];
      }
    }
  }
}

// The product of a tile of rows; meanwhile the next two panels come closer, line by line with the first two
// tiles: memory works while the FMA units do, and bursts would stop them.
template <class T>
HWY_NOINLINE void ProductAhead(const Lhs<T>& a, int rows, const Block<T>& block, const Block<T>& next,
                               int tile, int tiles, float* c, int64_t ldc) {
  Rhs<T> ahead = next.b;
  if (tiles > 1) ahead.row[0][0] = ahead.row[0][1] = next.b.row[0][tile];  // a panel with each of two tiles
  MicroOf<kMaxRows<2>, 2, true>(rows, a, block.b, ahead, block.depth, c, ldc, /*accumulate=*/false);
}

// The panels are read as they are (unpacking bf16 costs the FMA units a little), or, by many rows, widened to
// float once for all of them. (A few rows wait for memory anyway, and the hardware looks ahead for them.)
template <class T>
void LinearTyped(const LeftOf<T>* a, int64_t lda, int m, const Panels& w, const float* bias, int first,
                 int last, float* c, int64_t ldc, float* scratch) {
  const Left<T> left{a, m, w.k, lda, m > kFewRows};
  const int tiles = NumRowTiles(m);
  const bool widen = m >= kWideRows && !kIsDot<T>;
  const auto block_at = [&](int p) {
    Block<T> block{{kWidth<T> * kPanel, PanelRows(w.k)}, std::min(m <= kFewRows ? 4 : 2, last - p), w.k};
    for (int i = 0; i < block.panels; ++i) {
      block.b.row[0][i] =
          static_cast<const T*>(w.data) + static_cast<int64_t>(p + i) * PanelRows(w.k) / kUnit<T> * kPanel;
    }
    return block;
  };
  [[maybe_unused]] float* wide = scratch;
  float* out = scratch + (widen ? static_cast<int64_t>(PanelRows(w.k)) * 2 * kPanel : 0);
  for (int p = first, panels = 0; p < last; p += panels) {
    const Block<T> block = block_at(p), next = block_at(p + block.panels);  // the last one's is empty
    panels = block.panels;
    if constexpr (!kIsDot<T>) {
      if (widen) WideProduct(left, block, next, wide, out, panels * kPanel, /*accumulate=*/false);
    }
    for (int t = 0; t < tiles && !widen; ++t) {
      const int r = FirstRowOfTile(t, m), rows = FirstRowOfTile(t + 1, m) - r;
      float* y = out + r * panels * kPanel;
      if (m > kFewRows && t < 2 && panels == 2 && next.panels == 2 && rows <= kMaxRows<2>) {
        ProductAhead(left.Tile(t), rows, block, next, t, tiles, y, panels * kPanel);
      } else {
        ProductOfPanels(left.Tile(t), rows, block.b, panels, w.k, y, panels * kPanel, /*accumulate=*/false);
      }
    }
    StoreOutputs(out, panels * kPanel, m, std::min(w.n - p * kPanel, panels * kPanel),
                 bias == nullptr ? nullptr : bias + p * kPanel, c + p * kPanel, ldc);
  }
}

void LinearFloats(const float* a, int64_t lda, int m, const Panels& w, const float* bias, int first, int last,
                  float* c, int64_t ldc, float* scratch) {
  switch (w.dtype) {
    case DType::kF32: return LinearTyped<float>(a, lda, m, w, bias, first, last, c, ldc, scratch);
    default: return LinearTyped<hwy::bfloat16_t>(a, lda, m, w, bias, first, last, c, ldc, scratch);
  }
}

void LinearPairs(const Bf16Pair* a, int m, const Panels& w, const float* bias, int first, int last, float* c,
                 int64_t ldc, float* scratch) {
  if constexpr (kHasDot) LinearTyped<Bf16Pair>(a, Pairs(w.k), m, w, bias, first, last, c, ldc, scratch);
}

void Store(const float* x, int n, DType dtype, void* y) {
  if (dtype == DType::kF32) {
    std::memcpy(y, x, n * sizeof(float));
    return;
  }
  auto* to = static_cast<uint16_t*>(y);
  const hn::RebindToUnsigned<decltype(kF)> u;
  const hn::Rebind<uint16_t, decltype(u)> u16;
  const int lanes = static_cast<int>(kLanes);
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto rounded = hn::BitCast(u, RoundAs(dtype, hn::LoadU(kF, x + i)));
    hn::StoreU(hn::TruncateTo(u16, hn::ShiftRight<16>(rounded)), u16, to + i);
  }
  for (; i < n; ++i) to[i] = RoundToBf16(x[i]);
}

void Load(const void* x, int n, DType dtype, float* y) {
  if (dtype == DType::kF32) {
    std::memcpy(y, x, n * sizeof(float));
  } else {
    for (int i = 0; i < n; ++i)
      y[i] = std::bit_cast<float>(static_cast<uint32_t>(static_cast<const uint16_t*>(x)[i]) << 16);
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(PackRows);
HWY_EXPORT(PackPairs);
HWY_EXPORT(LinearFloats);
HWY_EXPORT(LinearPairs);
HWY_EXPORT(LayerNormRow);
HWY_EXPORT(RmsNormRow);
HWY_EXPORT(RotateRow);
HWY_EXPORT(MultiplyRow);
HWY_EXPORT(ApplyEpilogue);
HWY_EXPORT(DotRow);
HWY_EXPORT(Store);
HWY_EXPORT(Load);

void PackRows(const float* a, int64_t lda, int m, int k, int first, int last, float* packed) {
  HWY_DYNAMIC_DISPATCH(PackRows)(a, lda, m, k, first, last, packed);
}
void PackPairs(const float* a, int64_t lda, int m, int k, int first, int last, Bf16Pair* packed) {
  HWY_DYNAMIC_DISPATCH(PackPairs)(a, lda, m, k, first, last, packed);
}
void LinearPanels(const float* a, int64_t lda, int m, const Panels& w, const float* bias, int first, int last,
                  float* c, int64_t ldc, float* scratch) {
  HWY_DYNAMIC_DISPATCH(LinearFloats)(a, lda, m, w, bias, first, last, c, ldc, scratch);
}
void LinearPanels(const Bf16Pair* a, int m, const Panels& w, const float* bias, int first, int last, float* c,
                  int64_t ldc, float* scratch) {
  HWY_DYNAMIC_DISPATCH(LinearPairs)(a, m, w, bias, first, last, c, ldc, scratch);
}
bool HasBf16Dot() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512bf16") &&
         (hwy::SupportedTargets() & HWY_AVX3) != 0;
#else
  return false;
#endif
}
void LayerNormRow(const float* x, const float* weight, const float* bias, float eps, int d, float* y) {
  HWY_DYNAMIC_DISPATCH(LayerNormRow)(x, weight, bias, eps, d, y);
}
void RmsNormRow(const float* x, const float* weight, float eps, int d, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNormRow)(x, weight, eps, d, y);
}
void RotateRow(const float* cos, const float* sin, int n, float* x) {
  HWY_DYNAMIC_DISPATCH(RotateRow)(cos, sin, n, x);
}
void MultiplyRow(const float* a, const float* b, int n, float* y) {
  HWY_DYNAMIC_DISPATCH(MultiplyRow)(a, b, n, y);
}
void ApplyEpilogue(Epilogue epilogue, const float* z, int64_t ldz, int rows, int columns, float* y,
                   int64_t ldy) {
  HWY_DYNAMIC_DISPATCH(ApplyEpilogue)(epilogue, z, ldz, rows, columns, y, ldy);
}
float DotRow(const float* a, const float* b, int n) { return HWY_DYNAMIC_DISPATCH(DotRow)(a, b, n); }
namespace {

// Where the values of a panel's column or of a row lie: in pairs, elements 0 and `odd` from every `pair`-th
// on.
struct Places {
  int64_t first;
  int pair, odd;
};
Places InColumn(DType dtype, int column) {
  if (dtype == DType::kF32) return {column, 2 * kPanel, kPanel};
  return {2 * column, 2 * kPanel, 1};
}
Places InRow(DType dtype, int64_t stride, int row) {
  if (dtype == DType::kF32) return {row * stride, 2, 1};
  return {row / 2 * 2 * stride + row % 2, 4, 2};
}

template <class T>
void Scatter(const T* x, int n, const Places& places, T* to) {
  to += places.first;
  for (int i = 0; i + 1 < n; i += 2, to += places.pair) to[0] = x[i], to[places.odd] = x[i + 1];
  if (n % 2 == 1) to[0] = x[n - 1];
}

void StoreAt(const Places& places, const float* x, int n, DType dtype, void* to) {
  if (dtype == DType::kF32) return Scatter(x, n, places, static_cast<float*>(to));
  constexpr int kBatch = 256;
  uint16_t rounded[kBatch];
  for (int i = 0; i < n; i += kBatch) {
    const int count = std::min(kBatch, n - i);
    Store(x + i, count, dtype, rounded);
    Scatter(rounded, count, places, static_cast<uint16_t*>(to) + static_cast<int64_t>(i / 2) * places.pair);
  }
}

void LoadFrom(const Places& places, const void* from, int n, DType dtype, float* x) {
  for (int i = 0; i < n; ++i) {
    const int64_t at = places.first + static_cast<int64_t>(i / 2) * places.pair + i % 2 * places.odd;
    Load(static_cast<const char*>(from) + at * SizeOf(dtype), 1, dtype, x + i);
  }
}

}  // namespace

void StoreColumn(const float* x, int k, DType dtype, void* panel, int column) {
  StoreAt(InColumn(dtype, column), x, k, dtype, panel);
}
void LoadColumn(const void* panel, int k, DType dtype, int column, float* x) {
  LoadFrom(InColumn(dtype, column), panel, k, dtype, x);
}
void StoreRow(const float* x, int n, DType dtype, void* rows, int64_t stride, int row) {
  StoreAt(InRow(dtype, stride, row), x, n, dtype, rows);
}
void LoadRow(const void* rows, int64_t stride, int row, int n, DType dtype, float* x) {
  LoadFrom(InRow(dtype, stride, row), rows, n, dtype, x);
}

void StorePanel(const void* rows, int n, int k, void* panel) {
  constexpr int kPair = 2 * sizeof(uint16_t);
  const char* from = static_cast<const char*>(rows);
  char* to = static_cast<char*>(panel);
  const int64_t row = int64_t{k} * sizeof(uint16_t);
  for (int i = 0; i < k / 2; ++i, from += kPair, to += kPanel * kPair) {
    for (int j = 0; j < n; ++j) std::memcpy(to + j * kPair, from + j * row, kPair);
  }
  for (int j = 0; k % 2 == 1 && j < n; ++j) std::memcpy(to + j * kPair, from + j * row, sizeof(uint16_t));
}

void Store(const float* x, int n, DType dtype, void* y) { HWY_DYNAMIC_DISPATCH(Store)(x, n, dtype, y); }
void Load(const void* x, int n, DType dtype, float* y) { HWY_DYNAMIC_DISPATCH(Load)(x, n, dtype, y); }

}  // namespace sessa::cpu
#endif  // HWY_ONCE
