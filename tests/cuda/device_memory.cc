// The emulated device's memory: cudaMalloc and what moves bytes in and out of it.
#include <sys/mman.h>

#include <atomic>
#include <map>
#include <mutex>
#include <new>

#include "tests/cuda/device_guard.h"
#include "tests/cuda/emulator.h"

namespace sessa::emulator {
namespace {

struct Guard {
  std::mutex mutex;
  bool on = false;
  int num_accesses = 0;
  std::map<void*, size_t> allocations;  // pages of their own, out of reach while num_accesses is 0
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

}  // namespace

int num_pageable_copies_out() { return pinned().num_copies_past; }

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

using sessa::emulator::DeviceAccess;
using sessa::emulator::guard;
using sessa::emulator::pinned;
using sessa::emulator::RequireNoCapture;

cudaError_t cudaMalloc(void** p, size_t bytes) {
  RequireNoCapture("cudaMalloc");
  if (bytes > size_t{1} << 40) return cudaErrorMemoryAllocation;
  std::lock_guard<std::mutex> lock(guard().mutex);
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

cudaError_t cudaFree(void* p) {
  RequireNoCapture("cudaFree");
  std::lock_guard<std::mutex> lock(guard().mutex);
  const auto guarded = guard().allocations.find(p);
  if (guarded == guard().allocations.end()) {
    ::operator delete (p, std::align_val_t{256});
  } else {
    munmap(p, guarded->second);
    guard().allocations.erase(guarded);
  }
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  RequireNoCapture("cudaMallocHost");
  if ((*p = std::malloc(bytes)) == nullptr) return cudaErrorMemoryAllocation;
  std::lock_guard<std::mutex> lock(pinned().mutex);
  pinned().blocks[static_cast<char*>(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::lock_guard<std::mutex> lock(pinned().mutex);
  pinned().blocks.erase(static_cast<char*>(p));
  return std::free(p), cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyDeviceToHost && !sessa::emulator::IsPinned(to))
    ++sessa::emulator::pinned().num_copies_past;
  sessa::emulator::Enqueue(stream, [=] {
    const DeviceAccess access;
    std::memcpy(to, from, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  sessa::emulator::Enqueue(stream, [=] {
    const DeviceAccess access;
    std::memset(p, value, bytes);
  });
  return cudaSuccess;
}
