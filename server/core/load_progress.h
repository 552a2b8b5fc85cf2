// How far loading is: a bar in the last line of a terminal, elsewhere a line in the log now and then. A
// thread looks at what is done; who loads knows nothing of it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "server/core/line_writer.h"

namespace sessa {

// "1.50 GiB", "12.0 MiB", "17 B".
std::string FormatBytes(int64_t bytes);
// "weights [######              ]  30 %  1.20 of 4.00 GiB, 5 s left"; what is left once a second has passed.
std::string ProgressBar(int64_t done, int64_t total, absl::Duration passed);

class LoadProgress {
 public:
  struct Options {
    bool is_terminal = false;
    absl::Duration bar_interval = absl::Milliseconds(100);
    absl::Duration line_interval = absl::Seconds(10);
  };

  // `done` counts bytes up to `total`; it is called on the thread here and may come to more.
  LoadProgress(std::function<int64_t()> done, int64_t total, LineWriter* log, const Options& options);
  ~LoadProgress();  // the bar is gone, or its last state is overwritten

 private:
  void Run();

  const std::function<int64_t()> done_;
  const int64_t total_;
  LineWriter* const log_;
  const Options options_;
  Mutex mutex_;
  std::condition_variable_any ended_;
  bool end_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sessa
