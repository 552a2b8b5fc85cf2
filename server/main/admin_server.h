// The port for probes and metrics alone, which the process of every rank may have.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/core/service.h"
#include "server/main/options.h"
#include "server/rest/rest_server.h"

namespace sessa {

// On --admin_port; null without it. The errors of RestServer::Start.
absl::StatusOr<std::unique_ptr<RestServer>> StartAdmin(const MainOptions& options, Service* service);

}  // namespace sessa
