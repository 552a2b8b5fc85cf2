// API keys; see api_keys.h.
#include "server/core/api_keys.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "openssl/crypto.h"
#include "openssl/evp.h"
#include "openssl/hmac.h"
#include "openssl/rand.h"
#include "openssl/sha.h"

namespace sessa {
namespace {

constexpr size_t kDigestBytes = SHA256_DIGEST_LENGTH;
constexpr size_t kMaxTenantBytes = 64;

struct Field {
  absl::string_view name;
  double low, high;
  bool whole;
};
constexpr Field kFields[] = {{"weight", 1, 1000, true},
                             {"rate", 0.001, 1e6, false},
                             {"burst", 1, 1e6, true},
                             {"tokens_per_minute", 1, 1e12, true},
                             {"max_requests", 1, 1e6, true},
                             {"min_priority", TenantLimits::kMostUrgent, TenantLimits::kLeastUrgent, true},
                             {"max_priority", TenantLimits::kMostUrgent, TenantLimits::kLeastUrgent, true}};
constexpr char kExpected[] =
    "expected KEY [TENANT] and fields of weight, rate, burst, tokens_per_minute, max_requests, min_priority "
    "and max_priority, as NAME=VALUE";

// What the lines of a tenant state.
struct Stated {
  int line = 0;  // its first
  std::map<absl::string_view, double> fields;
};

std::string Digest(absl::string_view key) {
  std::string digest(kDigestBytes, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

std::string Blinded(const std::string& digest) {
  static const std::string* const secret = [] {
    auto* bytes = new std::string(kDigestBytes, '\0');
    if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes->data()), static_cast<int>(kDigestBytes)) != 1)
      std::abort();  // a system without random bytes
    return bytes;
  }();
  std::string blinded(kDigestBytes, '\0');
  HMAC(EVP_sha256(), secret->data(), static_cast<int>(secret->size()),
       reinterpret_cast<const unsigned char*>(digest.data()), digest.size(),
       reinterpret_cast<unsigned char*>(blinded.data()), nullptr);
  return blinded;
}

absl::Status Fail(int line, absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("API keys, line ", line, field.empty() ? "" : ", ", field, ": ", what));
}

// A '#' within a word is part of it: keys may hold one.
absl::string_view WithoutComment(absl::string_view line) {
  for (size_t at = line.find('#'); at != line.npos; at = line.find('#', at + 1)) {
    if (at == 0 || absl::ascii_isspace(line[at - 1])) return line.substr(0, at);
  }
  return line;
}

// Names become labels of metrics and words of log lines.
bool IsTenantName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxTenantBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("._-@:/+", c);
  });
}

absl::Status ParseFields(int line, absl::Span<const absl::string_view> words, std::string* tenant,
                         std::map<absl::string_view, double>* fields) {
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string position = absl::StrCat("word ", i + 2);
    const size_t equals = words[i].find('=');
    if (equals == absl::string_view::npos) {
      if (!tenant->empty()) return Fail(line, position, kExpected);
      if (absl::StartsWith(words[i], kHashedKeyPrefix))
        return Fail(line, position, "the key comes first, then its tenant");
      if (!IsTenantName(words[i]))
        return Fail(line, position, "a tenant's name has 1 to 64 letters, digits and . _ - @ : / +");
      *tenant = std::string(words[i]);
      continue;
    }
    const auto field = std::find_if(std::begin(kFields), std::end(kFields),
                                    [&](const Field& f) { return f.name == words[i].substr(0, equals); });
    if (field == std::end(kFields)) return Fail(line, position, kExpected);
    double value = 0;
    int64_t whole = 0;
    const absl::string_view digits = words[i].substr(equals + 1);
    bool good = field->whole ? absl::SimpleAtoi(digits, &whole) : absl::SimpleAtod(digits, &value);
    if (field->whole) value = static_cast<double>(whole);
    good = good && value >= field->low && value <= field->high;  // NaN fails
    if (!good)
      return Fail(
          line, field->name,
          absl::StrCat(
              "must be a ", field->whole ? "whole " : "", "number between ", field->low, " and ",
              field->whole ? absl::StrCat(static_cast<int64_t>(field->high)) : absl::StrCat(field->high)));
    if (!fields->emplace(field->name, value).second) return Fail(line, field->name, "is there twice");
  }
  return absl::OkStatus();
}

