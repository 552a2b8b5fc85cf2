// A CUDA device in plain C++, for tests: the sources of kernels/cuda compile as C++ when this header is
// included first
// (-include) and run on the CPU. The blocks of a grid run one after another; the threads of a block are
// fibers, so that barriers and shuffles are real: a thread waits until the others of its block or warp have
// arrived. Threads take turns forwards in one block and backwards in the next, and shared memory starts as
// NaN, so that a missing barrier or an element that nobody wrote shows in the results. What is broken beyond
// that (a barrier that some never reach, too much shared memory, a grid that no device takes) ends the
// process with a message. Not emulated: memory order between blocks, timing, and everything that the compiler
// for the device does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#define SESSA_CUDA_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define threadIdx (::sessa::emulator::current->thread)
#define blockIdx (::sessa::emulator::block_index)
#define blockDim (::sessa::emulator::block_size)
#define gridDim (::sessa::emulator::grid_size)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace sessa::emulator {

struct Fiber {
  dim3 thread;
  int lane, warp, num_shuffles;
};
extern thread_local Fiber* current;
extern thread_local dim3 block_index, block_size, grid_size;
extern thread_local void* dynamic_shared;

void BlockBarrier();
void WarpBarrier();                            // of all 32 lanes
uint32_t Shuffle(uint32_t value, int source);  // the value of the warp's lane `source`
// Calls body(context) once for each thread of the grid.
void Run(dim3 grid, unsigned block, size_t shared_bytes, void (*body)(void* context), void* context);

}  // namespace sessa::emulator

inline void __syncthreads() { sessa::emulator::BlockBarrier(); }
inline void __syncwarp() { sessa::emulator::WarpBarrier(); }
inline void __threadfence() {}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = sessa::emulator::Shuffle(bits, sessa::emulator::current->lane ^ mask);
  std::memcpy(&value, &bits, 4);
  return value;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
inline unsigned atomicAdd(unsigned* p, unsigned x) {
  const unsigned old = *p;
  *p += x;
  return old;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
using std::max;
using std::min;

// The part of the CUDA runtime that the backend calls. Streams are in order, so each call is done when it
// returns.
using cudaStream_t = struct EmulatedStream*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
cudaError_t cudaMalloc(void** p, size_t bytes);  // filled with NaN
cudaError_t cudaFree(void* p);
inline cudaError_t cudaMallocHost(void** p, size_t bytes) {
  return (*p = std::malloc(bytes)) ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeHost(void* p) { return std::free(p), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t);
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = nullptr, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return *free = *total = size_t{1} << 30, cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : "out of memory";
}

// What kernels/cuda/runtime.h makes of the real device.
namespace sessa::cuda {

template <class... P, class... A>
void Launch(cudaStream_t, dim3 grid, unsigned block, size_t shared_bytes, void (*kernel)(P...),
            const A&... args) {
  auto call = [&] { kernel(static_cast<P>(args)...); };
  emulator::Run(
      grid, block, shared_bytes, [](void* f) { (*static_cast<decltype(call)*>(f))(); }, &call);
}
inline void* DynamicShared() { return emulator::dynamic_shared; }
inline void CopyAsync(void* shared, const void* global, bool valid) {
  if (valid) {
    std::memcpy(shared, global, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}
inline void CommitCopies() {}
template <int kPending>
void WaitForCopies() {}

}  // namespace sessa::cuda
