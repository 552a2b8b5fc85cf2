#include "kernels/cpu/int8_tiles.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/tile_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_tiles.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/tile_products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

using VI = hn::Vec<decltype(kI32)>;
inline constexpr int kVector = static_cast<int>(kLanes), kBlockVectors = kInt8Depth / kVector;

// A block times the Hadamard matrix of 64, the rotation but for a factor of 1/8: sums and differences of
// what lies 32 apart, then 16, and so on.
HWY_INLINE void Rotate(VF (&x)[kBlockVectors]) {
  SESSA_UNROLL
  for (int apart = kBlockVectors / 2; apart > 0; apart /= 2) {
    SESSA_UNROLL
    for (int i = 0; i < kBlockVectors; ++i) {
      if ((i & apart) != 0) continue;
      const VF a = x[i], b = x[i + apart];
      x[i] = a + b, x[i + apart] = a - b;
    }
  }
  const auto lane = hn::Iota(kI32, 0);
  SESSA_UNROLL
  for (int apart = kVector / 2; apart > 0; apart /= 2) {
    const auto bit = hn::Set(kI32, apart);
    const auto other = hn::IndicesFromVec(kF, hn::Xor(lane, bit));
    const VF one = hn::Set(kF, 1.0f);
    const VF sign =
        hn::IfThenElse(hn::RebindMask(kF, hn::And(lane, bit) == hn::Zero(kI32)), one, hn::Neg(one));
    SESSA_UNROLL
    for (int i = 0; i < kBlockVectors; ++i) x[i] = hn::MulAdd(x[i], sign, hn::TableLookupLanes(x[i], other));
  }
}

// y = the rotated row, padded by zeros; its largest magnitude, of which NaN is more than infinity.
HWY_INLINE float RotateRow(const float* x, int k, float* y) {
  VI largest = hn::Zero(kI32);
  for (int first = 0; first < k; first += kInt8Depth, y += kInt8Depth) {
    alignas(64) float tail[kInt8Depth] = {};
    const float* from = x + first;
    if (k - first < kInt8Depth) from = std::copy_n(from, k - first, tail) - (k - first);
    VF block[kBlockVectors];
    SESSA_UNROLL
    for (int i = 0; i < kBlockVectors; ++i) block[i] = hn::LoadU(kF, from + i * kVector);
    Rotate(block);
    SESSA_UNROLL
    for (int i = 0; i < kBlockVectors; ++i) {
      hn::StoreU(block[i], kF, y + i * kVector);
      largest = hn::Max(largest, hn::BitCast(kI32, hn::Abs(block[i])));  // bits order as magnitudes do
    }
  }
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(kI32, largest)));
}

void PackInt8Tiles(const float* a, int64_t lda, int m, int k, int terms, int tile, float* rotated,
                   int8_t* tiles, float* scales) {
  const hn::Rebind<int8_t, decltype(kI32)> bytes;
  const hn::Rebind<uint8_t, decltype(kI32)> low_bytes;
  const int first = tile * kTileRows, rows = std::min(m - first, kTileRows), steps = Int8Steps(k),
            stride = Int8TileStride(m);
  const float most = terms == 1 ? 127 : 32767;
  tiles += int64_t{tile} * steps * terms * stride;
  for (int r = 0; r < rows; ++r, tiles += kInt8Depth) {
    const float largest = RotateRow(a + (first + r) * lda, k, rotated);
    float scale = largest / most, factor = most / largest;
    if (!std::isfinite(largest)) scale = std::nanf(""), factor = 0;
    if (largest < 1e-30f) scale = factor = 0;
    scales[first + r] = scale;
    int8_t* to = tiles;
    for (int i = 0; i < steps; ++i, to += terms * stride) {
      for (int j = 0; j < kInt8Depth; j += kVector) {
        VI q = hn::Zero(kI32);
        if (factor > 0) q = hn::NearestInt(hn::LoadU(kF, rotated + i * kInt8Depth + j) * hn::Set(kF, factor));
        if (terms == 1) {
          hn::StoreU(hn::DemoteTo(bytes, q), bytes, to + j);
          continue;
        }
        hn::StoreU(hn::DemoteTo(bytes, hn::ShiftRight<8>(q)), bytes, to + j);
        hn::StoreU(hn::DemoteTo(low_bytes, hn::And(q, hn::Set(kI32, 0xff))), low_bytes,
                   reinterpret_cast<uint8_t*>(to + stride + j));
      }
    }
  }
}

