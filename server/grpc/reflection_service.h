// grpc.reflection.v1 and, with the same messages, v1alpha: the services of this server and the descriptors
// that are compiled into it. Constant, thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"

namespace sessa {

using ReflectionReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

// A call; it deletes itself. `services` outlives it.
ReflectionReactor* MakeReflectionReactor(const std::vector<std::string>* services);

template <typename Version>
class ReflectionService final
    : public Version::template WithRawCallbackMethod_ServerReflectionInfo<typename Version::Service> {
 public:
  explicit ReflectionService(std::vector<std::string> services) : services_(std::move(services)) {}

  ReflectionReactor* ServerReflectionInfo(grpc::CallbackServerContext*) override {
    return MakeReflectionReactor(&services_);
  }

 private:
  const std::vector<std::string> services_;
};

}  // namespace sessa
