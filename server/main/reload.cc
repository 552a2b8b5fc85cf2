// See reload.h.
#include "server/main/reload.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/log.h"

namespace sessa {

Watched::Watched(std::string what, std::vector<std::string> paths,
                 std::function<absl::StatusOr<std::string>()> read)
    : what_(std::move(what)), paths_(std::move(paths)), read_(std::move(read)) {}

std::string Watched::Stamp() const {
  std::string stamp;
  for (const std::string& path : paths_) {
    struct stat file = {};
    if (stat(path.c_str(), &file) != 0) {
      stamp += "none;";
    } else {
      absl::StrAppend(&stamp, file.st_dev, ":", file.st_ino, ":", file.st_size, ":", file.st_mtim.tv_sec, ".",
                      file.st_mtim.tv_nsec, ";");
    }
  }
  return stamp;
}

absl::StatusOr<std::string> Watched::Read() {
  read_stamp_ = last_stamp_ = Stamp();  // before the files are opened: what changes from now on is seen
  return read_();
}

bool Watched::HasChanged() {
  std::string now = Stamp();
  const bool rests = now == last_stamp_;
  last_stamp_ = std::move(now);
  return rests && last_stamp_ != read_stamp_;
}

Reloader::Reloader(std::vector<Watched> watched, absl::Duration interval)
    : watched_(std::move(watched)), interval_(interval), thread_([this] { Run(); }) {}

Reloader::~Reloader() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Reloader::ReadAll() {
  MutexLock lock(&mutex_);
  read_all_ = true;
  wake_.notify_all();
}

void Reloader::Run() {
  const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || read_all_; };
  while (true) {
    bool all = false;
    {
      MutexLock lock(&mutex_);
      WaitUntil(&wake_, &mutex_, MonotonicNow() + interval_, woken);
      if (stopping_) return;
      all = std::exchange(read_all_, false);
    }
    for (Watched& watched : watched_) {
      if (!all && !watched.HasChanged()) continue;
      const absl::StatusOr<std::string> read = watched.Read();
      if (read.ok()) {
        Log(absl::StrCat(watched.what(), ": read again, ", *read));
      } else {
        Log(absl::StrCat(watched.what(), " stay as they were: ", read.status().message()),
            LogLevel::kWarning);
      }
    }
  }
}

}  // namespace sessa
