// Reads again what an operator replaces under a running server: at SIGHUP, and when a file has changed. What
// cannot be read leaves everything as it was and says so on stderr. Files are looked at once a second, as a
// Kubernetes secret changes without a signal, and read when they have rested for a look, so that one that is
// being written is not read in the middle.
#pragma once

#include <condition_variable>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"

namespace sessa {

class Watched {
 public:
  // `read` takes the files into use and says in a few words what is in them; on an error it has changed
  // nothing. It is called on one thread at a time.
  Watched(std::string what, std::vector<std::string> paths,
          std::function<absl::StatusOr<std::string>()> read);

  // Requires: no Reloader has it yet, or its thread calls.
  absl::StatusOr<std::string> Read();
  // Whether the files are others than at the last Read, and the same as at the last call.
  bool HasChanged();
  const std::string& what() const { return what_; }

 private:
  std::string Stamp() const;

  std::string what_;
  std::vector<std::string> paths_;
  std::function<absl::StatusOr<std::string>()> read_;
  std::string read_stamp_, last_stamp_;
};

class Reloader {
 public:
  explicit Reloader(std::vector<Watched> watched, absl::Duration interval = absl::Seconds(1));
  ~Reloader();

  void ReadAll();  // soon, on the thread here; from any thread

 private:
  void Run();

  std::vector<Watched> watched_;
  const absl::Duration interval_;
  Mutex mutex_;
  std::condition_variable_any wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false, read_all_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace sessa
