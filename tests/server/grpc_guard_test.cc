// The gRPC port against clients that speak HTTP/2 by hand: floods end with their connection and nobody
// else's, connections are capped, and the check of the listener reaches the library.
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/read.hpp"
#include "boost/asio/write.hpp"
#include "grpcpp/generic/generic_stub.h"
#include "tests/server/grpc_fixture.h"

namespace sessa {
namespace {

constexpr int kData = 0, kHeaders = 1, kRst = 3, kSettings = 4, kPing = 6, kGoAwayType = 7;
constexpr int kEndHeaders = 4;

std::string Frame(int type, int flags, uint32_t stream, const std::string& payload = "") {
  std::string frame = {0, static_cast<char>(payload.size() >> 8), static_cast<char>(payload.size()),
                       static_cast<char>(type), static_cast<char>(flags)};
  for (int shift : {24, 16, 8, 0}) frame += static_cast<char>(stream >> shift);
  return frame + payload;
}

// HPACK (RFC 7541) without the dynamic table: POST, http, the path, an authority and what gRPC asks for.
std::string Headers(const std::string& path) {
  return absl::StrCat("\x83\x86\x04", std::string(1, static_cast<char>(path.size())), path, "\x01\x01x",
                      "\x0f\x10", "\x10", "application/grpc", std::string("\0\x02te\x08trailers", 13));
}

class RawClient {
 public:
  explicit RawClient(int port) : socket_(io_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<unsigned short>(port)});
    Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0));
  }
  // False once the server has closed.
  bool Send(const std::string& bytes) {
    boost::system::error_code ec;
    boost::asio::write(socket_, boost::asio::buffer(bytes), ec);
    return !ec;
  }
  std::string Read(size_t size) {
    std::string bytes(size, '\0');
    boost::system::error_code ec;
    bytes.resize(boost::asio::read(socket_, boost::asio::buffer(bytes), ec));
    return bytes;
  }
  std::string ReadAll() {
    std::string all;
    for (std::string piece = Read(4096); !piece.empty(); piece = Read(4096)) all += piece;
    return all;
  }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
};

class GrpcGuardTest : public GrpcTest {
 protected:
  ConnectionStats& stats() { return service_->metrics().connections(); }
  const std::string headers_ = Headers("/sessa.v1.Generation/Generate");
};

