// The scripted server holds to its script: a test that trusts it may.
#include "tests/loadtest/scripted_server.h"

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa::loadtest {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

struct Answer {
  int status = 0;
  std::string retry_after;
  std::string body;
  bool broken = false;
};

class Client {
 public:
  explicit Client(int port) : socket_(io_) {
    socket_.connect({boost::asio::ip::address_v4::loopback(), static_cast<unsigned short>(port)});
  }
  void Send(const std::string& method, const std::string& path, const std::string& body = "") {
    boost::asio::write(
        socket_,
        boost::asio::buffer(absl::StrCat(
            method, " ", path, " HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body)));
  }
  Answer Read() {
    boost::beast::http::response_parser<boost::beast::http::string_body> parser;
    boost::system::error_code ec;
    boost::beast::http::read(socket_, buffer_, parser, ec);
    return {static_cast<int>(parser.get().result_int()), std::string(parser.get()["Retry-After"]),
            parser.get().body(), ec.failed()};
  }
  void Close() { socket_.close(); }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
};

constexpr char kStream[] =
    R"({"prompt":[1,2,3],"max_tokens":6,"stream":true,"return_token_ids":true,"stream_options":{"include_usage":true}})";

ScriptedServerOptions Always(const ScriptedAnswer& answer) {
  ScriptedServerOptions options;
  options.script = [answer](const ServedRequest&) { return answer; };
  return options;
}

Answer Post(const ScriptedServer& server, const std::string& body) {
  Client client(server.port());
  client.Send("POST", "/v1/completions", body);
  return client.Read();
}

// The record of the only request, once it has ended.
ServedRequest Only(const ScriptedServer& server) {
  while (true) {
    std::vector<ServedRequest> requests = server.Requests();
    EXPECT_EQ(requests.size(), 1);
    if (requests[0].ended != SteadyTime()) return requests[0];
    std::this_thread::sleep_for(milliseconds(1));
  }
}

TEST(ScriptedServerTest, AStreamIsNeverAheadOfItsScript) {
  ScriptedAnswer script;
  script.to_headers = milliseconds(5);
  script.to_first_token = milliseconds(10);
  script.between_events = milliseconds(2);
  script.tokens_per_event = 2;
  script.stall_at = 4;
  script.stall = milliseconds(20);
  script.cached_tokens = 2;
  ScriptedServer server(Always(script));
  const Answer answer = Post(server, kStream);
  EXPECT_EQ(answer.status, 200);
  EXPECT_FALSE(answer.broken);
  EXPECT_THAT(answer.body, HasSubstr(R"("finish_reason":"length","token_ids":[4,5]})"));
  EXPECT_THAT(answer.body, HasSubstr(R"("prompt_tokens":3,"completion_tokens":6)"));
  EXPECT_THAT(answer.body, HasSubstr(R"("cached_tokens":2)"));
  EXPECT_THAT(answer.body, HasSubstr("data: [DONE]\n\n"));
  const ServedRequest request = Only(server);
  EXPECT_EQ(request.prompt_tokens, 3);
  EXPECT_EQ(request.body, kStream);
  EXPECT_GE(request.headers_sent - request.received, milliseconds(5));
  ASSERT_EQ(request.events.size(), 3);
  EXPECT_EQ(request.events[2].num_tokens, 2);
  EXPECT_GE(request.events[0].at - request.received, milliseconds(15));
  EXPECT_GE(request.events[1].at - request.received, milliseconds(17));
  EXPECT_GE(request.events[2].at - request.received, milliseconds(39));
  EXPECT_GE(request.ended, request.events[2].at);
}

TEST(ScriptedServerTest, AWholeAnswerComesWithItsLastToken) {
  ScriptedAnswer script;
  script.between_events = milliseconds(3);
  ScriptedServer server(Always(script));
  const Answer answer = Post(server, R"({"prompt":"a b","max_tokens":5})");
  EXPECT_THAT(answer.body, HasSubstr(R"("text":" t t t t t")"));
  EXPECT_THAT(answer.body, HasSubstr(R"("prompt_tokens":2,"completion_tokens":5)"));
  const ServedRequest request = Only(server);
  ASSERT_EQ(request.events.size(), 1);
  EXPECT_EQ(request.events[0].num_tokens, 5);
  EXPECT_GE(request.events[0].at - request.received, milliseconds(12));
}

TEST(ScriptedServerTest, FaultsAreThoseOfTheScript) {
  ScriptedAnswer refused;
  refused.status = 429;
  refused.retry_after = "7";
  Answer answer = Post(ScriptedServer(Always(refused)), kStream);
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.retry_after, "7");
  EXPECT_THAT(answer.body, HasSubstr("\"error\""));

  ScriptedAnswer broken;
  broken.break_after = 4;
  answer = Post(ScriptedServer(Always(broken)), kStream);
  EXPECT_TRUE(answer.broken);
  EXPECT_THAT(answer.body, HasSubstr("\"token_ids\":[3]"));
  EXPECT_THAT(answer.body, Not(HasSubstr("\"token_ids\":[4]")));

  ScriptedAnswer unfinished;
  unfinished.finish_reason = "";
  answer = Post(ScriptedServer(Always(unfinished)), kStream);
  EXPECT_FALSE(answer.broken);
  EXPECT_THAT(answer.body, Not(HasSubstr("\"finish_reason\":\"")));

  ScriptedAnswer failed;
  failed.end_with = R"({"error":{}})";
  answer = Post(ScriptedServer(Always(failed)), kStream);
  EXPECT_THAT(answer.body, HasSubstr("data: {\"error\":{}}\n\n"));
  EXPECT_THAT(answer.body, Not(HasSubstr("\"finish_reason\":\"")));
  EXPECT_THAT(answer.body, Not(HasSubstr("[DONE]")));

  ScriptedServerOptions text_only;
  text_only.takes_token_ids = false;
  EXPECT_EQ(Post(ScriptedServer(text_only), kStream).status, 400);
  EXPECT_EQ(Post(ScriptedServer({}), "{").status, 400);
}

TEST(ScriptedServerTest, AClientThatLeavesIsSeen) {
  ScriptedAnswer script;
  script.between_events = milliseconds(1);
  script.stall_at = 3;
  script.stall = std::chrono::hours(1);
  ScriptedServer server(Always(script));
  Client client(server.port());
  client.Send("POST", "/v1/completions", kStream);
  while (server.Requests().empty() || server.Requests()[0].events.size() < 3)
    std::this_thread::sleep_for(milliseconds(1));
  client.Close();
  const ServedRequest request = Only(server);
  EXPECT_TRUE(request.client_left);
  EXPECT_EQ(request.events.size(), 3);
}

TEST(ScriptedServerTest, AConnectionIsUsedAgainAndTheRestIsAnswered) {
  ScriptedServerOptions options;
  options.limits = R"({"max_model_len":77})";
  options.metrics = [] { return std::string("a 1\n"); };
  ScriptedServer server(options);
  Client client(server.port());
  for (int i = 0; i < 3; ++i) {
    client.Send("POST", "/v1/completions", kStream);
    EXPECT_FALSE(client.Read().broken);
  }
  client.Send("GET", "/v1/models");
  EXPECT_THAT(client.Read().body, HasSubstr(R"("id":"scripted")"));
  client.Send("GET", "/v1/limits");
  EXPECT_EQ(client.Read().body, options.limits);
  client.Send("GET", "/metrics");
  EXPECT_EQ(client.Read().body, "a 1\n");
  client.Send("GET", "/nothing");
  EXPECT_EQ(client.Read().status, 404);
  EXPECT_EQ(server.Requests().size(), 3);
  EXPECT_EQ(server.num_open_connections(), 1);
}

}  // namespace
}  // namespace sessa::loadtest
