#include "kernels/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <new>
#include <string>

#include "absl/base/const_init.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/round.h"

namespace sessa {
namespace {

// The number in a file of one number, or -1 ("max", no such file).
int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  std::string word;
  int64_t value = -1;
  return file >> word && absl::SimpleAtoi(word, &value) ? value : -1;
}

// Most matrices are smaller than a huge page (2 MiB), and a stream over small pages misses the TLB at every
// one: so what is small is cut from chunks, in order, never reused, and a chunk goes back when nothing in it
// is in use.
constexpr size_t kPage = 4096, kChunk = size_t{32} << 20;

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

void Release(Chunk* chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  if (--chunk->users == 0) munmap(chunk, kChunk);
}

absl::Status OutOfMemory(size_t bytes) {
  return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes of memory"));
}

}  // namespace

absl::StatusOr<Buffer> AllocatePages(size_t bytes) {
  bytes = RoundUp(std::max<size_t>(bytes, 1), kPage);
  if (bytes > kChunk / 2) {
    char* p = Map(bytes);
    if (p == nullptr) return OutOfMemory(bytes);
    return Buffer(p, bytes, [](void* data, size_t size) { munmap(data, size); });
  }
  absl::MutexLock lock(&mutex);
  if (open_chunk == nullptr || used + bytes > kChunk) {
    char* p = Map(2 * kChunk);  // aligned by hand: a chunk is found from any address in it
    if (p == nullptr) return OutOfMemory(bytes);
    char* chunk = reinterpret_cast<char*>(RoundUp(reinterpret_cast<uintptr_t>(p), kChunk));
    if (chunk > p) munmap(p, chunk - p);
    if (chunk < p + kChunk) munmap(chunk + kChunk, p + kChunk - chunk);
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
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max"),
                used = ReadNumber("/sys/fs/cgroup/memory.current");
  return limit >= 0 && used >= 0 ? std::min(free, std::max<int64_t>(0, limit - used)) : free;
}

}  // namespace sessa
