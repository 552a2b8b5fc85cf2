// See call_log.h.
#include "server/grpc/call_log.h"

#include <utility>

#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

// The address in the name of the pair's end (guarded_connection.h), as gRPC spells it.
std::string ClientOf(const std::string& peer) {
  absl::string_view name = peer;
  if (!absl::ConsumePrefix(&name, "unix-abstract:")) return "";
  return absl::StrReplaceAll(name.substr(0, name.find("%20")), {{"%5B", "["}, {"%5D", "]"}, {"%3A", ":"}});
}

}  // namespace

CallLog::CallLog(const grpc::CallbackServerContext& context, const char* method, std::string request_id,
                 const Service& service)
    : on_(service.options().access_log) {
  record_.protocol = "grpc";
  record_.endpoint = method;
  record_.request_id = std::move(request_id);
  record_.client = ClientOf(context.peer());
  record_.model = service.options().model_name;
}

void CallLog::Write(const absl::Status& status, const std::optional<Usage>& usage,
                    const GenerationTimes& times) {
  if (!on_) return;
  record_.status = absl::StatusCodeToString(status.code());
  record_.duration = MonotonicNow() - start_;
  record_.time = absl::Now();
  record_.usage = usage;
  record_.times = times;
  if (!status.ok()) {
    record_.error = Describe(status).code;
    record_.reason = std::string(status.message());
  }
  WriteAccess(record_);
}

}  // namespace sessa
