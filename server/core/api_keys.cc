// API keys; see api_keys.h.
#include "server/core/api_keys.h"

#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "openssl/sha.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

std::string Digest(absl::string_view key) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

}  // namespace

absl::StatusOr<ApiKeys> ApiKeys::Parse(absl::string_view text) {
  ApiKeys keys;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = line.substr(0, line.find('#'));
    std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    if (words.size() > 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("API keys, line ", line_number, ": expected KEY or KEY TENANT"));
    }
    // A key without a name is its own tenant, named by its line: fairness and cache are kept apart all the
    // same.
    const std::string tenant = words.size() == 2 ? std::string(words[1]) : absl::StrCat("key-", line_number);
    if (!keys.tenants_.emplace(Digest(words[0]), tenant).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("API keys, line ", line_number, ": the key is there twice"));
    }
  }
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("reading API keys from ", path));
  auto keys = Parse(text.str());
  if (keys.ok() && !keys->required()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds no API key; without keys leave the option out"));
  }
  return keys;
}

absl::StatusOr<std::string> ApiKeys::Tenant(absl::string_view authorization) const {
  if (!required()) return std::string();
  const absl::string_view scheme = authorization.substr(0, 7);
  if (!absl::EqualsIgnoreCase(scheme, "bearer ")) {
    return absl::UnauthenticatedError("An API key is needed: send 'Authorization: Bearer KEY'.");
  }
  auto it = tenants_.find(Digest(absl::StripAsciiWhitespace(authorization.substr(7))));
  if (it == tenants_.end()) return absl::UnauthenticatedError("The API key is not known.");
  return it->second;
}

}  // namespace sessa
