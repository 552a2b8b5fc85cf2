// Cross-origin requests of browsers (the Fetch standard, 3.2): which pages elsewhere may call this server and
// read its replies. Off unless origins are named: keys are headers here, which no browser adds by itself, but
// a server without keys on somebody's own machine would else be every page's. Constant, thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

class Cors {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  Cors() = default;  // off
  // `origins`: "*", or a list with commas of origins as browsers write them ("http://localhost:3000").
  static absl::StatusOr<Cors> Parse(absl::string_view origins);

  // What every reply to a request from `origin` (its header; empty: none) carries.
  Headers ForReply(absl::string_view origin) const;
  // And the reply to a preflight beside those; empty where the origin may not call. `requested_headers` is
  // Access-Control-Request-Headers, `methods` what the path takes.
  Headers ForPreflight(absl::string_view origin, absl::string_view requested_headers,
                       absl::string_view methods) const;

 private:
  bool Allows(absl::string_view origin) const;

  bool any_ = false;
  std::vector<std::string> origins_;
};

}  // namespace sessa
