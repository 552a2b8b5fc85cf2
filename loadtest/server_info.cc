// See server_info.h.
#include "loadtest/server_info.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "boost/json.hpp"
#include "grpcpp/grpcpp.h"
#include "loadtest/openai_json.h"
#include "sessa/v1/generation.grpc.pb.h"

namespace sessa::loadtest {
namespace {

namespace json = boost::json;
constexpr int kTimeoutSeconds = 10;

int Count(const json::object& model, const char* key) {
  const json::value* value = model.if_contains(key);
  return value != nullptr && value->is_int64() ? static_cast<int>(value->get_int64()) : 0;
}

absl::StatusOr<ServerInfo> ReadModelList(const std::string& body, const std::string& wanted) {
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  const json::value* data = error || !value.is_object() ? nullptr : value.get_object().if_contains("data");
  if (data == nullptr || !data->is_array())
    return absl::FailedPreconditionError("/v1/models does not answer with a list of models");
  std::string names;
  for (const json::value& item : data->get_array()) {
    const json::object* model = item.if_object();
    const json::value* id = model == nullptr ? nullptr : model->if_contains("id");
    if (id == nullptr || !id->is_string()) continue;
    const std::string name(id->get_string().data(), id->get_string().size());
    if (wanted.empty() || wanted == name)
      return ServerInfo{name, Count(*model, "vocab_size"), Count(*model, "max_model_len")};
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return absl::NotFoundError(absl::StrCat("the server has no model '", wanted, "'; it has: ", names));
}

}  // namespace

absl::StatusOr<ServerInfo> AskRestServer(const HttpUrl& url,
                                         const std::vector<boost::asio::ip::tcp::endpoint>& endpoints,
                                         const std::string& key, const std::string& model) {
  const absl::StatusOr<HttpAnswer> answer =
      Fetch(endpoints, MakeGet(url, "/v1/models", key), kTimeoutSeconds);
  if (!answer.ok()) return answer.status();
  if (answer->status != 200) {
    return absl::FailedPreconditionError(
        absl::StrCat("/v1/models answers with status ", answer->status, ": ", ErrorMessage(answer->body)));
  }
  return ReadModelList(answer->body, model);
}

absl::StatusOr<ServerInfo> AskGrpcServer(const std::string& address, const std::string& key,
                                         const std::string& model) {
  auto stub = v1::Generation::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(kTimeoutSeconds));
  if (!key.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", key));
  v1::GetModelInfoRequest request;
  request.set_model(model);
  v1::ModelInfo info;
  const grpc::Status status = stub->GetModelInfo(&context, request, &info);
  if (!status.ok())
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  return ServerInfo{info.name(), info.vocab_size(), info.max_model_len()};
}

}  // namespace sessa::loadtest
