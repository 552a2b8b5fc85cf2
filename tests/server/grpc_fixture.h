// A scripted engine and the gRPC front end over it on a loopback port, for grpc_test.cc. Text comes from the tokenizer
// and is covered by core's and the end-to-end tests: here the model serves token ids alone.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "sessa/v1/generation.grpc.pb.h"

namespace sessa {

// Echoes: token i of choice c is prompt[0] + c * 10 + i; stops by length. A first prompt token of kHang never ends.
class ScriptedEngine final : public TokenEngine {
 public:
  static constexpr int kHang = 99;

  ScriptedEngine() {
    config_.vocab_size = 100;
    config_.hidden_size = 16;
    config_.num_layers = 2;
    config_.num_heads = 4;
    config_.num_kv_heads = 1;
    options_.max_model_len = 64;
    options_.state_dtype = DType::kF32;
  }
  ~ScriptedEngine() override {
    for (std::thread& thread : threads_) thread.join();
  }

  absl::StatusOr<RequestId> Submit(Request request) override {
    absl::MutexLock lock(&mutex_);
    if (!refuse_.ok()) return refuse_;
    last_deadline_ = request.deadline;
    last_tenant_ = request.tenant;
    const RequestId id = ++num_submitted_;
    if (request.prompt[0] == kHang) {
      hanging_[id] = request.sink;
      return id;
    }
    // As the real engine: results come on another thread, possibly before Submit has returned.
    threads_.emplace_back([request = std::move(request)] {
      request.sink->OnPrompt({static_cast<int>(request.prompt.size()), 1, {}});
      RequestEnd end;
      for (int i = 0; i < request.sampling.max_tokens; ++i) {
        for (int choice = 0; choice < request.n; ++choice) {
          TokenUpdate update;
          update.choice = choice;
          update.token = request.prompt[0] + choice * 10 + i;
          if (i + 1 == request.sampling.max_tokens) update.finish = FinishReason::kLength;
          ++end.num_generated_tokens;
          request.sink->OnToken(std::move(update));
        }
      }
      request.sink->OnEnd(end);
    });
    return id;
  }
  void Cancel(RequestId id) override {
    std::shared_ptr<TokenSink> sink;
    {
      absl::MutexLock lock(&mutex_);
      const auto it = hanging_.find(id);
      if (it == hanging_.end()) return;
      sink = std::move(it->second);
      hanging_.erase(it);
      ++num_cancelled_;
      threads_.emplace_back([sink = std::move(sink)] {
        RequestEnd end;
        end.status = absl::CancelledError("cancelled");
        sink->OnEnd(end);
      });
    }
  }
  void StopChoice(RequestId, int) override {}
  void Drain(absl::Time) override {}
  EngineStats Stats() const override {
    EngineStats stats;
    stats.num_pages = 8;
    stats.num_used_pages = 2;
    stats.num_waiting = 3;
    stats.heartbeat = absl::Now();
    return stats;
  }
  const ModelConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }

  void Refuse(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    refuse_ = std::move(status);
  }
  int num_submitted() const {
    absl::MutexLock lock(&mutex_);
    return static_cast<int>(num_submitted_);
  }
  absl::Time last_deadline() const {
    absl::MutexLock lock(&mutex_);
    return last_deadline_;
  }
  std::string last_tenant() const {
    absl::MutexLock lock(&mutex_);
    return last_tenant_;
  }
  // Waits: true when `count` hanging requests were cancelled.
  bool WaitForCancelled(int count) const {
    auto done = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_cancelled_ >= count; };
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&done), absl::Seconds(60));
  }
  bool WaitForSubmitted(int count) const {
    auto done = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return num_submitted_ >= static_cast<RequestId>(count);
    };
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&done), absl::Seconds(60));
  }

 private:
  ModelConfig config_;
  EngineOptions options_;
  mutable absl::Mutex mutex_;
  absl::Status refuse_ ABSL_GUARDED_BY(mutex_);
  std::map<RequestId, std::shared_ptr<TokenSink>> hanging_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
  RequestId num_submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_deadline_ ABSL_GUARDED_BY(mutex_);
  std::string last_tenant_ ABSL_GUARDED_BY(mutex_);
};

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
    server_->Shutdown(absl::Now() + absl::Seconds(5));
    server_.reset();
    service_.reset();
  }

  void Start(const std::string& keys) {
    if (server_ != nullptr) TearDown();
    ServiceOptions options;
    options.limits.max_body_bytes = 64 << 10;
    options.api_keys = *ApiKeys::Parse(keys);
    service_ = std::make_unique<Service>(std::move(options));
    auto server = GrpcServer::Start({}, service_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials());
    stub_ = sessa::v1::Generation::NewStub(channel_);
  }
  void Load() {
    engine_ = std::make_shared<ScriptedEngine>();
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
  grpc::Status Call(const sessa::v1::GenerateRequest& request, std::vector<sessa::v1::GenerateReply>* replies = nullptr,
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

  std::shared_ptr<ScriptedEngine> engine_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<sessa::v1::Generation::Stub> stub_;
};

}  // namespace sessa
