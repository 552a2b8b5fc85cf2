// See call.h.
#include "server/grpc/call.h"

#include <chrono>

namespace sessa {

absl::StatusOr<std::string> TenantOf(Service* service, const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("authorization");
  if (it == metadata.end()) return service->Authenticate("");
  return service->Authenticate(absl::string_view(it->second.data(), it->second.size()));
}

absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline) - absl::Now();
}

absl::StatusOr<ByteBudget::Lease> Admit(Service* service, const std::string& tenant,
                                        const grpc::ByteBuffer& request) {
  if (absl::Status taken = service->tenants().TakeRequest(tenant); !taken.ok()) return taken;
  if (absl::Status room = service->CheckQueue(tenant); !room.ok()) return room;
  return ChargeBytes(service, request);
}

absl::Status TooManyTexts() { return absl::ResourceExhaustedError("too many requests wait to be read"); }

}  // namespace sessa
