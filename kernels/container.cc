#include "kernels/container.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace sessa {
namespace {

// The first word of a file as a number; none: no such file, or "max".
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  int64_t value = 0;
  if (!(file >> word) || !absl::SimpleAtoi(word, &value)) return std::nullopt;
  return value;
}

// Pages of files, which memory.current counts too. Memory of tmpfs and of processes is not on these two
// lists.
int64_t FilePages(const std::string& folder) {
  std::ifstream file(absl::StrCat(folder, "/memory.stat"));
  std::string key;
  int64_t sum = 0;
  for (int64_t bytes; file >> key >> bytes;) {
    if (key == "active_file" || key == "inactive_file") sum += bytes;
  }
  return sum;
}

}  // namespace

std::vector<std::string> CgroupFolders(const std::string& root, const std::string& self) {
  std::ifstream file(self);
  std::string path;
  for (std::string line; std::getline(file, line);) {
    if (absl::string_view rest = line; absl::ConsumePrefix(&rest, "0::/")) path = std::string(rest);
  }
  std::vector<std::string> folders;
  while (!path.empty()) {
    folders.push_back(absl::StrCat(root, "/", path));
    const size_t slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash);
  }
  folders.push_back(root);
  return folders;
}

std::optional<int64_t> CgroupFreeMemory(const std::vector<std::string>& folders) {
  std::optional<int64_t> least;
  for (const std::string& folder : folders) {
    const std::optional<int64_t> limit = ReadNumber(absl::StrCat(folder, "/memory.max"));
    const std::optional<int64_t> used = ReadNumber(absl::StrCat(folder, "/memory.current"));
    if (!limit.has_value() || !used.has_value()) continue;
    const int64_t held = std::max<int64_t>(0, *used - FilePages(folder));
    const int64_t free = std::max<int64_t>(0, *limit - held);
    least = std::min(least.value_or(free), free);
  }
  return least;
}

}  // namespace sessa
