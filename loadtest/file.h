// Files that are there as a whole or not at all.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sessa::loadtest {

// Writes a file beside `path` and renames it there. What is no plain file (/dev/stdout, a pipe) is written as
// it is. Errors name the path and what the system said; nothing is left behind.
absl::Status WriteFile(const std::string& path, absl::string_view contents);

}  // namespace sessa::loadtest
