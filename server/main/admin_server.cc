#include "server/main/admin_server.h"

namespace sessa {
namespace {

// Probes and scrapers may hold so many; descriptors are kept for them (FitConnections).
constexpr int kMaxAdminConnections = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<RestServer>> StartAdmin(const MainOptions& options, Service* service) {
  if (!options.admin_port.has_value()) return nullptr;
  return RestServer::Start({.host = options.admin_host,
                            .port = *options.admin_port,
                            .admin = true,
                            .num_threads = 1,
                            .max_connections = kMaxAdminConnections},
                           service);
}

}  // namespace sessa