void PackInt8Panel(const float* rows, int64_t ldr, int num_rows, int k, float* rotated, int8_t* panel,
                   float* scales) {
  const hn::Rebind<int8_t, decltype(kI32)> bytes;
  std::fill_n(panel, Int8TilePanelSize(k), int8_t{0});
  std::fill_n(scales, kPanel, 0.0f);
  for (int j = 0; j < num_rows; ++j) {
    const float largest = RotateRow(rows + j * ldr, k, rotated);
    if (largest < 1e-30f) continue;
    scales[j] = largest / 127 / kInt8Depth;  // both sides' 1/8
    const VF factor = hn::Set(kF, 127 / largest);
    for (int i = 0; i < Int8Rotated(k); i += kInt8Depth) {
      alignas(64) int8_t q[kInt8Depth];
      for (int v = 0; v < kInt8Depth; v += kVector) {
        const VI rounded = hn::NearestInt(hn::LoadU(kF, rotated + i + v) * factor);
        hn::StoreU(hn::DemoteTo(bytes, rounded), bytes, q + v);
      }
      for (int quad = 0; quad < kInt8Depth; quad += 4)
        std::memcpy(panel + (i + quad) * kPanel + j * 4, q + quad, 4);
    }
  }
}

// What the sums of up to kPanels panels become: times the scales of their rows and columns, plus the bias.
// With two terms, a row's low bytes' sums lie two tiles behind the high ones'.
template <int kTerms, int kPanels>
struct ScaledSums {
  ScaledSums() = default;
  // From a panel on, each `next` panels from the one before.
  ScaledSums(const Int8Left& a, const Int8TilePanels& w, int panel, int panels, const float* b)
      : row_scales(a.scales) {
    for (int p = 0; p < panels; ++p) Set(p, w, panel + p, b);
  }
  void Set(int p, const Int8TilePanels& w, int panel, const float* b) {
    column_scales[p] = w.scales + panel * kPanel;
    std::fill_n(bias[p], kPanel, 0.0f);
    if (b != nullptr) std::copy_n(b + panel * kPanel, std::min(kPanel, w.n - panel * kPanel), bias[p]);
  }
  HWY_INLINE void operator()(float* sums, int row, int rows, int p) const {
    for (int v = 0; v < kPanel; v += kVector) {
      const VF column = hn::LoadU(kF, column_scales[p] + v), start = hn::Load(kF, bias[p] + v);
      for (int r = 0; r < rows; ++r) {
        float* at = sums + r * kPanel + v;
        VF sum = hn::ConvertTo(kF, hn::BitCast(kI32, hn::Load(kF, at)));
        if constexpr (kTerms == 2) {
          const VF low = hn::ConvertTo(kF, hn::BitCast(kI32, hn::Load(kF, at + 2 * kTileSums)));
          sum = hn::MulAdd(sum, hn::Set(kF, 256.0f), low);
        }
        hn::Store(hn::MulAdd(sum * hn::Set(kF, row_scales[row + r]), column, start), kF, at);
      }
    }
  }

  const float* row_scales = nullptr;
  const float* column_scales[kPanels] = {};
  alignas(64) float bias[kPanels][kPanel];
};

template <class Unit, bool kLowBytes, int kSum, int kA, int kB>
HWY_INLINE void Dot() {
  if constexpr (kLowBytes)
    Unit::template DotU8<kSum, kA, kB>();
  else
    Unit::template DotI8<kSum, kA, kB>();
}

