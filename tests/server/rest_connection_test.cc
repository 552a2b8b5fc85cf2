// REST: the life of a connection - reuse, HTTP/1.0, broken requests, clients that leave, drain and shutdown -
// and that requests_total sums to the requests received over all of it.
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kCompletions[] = "/v1/completions";

TEST_F(RestTest, ConnectionIsReusedAndRequestsMayCrowd) {
  Load();
  HttpClient client(server_->port());
  // Three at once: a whole answer, a stream, a probe. They are answered in order.
  client.Send(RequestBytes("POST", kCompletions, R"({"prompt": [1], "max_tokens": 2})") +
              RequestBytes("POST", kCompletions, R"({"prompt": [1], "max_tokens": 2, "stream": true})") +
              "\r\n" + RequestBytes("GET", "/livez"));
  const HttpReply whole = client.Read();
  EXPECT_EQ(whole.Header("Connection"), "keep-alive");
  EXPECT_EQ(whole.Json().at("object"), "text_completion");
  EXPECT_EQ(client.Read().Events().back(), "[DONE]");
  EXPECT_EQ(client.Read().Json().at("status"), "ok");
  for (int i = 0; i < 20; ++i) {
    client.Send(RequestBytes("POST", kCompletions, R"({"prompt": [1], "max_tokens": 2, "stream": true})"));
    EXPECT_EQ(client.Read().Events().back(), "[DONE]");
  }
}

TEST_F(RestTest, HeadHasNoBody) {
  HttpClient client(server_->port());
  client.Send(RequestBytes("HEAD", "/livez") + RequestBytes("GET", "/livez"));
  const HttpReply head = client.Read(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Header("Content-Length"), "15");
  EXPECT_EQ(client.Read().Json().at("status"), "ok");
}

TEST_F(RestTest, OldHttpStreamsToTheEnd) {
  Load();
  HttpClient client(server_->port());
  const std::string body = R"({"prompt": [1], "max_tokens": 2, "stream": true})";
  client.Send(absl::StrCat(
      "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ", body.size(),
      "\r\n\r\n", body));
  const std::string all = client.ReadAll();
  EXPECT_THAT(all, HasSubstr("Connection: close"));
  EXPECT_THAT(all, Not(HasSubstr("Transfer-Encoding")));
  EXPECT_EQ(all.substr(all.size() - 14), "data: [DONE]\n\n");
}

TEST_F(RestTest, ExpectContinueIsAnswered) {
  Load();
  HttpClient client(server_->port());
  const std::string body = R"({"prompt": [1]})";
  client.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
                           "Expect: 100-continue\r\nContent-Length: ", body.size(), "\r\n\r\n"));
  EXPECT_THAT(client.ReadSome(), StartsWith("HTTP/1.1 100 Continue\r\n\r\n"));
  client.Send(body);
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(RestTest, BrokenHttpIsRefusedAndClosed) {
  for (const char* bytes :
       {"nonsense\r\n\r\n", "GET /livez HTTP/3.0\r\n\r\n", "GET  /livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"}) {
    HttpClient client(server_->port());
    client.Send(bytes);
    const std::string all = client.ReadAll();
    EXPECT_THAT(all, StartsWith("HTTP/1.1 400 ")) << bytes;
    EXPECT_THAT(all, HasSubstr("X-Request-Id: ")) << bytes;
  }
  HttpClient client(server_->port());
  client.Send("GET /v1/models HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client.Read().status, 400);  // no Host
  EXPECT_EQ(service_->metrics().ended(), service_->metrics().received());
}

TEST_F(RestTest, SlowRequestsTimeOut) {
  const auto start = [this](absl::Duration RestServerOptions::* short_one) {  // a busy client misses no other
    RestServerOptions rest;
    rest.header_timeout = rest.body_timeout = rest.idle_timeout = absl::Hours(1);
    rest.*short_one = absl::Milliseconds(50);
    Start({}, rest);
    Load();
  };
  start(&RestServerOptions::idle_timeout);
  HttpClient silent(server_->port());
  EXPECT_EQ(silent.ReadAll(), "");
  start(&RestServerOptions::header_timeout);
  HttpClient header(server_->port());
  header.Send("GET /livez HT");
  EXPECT_EQ(header.Read().status, 408);
  start(&RestServerOptions::body_timeout);
  HttpClient body(server_->port());
  body.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
      "9\r\n\r\n{");
  EXPECT_EQ(body.Read().status, 408);
  EXPECT_EQ(Outcomes(Outcome::kInvalid), 1);
  EXPECT_THAT(Call("GET", "/metrics").body, HasSubstr("code=\"408\",protocol=\"rest\"} 1\n"));
}

