// What a server that has come up serves, and where: for people who start it. docs/architecture.md says what
// the words mean.
#pragma once

#include <string>
#include <vector>

#include "server/core/service.h"
#include "server/main/options.h"

namespace sessa {

// The ports that were taken; admin 0: none.
struct Ports {
  int http = 0, grpc = 0, admin = 0;
};

// "HOST:PORT", with brackets about an IPv6 address.
std::string Address(const std::string& host, int port);

// Lines of the log: model, formats, cache, limits, addresses to try.
std::vector<std::string> Summary(const MainOptions& options, const ServedModel& model, const Ports& ports);

}  // namespace sessa
