// See cors.h.
#include "server/rest/cors.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sessa {
namespace {

// Replies' headers beyond those that any page may read.
constexpr char kExposed[] =
    "X-Request-Id, Retry-After, X-Sessa-Ignored-Fields, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";
constexpr char kMaxAge[] = "600";  // seconds that a browser may remember a preflight; Chromium's most is 7200

// scheme://host[:port], without a path, in lower case.
bool IsOrigin(absl::string_view origin) {
  absl::string_view rest = origin;
  if (!absl::ConsumePrefix(&rest, "http://") && !absl::ConsumePrefix(&rest, "https://")) return false;
  return !rest.empty() && std::all_of(rest.begin(), rest.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || absl::StrContains("-._:[]", c);
  });
}

// Names of headers, which go back into one.
bool IsHeaderList(absl::string_view names) {
  return std::all_of(names.begin(), names.end(),
                     [](char c) { return absl::ascii_isalnum(c) || absl::StrContains("-_, ", c); });
}

}  // namespace

absl::StatusOr<Cors> Cors::Parse(absl::string_view origins) {
  Cors cors;
  if (origins == "*") {
    cors.any_ = true;
    return cors;
  }
  for (absl::string_view origin : absl::StrSplit(origins, ',', absl::SkipWhitespace())) {
    origin = absl::StripAsciiWhitespace(origin);
    if (!IsOrigin(origin)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", origin, "' is neither * nor an origin such as https://example.org:8443"));
    }
    cors.origins_.emplace_back(origin);
  }
  return cors;
}

bool Cors::Allows(absl::string_view origin) const {
  return any_ || std::find(origins_.begin(), origins_.end(), origin) != origins_.end();
}

Cors::Headers Cors::ForReply(absl::string_view origin) const {
  Headers headers;
  // Caches must know that the reply was for this origin alone, whether it was one or not.
  if (!any_ && !origins_.empty()) headers.emplace_back("Vary", "Origin");
  if (origin.empty() || !Allows(origin)) return headers;
  headers.emplace_back("Access-Control-Allow-Origin", any_ ? "*" : std::string(origin));
  headers.emplace_back("Access-Control-Expose-Headers", kExposed);
  return headers;
}

Cors::Headers Cors::ForPreflight(absl::string_view origin, absl::string_view requested_headers,
                                 absl::string_view methods) const {
  if (origin.empty() || !Allows(origin)) return {};
  Headers headers = {{"Access-Control-Allow-Methods", std::string(methods)},
                     {"Access-Control-Max-Age", kMaxAge}};
  // Not "*", which would leave out Authorization.
  if (!requested_headers.empty() && IsHeaderList(requested_headers))
    headers.emplace_back("Access-Control-Allow-Headers", std::string(requested_headers));
  return headers;
}

}  // namespace sessa