absl::StatusOr<TenantLimits> ToLimits(const Stated& stated) {
  TenantLimits limits;
  const auto get = [&stated](absl::string_view name, auto* value) {
    const auto it = stated.fields.find(name);
    if (it != stated.fields.end()) *value = static_cast<std::decay_t<decltype(*value)>>(it->second);
  };
  get("weight", &limits.weight);
  get("rate", &limits.rate);
  limits.burst = static_cast<int>(std::ceil(limits.rate));
  get("burst", &limits.burst);
  get("tokens_per_minute", &limits.tokens_per_minute);
  get("max_requests", &limits.max_requests);
  get("min_priority", &limits.min_priority);
  get("max_priority", &limits.max_priority);
  if (limits.burst > 0 && limits.rate == 0) return Fail(stated.line, "burst", "goes with a rate");
  if (limits.min_priority > limits.max_priority)
    return Fail(stated.line, "min_priority", "must not exceed max_priority");
  return limits;
}

}  // namespace

std::string HashedKey(absl::string_view key) {
  return absl::StrCat(kHashedKeyPrefix, absl::BytesToHexString(Digest(key)));
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(absl::string_view text) {
  ApiKeys keys;
  std::map<std::string, Stated> tenants;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    const std::vector<absl::string_view> words =
        absl::StrSplit(WithoutComment(line), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    std::string digest;
    if (absl::string_view hex = words[0]; absl::ConsumePrefix(&hex, kHashedKeyPrefix)) {
      if (hex.size() != 2 * kDigestBytes || !std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit))
        return Fail(line_number, "key", "sha256: is followed by 64 hexadecimal digits");
      digest = absl::HexStringToBytes(hex);
    } else {
      digest = Digest(words[0]);
      ++keys.num_plain_keys_;
    }
    std::string tenant;
    std::map<absl::string_view, double> fields;
    const absl::Status parsed =
        ParseFields(line_number, absl::MakeConstSpan(words).subspan(1), &tenant, &fields);
    if (!parsed.ok()) return parsed;
    // A key without a name is its own tenant, named by its hash, which stays when lines move.
    if (tenant.empty()) tenant = absl::StrCat("key-", absl::BytesToHexString(digest.substr(0, 6)));
    Stated& stated = tenants[tenant];
    if (stated.line == 0) stated.line = line_number;
    for (const auto& [name, value] : fields) {
      if (stated.fields.emplace(name, value).first->second != value)
        return Fail(line_number, name, "an earlier line of the same tenant says otherwise");
    }
    std::string blinded = Blinded(digest);
    if (!keys.keys_.emplace(std::move(blinded), Key{std::move(digest), tenant}).second)
      return Fail(line_number, "key", "is there twice");
  }
  for (const auto& [tenant, stated] : tenants) {
    absl::StatusOr<TenantLimits> limits = ToLimits(stated);
    if (!limits.ok()) return limits.status();
    keys.tenants_[tenant] = *limits;
  }
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.eof() || file.bad()) {
    if (file.is_open() && file.good())
      return absl::InvalidArgumentError(absl::StrCat(path, " has more than ", kMaxFileBytes, " bytes"));
    return absl::NotFoundError(absl::StrCat("reading API keys from ", path));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  absl::StatusOr<ApiKeys> keys = Parse(text);
  if (!keys.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", keys.status().message()));
  if (!keys->required()) {
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
  const std::string digest = Digest(absl::StripAsciiWhitespace(authorization.substr(7)));
  const auto it = keys_.find(Blinded(digest));
  if (it == keys_.end() || CRYPTO_memcmp(it->second.digest.data(), digest.data(), kDigestBytes) != 0)
    return absl::UnauthenticatedError("The API key is not known.");
  return it->second.tenant;
}

TenantLimits ApiKeys::Limits(const std::string& tenant) const {
  const auto it = tenants_.find(tenant);
  return it == tenants_.end() ? TenantLimits() : it->second;
}

}  // namespace sessa
