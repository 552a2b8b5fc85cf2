// See make_key.h.
#include "server/core/make_key.h"

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "openssl/rand.h"
#include "server/core/api_keys.h"

namespace sessa {

absl::StatusOr<NewKey> MakeKey(absl::string_view tenant) {
  if (absl::StrContains(tenant, '\n')) return absl::InvalidArgumentError("a tenant has one line");
  std::string bytes(32, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1)
    return absl::InternalError("the system has no random bytes");
  NewKey made;
  made.key = absl::StrCat("sessa-", absl::WebSafeBase64Escape(bytes));
  made.line = absl::StrCat(HashedKey(made.key), tenant.empty() ? "" : " ", tenant);
  if (const auto parsed = ApiKeys::Parse(made.line); !parsed.ok()) return parsed.status();
  return made;
}

std::string HashKeys(absl::string_view text) {
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == line.npos || line[begin] == '#' || absl::StartsWith(line.substr(begin), kHashedKeyPrefix)) {
      lines.emplace_back(line);
      continue;
    }
    const size_t end = std::min(line.find_first_of(" \t\r", begin), line.size());
    lines.push_back(
        absl::StrCat(line.substr(0, begin), HashedKey(line.substr(begin, end - begin)), line.substr(end)));
  }
  return absl::StrJoin(lines, "\n");
}

}  // namespace sessa
