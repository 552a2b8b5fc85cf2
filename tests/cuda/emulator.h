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
#include <deque>
#include <functional>
#include <type_traits>
#include <vector>

#include "kernels/cuda/launch.h"
#include "tests/cuda/delayed_work.h"

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
struct alignas(8) float2 {
  float x, y;
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
  int lane, warp, num_exchanges;
  bool has_begun;  // BeginKernel was called
};
extern thread_local Fiber* current;
extern thread_local dim3 block_index, block_size, grid_size;
extern thread_local void* dynamic_shared;

void BlockBarrier();
void WarpBarrier();  // of all 32 lanes
// What every lane of the warp handed in: up to kMaxWords each, valid until the lane's next but one exchange.
struct WarpWords {
  static constexpr int kMaxWords = 6;
  uint32_t words[32][kMaxWords];
};
const WarpWords& Exchange(const uint32_t* words, int n);
// cp.async: copies of 16 bytes in groups. They are done at once in every other block, and as late as the
// waits allow in the rest: a kernel must not rely on either.
void CopyAsync(void* shared, const void* global, bool valid);
void CommitCopies();
void WaitForCopies(int pending);
// Warpgroup products (emulated_wgmma.h), in groups. A product is done at once in two blocks of four, and as
// late as the waits allow in the rest, beside copies of either kind. WaitForProducts returns when the whole
// warp's are done. The process ends at a product that no BeginProducts goes before since the last wait, at
// one that reads what a late copy brought and no FenceOperands followed (what plain stores wrote is not
// watched), and at a thread that ends before its products.
void FenceOperands();
void BeginProducts();
void AddProduct(std::function<void()> product);
void CommitProducts();
void WaitForProducts(int pending);
uint32_t SharedAddress(const void* shared);  // of dynamic shared memory, as descriptors count
const void* OperandChunk(uint32_t address);  // 16 bytes that a product reads
void Require(bool holds, const char* what);  // or the process ends
int num_kernels();                           // that ran since the process began
int num_pageable_copies_out();
int num_waiting_calls();
// Calls body(context) once for each thread of the grid. must_begin: each has to call BeginKernel, or it would
// run into the kernels before.
void Run(dim3 grid, unsigned block, size_t shared_bytes, bool must_begin, void (*body)(void* context),
         void* context);

// Ends the process when this thread captures: on a device the call would spoil the capture.
void RequireNoCapture(const char* call);

// Since the process began.
struct Counts {
  int captures, graph_launches;
  int kernels;              // also those of graphs
  int pageable_copies_out;  // from the device to memory that cudaMallocHost did not give
  int waiting_calls;        // for memory, which may wait for every GPU: cudaMalloc, cudaFree, ...Host
};
Counts counts();
// Which captures end with an error, from here on.
enum class CaptureFault { kNone, kOfOverlappingLaunches, kAll };
void FailCaptures(CaptureFault fault);
// Launches in a capture are refused while it is on: an error of the launch alone, the capture goes on.
void RefuseLaunches(bool on);
// The library's products (plain_gemm.cc) are refused while it is on.
void RefuseProducts(bool on);
// Launches of graphs do nothing while it is on, but take the device that long: what is left of a step is the
// host's work.
void SkipGraphs(bool on, double microseconds = 0);

}  // namespace sessa::emulator

