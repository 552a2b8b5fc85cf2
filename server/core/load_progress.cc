// See load_progress.h.
#include "server/core/load_progress.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/core/log.h"

namespace sessa {

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return absl::StrFormat("%.3g %s", value, unit);
}

std::string ProgressBar(int64_t done, int64_t total, absl::Duration passed) {
  constexpr int kWidth = 30;
  const double share = total > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 1;
  const int filled = static_cast<int>(share * kWidth);
  std::string bar = absl::StrFormat("weights [%s%s] %3d %%  %s of %s", std::string(filled, '#'),
                                    std::string(kWidth - filled, ' '), static_cast<int>(share * 100),
                                    FormatBytes(std::min(done, total)), FormatBytes(total));
  if (passed >= absl::Seconds(1) && share > 0 && share < 1) {
    const double left = absl::ToDoubleSeconds(passed) * (1 - share) / share;
    absl::StrAppend(&bar, ", ", static_cast<int64_t>(std::ceil(left)), " s left");
  }
  return bar;
}

LoadProgress::LoadProgress(std::function<int64_t()> done, int64_t total, LineWriter* log,
                           const Options& options)
    : done_(std::move(done)), total_(total), log_(log), options_(options), thread_([this] { Run(); }) {}

LoadProgress::~LoadProgress() {
  {
    MutexLock lock(&mutex_);
    end_ = true;
  }
  ended_.notify_one();
  thread_.join();
  if (options_.is_terminal) log_->WriteTransient("");
}

void LoadProgress::Run() {
  const absl::Time start = MonotonicNow();
  const absl::Duration interval = options_.is_terminal ? options_.bar_interval : options_.line_interval;
  const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return end_; };
  if (options_.is_terminal) log_->WriteTransient(ProgressBar(done_(), total_, absl::ZeroDuration()));
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (WaitUntil(&ended_, &mutex_, MonotonicNow() + interval, ended)) return;
    }
    const absl::Duration passed = MonotonicNow() - start;
    if (options_.is_terminal) {
      log_->WriteTransient(ProgressBar(done_(), total_, passed));
    } else {
      log_->Write(
          LogLine(absl::Now(), LogLevel::kInfo, ProgressBar(done_(), total_, passed), log_options().format));
    }
  }
}

}  // namespace sessa
