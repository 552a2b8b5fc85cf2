// KServe's gRPC service over the scripted engine: what it says of the model, inference of token ids whole and
// in streams, and the errors of both. Texts go through Triton's own client in tests/e2e.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "inference/inference.grpc.pb.h"
#include "server/core/log.h"
#include "server/kserve/tensors.h"
#include "tests/server/grpc_fixture.h"

namespace sessa {
namespace {

namespace pb = inference;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GrpcKserveTest : public GrpcTest {
 protected:
  void SetUp() override { Begin(""); }
  void Begin(const std::string& keys) {
    Start(keys);
    kserve_ = pb::GRPCInferenceService::NewStub(channel_);
  }

  static pb::ModelInferRequest Ids(std::vector<int64_t> ids, int max_tokens = 3) {
    pb::ModelInferRequest request;
    request.set_model_name("scripted");
    request.set_id("mine");
    auto* input = request.add_inputs();
    input->set_name("input_ids");
    input->set_datatype("INT64");
    input->add_shape(static_cast<int64_t>(ids.size()));
    input->mutable_contents()->mutable_int64_contents()->Add(ids.begin(), ids.end());
    (*request.mutable_parameters())["max_tokens"].set_int64_param(max_tokens);
    return request;
  }
  grpc::Status Infer(const pb::ModelInferRequest& request, pb::ModelInferResponse* reply,
                     const std::string& authorization = "") {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    return kserve_->ModelInfer(&context, request, reply);
  }
  // Of output_ids.
  static std::vector<int64_t> IdsOf(const pb::ModelInferResponse& reply) {
    for (int i = 0; i < reply.outputs_size(); ++i) {
      if (reply.outputs(i).name() != "output_ids") continue;
      KserveTensor tensor = {"output_ids", "INT64", {}};
      EXPECT_TRUE(ReadRaw(reply.raw_output_contents(i), &tensor).ok());
      EXPECT_EQ(reply.outputs(i).shape(0), static_cast<int64_t>(tensor.ints.size()));
      return tensor.ints;
    }
    return {};
  }

