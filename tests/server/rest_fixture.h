// The REST front end over a scripted engine on a loopback port, and a client of Beast's for it. Text goes
// through the demo's tokenizer, so that pieces of characters and stop strings are cut as they are in earnest.
// What Beast and Asio take to compile is in rest_fixture.cc, once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "boost/json.hpp"
#include "gtest/gtest.h"
#include "server/core/service.h"
#include "server/rest/rest_server.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/scripted_engine.h"

namespace sessa {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpReply {
  int status = 0;
  Headers headers;
  std::string body;

  std::string Header(const std::string& name) const;  // empty: none of this name
  boost::json::value Json() const;
  // Of {"error": {...}}; "null" where it is null, "kserve" where there is no such field.
  std::string Error(const std::string& field) const;
  // What follows "data: ", in order.
  std::vector<std::string> Events() const;
};

// One connection. Calls block; a broken connection fails the test.
class HttpClient {
 public:
  explicit HttpClient(int port);
  ~HttpClient();

  void Send(const std::string& bytes);
  bool HasAnswer() const;
  void FinishSending();
  HttpReply Read(bool to_head = false);  // one reply; `to_head`: without a body
  std::string ReadAll();                 // everything to the end of the connection
  std::string ReadSome();                // the first bytes of a reply that goes on

 private:
  struct Socket;
  std::unique_ptr<Socket> socket_;
};

std::string RequestBytes(const std::string& method, const std::string& path, const std::string& body = "",
                         const Headers& headers = {});

class RestTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void TearDown() override;

  // A server without a model, in place of the one before.
  void Start(ServiceOptions options, RestServerOptions rest = {});
  void Load(int vocab_size = 1024, int max_model_len = 64);

  HttpReply Call(const std::string& method, const std::string& path, const std::string& body = "",
                 const Headers& headers = {});
  HttpReply Post(const std::string& path, const std::string& body, const Headers& headers = {}) {
    return Call("POST", path, body, headers);
  }
  HttpReply Complete(const std::string& body) { return Post("/v1/completions", body); }
  // Expects status and error.param, or KServe's message to begin with it; returns error.code, or "kserve".
  std::string CodeOf(const std::string& path, const std::string& body, int status, const std::string& param);
  int64_t Outcomes(Outcome outcome) { return service_->metrics().outcome(outcome); }
  std::vector<int32_t> Ids(const std::string& text) { return *tokenizer_->Encode(text, false); }

  std::shared_ptr<ScriptedEngine> engine_;
  const Tokenizer* tokenizer_ = nullptr;
  std::unique_ptr<Service> service_;
  std::unique_ptr<RestServer> server_;
};

}  // namespace sessa
