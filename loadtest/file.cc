// Files that are there as a whole or not at all; see file.h.
#include "loadtest/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace sessa::loadtest {
namespace {

absl::Status Error(const std::string& path, absl::string_view what, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat("writing ", path, ": ", what));
}

absl::Status WriteAll(int fd, const std::string& path, absl::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Error(path, "write", errno);
    contents.remove_prefix(written);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteFile(const std::string& path, absl::string_view contents) {
  struct stat info;
  const bool in_place = stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
  const std::string target = in_place ? path : absl::StrCat(path, ".", getpid(), ".tmp");
  const int fd =
      open(target.c_str(), in_place ? O_WRONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Error(path, "open", errno);
  absl::Status status = WriteAll(fd, path, contents);
  if (close(fd) != 0 && status.ok()) status = Error(path, "close", errno);  // where a full disk may show
  if (in_place) return status;
  if (status.ok() && rename(target.c_str(), path.c_str()) != 0) status = Error(path, "rename", errno);
  if (!status.ok()) unlink(target.c_str());
  return status;
}

}  // namespace sessa::loadtest
