// New API keys, and files of plain ones turned into files of hashes: what sessa-server --make_key and
// --hash_keys print.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

struct NewKey {
  std::string key;   // 256 random bits behind "sessa-", which scanners for leaked secrets can look for
  std::string line;  // of the key file, without a line break
};
// `tenant`: what follows the key on its line, "TENANT [FIELD=VALUE ...]". INVALID_ARGUMENT says what is wrong
// with it.
absl::StatusOr<NewKey> MakeKey(absl::string_view tenant);

// The same key file with hashes for the keys in plain text; comments and fields stay as they are.
std::string HashKeys(absl::string_view text);

}  // namespace sessa
