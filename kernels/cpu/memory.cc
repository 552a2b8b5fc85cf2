#include "kernels/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <new>
#include <string>

#include "absl/base/const_init.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/container.h"
#include "kernels/round.h"

namespace sessa {
namespace {

// Most matrices are smaller than a huge page (2 MiB), and a stream over small pages misses the TLB at every
// one: so what is small is cut from chunks, in order, never reused, and a chunk goes back when nothing in it
// is in use.
constexpr size_t kPage = 4096, kHuge = size_t{2} << 20, kChunk = size_t{32} << 20;

struct Chunk {  // at its first page
  int users;    // buffers, and one while it is open
};

ABSL_CONST_INIT absl::Mutex mutex(absl::kConstInit);
Chunk* open_chunk ABSL_GUARDED_BY(mutex) = nullptr;
size_t used ABSL_GUARDED_BY(mutex) = 0;  // of the open chunk

char* Map(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  madvise(p, bytes, MADV_HUGEPAGE);  // failing is harmless
  return static_cast<char*>(p);
}

// Cuts [begin, begin + bytes) out of a mapping of `mapped` bytes at p.
void Keep(char* p, size_t mapped, char* begin, size_t bytes) {
  char *end = begin + bytes, *mapped_end = p + mapped;
  if (begin > p) munmap(p, begin - p);
  if (mapped_end > end) munmap(end, mapped_end - end);
}

// What is large starts at another sixteenth of a huge page each time. The tensors of a state cache are equal
// and filled at the same pace: in phase, all of them would come to their next huge page in the same step, and
// 24 layers' 288 MB took 0.2 to 0.4 s to be zeroed (seen on a virtual machine), a stall for every stream.
char* MapOutOfPhase(size_t bytes) {
  static std::atomic<size_t> count{0};
  const size_t mapped = bytes + 2 * kHuge;
  char* p = Map(mapped);
  if (p == nullptr) return nullptr;
  char* begin = reinterpret_cast<char*>(RoundUp(reinterpret_cast<uintptr_t>(p), kHuge)) +
                count.fetch_add(5, std::memory_order_relaxed) % 16 * (kHuge / 16);
  Keep(p, mapped, begin, bytes);
  return begin;
}

void Release(Chunk* chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  if (--chunk->users == 0) munmap(chunk, kChunk);
}

absl::Status OutOfMemory(size_t bytes) {
  return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes of memory"));
}

}  // namespace

absl::StatusOr<Buffer> AllocateMemory(size_t bytes) {
  bytes = RoundUp(std::max<size_t>(bytes, 1), kPage);
  if (bytes > kChunk / 2) {
    char* p = MapOutOfPhase(bytes);
    if (p == nullptr) return OutOfMemory(bytes);
    return Buffer(p, bytes, [](void* data, size_t size) { munmap(data, size); });
  }
  absl::MutexLock lock(&mutex);
  if (open_chunk == nullptr || used + bytes > kChunk) {
    char* p = Map(2 * kChunk);  // aligned by hand: a chunk is found from any address in it
    if (p == nullptr) return OutOfMemory(bytes);
    char* chunk = reinterpret_cast<char*>(RoundUp(reinterpret_cast<uintptr_t>(p), kChunk));
    Keep(p, 2 * kChunk, chunk, kChunk);
    if (open_chunk != nullptr) Release(open_chunk);
    open_chunk = new (chunk) Chunk{1};
    used = kPage;
  }
  ++open_chunk->users;
  char* data = reinterpret_cast<char*>(open_chunk) + used;
  used += bytes;
  return Buffer(data, bytes, [](void* p, size_t) {
    absl::MutexLock release_lock(&mutex);
    Release(reinterpret_cast<Chunk*>(reinterpret_cast<uintptr_t>(p) / kChunk * kChunk));
  });
}

int64_t FreeMemory() {
  int64_t free = static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  for (int64_t kib; meminfo >> key >> kib; meminfo.ignore(64, '\n')) {
    if (key == "MemAvailable:") free = kib * 1024;
  }
  return std::min(free, CgroupFreeMemory().value_or(free));
}

}  // namespace sessa
