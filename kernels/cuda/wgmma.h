// The tensor cores' warpgroup-wide products on bf16 (wgmma.mma_async m64nNk16), the way to Hopper's full
// rate. All 128 threads of a warpgroup (four warps, the first a multiple of four) call together. B, and A
// where it is not in registers, are read from shared memory through descriptors, while the threads go on.
//
// Facts, from the PTX manual ("Asynchronous Warpgroup Level Matrix Instructions": matrix descriptor format,
// strides, canonical layouts; "Async proxy") and CUTLASS (cute/arch/mma_sm90_desc.hpp,
// cute/atom/mma_traits_sm90_gmma.hpp). A chunk is 16 bytes; W chunks make a row: 8 with the 128-byte swizzle,
// 4 with the 64-byte swizzle.
//
//   descriptor bits  what
//   0-13             start address / 16
//   16-29            leading dimension byte offset / 16
//   32-45            stride dimension byte offset / 16
//   49-51            base offset: 0, as the pattern of the swizzle starts at multiples of 1024 bytes
//   62-63            swizzle: 1 = 128 bytes, 2 = 64 bytes
//
//   chunk of an operand                  lies at start +
//   K-major, row i, c-th of 2 along k    i % 8 * 16 W + i / 8 * stride + 16 c; leading is not used
//   MN-major, c-th along n, k            c % W * 16 + c / W * leading + k % 8 * 16 W + k / 8 * stride
//
// And then address bits 4-6 (W = 8; 4-5 for W = 4) are xored with bits 7-9 (7-8): address bits, so that a
// descriptor may start at any multiple of 8 rows, and of 32 bytes (16 k) within a row.
//
// The tests' emulator has its own definitions (tests/cuda/emulated_wgmma.h), from the same tables.
#pragma once

#include "kernels/cuda/device.cuh"

namespace sessa::cuda {

inline constexpr int kWarpgroup = 128;      // threads
inline constexpr int kWarpgroupRows = 64;   // of A and d
inline constexpr int kOperandAlign = 1024;  // of the memory of operands

// Where element `column` of row `row` lies, in elements from the operand's start, with rows of kRowBytes (128
// or 64).
template <int kRowBytes>
__host__ __device__ constexpr int SwizzledOffset(int row, int column) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
  const int chunk = column / 8 ^ (kRowBytes == 128 ? row % 8 : row / 2 % 4);
  return row * (kRowBytes / 2) + chunk * 8 + column % 8;
}

using MatrixDescriptor = uint64_t;

#if !defined(SESSA_CUDA_EMULATED) && defined(__CUDACC__)

__device__ __forceinline__ unsigned SharedAddress(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// After this thread's writes to operands (stores, or copies that it has waited for), before the barrier
// behind which a product reads them: products read shared memory by another way than threads do.
__device__ __forceinline__ void FenceOperands() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Keeps the compiler from moving the computation or the use of these registers across.
template <int kTiles>
__device__ __forceinline__ void PinRegisters(float (&x)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < 4 * kTiles; ++i) asm volatile("" : "+f"(x[i / 4][i % 4])::"memory");
}
template <int kTiles>
__device__ __forceinline__ void PinRegisters(unsigned (&x)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < 4 * kTiles; ++i) asm volatile("" : "+r"(x[i / 4][i % 4])::"memory");
}

