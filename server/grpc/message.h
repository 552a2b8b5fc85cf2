// Messages as bytes: the services take and give these, so that nothing is parsed before the caller's key is
// known, and what takes long is parsed on the text pool rather than on gRPC's threads.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/core/service.h"

namespace sessa {

// False: they are no such message.
bool ParseBytes(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

// INVALID_ARGUMENT when they are no such message. `lease` is charged for the message beside what it holds.
absl::Status ParseMessage(Service* service, const grpc::ByteBuffer& bytes, ByteBudget::Lease* lease,
                          google::protobuf::Message* message);
grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

// What gRPC keeps of a request as long as its call lasts; OutOfBytesError where there is no room.
absl::StatusOr<ByteBudget::Lease> ChargeBytes(Service* service, const grpc::ByteBuffer& bytes);

}  // namespace sessa
