// REST: what a tenant's limits in the key file do to its requests, and what it is told of them.
#include <string>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;

constexpr char kCompletions[] = "/v1/completions";

absl::Time now = absl::UnixEpoch();

class RestTenantsTest : public RestTest {
 protected:
  void SetUp() override {
    ServiceOptions options;
    options.api_keys = *ApiKeys::Parse(
        "key-a alice rate=0.5 burst=3 tokens_per_minute=100\n"
        "key-b bob min_priority=0 max_priority=5 max_requests=1\n");
    options.tenant_clock = [] { return now; };
    Start(std::move(options));
    Load();
  }
  HttpReply As(const std::string& key, const std::string& body, const std::string& path = kCompletions) {
    return Post(path, body, {{"Authorization", "Bearer key-" + key}});
  }
};

TEST_F(RestTenantsTest, RequestsASecond) {
  for (int left = 2; left >= 0; --left) {
    const HttpReply reply = As("a", R"({"prompt": "x"})", left == 1 ? "/tokenize" : kCompletions);
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(reply.Header("x-ratelimit-limit-requests"), "3");
    EXPECT_EQ(reply.Header("x-ratelimit-remaining-requests"), absl::StrCat(left));
  }
  const HttpReply refused = As("a", R"({"prompt": "x"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.Error("code"), "rate_limit_exceeded");
  EXPECT_THAT(refused.Error("message"), HasSubstr("0.5 requests a second, 3 at once"));
  EXPECT_EQ(refused.Header("Retry-After"), "2");
  EXPECT_EQ(refused.Header("x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(refused.Header("x-ratelimit-reset-requests"), "6s");
  EXPECT_EQ(As("b", R"({"prompt": "x"})").status, 200);
  EXPECT_EQ(As("b", R"({"prompt": "x"})").Header("x-ratelimit-limit-requests"), "");  // no such limit
  now += absl::Seconds(2);                                                     // as it was told
  EXPECT_EQ(As("a", R"({"prompt": "x"})").status, 200);
  // To look is free.
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(Call("GET", "/v1/models", "", {{"Authorization", "Bearer key-a"}}).status, 200);
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
}

TEST_F(RestTenantsTest, ARefusedBodyIsNotRead) {
  for (int i = 0; i < 3; ++i) As("a", "not JSON");  // counted whatever becomes of them
  HttpClient client(server_->port());
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "
      "key-a\r\nContent-Length: 1000000\r\n\r\n");
  const HttpReply refused = client.Read();
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.Header("Connection"), "close");
}

TEST_F(RestTenantsTest, TokensAMinute) {
  const HttpReply reply = As("a", R"({"prompt": [1, 2, 3], "max_tokens": 7})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("x-ratelimit-limit-tokens"), "100");
  EXPECT_EQ(reply.Header("x-ratelimit-remaining-tokens"), "90");
  const HttpReply refused = As("a", R"({"prompt": [1, 2, 3], "max_tokens": 40, "n": 3})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.Error("message"), HasSubstr("come to 123"));
  EXPECT_EQ(refused.Header("Retry-After"), "6");  // until all 100 are there
  EXPECT_EQ(refused.Header("x-ratelimit-reset-tokens"), "6s");
  // What was not generated is there again: the script stops after two tokens and an eos.
  engine_->SetScript({5, 6});
  EXPECT_EQ(As("a", R"({"prompt": [1], "max_tokens": 60})").status, 200);
  EXPECT_EQ(service_->tenants().Remaining("alice").tokens->remaining, 100 - 10 - 4);
}

TEST_F(RestTenantsTest, ACancelledPromptIsPaid) {
  {
    HttpClient client(server_->port());
    client.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99, 1, 2, 3, 4], "max_tokens": 50})",
                             {{"Authorization", "Bearer key-a"}}));
    ASSERT_TRUE(engine_->WaitForSubmitted(1));
    EXPECT_EQ(service_->tenants().Remaining("alice").tokens->remaining, 100 - 55);
  }
  ASSERT_TRUE(WaitUntilAllEnded(service_.get()));
  const int64_t left = service_->tenants().Remaining("alice").tokens->remaining;
  EXPECT_LE(left, 100 - 5);
  EXPECT_GE(left, 100 - 6);  // the one token of the script may have been read before the client left
}