// Before the first product, and where accumulators or fragments of A were written by other instructions since
// the last: those are to be named.
template <class... Registers>
__device__ __forceinline__ void BeginProducts(Registers&... registers) {
  (PinRegisters(registers), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Products form a group; groups are done in their order.
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until all but the last kPending groups are done. Accumulators that are then read or written, and
// fragments of A that are then written, are to be named.
template <int kPending, class... Registers>
__device__ __forceinline__ void WaitForProducts(Registers&... registers) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  (PinRegisters(registers), ...);
}

#define SESSA_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SESSA_NAMES_32 \
  SESSA_NAMES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SESSA_NAMES_64                                                               \
  SESSA_NAMES_32                                                                     \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SESSA_NAMES_128                                                                          \
  SESSA_NAMES_64                                                                                 \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SESSA_D1(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define SESSA_D4(j) SESSA_D1(j), SESSA_D1(j + 1), SESSA_D1(j + 2), SESSA_D1(j + 3)
#define SESSA_REGISTERS_16 SESSA_D4(0)
#define SESSA_REGISTERS_32 SESSA_REGISTERS_16, SESSA_D4(4)
#define SESSA_REGISTERS_64 SESSA_REGISTERS_32, SESSA_D4(8), SESSA_D4(12)
#define SESSA_REGISTERS_128 SESSA_REGISTERS_64, SESSA_D4(16), SESSA_D4(20), SESSA_D4(24), SESSA_D4(28)
// The operands behind d are numbered from kN / 2 on. Scale-d is a predicate; A and B are not negated.
#define SESSA_MULTIPLY_SHARED(n, registers, a_at, b_at, adds_at, major_at)                                  \
  asm volatile("{.reg .pred adds; setp.ne.s32 adds, %" #adds_at ", 0; wgmma.mma_async.sync.aligned.m64n" #n \
               "k16.f32.bf16.bf16 {" SESSA_NAMES_##registers "}, %" #a_at ", %" #b_at                       \
                                                             ", adds, 1, 1, 0, %" #major_at ";}"            \
               : SESSA_REGISTERS_##registers                                                                \
               : "l"(a), "l"(b), "n"(int{kAdds}), "n"(int{kMnMajorB}))
#define SESSA_MULTIPLY_REGISTERS(n, registers, a0, a1, a2, a3, b_at, adds_at, major_at)                     \
  asm volatile("{.reg .pred adds; setp.ne.s32 adds, %" #adds_at ", 0; wgmma.mma_async.sync.aligned.m64n" #n \
               "k16.f32.bf16.bf16 {" SESSA_NAMES_##registers "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3      \
                                                             "}, %" #b_at ", adds, 1, 1, %" #major_at ";}"  \
               : SESSA_REGISTERS_##registers                                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int{kAdds}), "n"(int{kMnMajorB}))

// d += a b, or d = a b where not kAdds: a [64, 16] K-major, b [16, kN], K-major (in memory [kN][16]) or not
// ([16][kN]). d[j][e] is row 16 * (warp % 4) + g + 8 * (e / 2), column 8 j + 2 t + e % 2 with g = lane / 4
// and t = lane % 4: as mma.h's fragments. d counts from BeginProducts on as the tensor cores', until it was
// waited for.
template <int kN, bool kMnMajorB, bool kAdds = true>
__device__ __forceinline__ void Multiply(float (&d)[kN / 8][4], MatrixDescriptor a, MatrixDescriptor b) {
  static_assert(kN == 32 || kN == 64 || kN == 128 || kN == 256);
  if constexpr (kN == 32) SESSA_MULTIPLY_SHARED(32, 16, 16, 17, 18, 19);
  if constexpr (kN == 64) SESSA_MULTIPLY_SHARED(64, 32, 32, 33, 34, 35);
  if constexpr (kN == 128) SESSA_MULTIPLY_SHARED(128, 64, 64, 65, 66, 67);
  if constexpr (kN == 256) SESSA_MULTIPLY_SHARED(256, 128, 128, 129, 130, 131);
}
// The same with a in registers: the warp's 16 rows, fragments as mma.h's MultiplyBf16 takes.
template <int kN, bool kMnMajorB, bool kAdds = true>
__device__ __forceinline__ void Multiply(float (&d)[kN / 8][4], const unsigned (&a)[4], MatrixDescriptor b) {
  static_assert(kN == 32 || kN == 64 || kN == 128 || kN == 256);
  if constexpr (kN == 32) SESSA_MULTIPLY_REGISTERS(32, 16, 16, 17, 18, 19, 20, 21, 22);
  if constexpr (kN == 64) SESSA_MULTIPLY_REGISTERS(64, 32, 32, 33, 34, 35, 36, 37, 38);
  if constexpr (kN == 128) SESSA_MULTIPLY_REGISTERS(128, 64, 64, 65, 66, 67, 68, 69, 70);
  if constexpr (kN == 256) SESSA_MULTIPLY_REGISTERS(256, 128, 128, 129, 130, 131, 132, 133, 134);
}

#undef SESSA_MULTIPLY_SHARED
#undef SESSA_MULTIPLY_REGISTERS
#undef SESSA_NAMES_16
#undef SESSA_REGISTERS_16
#undef SESSA_NAMES_32
#undef SESSA_REGISTERS_32
#undef SESSA_NAMES_64
#undef SESSA_REGISTERS_64
#undef SESSA_NAMES_128
#undef SESSA_REGISTERS_128
#undef SESSA_D1
#undef SESSA_D4

#endif

template <int kRowBytes>
__device__ __forceinline__ MatrixDescriptor Describe(const Bf16* at, int leading_bytes) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
  return (SharedAddress(at) & 0x3ffff) >> 4 | static_cast<MatrixDescriptor>(leading_bytes >> 4) << 16 |
         MatrixDescriptor{8 * kRowBytes >> 4} << 32 | MatrixDescriptor{kRowBytes == 128 ? 1 : 2} << 62;
}
// A as [m][k] or B as [n][k]: a row holds kRowBytes / 2 neighbours along k. at: where the tile's first
// element, of a row that is a multiple of 8 and a k that is a multiple of 16, would lie unswizzled.
template <int kRowBytes>
__device__ __forceinline__ MatrixDescriptor DescribeKMajor(const Bf16* at) {
  return Describe<kRowBytes>(at, 16);
}
// B as [k][n]: a row is one k and holds kRowBytes / 2 neighbours along n, the next kRowBytes / 2 are
// block_bytes further. at: of a k that is a multiple of 8 and an n that starts a row.
template <int kRowBytes>
__device__ __forceinline__ MatrixDescriptor DescribeMnMajor(const Bf16* at, int block_bytes) {
  return Describe<kRowBytes>(at, block_bytes);
}

}  // namespace sessa::cuda
