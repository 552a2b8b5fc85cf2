// See reflection_service.h.
#include "server/grpc/reflection_service.h"

#include <set>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "server/grpc/message.h"

namespace sessa {
namespace {

namespace pb = grpc::reflection::v1;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

void AddFile(const FileDescriptor& file, std::set<const FileDescriptor*>* seen,
             pb::FileDescriptorResponse* out) {
  if (!seen->insert(&file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  out->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), seen, out);
}

void AnswerFile(const FileDescriptor* file, pb::ServerReflectionResponse* response) {
  if (file == nullptr) {
    response->mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
    response->mutable_error_response()->set_error_message("not found");
    return;
  }
  std::set<const FileDescriptor*> seen;
  AddFile(*file, &seen, response->mutable_file_descriptor_response());
}

pb::ServerReflectionResponse Answer(const pb::ServerReflectionRequest& request,
                                    const std::vector<std::string>& services) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  pb::ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case pb::ServerReflectionRequest::kListServices:
      for (const std::string& name : services)
        response.mutable_list_services_response()->add_service()->set_name(name);
      break;
    case pb::ServerReflectionRequest::kFileByFilename:
      AnswerFile(pool.FindFileByName(request.file_by_filename()), &response);
      break;
    case pb::ServerReflectionRequest::kFileContainingSymbol:
      AnswerFile(pool.FindFileContainingSymbol(request.file_containing_symbol()), &response);
      break;
    case pb::ServerReflectionRequest::kAllExtensionNumbersOfType:
      // No message here may be extended.
      if (pool.FindMessageTypeByName(request.all_extension_numbers_of_type()) != nullptr) {
        response.mutable_all_extension_numbers_response()->set_base_type_name(
            request.all_extension_numbers_of_type());
        break;
      }
      AnswerFile(nullptr, &response);
      break;
    case pb::ServerReflectionRequest::kFileContainingExtension: AnswerFile(nullptr, &response); break;
    case pb::ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      response.mutable_error_response()->set_error_code(grpc::StatusCode::INVALID_ARGUMENT);
      response.mutable_error_response()->set_error_message("no question");
  }
  return response;
}

// One question at a time.
class Reactor final : public ReflectionReactor {
 public:
  explicit Reactor(const std::vector<std::string>* services) : services_(services) { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    pb::ServerReflectionRequest request;
    if (!ok) return Finish(grpc::Status::OK);
    if (!ParseBytes(request_, &request))
      return Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no message of this type"));
    reply_ = SerializeMessage(Answer(request, *services_));
    StartWrite(&reply_);
  }
  void OnWriteDone(bool ok) override { ok ? StartRead(&request_) : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  const std::vector<std::string>* const services_;
  grpc::ByteBuffer request_, reply_;
};

}  // namespace

ReflectionReactor* MakeReflectionReactor(const std::vector<std::string>* services) {
  return new Reactor(services);
}

}  // namespace sessa
