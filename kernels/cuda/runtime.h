// What the kernels ask of a device beyond the CUDA language. They are compiled twice: by nvcc, with this
// header's definitions, and by the tests as C++ for a CPU (SESSA_CUDA_EMULATED), with those of an emulator
// that is included first.
#pragma once

#ifndef SESSA_CUDA_EMULATED

#include <cuda_runtime.h>

#include <tuple>

namespace sessa::cuda {

// Programmatic dependent launch: a kernel's blocks may come in while the kernel before is still at work, and
// wait for it in BeginKernel. A decode step is hundreds of short kernels, between which the device would idle
// otherwise. Switches: launch.h. A launch that is refused is noted there (NoteLaunchFailure), and its error
// stays with the runtime until Backend::Synchronize asks for both. Thread-safe.
void StartKernel(cudaStream_t stream, dim3 grid, unsigned block, size_t shared_bytes, const void* kernel,
                 void** arguments);

#ifdef __CUDACC__

// Lets the next kernel come in once all blocks of this one are there or gone.
__device__ __forceinline__ void LetNextIn() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
// Waits until the kernels before are complete and what they wrote can be read. As every kernel waits for the
// one before it, it waits for all of them.
__device__ __forceinline__ void AwaitPrevious() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// The first statement of every kernel that Launch enqueues, but for those that have something to do in
// between that no kernel before them has a part in.
__device__ __forceinline__ void BeginKernel() {
  LetNextIn();
  AwaitPrevious();
}
// Brings the 128 bytes around `global` into the L2 cache.
__device__ __forceinline__ void Prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

template <class... P, class... A>
void Launch(cudaStream_t stream, dim3 grid, unsigned block, size_t shared_bytes, void (*kernel)(P...),
            const A&... args) {
  std::tuple<P...> values(static_cast<P>(args)...);
  std::apply(
      [&](P&... value) {
        void* arguments[] = {&value...};
        StartKernel(stream, grid, block, shared_bytes, reinterpret_cast<const void*>(kernel), arguments);
      },
      values);
}

// Aligned for operands of wgmma.h.
__device__ inline void* DynamicShared() {
  extern __shared__ __align__(1024) uint4 dynamic_shared[];
  return dynamic_shared;
}

// 16 bytes from global to shared memory, past the registers and L1; zeros, and nothing read, when not valid.
__device__ __forceinline__ void CopyAsync(void* shared, const void* global, bool valid) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for this thread's copies but for the last kPending groups.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 2^x, to about two units in the last place; 0 below the normal range.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif  // __CUDACC__

}  // namespace sessa::cuda

#endif  // SESSA_CUDA_EMULATED