// Some steps of kLeft x kPanels tiles of sums, 0 to 3, [2][2]: tiles 4 and 5 are the left side, two tiles of
// rows or the two terms of one, `second` bytes apart; 6 and 7 the weights, which stay in the first-level
// cache as the left side goes past it.
template <class Unit, int kTerms, int kLeft, int kPanels, class Background>
HWY_INLINE void Int8Product(const int8_t* a, int64_t second, const int8_t* b, int64_t panel, int steps,
                            bool begins, float* sums, Background* background) {
  const auto start = [&]<int kSum>() {
    begins ? Unit::template Zero<kSum>() : Unit::template Load<kSum>(sums + kSum * kTileSums, 64);
  };
  start.template operator()<0>();
  if constexpr (kPanels == 2) start.template operator()<1>();
  if constexpr (kLeft == 2) start.template operator()<2>();
  if constexpr (kLeft == 2 && kPanels == 2) start.template operator()<3>();
  for (int i = 0; i < steps; ++i, a += kTerms * kTileBytes, b += kTileBytes) {
    background->Step();
    Unit::template Load<6>(b, 64);
    Unit::template LoadPast<4>(a, 64);
    if constexpr (kPanels == 2) Unit::template Load<7>(b + panel, 64);
    Unit::template DotI8<0, 4, 6>();
    if constexpr (kLeft == 2) Unit::template LoadPast<5>(a + second, 64);
    if constexpr (kPanels == 2) Unit::template DotI8<1, 4, 7>();
    if constexpr (kLeft == 2) Dot<Unit, kTerms == 2, 2, 5, 6>();
    if constexpr (kLeft == 2 && kPanels == 2) Dot<Unit, kTerms == 2, 3, 5, 7>();
  }
  Unit::template Store<0>(sums, 64);
  if constexpr (kPanels == 2) Unit::template Store<1>(sums + kTileSums, 64);
  if constexpr (kLeft == 2) Unit::template Store<2>(sums + 2 * kTileSums, 64);
  if constexpr (kLeft == 2 && kPanels == 2) Unit::template Store<3>(sums + 3 * kTileSums, 64);
}

// kPanels panels for all rows.
template <class Unit, int kTerms, int kPanels>
HWY_NOINLINE void Int8Products(const Int8Left& a, int m, const int8_t* b, int64_t panel, int steps,
                               int column, int columns, const ScaledSums<kTerms, 2>& scaled,
                               Background<ScaledSums<kTerms, 2>>* background) {
  constexpr int kRows = kTerms == 1 ? 2 * kTileRows : kTileRows;
  const int64_t row_tile = steps * kTerms * kTileBytes, second = kTerms == 1 ? row_tile : kTileBytes;
  ForRows<kRows>(m, steps, column, columns, scaled, background,
                 [&](int row, int rows, int step, int now, bool begins, float* sums) HWY_ATTR {
                   const int8_t* left = a.tiles + row / kTileRows * row_tile + step * kTerms * kTileBytes;
                   const int8_t* right = b + step * kTileBytes;
                   kTerms == 2 || rows > kTileRows
                       ? Int8Product<Unit, kTerms, 2, kPanels>(left, second, right, panel, now, begins, sums,
                                                               background)
                       : Int8Product<Unit, kTerms, 1, kPanels>(left, second, right, panel, now, begins, sums,
                                                               background);
                 });
}

// The products of a row tile's terms, tiles 4 and 5, with a tile of weights.
template <class Unit, int kTerms, int kSum>
HWY_INLINE void AddProducts(const int8_t* b) {
  Unit::template Load<7>(b, 64);
  Unit::template DotI8<kSum, 4, 7>();
  if constexpr (kTerms == 2) Unit::template DotU8<kSum + 2, 5, 7>();
}

