// REST: what becomes of connections at the cap - idle ones give way, busy ones do not, and probes get in all
// the same - and what the admin port serves.
#include <memory>
#include <string>
#include <vector>

#include "server/net/descriptors.h"
#include "tests/server/rest_fixture.h"

namespace sessa {
namespace {

class RestAdmissionTest : public RestTest {
 protected:
  void StartWithCap(int max_connections) {
    RestServerOptions rest;
    rest.max_connections = max_connections;
    rest.num_threads = 1;  // connections become idle in the order in which they were answered
    Start({}, rest);
    Load();
  }
  ConnectionStats& stats() { return service_->metrics().connections(); }
  int Probe(HttpClient* client) {
    client->Send(RequestBytes("GET", "/livez"));
    return client->Read().status;
  }
  // A connection with a generation that goes on.
  std::unique_ptr<HttpClient> Busy() {
    auto client = std::make_unique<HttpClient>(server_->port());
    client->Send(RequestBytes("POST", "/v1/completions",
                              absl::StrCat("{\"prompt\": [", ScriptedEngine::kHang, "], \"stream\": true}")));
    client->ReadSome();
    return client;
  }
};

TEST_F(RestAdmissionTest, TheLongestIdleGivesWay) {
  StartWithCap(2);
  HttpClient first(server_->port()), second(server_->port());
  EXPECT_EQ(Probe(&first), 200);
  EXPECT_EQ(Probe(&second), 200);
  EXPECT_EQ(Probe(&first), 200);  // now the second is idle for longer
  HttpClient third(server_->port());
  EXPECT_EQ(Probe(&third), 200);
  EXPECT_EQ(second.ReadAll(), "");
  EXPECT_EQ(Probe(&first), 200);
  EXPECT_EQ(stats().cut(Listener::kHttp, Cut::kEvicted), 1);
  EXPECT_EQ(stats().open(Listener::kHttp), 2);
}

TEST_F(RestAdmissionTest, AboveTheCapProbesAreAnsweredAndNothingElse) {
  StartWithCap(2);
  const auto first = Busy(), second = Busy();
  HttpClient probe(server_->port());
  probe.Send(RequestBytes("GET", "/readyz"));
  const HttpReply ready = probe.Read();
  EXPECT_EQ(ready.status, 200);
  EXPECT_EQ(ready.Header("Connection"), "close");
  HttpClient third(server_->port());
  third.Send(RequestBytes("POST", "/v1/completions", R"({"prompt": [1]})"));
  const HttpReply refused = third.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Header("Retry-After"), "1");
  EXPECT_EQ(refused.Header("Connection"), "close");
  EXPECT_EQ(refused.Error("code"), "overloaded");
  EXPECT_EQ(Outcomes(Outcome::kRejected), 1);
}

TEST_F(RestAdmissionTest, BeyondTheSpareOnesAllAreTurnedAwayAtOnce) {
  StartWithCap(1);
  const auto busy = Busy();
  std::vector<std::unique_ptr<HttpClient>> others;
  for (int i = 0; i < kSpareHttpConnections; ++i) {
    others.push_back(std::make_unique<HttpClient>(server_->port()));
    // With half a request it is not idle; the answer shows that the server has read it.
    others.back()->Send(
        "GET /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    EXPECT_EQ(others.back()->ReadSome().substr(0, 12), "HTTP/1.1 100");
  }
  HttpClient refused(server_->port());
  const std::string reply = refused.ReadAll();  // nothing was asked
  EXPECT_EQ(reply.substr(0, 12), "HTTP/1.1 503");
  EXPECT_EQ(reply.size() - reply.find("\r\n\r\n") - 4, 119u) << "not what Content-Length says";
  EXPECT_EQ(stats().refused(Listener::kHttp, Refusal::kLimit), 1);
}

TEST_F(RestAdmissionTest, AdminServesProbesAndMetricsAlone) {
  RestServerOptions admin;
  admin.admin = true;
  Start({}, admin);
  Load();
  for (const char* path : {"/livez", "/readyz", "/startupz", "/health", "/metrics", "/v2/health/live"})
    EXPECT_EQ(Call("GET", path).status, 200) << path;
  for (const char* path : {"/", "/web/page.js", "/v1/models", "/v1/limits", "/version"})
    EXPECT_EQ(Call("GET", path).status, 404) << path;
  EXPECT_EQ(Complete(R"({"prompt": [1]})").status, 404);
  EXPECT_EQ(stats().open(Listener::kHttp), 0);
  EXPECT_GE(stats().accepted(Listener::kAdmin), 12);
}

TEST_F(RestAdmissionTest, TheCheckOfTheListenerIsNotCountedAgainstTheCap) {
  StartWithCap(1);
  const auto busy = Busy();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(server_->CheckListener(absl::Seconds(60)).ok());
  EXPECT_EQ(stats().refused(Listener::kHttp, Refusal::kLimit), 0);
}

}  // namespace
}  // namespace sessa
