// The process' own metrics, from /proc; see engine_metrics.h.
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/core/engine_metrics.h"

namespace sessa {
namespace {

// /proc/self/stat from its third field on: the second, the program's name in brackets, may hold anything.
std::vector<std::string> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(") ");
  if (name_end == std::string::npos) return {};
  return absl::StrSplit(line.substr(name_end + 2), ' ');
}

// When the machine started, in seconds since 1970.
std::optional<double> BootTime() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    double seconds = 0;
    if (line.rfind("btime ", 0) == 0 && absl::SimpleAtod(line.substr(6), &seconds)) return seconds;
  }
  return std::nullopt;
}

std::optional<double> OpenFiles() {
  std::error_code error;
  std::filesystem::directory_iterator it("/proc/self/fd", error);
  if (error) return std::nullopt;
  int count = -1;  // the one that this look at the folder opens is not the process' own
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) ++count;
  if (error) return std::nullopt;
  return count;
}

}  // namespace

void AppendProcessMetrics(std::vector<prometheus::MetricFamily>* families) {
  using prometheus::MetricType;
  auto add = [families](const char* name, const char* help, MetricType type, std::optional<double> value) {
    if (value.has_value()) families->push_back(SingleMetric(name, help, type, *value));
  };
  const std::vector<std::string> stat = StatFields();
  // `index` is the number of the field in proc(5).
  auto field = [&stat](size_t index) -> std::optional<double> {
    double value = 0;
    if (index - 3 >= stat.size() || !absl::SimpleAtod(stat[index - 3], &value)) return std::nullopt;
    return value;
  };
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double page = static_cast<double>(sysconf(_SC_PAGESIZE));
  const std::optional<double> user = field(14), system = field(15), start = field(22), pages = field(24);
  if (user && system) {
    add("process_cpu_seconds_total", "User and system CPU time spent.", MetricType::Counter,
        (*user + *system) / ticks);
  }
  if (const std::optional<double> boot = BootTime(); boot && start) {
    add("process_start_time_seconds", "Start of the process, in seconds since 1970.", MetricType::Gauge,
        *boot + *start / ticks);
  }
  if (pages) add("process_resident_memory_bytes", "Resident memory.", MetricType::Gauge, *pages * page);
  add("process_virtual_memory_bytes", "Virtual memory.", MetricType::Gauge, field(23));
  add("process_open_fds", "Open file descriptors.", MetricType::Gauge, OpenFiles());
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add("process_max_fds", "Most file descriptors that may be open.", MetricType::Gauge,
        static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace sessa