// A row tile and kPanels panels. The lines of the panels that come next are asked for as long before: the
// hardware loses a stream at the end of each page.
template <class Unit, int kTerms, int kPanels>
HWY_INLINE void FewRowsProduct(const Int8Left& a, const int8_t* b, int64_t panel, int steps, float* sums) {
  Unit::template Zero<0>();
  if constexpr (kPanels > 1) Unit::template Zero<1>();
  if constexpr (kPanels > 2 || kTerms == 2) Unit::template Zero<2>();
  if constexpr (kPanels > 3 || kTerms == 2) Unit::template Zero<3>();
  const int8_t* left = a.tiles;
  for (int i = 0; i < steps; ++i, left += kTerms * a.stride, b += kTileBytes) {
    Unit::template Load<4>(left, 64);
    if constexpr (kTerms == 2) Unit::template Load<5>(left + a.stride, 64);
    const auto ask = [&](int p) {
      const int8_t* next = b + (kPanels + p) * panel;
      for (int64_t line = 0; line < kTileBytes; line += 64) __builtin_prefetch(next + line, 0, 2);
    };
    AddProducts<Unit, kTerms, 0>(b), ask(0);
    if constexpr (kPanels > 1) AddProducts<Unit, kTerms, 1>(b + panel), ask(1);
    if constexpr (kPanels > 2) AddProducts<Unit, kTerms, 2>(b + 2 * panel), ask(2);
    if constexpr (kPanels > 3) AddProducts<Unit, kTerms, 3>(b + 3 * panel), ask(3);
  }
  Unit::template Store<0>(sums, 64);
  if constexpr (kPanels > 1) Unit::template Store<1>(sums + kTileSums, 64);
  if constexpr (kPanels > 2 || kTerms == 2) Unit::template Store<2>(sums + 2 * kTileSums, 64);
  if constexpr (kPanels > 3 || kTerms == 2) Unit::template Store<3>(sums + 3 * kTileSums, 64);
}

#if HWY_TARGET == HWY_AVX3
// kPanels panels of one row on the vector unit: AMX sleeps between single rows (tiles.cc). The instruction's
// left bytes have no sign: 128 more than the high ones, whose products are taken off again.
HWY_INLINE void AddQuads(VI* sum, VI a, VI b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum->raw) : "v"(a.raw), "v"(b.raw));  // not among Highway 1.0's
}
template <int kTerms, int kPanels>
HWY_NOINLINE void OneRowProduct(const Int8Left& a, const int8_t* b, int64_t panel, int steps, float* sums) {
  const VI offset = hn::Set(kI32, static_cast<int32_t>(0x80808080));
  VI high[kPanels], low[kPanels], added[kPanels];
  for (int p = 0; p < kPanels; ++p) high[p] = low[p] = added[p] = hn::Zero(kI32);
  const int8_t* left = a.tiles;
  for (int i = 0; i < steps; ++i, left += kTerms * a.stride) {
    for (int quad = 0; quad < kInt8Depth; quad += 4, b += 4 * kPanel) {
      std::array<int32_t, 2> x = {};
      for (int t = 0; t < kTerms; ++t) std::memcpy(&x[t], left + t * a.stride + quad, 4);
      const VI x0 = hn::Xor(hn::Set(kI32, x[0]), offset), x1 = hn::Set(kI32, x[1]);
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        __builtin_prefetch(b + (kPanels + p) * panel, 0, 2);  // the next panels
        const VI y = hn::LoadU(kI32, reinterpret_cast<const int32_t*>(b + p * panel));
        AddQuads(&high[p], x0, y);
        AddQuads(&added[p], offset, y);
        if constexpr (kTerms == 2) AddQuads(&low[p], x1, y);
      }
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    hn::Store(hn::BitCast(kF, high[p] - added[p]), kF, sums + p * kTileSums);
    if constexpr (kTerms == 2) hn::Store(hn::BitCast(kF, low[p]), kF, sums + (p + 2) * kTileSums);
  }
}
#endif