TEST_F(GrpcGuardTest, AFloodOfResetsEndsItsConnectionAndNoOther) {
  Load();
  EXPECT_TRUE(Call(Prompt({5, 6, 7})).ok());
  RawClient client(server_->port());
  int sent = 0;
  const auto send = [&](uint32_t i) {
    return client.Send(Frame(kHeaders, kEndHeaders, 2 * i + 1, headers_) +
                       Frame(kRst, 0, 2 * i + 1, std::string("\0\0\0\x08", 4)));
  };
  while (sent < 100'000 && send(sent)) ++sent;
  EXPECT_LT(sent, 100'000);
  EXPECT_EQ(stats().cut(Listener::kGrpc, Cut::kResets), 1);
  EXPECT_TRUE(Call(Prompt({5, 6, 7})).ok()) << "on the connection from before";
  EXPECT_EQ(service_->metrics().received(), 2);
}

TEST_F(GrpcGuardTest, TheClientIsToldWhy) {
  RawClient client(server_->port());
  std::string flood;
  for (uint32_t i = 0; i < 1000; ++i)
    flood += Frame(kHeaders, kEndHeaders, 2 * i + 1, headers_) + Frame(kRst, 0, 2 * i + 1, "1234");
  client.Send(flood);
  const std::string reply = client.ReadAll();
  const std::string last = GoAway(Cut::kResets, false);
  ASSERT_GE(reply.size(), last.size());
  EXPECT_EQ(reply.substr(reply.size() - last.size()), last);
}

TEST_F(GrpcGuardTest, StreamsAreBoundedForThoseTooWhoDoNotHearTheLimit) {
  GrpcServerOptions options;
  options.guard.limits.max_streams = 8;
  Start("", options);
  RawClient client(server_->port());  // never acknowledges the server's SETTINGS
  for (uint32_t i = 0; i < 8; ++i) client.Send(Frame(kHeaders, kEndHeaders, 2 * i + 1, headers_));
  EXPECT_EQ(client.Read(9).substr(3, 1), std::string(1, kSettings));
  EXPECT_EQ(stats().cut(Listener::kGrpc, Cut::kStreams), 0);
  client.Send(Frame(kHeaders, kEndHeaders, 17, headers_));
  client.ReadAll();
  EXPECT_EQ(stats().cut(Listener::kGrpc, Cut::kStreams), 1);
}

TEST_F(GrpcGuardTest, ConnectionsAreCapped) {
  GrpcServerOptions options;
  options.max_connections = 2;
  Start("", options);
  RawClient first(server_->port());
  EXPECT_EQ(first.Read(9).substr(3, 1), std::string(1, kSettings));
  {
    RawClient second(server_->port());
    EXPECT_EQ(second.Read(9).substr(3, 1), std::string(1, kSettings));
    RawClient third(server_->port());
    EXPECT_EQ(third.ReadAll(), "");
    EXPECT_EQ(stats().refused(Listener::kGrpc, Refusal::kLimit), 1);
    // Not a client: it is not counted, and gets in.
    EXPECT_TRUE(server_->CheckListener(absl::Seconds(60)).ok());
  }
  while (stats().open(Listener::kGrpc) > 1) absl::SleepFor(absl::Milliseconds(1));
  RawClient fourth(server_->port());
  EXPECT_EQ(fourth.Read(9).substr(3, 1), std::string(1, kSettings));
}

TEST_F(GrpcGuardTest, PingsWithoutDataAreWelcome) {
  RawClient client(server_->port());
  constexpr int kPings = 30;  // in no time: of every 10 s they would be five minutes'
  for (int i = 0; i < kPings; ++i) ASSERT_TRUE(client.Send(Frame(kPing, 0, 0, "12345678")));
  for (int num_acks = 0; num_acks < kPings;) {
    const std::string head = client.Read(9);
    ASSERT_EQ(head.size(), 9u) << "the connection has ended after " << num_acks;
    ASSERT_NE(head[3], kGoAwayType);
    const size_t length = static_cast<uint8_t>(head[1]) << 8 | static_cast<uint8_t>(head[2]);
    client.Read(length);
    num_acks += head[3] == kPing && (head[4] & 1) != 0;
  }
}

TEST_F(GrpcGuardTest, AMessageThatSaysItIsHugeEndsItsConnection) {
  Load();
  RawClient client(server_->port());
  // A gigabyte, of which nothing has come yet: it would be gathered before anybody asks for a key.
  client.Send(Frame(kHeaders, kEndHeaders, 1, headers_) + Frame(kData, 0, 1, std::string("\0\x40\0\0\0", 5)));
  client.ReadAll();
  EXPECT_EQ(stats().cut(Listener::kGrpc, Cut::kMessageBytes), 1);
  EXPECT_TRUE(Call(Prompt({5, 6, 7})).ok());
}

TEST_F(GrpcGuardTest, CompressedMessagesAreRefusedBeforeTheyAreInflated) {
  Load();
  for (const auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    sessa::v1::TokenizeRequest request;
    request.set_text(std::string(1 << 20, 'a'));  // 1 KiB on the wire
    sessa::v1::TokenizeReply reply;
    const grpc::Status status = stub_->Tokenize(&context, request, &reply);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << status.error_message();
  }
}

// Bytes that are no message: whoever has no key hears of that, not of them.
TEST_F(GrpcGuardTest, NothingIsParsedBeforeTheKeyIsKnown) {
  Start("alpha team-a\n");
  Load();
  grpc::GenericStub stub(channel_);
  const auto code = [&stub](const std::string& method, const std::string& key) {
    grpc::ClientContext context;
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    grpc::CompletionQueue queue;
    const grpc::Slice garbage(std::string("\xff\xff\xff"));
    auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&garbage, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer reply;
    grpc::Status status;
    call->Finish(&reply, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    return status.error_code();
  };
  for (const char* method :
       {"Generate", "Tokenize", "Detokenize", "Similarity", "GetModelInfo", "GetLoad", "Abort"}) {
    const std::string path = absl::StrCat("/sessa.v1.Generation/", method);
    EXPECT_EQ(code(path, ""), grpc::StatusCode::UNAUTHENTICATED) << method;
    EXPECT_EQ(code(path, "alpha"), grpc::StatusCode::INVALID_ARGUMENT) << method;
  }
  EXPECT_EQ(code("/inference.GRPCInferenceService/ModelInfer", ""), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(code("/inference.GRPCInferenceService/ModelInfer", "alpha"), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

}  // namespace
}  // namespace sessa