inline void __syncthreads() { sessa::emulator::BlockBarrier(); }
inline void __syncwarp() { sessa::emulator::WarpBarrier(); }
inline void __threadfence() {}
template <class T>
T ShuffleFrom(T value, int lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint32_t words[sizeof(T) / 4];
  std::memcpy(words, &value, sizeof(T));
  std::memcpy(&value, sessa::emulator::Exchange(words, sizeof(T) / 4).words[lane], sizeof(T));
  return value;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return ShuffleFrom(value, sessa::emulator::current->lane ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int lane = sessa::emulator::current->lane;
  return ShuffleFrom(value, lane < delta ? lane : lane - delta);
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

// The part of the CUDA runtime that the backend calls. Streams are in order, so each call may be done when it
// returns, and is but for DelayWork; unless its stream captures, then it is kept in the graph. A null stream
// never captures and delays nothing.
struct EmulatedGraph {
  std::vector<std::function<void()>> work;
  bool overlaps = false;  // one of its launches
};
struct EmulatedStream {
  EmulatedGraph* capture = nullptr;
  std::deque<std::function<void()>> delayed;
  uint64_t num_enqueued = 0;  // of the delayed ones, since the stream was made
  uint64_t last_event = 0;    // how many were when the last event was recorded
  double busy_until = 0;      // with graphs that are skipped: seconds of a steady clock
};
struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  uint64_t num_enqueued = 0;
  double busy_until = 0;
};
using cudaEvent_t = EmulatedEvent*;
using cudaStream_t = EmulatedStream*;
using cudaGraph_t = EmulatedGraph*;
using cudaGraphExec_t = const EmulatedGraph*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorStreamCaptureInvalidated = 901 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
cudaError_t cudaMalloc(void** p, size_t bytes);  // filled with NaN
cudaError_t cudaFree(void* p);
// A pool that does not keep what is freed gives it back to the driver at each synchronisation; here the
// process ends. So it does where memory outlives its pool or is freed the other way.
struct EmulatedPool {
  bool keeps_all = false;
  int num_allocations = 0;
};
using cudaMemPool_t = EmulatedPool*;
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* props);
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value);
cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t pool, cudaStream_t);
cudaError_t cudaFreeAsync(void* p, cudaStream_t);
cudaError_t cudaMallocHost(void** p, size_t bytes);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t);
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 1, cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = new EmulatedStream, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t);
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  (void)cudaStreamSynchronize(stream);
  return delete stream, cudaSuccess;
}
inline constexpr unsigned cudaEventDisableTiming = 2;
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = new EmulatedEvent, cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return *free = *total = size_t{1} << 30, cudaSuccess;
}
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess                 ? "no error"
         : e == cudaErrorMemoryAllocation ? "out of memory"
                                          : "capture invalidated";
}

namespace sessa::emulator {

// Every launch begins with it. False: it is refused, of which cudaGetLastError and TakeLaunchFailure tell.
bool BeginLaunch(cudaStream_t stream);

bool delays_work();

template <class Work>
void Enqueue(cudaStream_t stream, const Work& work) {
  if (stream != nullptr && stream->capture != nullptr) {
    stream->capture->work.push_back(work);
  } else if (stream != nullptr && delays_work()) {
    stream->delayed.push_back(work);
    ++stream->num_enqueued;
  } else {
    work();
  }
}

}  // namespace sessa::emulator

// What kernels/cuda/runtime.h makes of the real device.
namespace sessa::cuda {

template <class... P, class... A>
void Launch(cudaStream_t stream, dim3 grid, unsigned block, size_t shared_bytes, void (*kernel)(P...),
            const A&... args) {
  if (!emulator::BeginLaunch(stream)) return;
  const bool must_begin = stream != nullptr;  // the tests' own kernels have a null stream
  emulator::Enqueue(stream, [=] {
    auto call = [&] { kernel(static_cast<P>(args)...); };
    emulator::Run(
        grid, block, shared_bytes, must_begin, [](void* f) { (*static_cast<decltype(call)*>(f))(); }, &call);
  });
}
inline void LetNextIn() {}
inline void AwaitPrevious() { emulator::current->has_begun = true; }
inline void BeginKernel() { AwaitPrevious(); }
inline void Prefetch(const void* global) {
  (void)*static_cast<const volatile char*>(global);
}  // a sanitizer looks
inline float Exp2(float x) { return std::exp2(x); }
inline void* DynamicShared() { return emulator::dynamic_shared; }
using emulator::CommitCopies;
using emulator::CopyAsync;
template <int kPending>
void WaitForCopies() {
  emulator::WaitForCopies(kPending);
}

}  // namespace sessa::cuda

#include "tests/cuda/emulated_mma.h"
#include "tests/cuda/emulated_wgmma.h"