// At most kTileRows rows: product.operator()<kPanels>(panels' weights, sums) sums up to `kMost` panels.
template <int kTerms, class Product>
HWY_INLINE void ForFewRows(const Int8Left& a, int m, const Int8TilePanels& w, const float* bias,
                           Epilogue epilogue, float* c, int64_t ldc, const Product& product) {
  constexpr int kMost = kTerms == 1 ? 4 : 2;  // panels at once: four tiles of sums
  const int num_panels = CeilDiv(w.n, kPanel);
  alignas(64) float sums[4 * kTileSums];
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = std::min(num_panels - p, kMost);
    const int8_t* b = w.data + p * Int8TilePanelSize(w.k);
    switch (panels) {
      case 1: product.template operator()<1>(b, sums); break;
      case 2: product.template operator()<2>(b, sums); break;
      case 3:
        if constexpr (kMost > 2) product.template operator()<3>(b, sums);
        break;
      default:
        if constexpr (kMost > 2) product.template operator()<4>(b, sums);
    }
    const ScaledSums<kTerms, kMost> scaled(a, w, p, panels, bias);
    for (int i = 0; i < panels; ++i) {
      const int column = (p + i) * kPanel;
      scaled(sums + i * kTileSums, 0, m, i);
      Apply(epilogue, sums + i * kTileSums, kPanel, m, std::min(w.n - column, kPanel), c + column, ldc);
    }
  }
}

template <class Unit, int kTerms>
void Int8TileLinearOn(const Int8Left& a, int m, const Int8TilePanels& w, const float* bias, Epilogue epilogue,
                      float* c, int64_t ldc) {
  const int steps = Int8Steps(w.k), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = Int8TilePanelSize(w.k);
  Unit::Begin(std::min(m, kTileRows));
  if (m <= kTileRows) {
    ForFewRows<kTerms>(a, m, w, bias, epilogue, c, ldc,
                       [&]<int kPanels>(const int8_t* b, float* sums)
                           HWY_ATTR { FewRowsProduct<Unit, kTerms, kPanels>(a, b, panel, steps, sums); });
    return Unit::End();
  }
  {
    Background<ScaledSums<kTerms, 2>> background(epilogue, /*gated=*/false, {.c = c, .ldc = ldc},
                                                 StepsAtOnce(steps));
    for (int p = 0, panels; p < num_panels; p += panels) {
      panels = std::min(2, num_panels - p);
      const int column = p * kPanel, columns = std::min(w.n - column, panels * kPanel);
      const ScaledSums<kTerms, 2> scaled(a, w, p, panels, bias);
      const int8_t *b = w.data + p * panel, *next = b + panels * panel;
      background.Ask(reinterpret_cast<const char*>(next), reinterpret_cast<const char*>(next + panel), panel,
                     LinesToAsk(TilesOf(m)));
      panels == 2
          ? Int8Products<Unit, kTerms, 2>(a, m, b, panel, steps, column, columns, scaled, &background)
          : Int8Products<Unit, kTerms, 1>(a, m, b, panel, steps, column, columns, scaled, &background);
    }
  }
  Unit::End();
}

// A panel of each matrix at once, whose products meet before they are handed on.
template <class Unit, int kTerms>
void Int8TileGatedOn(const Int8Left& a, int m, const Int8TilePanels& gate, const Int8TilePanels& up,
                     const float* gate_bias, const float* up_bias, float* c, int64_t ldc) {
  const int steps = Int8Steps(gate.k);
  const int64_t panel = Int8TilePanelSize(gate.k), second = up.data - gate.data;
  Unit::Begin(kTileRows);
  {
    Background<ScaledSums<kTerms, 2>> background(Epilogue::kSiluGate, /*gated=*/true, {.c = c, .ldc = ldc},
                                                 StepsAtOnce(steps));
    for (int p = 0; p * kPanel < gate.n; ++p) {
      ScaledSums<kTerms, 2> scaled;
      scaled.row_scales = a.scales;
      scaled.Set(0, gate, p, gate_bias);
      scaled.Set(1, up, p, up_bias);
      const int8_t *b = gate.data + p * panel, *next = b + panel;
      background.Ask(reinterpret_cast<const char*>(next), reinterpret_cast<const char*>(next + second), panel,
                     LinesToAsk(TilesOf(m)));
      Int8Products<Unit, kTerms, 2>(a, m, b, second, steps, p * kPanel, std::min(gate.n - p * kPanel, kPanel),
                                    scaled, &background);
    }
  }
  Unit::End();
}

