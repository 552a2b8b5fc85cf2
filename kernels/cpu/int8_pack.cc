// Rows and weights as the integers of int8_tiles.h.
#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cpu/int8_tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_pack.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// clang-format off
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/int8-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

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
    const Rounding rounding(RotateRow(a + (first + r) * lda, k, rotated), most);
    scales[first + r] = rounding.scale;
    int8_t* to = tiles;
    for (int i = 0; i < steps; ++i, to += terms * stride) {
      for (int j = 0; j < kInt8Depth; j += kVector) {
        VI q = hn::Zero(kI32);
        if (rounding.factor > 0)
          q = hn::NearestInt(hn::LoadU(kF, rotated + i * kInt8Depth + j) * hn::Set(kF, rounding.factor));
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
    const Rounding rounding(RotateRow(rows + j * ldr, k, rotated), 127);
    if (rounding.factor == 0) continue;
    scales[j] = rounding.scale / kInt8Depth;  // both sides' 1/8
    const VF factor = hn::Set(kF, rounding.factor);
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

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sessa::cpu {

HWY_EXPORT(PackInt8Tiles);
HWY_EXPORT(PackInt8Panel);

void PackInt8Tiles(const float* a, int64_t lda, int m, int k, int terms, int tile, float* rotated,
                   int8_t* tiles, float* scales) {
  HWY_DYNAMIC_DISPATCH(PackInt8Tiles)(a, lda, m, k, terms, tile, rotated, tiles, scales);
}
void PackInt8Panel(const float* rows, int64_t ldr, int num_rows, int k, float* rotated, int8_t* panel,
                   float* scales) {
  HWY_DYNAMIC_DISPATCH(PackInt8Panel)(rows, ldr, num_rows, k, rotated, panel, scales);
}

}  // namespace sessa::cpu
#endif  // HWY_ONCE
