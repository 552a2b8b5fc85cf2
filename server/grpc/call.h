// What all unary calls have in common, over bytes (message.h): who calls, whether there is room for the
// request, and only then the request itself.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/core/service.h"
#include "server/grpc/message.h"
#include "server/grpc/status.h"

namespace sessa {

// The caller's tenant, by the metadata `authorization`.
absl::StatusOr<std::string> TenantOf(Service* service, const grpc::CallbackServerContext& context);
// The time that the client still waits; infinite when it named no deadline.
absl::Duration TimeLeft(const grpc::CallbackServerContext& context);
// What a generation of the tenant's needs before its message is parsed: its rate, room in the queue, and room
// for its bytes, which is returned.
absl::StatusOr<ByteBudget::Lease> Admit(Service* service, const std::string& tenant,
                                        const grpc::ByteBuffer& request);
// RESOURCE_EXHAUSTED: the text pool takes no more.
absl::Status TooManyTexts();

// A call that ends before anything of it is looked at.
template <typename Reactor>
class RefusedCall final : public Reactor {
 public:
  explicit RefusedCall(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

// The end of a call that was reset, or half-closed, before its message came: it was no request, and is
// counted as none.
inline grpc::Status NoMessage() {
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "The call has no message.");
}

// Parses `request`, calls `answer(tenant, Request, Reply*)` and fills `reply`.
template <typename Request, typename Reply, typename Answer>
absl::Status AnswerBytes(Service* service, const std::string& tenant, const grpc::ByteBuffer& request,
                         ByteBudget::Lease* lease, grpc::ByteBuffer* reply, const Answer& answer) {
  Request message;
  if (absl::Status parsed = ParseMessage(service, request, lease, &message); !parsed.ok()) return parsed;
  Reply out;
  absl::Status answered = answer(tenant, message, &out);
  if (answered.ok()) *reply = SerializeMessage(out);
  return answered;
}

// For calls about the server, which cost nothing and never wait.
template <typename Request, typename Reply, typename Answer>
grpc::ServerUnaryReactor* AnswerNow(Service* service, grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* reply,
                                    const Answer& answer) {
  if (!request->Valid()) return new RefusedCall<grpc::ServerUnaryReactor>(NoMessage());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::StatusOr<std::string> tenant = TenantOf(service, *context);
  absl::StatusOr<ByteBudget::Lease> lease = ChargeBytes(service, *request);
  absl::Status status = tenant.status();
  status.Update(lease.status());
  if (status.ok()) status = AnswerBytes<Request, Reply>(service, *tenant, *request, &*lease, reply, answer);
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// For work on texts: a request of the tenant's, done on the text pool unless the client is gone by then.
template <typename Request, typename Reply, typename Answer>
grpc::ServerUnaryReactor* AnswerOnTextPool(Service* service, grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request, grpc::ByteBuffer* reply,
                                           Answer answer) {
  if (!request->Valid()) return new RefusedCall<grpc::ServerUnaryReactor>(NoMessage());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::StatusOr<std::string> tenant = TenantOf(service, *context);
  absl::Status status = tenant.ok() ? service->tenants().TakeRequest(*tenant) : tenant.status();
  absl::StatusOr<ByteBudget::Lease> lease = ByteBudget::Lease();
  if (status.ok()) {
    lease = ChargeBytes(service, *request);
    status = lease.status();
  }
  if (!status.ok()) {
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }
  auto shared_lease = std::make_shared<ByteBudget::Lease>(*std::move(lease));
  const bool posted =
      service->text_pool().Post(request->Length(), [service, context, request, reply, reactor, shared_lease,
                                                    tenant = *tenant, answer = std::move(answer)] {
        reactor->Finish(context->IsCancelled()
                            ? grpc::Status::CANCELLED
                            : ToGrpcStatus(AnswerBytes<Request, Reply>(service, tenant, *request,
                                                                       shared_lease.get(), reply, answer)));
      });
  if (!posted) reactor->Finish(ToGrpcStatus(TooManyTexts()));
  return reactor;
}

}  // namespace sessa