TEST_F(RestTenantsTest, PriorityHasBounds) {
  for (const auto& [priority, status] : {std::pair(-1, 400), {0, 200}, {5, 200}, {6, 400}}) {
    const HttpReply reply = As("b", absl::StrCat(R"({"prompt": [1], "priority": )", priority, "}"));
    EXPECT_EQ(reply.status, status) << priority;
    if (status == 400) {
      EXPECT_EQ(reply.Error("param"), "priority");
      EXPECT_THAT(reply.Error("message"), HasSubstr("between 0 and 5 with this API key"));
    }
  }
  EXPECT_EQ(As("a", R"({"prompt": [1], "priority": -1000})").status, 200);
}

TEST_F(RestTenantsTest, RequestsAtOnce) {
  HttpClient first(server_->port());
  first.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99], "stream": true})",
                          {{"Authorization", "Bearer key-b"}}));
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  EXPECT_EQ(As("b", R"({"prompt": [1]})").status, 429);
  EXPECT_EQ(As("a", R"({"prompt": [1]})").status, 200);
  engine_->Cancel(1);
  EXPECT_EQ(first.Read().Events().back(), "[DONE]");
  EXPECT_EQ(As("b", R"({"prompt": [1]})").status, 200);
}

TEST_F(RestTenantsTest, LimitsTellTheTenantItsOwn) {
  const auto limits = [this](const char* key) {
    return Call("GET", "/v1/limits", "", {{"Authorization", absl::StrCat("Bearer key-", key)}})
        .Json()
        .at("tenant");
  };
  EXPECT_EQ(boost::json::serialize(limits("a")),
            R"({"name":"alice","weight":1,"rate":5E-1,"burst":3,"tokens_per_minute":100,)"
            R"("max_requests":null,"min_priority":-1000,"max_priority":1000})");
  EXPECT_EQ(limits("b").at("max_priority"), 5);
}

TEST_F(RestTenantsTest, MetricsTellTenantsApart) {
  EXPECT_EQ(As("a", R"({"prompt": [1, 2], "max_tokens": 3})").status, 200);
  EXPECT_EQ(As("b", R"({"prompt": [1], "max_tokens": 4})").status, 200);
  EXPECT_EQ(As("a", R"({"prompt": [1], "max_tokens": 60})").status, 200);
  EXPECT_EQ(As("a", R"({"prompt": [1], "max_tokens": 60})").status, 429);
  const std::string metrics = Call("GET", "/metrics").body;
  for (const char* sample :
       {"sessa_tenant_requests_total{model_name=\"\",tenant=\"alice\"} 2\n",
        "sessa_tenant_requests_total{model_name=\"\",tenant=\"bob\"} 1\n",
        "sessa_tenant_requests_running{model_name=\"\",tenant=\"alice\"} 0\n",
        "tenant=\"alice\",kind=\"prompt\"} 3\n", "tenant=\"bob\",kind=\"generation\"} 4\n",
        "tenant=\"alice\",limit=\"tokens\"} 1\n", "tenant=\"bob\",limit=\"rate\"} 0\n"})
    EXPECT_THAT(metrics, HasSubstr(sample));
}

TEST_F(RestTenantsTest, NewKeysWhileARequestRuns) {
  HttpClient running(server_->port());
  running.Send(RequestBytes("POST", kCompletions, R"({"prompt": [99], "stream": true})",
                            {{"Authorization", "Bearer key-b"}}));
  ASSERT_TRUE(engine_->WaitForSubmitted(1));
  service_->tenants().Reload(*ApiKeys::Parse("key-c bob weight=3\n"));
  EXPECT_EQ(As("b", R"({"prompt": [1]})").status, 401);
  EXPECT_EQ(As("c", R"({"prompt": [1]})").status, 200);  // max_requests is gone
  EXPECT_EQ(engine_->last().tenant, "bob");
  EXPECT_EQ(engine_->last().tenant_weight, 3);
  engine_->Cancel(1);
  EXPECT_EQ(running.Read().Events().back(), "[DONE]");
}

}  // namespace
}  // namespace sessa