  std::unique_ptr<pb::GRPCInferenceService::Stub> kserve_;
};

TEST_F(GrpcKserveTest, SaysWhatThereIs) {
  const auto ready = [this] {
    grpc::ClientContext server, model;
    pb::ServerReadyResponse server_reply;
    EXPECT_TRUE(kserve_->ServerReady(&server, {}, &server_reply).ok());
    pb::ModelReadyResponse model_reply;
    pb::ModelReadyRequest request;
    request.set_name("scripted");
    request.set_version("1");
    EXPECT_TRUE(kserve_->ModelReady(&model, request, &model_reply).ok());
    EXPECT_EQ(server_reply.ready(), model_reply.ready());
    return server_reply.ready();
  };
  grpc::ClientContext live;
  pb::ServerLiveResponse live_reply;
  EXPECT_TRUE(kserve_->ServerLive(&live, {}, &live_reply).ok());
  EXPECT_TRUE(live_reply.live());
  EXPECT_FALSE(ready());
  Load();
  EXPECT_TRUE(ready());
  {
    grpc::ClientContext context;
    pb::ServerMetadataResponse reply;
    EXPECT_TRUE(kserve_->ServerMetadata(&context, {}, &reply).ok());
    EXPECT_EQ(reply.name(), "sessa");
  }
  {
    grpc::ClientContext context;
    pb::ModelMetadataRequest request;
    request.set_name("scripted");
    pb::ModelMetadataResponse reply;
    EXPECT_TRUE(kserve_->ModelMetadata(&context, request, &reply).ok());
    EXPECT_THAT(reply.versions(), ElementsAre("1"));
    EXPECT_EQ(reply.inputs(0).name(), "text_input");
    EXPECT_EQ(reply.outputs_size(), 3);
  }
  {
    grpc::ClientContext context;
    pb::ModelConfigRequest request;
    request.set_name("scripted");
    pb::ModelConfigResponse reply;
    EXPECT_TRUE(kserve_->ModelConfig(&context, request, &reply).ok());
    EXPECT_EQ(reply.config().input(1).data_type(), pb::TYPE_INT64);
    EXPECT_TRUE(reply.config().model_transaction_policy().decoupled());
    grpc::ClientContext other;
    request.set_version("2");
    EXPECT_EQ(kserve_->ModelConfig(&other, request, &reply).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  {
    grpc::ClientContext context;
    pb::RepositoryIndexResponse reply;
    EXPECT_TRUE(kserve_->RepositoryIndex(&context, {}, &reply).ok());
    EXPECT_EQ(reply.models(0).state(), "READY");
  }
  pb::ModelInferResponse answer;
  EXPECT_TRUE(Infer(Ids({5}), &answer).ok());
  grpc::ClientContext context;
  pb::ModelStatisticsResponse reply;
  EXPECT_TRUE(kserve_->ModelStatistics(&context, {}, &reply).ok());
  EXPECT_EQ(reply.model_stats(0).inference_stats().success().count(), 1u);
}

TEST_F(GrpcKserveTest, InfersTokenIds) {
  Load();
  pb::ModelInferResponse reply;
  const grpc::Status status = Infer(Ids({5, 6}), &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.id(), "mine");
  EXPECT_EQ(reply.model_name(), "scripted");
  EXPECT_THAT(IdsOf(reply), ElementsAre(5, 6, 7));
  EXPECT_EQ(reply.outputs_size(), 3);
  // The same as raw bytes, of INT32 too, and one output alone.
  pb::ModelInferRequest raw = Ids({});
  raw.mutable_inputs(0)->clear_contents();
  raw.mutable_inputs(0)->set_datatype("INT32");
  raw.mutable_inputs(0)->set_shape(0, 2);
  raw.add_raw_input_contents(std::string("\x05\0\0\0\x06\0\0\0", 8));
  raw.add_outputs()->set_name("output_ids");
  ASSERT_TRUE(Infer(raw, &reply).ok());
  EXPECT_THAT(IdsOf(reply), ElementsAre(5, 6, 7));
  EXPECT_EQ(reply.outputs_size(), 1);
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
}

TEST_F(GrpcKserveTest, ErrorsNameTheTensorOrParameter) {
  Load();
  const auto field = [this](const pb::ModelInferRequest& request) {
    pb::ModelInferResponse reply;
    const grpc::Status status = Infer(request, &reply);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    const auto bad = Detail<google::rpc::BadRequest>(status);
    return bad.field_violations_size() > 0 ? bad.field_violations(0).field() : "";
  };
  pb::ModelInferRequest none = Ids({1});
  none.clear_inputs();
  EXPECT_EQ(field(none), "inputs");
  pb::ModelInferRequest shape = Ids({1, 2});
  shape.mutable_inputs(0)->set_shape(0, 3);
  EXPECT_EQ(field(shape), "input_ids");
  shape.mutable_inputs(0)->set_shape(0, -1);
  EXPECT_EQ(field(shape), "input_ids");
  shape.mutable_inputs(0)->set_shape(0, INT64_MAX);
  EXPECT_EQ(field(shape), "input_ids");
  pb::ModelInferRequest datatype = Ids({1});
  datatype.mutable_inputs(0)->set_datatype("FP32");
  EXPECT_EQ(field(datatype), "input_ids");
  pb::ModelInferRequest name = Ids({1});
  name.mutable_inputs(0)->set_name("images");
  EXPECT_EQ(field(name), "images");
  EXPECT_EQ(field(Ids({100})), "input_ids");
  EXPECT_EQ(field(Ids({int64_t{1} << 40})), "input_ids");
  EXPECT_EQ(field(Ids({1}, 0)), "max_tokens");
  pb::ModelInferRequest parameter = Ids({1});
  (*parameter.mutable_parameters())["temperature"].set_string_param("hot");
  EXPECT_EQ(field(parameter), "parameters.temperature");
  pb::ModelInferRequest output = Ids({1});
  output.add_outputs()->set_name("images");
  EXPECT_EQ(field(output), "outputs");
  pb::ModelInferRequest raw = Ids({1});
  raw.add_raw_input_contents("1234567");
  EXPECT_EQ(field(raw), "input_ids");
  raw.add_raw_input_contents("12345678");
  EXPECT_EQ(field(raw), "raw_input_contents");
  pb::ModelInferResponse reply;
  pb::ModelInferRequest other = Ids({1});
  other.set_model_version("2");
  EXPECT_EQ(Infer(other, &reply).error_code(), grpc::StatusCode::NOT_FOUND);
  other.set_model_name("other");
  EXPECT_EQ(Infer(other, &reply).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(engine_->num_submitted(), 0);
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST_F(GrpcKserveTest, AStreamAnswersOneRequestAfterTheOther) {
  Load();
  grpc::ClientContext context;
  auto stream = kserve_->ModelStreamInfer(&context);
  pb::ModelInferRequest bad = Ids({100});
  bad.set_id("bad");
  ASSERT_TRUE(stream->Write(Ids({5})));
  ASSERT_TRUE(stream->Write(bad));
  ASSERT_TRUE(stream->Write(Ids({20})));
  stream->WritesDone();
  std::vector<std::vector<int64_t>> ids(1);
  std::vector<std::string> errors;
  pb::ModelStreamInferResponse reply;
  while (stream->Read(&reply)) {
    if (!reply.error_message().empty()) {
      errors.push_back(reply.error_message());
      EXPECT_EQ(ids.size(), 2u) << "between the two others";
      continue;
    }
    for (const int64_t id : IdsOf(reply.infer_response())) ids.back().push_back(id);
    EXPECT_EQ(reply.infer_response().id(), "mine");
    if (reply.infer_response().parameters().at("triton_final_response").bool_param()) ids.emplace_back();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_THAT(ids, ElementsAre(ElementsAre(5, 6, 7), ElementsAre(20, 21, 22), ElementsAre()));
  EXPECT_THAT(errors, ElementsAre(HasSubstr("100 is not in")));
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
}

TEST_F(GrpcKserveTest, CancelledCallsFreeTheEngine) {
  Load();
  {
    grpc::ClientContext context;
    auto stream = kserve_->ModelStreamInfer(&context);
    stream->Write(Ids({ScriptedEngine::kHang}));
    pb::ModelStreamInferResponse reply;
    EXPECT_TRUE(stream->Read(&reply));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
    EXPECT_TRUE(engine_->WaitForCancelled(1));
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  pb::ModelInferResponse reply;
  EXPECT_EQ(kserve_->ModelInfer(&context, Ids({ScriptedEngine::kHang}), &reply).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  while (service_->byte_budget().used() > 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(GrpcKserveTest, KeysAreAskedFor) {
  Begin("alpha team-a\n");
  Load();
  pb::ModelInferResponse reply;
  EXPECT_EQ(Infer(Ids({5}), &reply).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(Infer(Ids({5}), &reply, "Bearer alpha").ok());
  grpc::ClientContext stream_context, live, metadata;
  auto stream = kserve_->ModelStreamInfer(&stream_context);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  pb::ServerLiveResponse live_reply;
  EXPECT_TRUE(kserve_->ServerLive(&live, {}, &live_reply).ok());
  pb::ServerMetadataResponse metadata_reply;
  EXPECT_EQ(kserve_->ServerMetadata(&metadata, {}, &metadata_reply).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

// One line each, whatever came of it: who, which, why, and what it took.
TEST_F(GrpcKserveTest, EachRequestHasItsAccessLine) {
  access_log_ = true;
  Begin("alpha team-a\n");
  Load();
  testing::internal::CaptureStderr();
  pb::ModelInferResponse reply;
  EXPECT_TRUE(Infer(Ids({5, 6}), &reply, "Bearer alpha").ok());
  EXPECT_FALSE(Infer(Ids({5}), &reply).ok());
  EXPECT_FALSE(Infer(Ids({100}), &reply, "Bearer alpha").ok());
  {
    grpc::ClientContext context, other;
    EXPECT_FALSE(kserve_->ModelStreamInfer(&other)->Finish().ok());
    context.AddMetadata("authorization", "Bearer alpha");
    auto stream = kserve_->ModelStreamInfer(&context);
    pb::ModelInferRequest wrong = Ids({5});
    wrong.set_model_name("other");
    for (const auto& request : {Ids({7}), wrong, Ids({ScriptedEngine::kHang})}) stream->Write(request);
    EXPECT_TRUE(engine_->WaitForSubmitted(3));
    context.TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  const int64_t received = service_->metrics().received();
  Begin("");  // its lines are all written once the server has ended
  EXPECT_TRUE(StderrLog().Flush(absl::Seconds(10)));
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(testing::internal::GetCapturedStderr(), '\n'))
    if (absl::StrContains(line, " request ")) lines.emplace_back(line);
  EXPECT_EQ(lines.size(), received);
  const auto has = [](const char* endpoint, const char* status, const char* more) {
    return Contains(AllOf(HasSubstr(absl::StrCat("endpoint=", endpoint, " status=", status)),
                          HasSubstr("client=127.0.0.1:"), HasSubstr("seconds="), HasSubstr(more)));
  };
  EXPECT_THAT(lines, has("ModelInfer", "OK", "request_id=mine"));
  EXPECT_THAT(lines, has("ModelInfer", "OK", "tenant=team-a"));
  EXPECT_THAT(lines, has("ModelInfer", "OK",
                         "prompt_tokens=2 cached_tokens=1 completion_tokens=3 finish_reason=length"));
  EXPECT_THAT(lines, has("ModelInfer", "UNAUTHENTICATED", "error="));
  EXPECT_THAT(lines, has("ModelInfer", "INVALID_ARGUMENT", "reason=\"input_ids: token id 100"));
  EXPECT_THAT(lines, has("ModelStreamInfer", "UNAUTHENTICATED", "error="));
  EXPECT_THAT(lines, has("ModelStreamInfer", "OK", "prompt_tokens=1 "));
  EXPECT_THAT(lines, has("ModelStreamInfer", "NOT_FOUND", "request_id=mine"));
  EXPECT_THAT(lines, has("ModelStreamInfer", "CANCELLED", "tenant=team-a"));
}

}  // namespace
}  // namespace sessa
