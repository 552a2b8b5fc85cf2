// What KServe v2's REST endpoints say of the server and its model; the gRPC service says the same.
#pragma once

#include <cstdint>
#include <string>

#include "server/core/service.h"

namespace sessa {

// NOT_FOUND unless it is the one that there is, or empty.
absl::Status CheckKserveVersion(const std::string& model, const std::string& version);

std::string KserveServerJson(const Service& service);
std::string KserveModelJson(const ServedModel& model);
std::string KserveConfigJson(const ServedModel& model);
std::string KserveIndexJson(const Service& service);
std::string KserveStatisticsJson(Service* service, const ServedModel& model);

// Requests of all protocols, and what their parts took in all.
struct KserveStatistics {
  struct Duration {
    int64_t count = 0, ns = 0;
  };
  Duration success, fail, queue, prefill, decode;
};
KserveStatistics StatisticsOf(Service* service);

}  // namespace sessa
