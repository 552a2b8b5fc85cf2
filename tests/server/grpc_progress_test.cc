// gRPC: a client that takes nothing is left - at its deadline, on the transport too, and when one event is
// not read within the write timeout - and what it held is free. One of the clients here speaks HTTP/2 by
// hand, since gRPC's own never offers a window of 0.
#include <memory>
#include <string>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/write.hpp"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/grpc_fixture.h"

namespace sessa {
namespace {

class GrpcProgressTest : public GrpcTest {
 protected:
  void StartWith(absl::Duration write_timeout, int64_t max_answer_bytes = Limits().max_answer_bytes) {
    TearDown();
    ServiceOptions options;
    options.limits.max_requests_per_tenant = 1;
    options.limits.max_queued_events = 1 << 20;  // more than sockets hold
    options.limits.max_buffered_bytes = 16 << 20;
    options.limits.max_answer_bytes = max_answer_bytes;
    service_ = std::make_unique<Service>(std::move(options));
    GrpcServerOptions grpc;
    grpc.write_timeout = write_timeout;
    auto server = GrpcServer::Start(grpc, service_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);               // the window stays what it is
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1);  // as small as it may be
    channel_ = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = sessa::v1::Generation::NewStub(channel_);
    Load(1 << 20);
  }
  // The tenant has one slot: it is free again.
  void ExpectFree() {
    EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
    EXPECT_TRUE(Call(Prompt({1})).ok());
    while (service_->byte_budget().used() > 0) absl::SleepFor(absl::Milliseconds(1));
  }
};

std::string Frame(char type, char flags, int stream, const std::string& payload) {
  std::string frame = {static_cast<char>(payload.size() >> 16),
                       static_cast<char>(payload.size() >> 8),
                       static_cast<char>(payload.size()),
                       type,
                       flags,
                       0,
                       0,
                       0,
                       static_cast<char>(stream)};
  return frame + payload;
}

// A literal header without indexing, RFC 7541, 6.2.2. Requires: less than 127 bytes each.
std::string Header(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) +
         value;
}

// A call with a deadline of 300 ms by a client that never reads; its streams have windows of `window` bytes.
class DeafClient {
 public:
  DeafClient(int port, const sessa::v1::GenerateRequest& request, uint32_t window) : socket_(io_) {
    std::string message = request.SerializeAsString();
    message = std::string("\0\0\0\0", 4) + static_cast<char>(message.size()) + message;
    const std::string headers = Header(":method", "POST") + Header(":scheme", "http") +
                                Header(":path", "/sessa.v1.Generation/Generate") +
                                Header(":authority", "test") + Header("te", "trailers") +
                                Header("content-type", "application/grpc") + Header("grpc-timeout", "300m");
    socket_.open(boost::asio::ip::tcp::v4());
    socket_.set_option(boost::asio::socket_base::receive_buffer_size(4096));
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<unsigned short>(port)});
    const std::string bytes = {static_cast<char>(window >> 24), static_cast<char>(window >> 16),
                               static_cast<char>(window >> 8), static_cast<char>(window)};
    std::string frames = Frame(4, 0, 0, std::string({0, 4}) + bytes);
    if (window > 0) frames += Frame(8, 0, 0, std::string({0x3f, 0, 0, 0}));  // the connection's window too
    frames += Frame(1, 4, 1, headers) + Frame(0, 1, 1, message);
    boost::asio::write(socket_, boost::asio::buffer("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames));
  }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
};

TEST_F(GrpcProgressTest, TheDeadlineEndsACallWithoutAWindow) {
  StartWith(absl::Hours(1));
  DeafClient client(server_->port(), Prompt({1}, 100), 0);
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  ExpectFree();
}

TEST_F(GrpcProgressTest, TheDeadlineFreesWhatACallOnAStuckConnectionHeld) {
  StartWith(absl::Hours(1), 1 << 30);
  sessa::v1::GenerateRequest request = Prompt({1}, 200'000);
  request.mutable_sampling()->set_logprobs(20);
  DeafClient client(server_->port(), request, 0x3fffffff);
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  ExpectFree();
}

TEST_F(GrpcProgressTest, AClientThatReadsNothingIsLeft) {
  StartWith(absl::Milliseconds(200), 1 << 30);
  grpc::ClientContext context;
  sessa::v1::GenerateRequest request = Prompt({1}, 50000);  // more than any window
  request.mutable_sampling()->set_logprobs(20);
  auto reader = stub_->Generate(&context, request);
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  ExpectFree();
  sessa::v1::GenerateReply reply;
  while (reader->Read(&reply)) continue;
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(GrpcProgressTest, AnEchoComesInPieces) {
  StartWith(absl::Hours(1));
  sessa::v1::GenerateRequest request = Prompt(std::vector<int>(500, 7), 2);
  request.set_echo(true);
  request.mutable_sampling()->set_n(2);
  request.mutable_sampling()->set_logprobs(20);
  std::vector<sessa::v1::GenerateReply> replies;
  EXPECT_TRUE(Call(request, &replies).ok());
  int logprobs[2] = {0, 0};
  for (const auto& reply : replies) {
    EXPECT_LT(reply.ByteSizeLong(), 64u << 10);
    logprobs[reply.delta().choice()] += reply.delta().logprobs_size();
  }
  EXPECT_EQ(logprobs[0], 502);
  EXPECT_EQ(logprobs[1], 502);
}

TEST_F(GrpcProgressTest, RequestsAreCharged) {
  StartWith(absl::Hours(1));
  sessa::v1::GenerateRequest request = Prompt({ScriptedEngine::kHang});
  request.set_user(std::string(1 << 20, 'x'));
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  EXPECT_GE(service_->byte_budget().used(), (1 << 20) - ByteBudget::kFreeBytes);
  context.TryCancel();
  reader->Finish();
  while (service_->byte_budget().used() > 0) absl::SleepFor(absl::Milliseconds(1));
  sessa::v1::TokenizeRequest tokenize;
  tokenize.set_text(std::string(1 << 20, 'x'));
  sessa::v1::TokenizeReply reply;
  grpc::ClientContext unary;
  EXPECT_EQ(stub_->Tokenize(&unary, tokenize, &reply).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  while (service_->byte_budget().used() > 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(GrpcProgressTest, AnswersAreBounded) {
  sessa::v1::GenerateRequest request = Prompt(std::vector<int>(4000, 7), 16);
  StartWith(absl::Hours(1), 10 << 20);
  request.set_echo(true);
  request.mutable_sampling()->set_logprobs(20);
  request.mutable_sampling()->set_n(16);
  const grpc::Status status = Call(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "answer_too_large");
  EXPECT_EQ(Detail<google::rpc::BadRequest>(status).field_violations(0).field(), "logprobs");
}

TEST_F(GrpcProgressTest, AClientThatLeavesEndsItsTemplate) {
  TearDown();
  GrpcTest::Start("");
  engine_ = std::make_shared<ScriptedEngine>();
  ServedModel model;
  model.engine = engine_;
  model.tokenizer = *Tokenizer::Load(SESSA_DEMO_MODEL);
  // It would end at the limit of steps, as an error of its own.
  model.chat_template = *ChatTemplate::FromSource(
      "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "", "");
  service_->SetModel(std::move(model));
  grpc::ClientContext context;
  sessa::v1::GenerateRequest request;
  request.mutable_chat()->add_messages()->set_role("user");
  auto reader = stub_->Generate(&context, request);
  while (service_->metrics().received() == 0) absl::SleepFor(absl::Milliseconds(1));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(service_->metrics().outcome(Outcome::kCancelled), 1);
}

}  // namespace
}  // namespace sessa
