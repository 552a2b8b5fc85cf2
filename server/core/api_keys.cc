// API keys; see api_keys.h.
#include "server/core/api_keys.h"

#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
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

// What follows the key on a line.
struct LineOptions {
  std::string tenant;  // empty: not named
  int weight = 0;      // 0: not stated
};

absl::StatusOr<LineOptions> ParseOptions(absl::Span<const absl::string_view> words) {
  LineOptions options;
  for (absl::string_view word : words) {
    if (absl::ConsumePrefix(&word, "weight=")) {
      int weight = 0;
      if (options.weight != 0) return absl::InvalidArgumentError("weight is there twice");
      if (!absl::SimpleAtoi(word, &weight) || weight < 1 || weight > ApiKeys::kMaxWeight) {
        return absl::InvalidArgumentError(
            absl::StrCat("weight must be a whole number between 1 and ", ApiKeys::kMaxWeight));
      }
      options.weight = weight;
    } else if (!options.tenant.empty() || absl::StrContains(word, '=')) {
      return absl::InvalidArgumentError("expected KEY [TENANT] [weight=N]");
    } else {
      options.tenant = std::string(word);
    }
  }
  return options;
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
    const auto fail = [line_number](absl::string_view what) {
      return absl::InvalidArgumentError(absl::StrCat("API keys, line ", line_number, ": ", what));
    };
    const absl::StatusOr<LineOptions> options = ParseOptions(absl::MakeConstSpan(words).subspan(1));
    if (!options.ok()) return fail(options.status().message());
    // A key without a name is its own tenant, named by its line: fairness and cache are kept apart all the
    // same.
    const std::string tenant = options->tenant.empty() ? absl::StrCat("key-", line_number) : options->tenant;
    if (!keys.tenants_.emplace(Digest(words[0]), tenant).second) return fail("the key is there twice");
    if (options->weight == 0) continue;
    const auto [stated, is_new] = keys.weights_.emplace(tenant, options->weight);
    if (!is_new && stated->second != options->weight)
      return fail(absl::StrCat("tenant ", tenant, " has weight ", stated->second, " in an earlier line"));
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

int ApiKeys::Weight(absl::string_view tenant) const {
  const auto it = weights_.find(tenant);
  return it == weights_.end() ? 1 : it->second;
}

}  // namespace sessa