TEST_F(RestTest, ClientThatLeavesEndsItsGeneration) {
  Load();
  for (const bool stream : {true, false}) {
    {
      HttpClient client(server_->port());
      client.Send(RequestBytes("POST", kCompletions,
                               stream ? R"({"prompt": [99], "stream": true})" : R"({"prompt": [99]})"));
      if (stream) {
        EXPECT_THAT(client.ReadSome(), StartsWith("HTTP/1.1 200 OK"));
      } else {
        ASSERT_TRUE(engine_->WaitForSubmitted(2));
      }
    }
    EXPECT_TRUE(engine_->WaitForCancelled(stream ? 1 : 2));
  }
  {
    HttpClient half(server_->port());  // leaves inside its body
    half.Send(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        "9\r\n\r\n{");
  }
  while (service_->metrics().received() < 3) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(Outcomes(Outcome::kCancelled), 3);
}

TEST_F(RestTest, DrainEndsStreamsAndWholeAnswersWithAnError) {
  Load();
  HttpClient stream(server_->port()), whole(server_->port());
  stream.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99], "stream": true})"));
  whole.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99]})"));
  ASSERT_TRUE(engine_->WaitForSubmitted(2));
  service_->Drain(MonotonicNow());
  const std::vector<std::string> events = stream.Read().Events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(boost::json::parse(events[events.size() - 2]).at("error").at("code"), "draining");
  const HttpReply refused = whole.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Error("code"), "draining");
  EXPECT_EQ(refused.Header("Retry-After"), "1");
  EXPECT_EQ(Outcomes(Outcome::kUnavailable), 2);
}

TEST_F(RestTest, SettlingIsNotReadyButServes) {
  Load();
  service_->BeginSettle();
  EXPECT_EQ(Call("GET", "/readyz").Error("code"), "draining");
  EXPECT_EQ(Call("GET", "/livez").status, 200);
  EXPECT_EQ(Post(kCompletions, R"({"prompt": [1]})").status, 200);
  service_->BeginDrain();
  EXPECT_EQ(Post(kCompletions, R"({"prompt": [1]})").status, 503);
}

TEST_F(RestTest, ShutdownLeavesNobodyHanging) {
  Load();
  HttpClient idle(server_->port()), half(server_->port()), running(server_->port());
  idle.Send(RequestBytes("GET", "/livez"));
  EXPECT_EQ(idle.Read().status, 200);
  half.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
      "9\r\n\r\n{");
  running.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99], "stream": true})"));
  EXPECT_THAT(running.ReadSome(), StartsWith("HTTP/1.1 200 OK"));
  server_->Shutdown(MonotonicNow() + absl::Milliseconds(100));
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_EQ(half.ReadAll(), "");
  running.ReadAll();  // ends
  EXPECT_TRUE(engine_->WaitForCancelled(1));
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
}

TEST_F(RestTest, OutcomesSumToTheRequestsReceived) {
  Load();
  engine_->SetScript(Ids("some words of an answer"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 10; ++i) {
        switch ((t + i) % 5) {
          case 0: Complete(R"({"prompt": [1], "max_tokens": 2})"); break;
          case 1: Complete(R"({"prompt": [1], "max_tokens": 50, "stream": true})"); break;
          case 2: Complete(R"({"prompt": [1], "temperature": 7})"); break;
          case 3: Complete(R"({"prompt": [1], "model": "other"})"); break;
          default: {
            HttpClient client(server_->port());
            client.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99], "stream": true})"));
            client.ReadSome();
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(WaitUntilAllEnded(service_.get()));
  EXPECT_EQ(service_->metrics().received(), 80);
  for (const Outcome outcome :
       {Outcome::kLength, Outcome::kStop, Outcome::kInvalid, Outcome::kNotFound, Outcome::kCancelled}) {
    EXPECT_EQ(Outcomes(outcome), 16) << OutcomeName(outcome);
  }
}

}  // namespace
}  // namespace sessa
