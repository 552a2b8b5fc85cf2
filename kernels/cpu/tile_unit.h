// The tile instructions that tiles.cc is written in, by two classes of static functions: Amx, the
// processor's, and TileModel, the same arithmetic in plain C++ (its bits are compared with the processor's
// where there is one). Tiles are named by number, 0 to 7; a row has 64 bytes. From kWholeTile on they have 16
// rows, those before as many as Begin is given (sums and left sides: a product takes the unit as many cycles
// as they have rows). Each thread has tiles of its own, in use between Begin and End.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/convert.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sessa::cpu {

inline constexpr int kWholeTile = 7;

#if defined(__x86_64__)
// Inline assembly rather than intrinsics: it needs no compiler flags, so nothing else of a file can come to
// use AMX.
struct Amx {
  static void Begin(int rows) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    std::fill_n(config.rows, kWholeTile, static_cast<uint8_t>(rows));
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  static void End() { asm volatile("tilerelease"); }
  template <int kTile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  // stride: bytes between rows.
  template <int kTile>
  static void Load(const void* rows, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(kTile) : "memory");
  }
  // The same, which leaves the first-level cache to what is read again sooner.
  template <int kTile>
  static void LoadPast(const void* rows, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* rows, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride), "i"(kTile) : "memory");
  }
  // kSum [16][16] float += kA [16][32] bf16 times kB, [16 pairs][16] of bf16 pairs.
  template <int kSum, int kA, int kB>
  static void DotBf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
  // kSum [16][16] int32 += kA [16][64] of int8, or of uint8, times kB, [16 quads][16] of int8 quads.
  template <int kSum, int kA, int kB>
  static void DotI8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
  template <int kSum, int kA, int kB>
  static void DotU8() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

// Denormals are zero while it lives, as on the unit: in what the thread's vectors read and in what comes out.
class FlushesDenormals {
 public:
  FlushesDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushesDenormals() { _mm_setcsr(saved_); }

 private:
  const unsigned saved_;
};
#else
struct FlushesDenormals {
  FlushesDenormals() {}  // what is declared for its lifetime is not unused
};
#endif

struct TileModel {
  static void Begin(int rows) { rows_ = rows; }
  static void End() {}
  template <int kTile>
  static void Zero() {
    std::memset(tiles[kTile], 0, sizeof(Tile));
  }
  template <int kTile>
  static void Load(const void* rows, int64_t stride) {
    for (int r = 0; r < 16; ++r)
      std::memcpy(tiles[kTile][r], static_cast<const char*>(rows) + r * stride, 64);
  }
  template <int kTile>
  static void LoadPast(const void* rows, int64_t stride) {
    Load<kTile>(rows, stride);
  }
  template <int kTile>
  static void Store(void* rows, int64_t stride) {
    for (int r = 0; r < rows_; ++r) std::memcpy(static_cast<char*>(rows) + r * stride, tiles[kTile][r], 64);
  }
  template <int kSum, int kA, int kB>
  static void DotBf16() {
    for (int r = 0; r < 16; ++r) {
      for (int c = 0; c < 16; ++c) {
        float even = 0, odd = 0, sum;
        for (int p = 0; p < 16; ++p) {
          even = Flush(std::fma(Low(tiles[kA][r][p]), Low(tiles[kB][p][c]), even));
          odd = Flush(std::fma(High(tiles[kA][r][p]), High(tiles[kB][p][c]), odd));
        }
        std::memcpy(&sum, &tiles[kSum][r][c], sizeof(sum));
        sum = Flush(Flush(sum) + Flush(even + odd));
        std::memcpy(&tiles[kSum][r][c], &sum, sizeof(sum));
      }
    }
  }
  template <int kSum, int kA, int kB>
  static void DotI8() {
    DotBytes<int8_t, kSum, kA, kB>();
  }
  template <int kSum, int kA, int kB>
  static void DotU8() {
    DotBytes<uint8_t, kSum, kA, kB>();
  }

 private:
  template <class Left, int kSum, int kA, int kB>
  static void DotBytes() {
    for (int r = 0; r < 16; ++r) {
      for (int c = 0; c < 16; ++c) {
        for (int p = 0; p < 16; ++p) {
          for (int shift = 0; shift < 32; shift += 8) {
            tiles[kSum][r][c] +=
                static_cast<Left>(tiles[kA][r][p] >> shift) * static_cast<int8_t>(tiles[kB][p][c] >> shift);
          }
        }
      }
    }
  }

  using Tile = uint32_t[16][16];
  static inline thread_local Tile tiles[8];
  static inline thread_local int rows_ = 16;
  static float Flush(float x) {
    return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
  }
  static float OfBits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return Flush(x);
  }
  static float Low(uint32_t pair) { return OfBits(pair << 16); }
  static float High(uint32_t pair) { return OfBits(pair & 0xffff0000); }
};

}  // namespace sessa::cpu
