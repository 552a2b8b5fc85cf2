// The Similarity call over gRPC: its errors, its end when the client leaves or its deadline passes. What it
// computes is similarity_test's.
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "tests/server/grpc_fixture.h"

namespace sessa {
namespace {

using Ids = std::vector<int>;

sessa::v1::SimilarityRequest Of(const std::vector<Ids>& texts) {
  sessa::v1::SimilarityRequest request;
  for (const Ids& ids : texts)
    request.add_input()->mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  request.set_n(2);
  request.set_max_tokens(2);
  return request;
}

std::string Field(const grpc::Status& status) {
  const auto bad = Detail<google::rpc::BadRequest>(status);
  return bad.field_violations_size() == 1 ? bad.field_violations(0).field() : "";
}

class GrpcSimilarityTest : public GrpcTest {
 protected:
  void SetUp() override {
    GrpcTest::SetUp();
    Load();
  }
  grpc::Status Ask(const sessa::v1::SimilarityRequest& request, sessa::v1::SimilarityReply* reply) {
    grpc::ClientContext context;
    return stub_->Similarity(&context, request, reply);
  }
};

TEST_F(GrpcSimilarityTest, PairsOfTexts) {
  sessa::v1::SimilarityReply reply;
  const grpc::Status status = Ask(Of({{1}, {2, 3}, {1}}), &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.model(), "scripted");
  ASSERT_EQ(reply.pairs_size(), 3);
  EXPECT_EQ(reply.pairs(1).first(), 0);
  EXPECT_EQ(reply.pairs(1).second(), 2);
  EXPECT_EQ(reply.pairs(1).distance().value(), 0) << "equal texts";
  EXPECT_NE(reply.pairs(0).distance().value(), 0);
  EXPECT_FLOAT_EQ(reply.pairs(0).distance().value(),
                  reply.pairs(0).kl_first_second().value() + reply.pairs(0).kl_second_first().value());
  EXPECT_GT(reply.usage().completion_tokens(), 0);
}

TEST_F(GrpcSimilarityTest, ErrorsNameTheField) {
  sessa::v1::SimilarityReply reply;
  EXPECT_EQ(Field(Ask(Of({{1}}), &reply)), "input");
  EXPECT_EQ(Field(Ask(Of({{1}, {100}}), &reply)), "input");
  sessa::v1::SimilarityRequest request = Of({{1}, {2}});
  request.add_input();
  EXPECT_EQ(Field(Ask(request, &reply)), "input[2]");
  request = Of({{1}, {2}});
  request.set_n(1);
  EXPECT_EQ(Field(Ask(request, &reply)), "n");
  request = Of({{1}, {2}});
  request.mutable_input(0)->set_text("x");
  EXPECT_EQ(Field(Ask(request, &reply)), "input") << "there is no tokenizer";
  EXPECT_EQ(service_->metrics().received(), 5);
  EXPECT_EQ(service_->metrics().outcome(Outcome::kInvalid), 5);
}

TEST_F(GrpcSimilarityTest, AClientThatLeavesEndsIt) {
  grpc::ClientContext context;
  grpc::Status status;
  std::thread client([&] {
    sessa::v1::SimilarityReply reply;
    status = stub_->Similarity(&context, Of({{1}, {ScriptedEngine::kHang}}), &reply);
  });
  EXPECT_TRUE(engine_->WaitForSubmitted(2));
  context.TryCancel();
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(service_->metrics().outcome(Outcome::kCancelled), 1);
  while (service_->byte_budget().used() > 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(GrpcSimilarityTest, TheDeadlineEndsIt) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  sessa::v1::SimilarityReply reply;
  EXPECT_EQ(stub_->Similarity(&context, Of({{1}, {ScriptedEngine::kHang}}), &reply).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
}

}  // namespace
}  // namespace sessa
