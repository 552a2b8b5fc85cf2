// The access log's line of one gRPC call: what is known of it from the start, and what came of it. Not
// thread-safe.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/monotonic.h"
#include "grpcpp/server_context.h"
#include "server/core/access_log.h"
#include "server/core/generation.h"
#include "server/core/service.h"

namespace sessa {

class CallLog {
 public:
  // `method`: "Generate".
  CallLog(const grpc::CallbackServerContext& context, const char* method, std::string request_id,
          const Service& service);
  void SetTenant(const std::string& tenant) { record_.tenant = tenant; }
  void SetRequestId(const std::string& id) { record_.request_id = id; }
  // At the end, once. Writes nothing where there is no access log.
  void Write(const absl::Status& status, const std::optional<Usage>& usage, const GenerationTimes& times);

 private:
  const bool on_;
  const absl::Time start_ = MonotonicNow();
  AccessRecord record_;
};

}  // namespace sessa
