#include "kernels/cpu/free_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"

namespace sessa {
namespace {

// The number in a file of one number, or -1 ("max", no such file).
int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  std::string word;
  int64_t value = -1;
  return file >> word && absl::SimpleAtoi(word, &value) ? value : -1;
}

}  // namespace

int64_t FreeMemory() {
  int64_t free = static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  for (int64_t kib; meminfo >> key >> kib; meminfo.ignore(64, '\n')) {
    if (key == "MemAvailable:") free = kib * 1024;
  }
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max"), used = ReadNumber("/sys/fs/cgroup/memory.current");
  return limit >= 0 && used >= 0 ? std::min(free, std::max<int64_t>(0, limit - used)) : free;
}

}  // namespace sessa