template <int kTerms>
void Int8TileLinearWith(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& w, const float* bias,
                        Epilogue epilogue, float* c, int64_t ldc) {
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) {
    if (m > 1) return Int8TileLinearOn<Amx, kTerms>(a, m, w, bias, epilogue, c, ldc);
    return ForFewRows<kTerms>(
        a, m, w, bias, epilogue, c, ldc, [&]<int kPanels>(const int8_t* b, float* sums) HWY_ATTR {
          OneRowProduct<kTerms, kPanels>(a, b, Int8TilePanelSize(w.k), Int8Steps(w.k), sums);
        });
  }
#endif
  (void)unit;
  Int8TileLinearOn<TileModel, kTerms>(a, m, w, bias, epilogue, c, ldc);
}

template <class Unit>
void Int8TileGatedWith(const Int8Left& a, int m, const Int8TilePanels& gate, const Int8TilePanels& up,
                       const float* gate_bias, const float* up_bias, float* c, int64_t ldc) {
  a.terms == 1 ? Int8TileGatedOn<Unit, 1>(a, m, gate, up, gate_bias, up_bias, c, ldc)
               : Int8TileGatedOn<Unit, 2>(a, m, gate, up, gate_bias, up_bias, c, ldc);
}

void Int8TileLinear(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& w, const float* bias,
                    Epilogue epilogue, float* c, int64_t ldc) {
  a.terms == 1 ? Int8TileLinearWith<1>(unit, a, m, w, bias, epilogue, c, ldc)
               : Int8TileLinearWith<2>(unit, a, m, w, bias, epilogue, c, ldc);
}

void Int8TileGated(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& gate,
                   const Int8TilePanels& up, const float* gate_bias, const float* up_bias, float* c,
                   int64_t ldc) {
#if HWY_TARGET == HWY_AVX3
  if (unit == MatrixUnit::kAmx) return Int8TileGatedWith<Amx>(a, m, gate, up, gate_bias, up_bias, c, ldc);
#endif
  (void)unit;
  Int8TileGatedWith<TileModel>(a, m, gate, up, gate_bias, up_bias, c, ldc);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(PackInt8Tiles);
HWY_EXPORT(PackInt8Panel);
HWY_EXPORT(Int8TileLinear);
HWY_EXPORT(Int8TileGated);

void PackInt8Tiles(const float* a, int64_t lda, int m, int k, int terms, int tile, float* rotated,
                   int8_t* tiles, float* scales) {
  HWY_DYNAMIC_DISPATCH(PackInt8Tiles)(a, lda, m, k, terms, tile, rotated, tiles, scales);
}
void PackInt8Panel(const float* rows, int64_t ldr, int num_rows, int k, float* rotated, int8_t* panel,
                   float* scales) {
  HWY_DYNAMIC_DISPATCH(PackInt8Panel)(rows, ldr, num_rows, k, rotated, panel, scales);
}
void Int8TileLinear(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& w, const float* bias,
                    Epilogue epilogue, float* c, int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(Int8TileLinear)(unit, a, m, w, bias, epilogue, c, ldc);
}
void Int8TileGated(MatrixUnit unit, const Int8Left& a, int m, const Int8TilePanels& gate,
                   const Int8TilePanels& up, const float* gate_bias, const float* up_bias, float* c,
                   int64_t ldc) {
  HWY_DYNAMIC_DISPATCH(Int8TileGated)(unit, a, m, gate, up, gate_bias, up_bias, c, ldc);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
