// See read_file.h.
#include "server/file/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace sessa {

absl::Status OpenError(int error_number, const std::string& path) {
  std::error_code ignored;
  if (error_number == ENOENT && std::filesystem::is_symlink(path, ignored))
    return absl::FailedPreconditionError(absl::StrCat(path, ": is a link to a file that is not there"));
  return absl::ErrnoToStatus(error_number, path);
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return OpenError(errno, path);
  std::string text;
  absl::Status status;
  char buffer[65536];
  while (status.ok()) {
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n == 0) break;
    if (n > 0) {
      text.append(buffer, n);
      if (text.size() > max_bytes)
        status = absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", max_bytes, " bytes"));
    } else if (errno != EINTR) {
      status = absl::ErrnoToStatus(errno, path);
    }
  }
  close(fd);
  if (!status.ok()) return status;
  return text;
}

}  // namespace sessa
