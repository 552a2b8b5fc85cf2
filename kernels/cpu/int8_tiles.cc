#include "kernels/cpu/int8_tiles.h"

#include <algorithm>
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

inline constexpr int kVector = static_cast<int>(kLanes);

// What the sums of up to kPanels panels become: times the scales of their rows and columns, plus the bias.
// With two terms, a row's low bytes' sums lie two tiles behind the high ones'.
template <int kTerms, int kPanels>
struct ScaledSums {
  ScaledSums() = default;
  // Of `panels` panels from `panel` on.
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
HWY_INLINE void AddQuads(VI* sum, VI a, VI b) {                          // a: without signs
  asm("vpdpbusd %2, %1, %0" : "+v"(sum->raw) : "v"(a.raw), "v"(b.raw));  // not among Highway 1.0's
}

// kRows rows of a tile and kPanels panels on the vector unit. The instruction's first bytes have no sign: the
// weights' have 128 added, times the row's sum too much in the end. ask: for the panels that come next.
template <int kTerms, int kRows, int kPanels>
HWY_NOINLINE void VectorProduct(const int8_t* left, int stride, const int8_t* b, int64_t panel, int steps,
                                bool ask, float* sums) {
  const VI offset = hn::Set(kI32, static_cast<int32_t>(0x80808080)), ones = hn::Set(kI32, 0x01010101);
  const auto load = [](const int8_t* p)
                        HWY_ATTR { return hn::LoadU(kI32, reinterpret_cast<const int32_t*>(p)); };
  const auto set = [](const int8_t* p) HWY_ATTR {
    int32_t quad;
    std::memcpy(&quad, p, sizeof(quad));
    return hn::Set(kI32, quad);
  };
  VI high[kRows][kPanels], low[kRows][kPanels], row_sum[kRows];
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    row_sum[r] = hn::Zero(kI32);
    SESSA_UNROLL
    for (int p = 0; p < kPanels; ++p) high[r][p] = low[r][p] = hn::Zero(kI32);
  }
  for (int i = 0; i < steps; ++i, left += kTerms * stride) {
    SESSA_UNROLL
    for (int r = 0; r < kRows; ++r) AddQuads(&row_sum[r], ones, load(left + r * kInt8Depth));
    for (int quad = 0; quad < kInt8Depth; quad += 4, b += 4 * kPanel) {
      VI y[kPanels], y_added[kPanels];
      SESSA_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        if (ask) __builtin_prefetch(b + (kPanels + p) * panel, 0, 2);
        y[p] = load(b + p * panel);
        y_added[p] = hn::Xor(y[p], offset);
      }
      SESSA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = left + r * kInt8Depth + quad;
        SESSA_UNROLL
        for (int p = 0; p < kPanels; ++p) {
          AddQuads(&high[r][p], y_added[p], set(x));
          if constexpr (kTerms == 2) AddQuads(&low[r][p], set(x + stride), y[p]);
        }
      }
    }
  }
  SESSA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const VI added = hn::ShiftLeft<7>(hn::SumOfLanes(kI32, row_sum[r]));
    SESSA_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      float* to = sums + p * kTileSums + r * kPanel;
      hn::Store(hn::BitCast(kF, high[r][p] - added), kF, to);
      if constexpr (kTerms == 2) hn::Store(hn::BitCast(kF, low[r][p]), kF, to + 2 * kTileSums);
    }
  }
}
#endif

// Some rows' sums [panels][rows of 16], as outputs.
template <class Scaled>
HWY_INLINE void HandOn(const Scaled& scaled, float* sums, int row, int rows, int panel, int panels, int n,
                       Epilogue epilogue, float* c, int64_t ldc) {
  for (int p = 0; p < panels; ++p, sums += kTileSums) {
    const int column = (panel + p) * kPanel;
    scaled(sums, row, rows, p);
    Apply(epilogue, sums, kPanel, rows, std::min(n - column, kPanel), c + column, ldc);
  }
}

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
    HandOn(ScaledSums<kTerms, kMost>(a, w, p, panels, bias), sums, 0, m, p, panels, w.n, epilogue, c, ldc);
  }
}

#if HWY_TARGET == HWY_AVX3
// On the vector unit: two panels at once stay in the first-level cache for all rows.
template <int kTerms>
HWY_NOINLINE void VectorRows(const Int8Left& a, int m, const Int8TilePanels& w, const float* bias,
                             Epilogue epilogue, float* c, int64_t ldc) {
  const int steps = Int8Steps(w.k), num_panels = CeilDiv(w.n, kPanel);
  const int64_t panel = Int8TilePanelSize(w.k);
  constexpr int kMost = kTerms == 1 ? 8 : 4;  // rows at once: what there are registers for
  alignas(64) float sums[4 * kTileSums];
  for (int p = 0, panels; p < num_panels; p += panels) {
    panels = std::min(num_panels - p, 2);
    const int8_t* b = w.data + p * panel;
    const ScaledSums<kTerms, 2> scaled(a, w, p, panels, bias);
    for (int row = 0, rows; row < m; row += rows) {
      const int left = std::min(m, RoundUp(row + 1, kTileRows)) - row;  // in the tile
      rows = left >= kMost ? kMost : left >= 4 ? 4 : left >= 2 ? 2 : 1;
      const int8_t* x =
          a.tiles + int64_t{row / kTileRows} * steps * kTerms * a.stride + row % kTileRows * kInt8Depth;
      const auto product = [&]<int kRows>() HWY_ATTR {
        panels == 2 ? VectorProduct<kTerms, kRows, 2>(x, a.stride, b, panel, steps, row == 0, sums)
                    : VectorProduct<kTerms, kRows, 1>(x, a.stride, b, panel, steps, row == 0, sums);
      };
      switch (rows) {
        case 8: product.template operator()<kMost>(); break;
        case 4: product.template operator()<4>(); break;
        case 2: product.template operator()<2>(); break;
        default: product.template operator()<1>();
      }
      HandOn(scaled, sums, row, rows, p, panels, w.n, epilogue, c + row * ldc, ldc);
    }
  }
}
#endif

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
  if (m == 1 && unit != MatrixUnit::kAmxModel) {  // AMX sleeps between single rows (tiles.cc)
    return ForFewRows<kTerms>(
        a, m, w, bias, epilogue, c, ldc, [&]<int kPanels>(const int8_t* b, float* sums) HWY_ATTR {
          VectorProduct<kTerms, 1, kPanels>(a.tiles, a.stride, b, Int8TilePanelSize(w.k), Int8Steps(w.k),
                                            /*ask=*/true, sums);
        });
  }
  if (unit == MatrixUnit::kAmx) return Int8TileLinearOn<Amx, kTerms>(a, m, w, bias, epilogue, c, ldc);
  if (unit == MatrixUnit::kVector) return VectorRows<kTerms>(a, m, w, bias, epilogue, c, ldc);
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

HWY_EXPORT(Int8TileLinear);
HWY_EXPORT(Int8TileGated);

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
