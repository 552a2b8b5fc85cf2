// The gRPC front end over a scripted engine on a loopback port, for grpc_test.cc. The model serves token ids
// alone: text is core's, and covered through REST.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "sessa/v1/generation.grpc.pb.h"
#include "tests/server/scripted_engine.h"

namespace sessa {

// The details of type Message in a status's trailer, or a default one.
template <typename Message>
Message Detail(const grpc::Status& status) {
  google::rpc::Status envelope;
  EXPECT_TRUE(envelope.ParseFromString(status.error_details()));
  Message message;
  for (const auto& detail : envelope.details()) {
    if (detail.Is<Message>()) detail.UnpackTo(&message);
  }
  return message;
}

class GrpcTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(""); }
  void TearDown() override {
    server_->Shutdown(MonotonicNow() + absl::Seconds(5));
    server_.reset();
    if (engine_ != nullptr) engine_->Stop();
    service_.reset();
  }

  void Start(const std::string& keys, const GrpcServerOptions& grpc = {}) {
    if (server_ != nullptr) TearDown();
    ServiceOptions options;
    options.limits.max_body_bytes = 64 << 10;
    options.api_keys = *ApiKeys::Parse(keys);
    options.access_log = access_log_;
    service_ = std::make_unique<Service>(std::move(options));
    auto server = GrpcServer::Start(grpc, service_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials());
    stub_ = sessa::v1::Generation::NewStub(channel_);
  }
  void Load(int max_model_len = 64) {
    engine_ = std::make_shared<ScriptedEngine>(100, max_model_len);
    ServedModel model;
    model.name = "scripted";
    model.engine = engine_;
    service_->SetModel(std::move(model));
  }

  static sessa::v1::GenerateRequest Prompt(std::vector<int> ids, int max_tokens = 3) {
    sessa::v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    request.mutable_sampling()->set_max_tokens(max_tokens);
    return request;
  }
  grpc::Status Call(const sessa::v1::GenerateRequest& request,
                    std::vector<sessa::v1::GenerateReply>* replies = nullptr,
                    const std::string& authorization = "") {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    auto reader = stub_->Generate(&context, request);
    sessa::v1::GenerateReply reply;
    while (reader->Read(&reply)) {
      if (replies != nullptr) replies->push_back(reply);
    }
    return reader->Finish();
  }

  bool access_log_ = false;  // for the next Start
  std::shared_ptr<ScriptedEngine> engine_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<sessa::v1::Generation::Stub> stub_;
};

}  // namespace sessa
