// What the kernels ask of a device beyond the CUDA language. They are compiled twice: by nvcc, with this
// header's definitions, and by the tests as C++ for a CPU (SESSA_CUDA_EMULATED), with those of an emulator
// that is included first.
#pragma once

#ifndef SESSA_CUDA_EMULATED

#include <cuda_runtime.h>

namespace sessa::cuda {

#ifdef __CUDACC__

// Programmatic dependent launch: a kernel's blocks may come in while the kernel before is still at work, and
// wait for it in BeginKernel. A decode step is hundreds of short kernels, between which the device would idle
// otherwise. Turn it off to rule it out.
inline constexpr bool kOverlapLaunches = true;

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

// An error stays with the runtime until Backend::Synchronize asks for it.
template <class... P, class... A>
void Launch(cudaStream_t stream, dim3 grid, unsigned block, size_t shared_bytes, void (*kernel)(P...),
            const A&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(block);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  if (kOverlapLaunches) {
    config.attrs = &overlap;
    config.numAttrs = 1;
  }
  constexpr size_t kSharedWithoutOptIn = 48 << 10;
  if (shared_bytes > kSharedWithoutOptIn) {
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes));
  }
  (void)cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
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
