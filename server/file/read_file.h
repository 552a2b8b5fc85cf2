// Reading of small files: configuration, tokenizers, keys, certificates. NOT_FOUND means that there is
// nothing of that name, so that a file may be left out; what is there and cannot be read is any other error.
// Errors name the file.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sessa {

// INVALID_ARGUMENT when there are more than `max_bytes`; also of what has no size, as pipes.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes = size_t{256} << 20);

// Why `path` could not be opened, of errno. A link to nothing is there.
absl::Status OpenError(int error_number, const std::string& path);

}  // namespace sessa
