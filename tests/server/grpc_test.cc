// The gRPC front end: order of the stream's messages, error details, deadlines, cancellation from the client
// and through Abort, size limits, API keys and health's Watch.
#include <atomic>
#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "engine/monotonic.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/grpc/status.h"
#include "tests/server/grpc_fixture.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;
using ::testing::ElementsAre;

TEST_F(GrpcTest, StreamIsStartedThenDeltasThenFinished) {
  Load();
  pb::GenerateRequest request = Prompt({5, 6, 7});
  request.set_request_id("mine");
  request.mutable_sampling()->set_n(2);
  std::vector<pb::GenerateReply> replies;
  const grpc::Status status = Call(request, &replies);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_GE(replies.size(), 4u);

  ASSERT_TRUE(replies.front().has_started());
  EXPECT_EQ(replies.front().started().request_id(), "mine");
  EXPECT_EQ(replies.front().started().model(), "scripted");
  EXPECT_EQ(replies.front().started().prompt_tokens(), 3);
  EXPECT_EQ(replies.front().started().cached_tokens(), 1);

  std::vector<std::vector<int>> tokens(2);
  std::vector<pb::FinishReason> finishes(2);
  for (size_t i = 1; i + 1 < replies.size(); ++i) {
    ASSERT_TRUE(replies[i].has_delta());
    const pb::Delta& delta = replies[i].delta();
    ASSERT_LT(delta.choice(), 2);
    EXPECT_EQ(finishes[delta.choice()], pb::FINISH_REASON_UNSPECIFIED) << "a delta after the choice's last";
    tokens[delta.choice()].insert(tokens[delta.choice()].end(), delta.token_ids().begin(),
                                  delta.token_ids().end());
    finishes[delta.choice()] = delta.finish_reason();
  }
  EXPECT_THAT(tokens[0], ElementsAre(5, 6, 7));
  EXPECT_THAT(tokens[1], ElementsAre(15, 16, 17));
  EXPECT_THAT(finishes, ElementsAre(pb::FINISH_REASON_LENGTH, pb::FINISH_REASON_LENGTH));

  ASSERT_TRUE(replies.back().has_finished());
  EXPECT_EQ(replies.back().finished().finish_reasons_size(), 2);
  EXPECT_EQ(replies.back().finished().finish_reasons(1), pb::FINISH_REASON_LENGTH);
  EXPECT_EQ(replies.back().finished().usage().prompt_tokens(), 3);
  EXPECT_EQ(replies.back().finished().usage().completion_tokens(), 6);
}

