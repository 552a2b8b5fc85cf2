// See key_file.h.
#include "server/main/key_file.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/api_keys.h"
#include "server/core/log.h"
#include "server/core/make_key.h"
#include "server/file/read_file.h"

namespace sessa {

absl::Status PrintNewKey(const std::string& tenant) {
  const absl::StatusOr<NewKey> made = MakeKey(tenant);
  if (!made.ok())
    return absl::Status(made.status().code(), absl::StrCat("--make_key: ", made.status().message()));
  std::printf("%s\n", made->line.c_str());
  if (std::fflush(stdout) != 0) return absl::UnavailableError("--make_key: the line could not be written");
  std::fprintf(stderr, "The key, shown this once: %s\n", made->key.c_str());
  return absl::OkStatus();
}

absl::Status PrintHashedKeys(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok())
    return absl::Status(text.status().code(), absl::StrCat("--hash_keys: ", text.status().message()));
  std::fputs(HashKeys(*text).c_str(), stdout);
  return std::fflush(stdout) == 0 ? absl::OkStatus() : absl::UnavailableError("--hash_keys: writing failed");
}

absl::StatusOr<std::string> ReadKeys(const std::string& path, Service* service) {
  absl::StatusOr<ApiKeys> keys = ApiKeys::Load(path);
  if (!keys.ok()) return keys.status();
  if (const int plain = keys->num_plain_keys(); plain > 0) {
    Log(absl::StrCat(path, " holds ", plain, " API keys in plain text; sessa-server --hash_keys=", path,
                     " prints it with hashes in their place"),
        LogLevel::kWarning);
  }
  const std::string what = absl::StrCat(keys->num_keys(), " keys of ", keys->tenants().size(), " tenants");
  service->tenants().Reload(*std::move(keys));
  return what;
}

}  // namespace sessa
