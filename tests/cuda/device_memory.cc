// The emulated device's memory: cudaMalloc, pools, and what moves bytes in and out of them.
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "tests/cuda/device_guard.h"
#include "tests/cuda/emulator.h"

namespace sessa::emulator {
namespace {

struct Guard {
  std::mutex mutex;
  bool on = false;
  int num_accesses = 0;
  std::map<void*, size_t> allocations;  // pages of their own, out of reach while num_accesses is 0
  std::map<void*, cudaMemPool_t> of_pools;
};
Guard& guard() {
  static Guard* const guard = new Guard;
  return *guard;
}

void Protect(int protection) {
  for (auto [p, bytes] : guard().allocations) mprotect(p, bytes, protection);
}

struct Pinned {
  std::mutex mutex;
  std::map<const char*, size_t> blocks;
  std::atomic<int> num_copies_past{0};
};
Pinned& pinned() {
  static Pinned* const pinned = new Pinned;
  return *pinned;
}
bool IsPinned(const void* p) {
  std::lock_guard<std::mutex> lock(pinned().mutex);
  const auto after = pinned().blocks.upper_bound(static_cast<const char*>(p));
  if (after == pinned().blocks.begin()) return false;
  const auto [begin, size] = *std::prev(after);
  return static_cast<const char*>(p) < begin + size;
}

std::atomic<int> num_waits{0};

// Requires the guard's mutex.
cudaError_t Take(void** p, size_t bytes) {
  if (bytes > size_t{1} << 40) return cudaErrorMemoryAllocation;
  if (guard().on) {
    *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*p == MAP_FAILED) return cudaErrorMemoryAllocation;
    guard().allocations[*p] = bytes;
  } else {
    *p = ::operator new (bytes, std::align_val_t{256},
                         std::nothrow);  // of just the size: a sanitizer sees who goes beyond
    if (*p == nullptr) return cudaErrorMemoryAllocation;
  }
  std::memset(*p, 0xff, bytes);
  if (guard().on && guard().num_accesses == 0) mprotect(*p, bytes, PROT_NONE);
  return cudaSuccess;
}
void Give(void* p) {
  const auto guarded = guard().allocations.find(p);
  if (guarded == guard().allocations.end()) {
    ::operator delete (p, std::align_val_t{256});
  } else {
    munmap(p, guarded->second);
    guard().allocations.erase(guarded);
  }
}

}  // namespace

int num_pageable_copies_out() { return pinned().num_copies_past; }
int num_waiting_calls() { return num_waits; }

void GuardDeviceMemory(bool on) {
  std::lock_guard<std::mutex> lock(guard().mutex);
  guard().on = on;
}

DeviceAccess::DeviceAccess() {
  std::lock_guard<std::mutex> lock(guard().mutex);
  if (guard().num_accesses++ == 0) Protect(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  std::lock_guard<std::mutex> lock(guard().mutex);
  if (--guard().num_accesses == 0) Protect(PROT_NONE);
}

}  // namespace sessa::emulator

using namespace sessa::emulator;

cudaError_t cudaMalloc(void** p, size_t bytes) {
  RequireNoCapture("cudaMalloc");
  ++num_waits;
  std::lock_guard<std::mutex> lock(guard().mutex);
  return Take(p, bytes);
}
cudaError_t cudaFree(void* p) {
  RequireNoCapture("cudaFree");
  ++num_waits;
  std::lock_guard<std::mutex> lock(guard().mutex);
  Require(!guard().of_pools.contains(p), "cudaFree of a pool's memory");
  Give(p);
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* props) {
  Require(props->allocType == cudaMemAllocationTypePinned &&
              props->location.type == cudaMemLocationTypeDevice && props->location.id == 0,
          "a pool that is not the device's");
  return *pool = new EmulatedPool, cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  Require(pool->num_allocations == 0, "a pool is destroyed before its memory");
  return delete pool, cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value) {
  uint64_t bytes = 0;
  std::memcpy(&bytes, value, sizeof bytes);
  pool->keeps_all = bytes == UINT64_MAX;
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t pool, cudaStream_t) {
  RequireNoCapture("cudaMallocFromPoolAsync");
  Require(pool->keeps_all, "a pool that gives back what is freed");
  std::lock_guard<std::mutex> lock(guard().mutex);
  const cudaError_t error = Take(p, bytes);
  if (error == cudaSuccess) guard().of_pools[*p] = pool, ++pool->num_allocations;
  return error;
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  RequireNoCapture("cudaFreeAsync");
  std::lock_guard<std::mutex> lock(guard().mutex);
  const auto found = guard().of_pools.find(p);
  Require(found != guard().of_pools.end(), "cudaFreeAsync of what is not a pool's");
  --found->second->num_allocations;
  guard().of_pools.erase(found);
  Give(p);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  RequireNoCapture("cudaMallocHost");
  ++num_waits;
  if ((*p = std::malloc(bytes)) == nullptr) return cudaErrorMemoryAllocation;
  std::lock_guard<std::mutex> lock(pinned().mutex);
  pinned().blocks[static_cast<char*>(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  ++num_waits;
  std::lock_guard<std::mutex> lock(pinned().mutex);
  pinned().blocks.erase(static_cast<char*>(p));
  return std::free(p), cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const auto copy = [=] {
    const DeviceAccess access;
    std::memcpy(to, from, bytes);
  };
  if (kind == cudaMemcpyDeviceToHost && !IsPinned(to)) {  // the call waits for it
    ++pinned().num_copies_past;
    if (stream != nullptr && stream->capture == nullptr) (void)cudaStreamSynchronize(stream);
    Enqueue(stream, copy);
    if (stream != nullptr && stream->capture == nullptr) (void)cudaStreamSynchronize(stream);
  } else if (kind == cudaMemcpyHostToDevice && !IsPinned(from) &&
             delays_work()) {  // it takes the bytes at once
    const char* bytes_of = static_cast<const char*>(from);
    Enqueue(stream, [to, taken = std::vector<char>(bytes_of, bytes_of + bytes)] {
      const DeviceAccess access;
      std::memcpy(to, taken.data(), taken.size());
    });
  } else {
    Enqueue(stream, copy);
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  Enqueue(stream, [=] {
    const DeviceAccess access;
    std::memset(p, value, bytes);
  });
  return cudaSuccess;
}