TEST_F(GrpcTest, ManyCallsAtOnceEachGetTheirOwnTokens) {
  Load();
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([this, i, &right] {
      std::vector<pb::GenerateReply> replies;
      if (!Call(Prompt({i, 1}, 20), &replies).ok()) return;
      std::vector<int> tokens;
      for (const auto& reply : replies) {
        tokens.insert(tokens.end(), reply.delta().token_ids().begin(), reply.delta().token_ids().end());
      }
      bool same = tokens.size() == 20;
      for (size_t t = 0; t < tokens.size(); ++t) same = same && tokens[t] == i + static_cast<int>(t);
      if (same) ++right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right.load(), 16);
  EXPECT_EQ(service_->metrics().received(), 16);
  EXPECT_EQ(service_->metrics().outcome(Outcome::kLength), 16);
}

TEST_F(GrpcTest, BadValuesNameTheirField) {
  Load();
  auto field = [this](const pb::GenerateRequest& request) {
    const grpc::Status status = Call(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    const auto bad = Detail<google::rpc::BadRequest>(status);
    return bad.field_violations_size() == 1 ? bad.field_violations(0).field() : "";
  };
  pb::GenerateRequest request = Prompt({1});
  request.mutable_sampling()->set_temperature(std::nan(""));
  EXPECT_EQ(field(request), "temperature");
  request = Prompt({1});
  request.mutable_sampling()->set_n(1000);
  EXPECT_EQ(field(request), "n");
  request = Prompt({1});
  request.mutable_sampling()->set_logprobs(-1);
  EXPECT_EQ(field(request), "logprobs");
  request = Prompt({1});
  request.mutable_sampling()->set_num_speculative_tokens(17);
  EXPECT_EQ(field(request), "num_speculative_tokens");
  EXPECT_EQ(field(Prompt({100})), "prompt");
  request = Prompt({1});
  request.clear_prompt();
  EXPECT_EQ(field(request), "prompt");
  request = Prompt({1});
  request.set_request_id(std::string(200, 'x'));
  EXPECT_EQ(field(request), "request_id");
  const grpc::Status too_long = Call(Prompt({1, 2, 3}, 64));
  EXPECT_EQ(too_long.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(too_long).reason(), "context_length_exceeded");
  EXPECT_EQ(engine_->num_submitted(), 0);
  EXPECT_EQ(service_->metrics().outcome(Outcome::kInvalid), 8);
}

TEST_F(GrpcTest, NumSpeculativeTokensReachTheEngine) {
  Load();
  pb::GenerateRequest request = Prompt({1});
  ASSERT_TRUE(Call(request).ok());
  EXPECT_EQ(engine_->last().num_speculative_tokens, -1) << "the engine's";
  for (int drafts : {0, 16}) {
    request.mutable_sampling()->set_num_speculative_tokens(drafts);
    ASSERT_TRUE(Call(request).ok());
    EXPECT_EQ(engine_->last().num_speculative_tokens, drafts);
  }
}

TEST_F(GrpcTest, UnknownModelIsNotFound) {
  Load();
  pb::GenerateRequest request = Prompt({1});
  request.set_model("other");
  const grpc::Status status = Call(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "model_not_found");
}

TEST_F(GrpcTest, FullQueueSaysWhenToRetry) {
  Load();
  engine_->Refuse(absl::ResourceExhaustedError("the queue is full"));
  const grpc::Status status = Call(Prompt({1}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(Detail<google::rpc::RetryInfo>(status).retry_delay().seconds(), 0);
  EXPECT_EQ(service_->metrics().outcome(Outcome::kRejected), 1);
}

TEST_F(GrpcTest, NobodyWaitsForLongPrompts) {
  Load(20000);
  engine_->Hold();
  const pb::GenerateRequest request = Prompt(std::vector<int>(9000, 1), 1);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::GenerateReply>>> readers;
  for (int i = 0; i < 12; ++i) {  // more than there are threads of any kind
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), request));
  }
  pb::Load load;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->GetLoad(&context, {}, &load).ok());
  for (int i = 6; i < 12; ++i) contexts[i]->TryCancel();
  engine_->Release();
  for (int i = 0; i < 12; ++i) {
    pb::GenerateReply reply;
    while (readers[i]->Read(&reply)) continue;
    const grpc::Status status = readers[i]->Finish();
    EXPECT_EQ(status.error_code(), i < 6 ? grpc::StatusCode::OK : grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(service_->metrics().received(), service_->metrics().ended());
}

TEST_F(GrpcTest, LoadingIsUnavailableWithRetry) {
  const grpc::Status status = Call(Prompt({1}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_GT(Detail<google::rpc::RetryInfo>(status).retry_delay().seconds(), 0);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "loading");
}

TEST_F(GrpcTest, OutOfRangeOfTheEngineIsInvalidArgument) {
  const grpc::Status status = ToGrpcStatus(absl::OutOfRangeError("too long"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "context_length_exceeded");
}

TEST_F(GrpcTest, ClientCancelReachesTheEngine) {
  Load();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Prompt({ScriptedEngine::kHang}));
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  context.TryCancel();
  pb::GenerateReply reply;
  EXPECT_FALSE(reader->Read(&reply));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(engine_->WaitForCancelled(1));
}

TEST_F(GrpcTest, DeadlineOfTheCallIsTheRequests) {
  Load();
  grpc::ClientContext context;
  const absl::Time deadline = MonotonicNow() + absl::Seconds(30);
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
  auto reader = stub_->Generate(&context, Prompt({1}));
  pb::GenerateReply reply;
  while (reader->Read(&reply)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_LT(engine_->last().deadline, deadline + absl::Seconds(5));
  EXPECT_GT(engine_->last().deadline, deadline - absl::Seconds(25));
}

TEST_F(GrpcTest, ExpiredCallFreesTheEngine) {
  Load();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(300)));
  auto reader = stub_->Generate(&context, Prompt({ScriptedEngine::kHang}));
  pb::GenerateReply reply;
  while (reader->Read(&reply)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The client's timer, gRPC's and the engine's run out together: whichever is first, it was the deadline.
  EXPECT_TRUE(engine_->WaitForNoneHanging());
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(service_->metrics().outcome(Outcome::kDeadline), service_->metrics().received());
}

TEST_F(GrpcTest, AbortEndsOnlyTheCallersOwnRequest) {
  Start("alpha team-a\nbeta team-b\n");
  Load();
  pb::GenerateRequest request = Prompt({ScriptedEngine::kHang});
  request.set_request_id("job");
  grpc::Status ended;
  std::thread caller([&] { ended = Call(request, nullptr, "Bearer alpha"); });
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  EXPECT_EQ(engine_->last().tenant, "team-a");
  // The same id twice at once is refused: Abort could not tell them apart.
  const grpc::Status twice = Call(request, nullptr, "Bearer alpha");
  EXPECT_EQ(twice.error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  auto abort = [this](const std::string& key) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", absl::StrCat("Bearer ", key));
    pb::AbortRequest abort_request;
    abort_request.set_request_id("job");
    pb::AbortReply reply;
    EXPECT_TRUE(stub_->Abort(&context, abort_request, &reply).ok());
    return reply.found();
  };
  EXPECT_FALSE(abort("beta"));
  EXPECT_TRUE(abort("alpha"));
  caller.join();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(engine_->WaitForCancelled(1));
}

TEST_F(GrpcTest, RequestsASecond) {
  Start("alpha team-a rate=0.001 burst=2\nbeta team-b\n");
  Load();
  EXPECT_TRUE(Call(Prompt({1}), nullptr, "Bearer alpha").ok());
  const auto tokenize = [this](const std::string& key) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", absl::StrCat("Bearer ", key));
    pb::DetokenizeRequest request;
    pb::DetokenizeReply reply;
    return stub_->Detokenize(&context, request, &reply).error_code();
  };
  EXPECT_NE(tokenize("alpha"), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(tokenize("alpha"), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Call(Prompt({1}), nullptr, "Bearer alpha").error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Call(Prompt({1}), nullptr, "Bearer beta").ok());
  EXPECT_EQ(service_->metrics().outcome(Outcome::kRejected), 1);
}

TEST_F(GrpcTest, ApiKeyIsNeededForEveryCall) {
  Start("alpha team-a\n");
  Load();
  EXPECT_EQ(Call(Prompt({1})).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Call(Prompt({1}), nullptr, "Bearer wrong").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(Call(Prompt({1}), nullptr, "Bearer alpha").ok());
  grpc::ClientContext context;
  pb::ModelInfo info;
  EXPECT_EQ(stub_->GetModelInfo(&context, {}, &info).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(service_->metrics().outcome(Outcome::kUnauthenticated), 2);
}

TEST_F(GrpcTest, TooLargeAMessageIsRefused) {
  Load();
  const grpc::Status status = Call(Prompt(std::vector<int>(100'000, 1)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(engine_->num_submitted(), 0);
}

TEST_F(GrpcTest, ModelInfoAndLoad) {
  Load();
  grpc::ClientContext info_context, load_context;
  pb::ModelInfo info;
  ASSERT_TRUE(stub_->GetModelInfo(&info_context, {}, &info).ok());
  EXPECT_EQ(info.name(), "scripted");
  EXPECT_EQ(info.vocab_size(), 100);
  EXPECT_EQ(info.max_model_len(), 64);
  EXPECT_EQ(info.state_dtype(), "f32");
  EXPECT_FALSE(info.has_tokenizer());
  pb::Load load;
  ASSERT_TRUE(stub_->GetLoad(&load_context, {}, &load).ok());
  EXPECT_EQ(load.num_waiting(), 3);
  EXPECT_DOUBLE_EQ(load.state_cache_usage(), 0.25);
  EXPECT_TRUE(load.ready());
}

// grpc.health.v1's Watch through a generic stub: its messages are one string in, one enum out.
class HealthWatch {
 public:
  explicit HealthWatch(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
    call_ = stub_.PrepareCall(&context_, "/grpc.health.v1.Health/Watch", &queue_);
    call_->StartCall(nullptr);
    EXPECT_TRUE(Wait(absl::Seconds(60)));
    grpc::Slice empty("", 0);
    call_->WriteLast(grpc::ByteBuffer(&empty, 1), {}, nullptr);
    EXPECT_TRUE(Wait(absl::Seconds(60)));
  }
  ~HealthWatch() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // The next status: 1 serving, 2 not; 0 when none comes in time (it may be read by the next call).
  int Next(absl::Duration patience = absl::Seconds(60)) {
    if (!reading_) call_->Read(&reply_, nullptr);
    reading_ = !Wait(patience);
    if (reading_) return 0;
    grpc::Slice slice;
    EXPECT_TRUE(reply_.DumpToSingleSlice(&slice).ok());
    return slice.size() == 2 ? slice.begin()[1] : -1;
  }

 private:
  bool Wait(absl::Duration patience) {
    void* tag = nullptr;
    bool ok = false;
    return queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(absl::Now() + patience)) ==
               grpc::CompletionQueue::GOT_EVENT &&
           ok;
  }

  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer reply_;
  bool reading_ = false;
};
constexpr int kServing = 1, kNotServing = 2;

TEST_F(GrpcTest, HealthWatchFollowsReadiness) {
  HealthWatch watch(channel_);
  EXPECT_EQ(watch.Next(), kNotServing);  // loading
  Load();
  EXPECT_EQ(watch.Next(), kServing);
  service_->BeginDrain();
  EXPECT_EQ(watch.Next(), kNotServing);
}

TEST_F(GrpcTest, HealthWatchSendsChangesAlone) {
  Load();
  server_->PublishHealth();
  HealthWatch watch(channel_);
  EXPECT_EQ(watch.Next(), kServing);
  for (int i = 0; i < 100; ++i) server_->PublishHealth();
  service_->BeginDrain();
  server_->PublishHealth();
  EXPECT_EQ(watch.Next(), kNotServing) << "a status that was known was sent again";
  for (int i = 0; i < 100; ++i) server_->PublishHealth();
  EXPECT_EQ(watch.Next(absl::Milliseconds(200)), 0);
}

TEST_F(GrpcTest, PortInUseIsAnError) {
  GrpcServerOptions options;
  options.port = server_->port();
  const auto second = GrpcServer::Start(options, service_.get());
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), ::testing::HasSubstr(absl::StrCat(options.port)));
}

}  // namespace
}  // namespace sessa
