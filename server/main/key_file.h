// What sessa-server does with the key file: makes its lines, and takes it into use, again and again.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/core/service.h"

namespace sessa {

// --make_key: a new key on stderr, its line on stdout.
absl::Status PrintNewKey(const std::string& tenant);
// --hash_keys: the file, with hashes, on stdout.
absl::Status PrintHashedKeys(const std::string& path);

// From now on `service` has the file's keys and limits. Says in a few words what is in it; on an error
// nothing has changed. Warns on stderr of keys in plain text.
absl::StatusOr<std::string> ReadKeys(const std::string& path, Service* service);

}  // namespace sessa
