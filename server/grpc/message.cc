// See message.h.
#include "server/grpc/message.h"

#include "grpcpp/support/proto_buffer_reader.h"
#include "grpcpp/support/slice.h"
#include "server/core/errors.h"

namespace sessa {

bool ParseBytes(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::ByteBuffer shared(bytes);  // the reader wants one of its own; the bytes are the same
  grpc::ProtoBufferReader reader(&shared);
  return reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
}

absl::Status ParseMessage(Service* service, const grpc::ByteBuffer& bytes, ByteBudget::Lease* lease,
                          google::protobuf::Message* message) {
  if (!ParseBytes(bytes, message))
    return Annotate(absl::InvalidArgumentError("The request is no message of its type."), "",
                    "invalid_message");
  if (!lease->Resize(static_cast<int64_t>(bytes.Length() + message->SpaceUsedLong())))
    return OutOfBytesError(service->options().retry_after);
  return absl::OkStatus();
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<ByteBudget::Lease> ChargeBytes(Service* service, const grpc::ByteBuffer& bytes) {
  ByteBudget::Lease lease(&service->byte_budget(), ByteBudget::Kind::kInput);
  if (!lease.Resize(static_cast<int64_t>(bytes.Length())))
    return OutOfBytesError(service->options().retry_after);
  return lease;
}

}  // namespace sessa
