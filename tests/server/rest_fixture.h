// The REST front end over a scripted engine on a loopback port, and a client of Beast's for it. Text goes
// through the demo's tokenizer, so that pieces of characters and stop strings are cut as they are in earnest.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/connect.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/read.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "boost/json.hpp"
#include "engine/monotonic.h"
#include "gtest/gtest.h"
#include "server/core/service.h"
#include "server/rest/rest_server.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/scripted_engine.h"

namespace sessa {

namespace beast_http = boost::beast::http;

struct HttpReply {
  int status = 0;
  beast_http::fields headers;
  std::string body;

  std::string Header(const std::string& name) const { return std::string(headers[name]); }
  boost::json::value Json() const {
    boost::json::error_code ec;
    boost::json::value value = boost::json::parse(body, ec);
    EXPECT_FALSE(ec) << body;
    return value;
  }
  // Of {"error": {...}}; "null" where it is null, "kserve" where there is no such field.
  std::string Error(const std::string& field) const {
    const boost::json::value value = Json();
    if (value.at("error").is_string())  // KServe's, which is a message alone
      return field == "message" ? std::string(value.at("error").get_string()) : "kserve";
    const boost::json::value& found = value.at("error").at(field);
    return found.is_string() ? std::string(found.get_string()) : boost::json::serialize(found);
  }
  // What follows "data: ", in order.
  std::vector<std::string> Events() const {
    std::vector<std::string> events;
    for (size_t at = 0; at < body.size();) {
      const size_t end = body.find("\n\n", at);
      EXPECT_NE(end, std::string::npos) << "half an event";
      EXPECT_EQ(body.substr(at, 6), "data: ");
      if (end == std::string::npos) break;
      events.push_back(body.substr(at + 6, end - at - 6));
      at = end + 2;
    }
    return events;
  }
};

// One connection. Calls block; a broken connection fails the test.
class HttpClient {
 public:
  explicit HttpClient(int port) : socket_(io_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<unsigned short>(port)});
  }

  void Send(const std::string& bytes) { boost::asio::write(socket_, boost::asio::buffer(bytes)); }
  bool HasAnswer() const { return socket_.available() > 0; }
  void FinishSending() { socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send); }
  // One reply; `to_head`: without a body.
  HttpReply Read(bool to_head = false) {
    beast_http::response_parser<beast_http::string_body> parser;
    parser.body_limit(boost::none);
    parser.skip(to_head);
    boost::system::error_code ec;
    beast_http::read(socket_, buffer_, parser, ec);
    EXPECT_FALSE(ec) << ec.message();
    HttpReply reply;
    reply.status = parser.get().result_int();
    reply.headers = parser.get().base();
    reply.body = parser.get().body();
    return reply;
  }
  // Everything to the end of the connection.
  std::string ReadAll() {
    std::string all(static_cast<const char*>(buffer_.data().data()), buffer_.size());
    boost::system::error_code ec;
    boost::asio::read(socket_, boost::asio::dynamic_buffer(all), ec);
    return all;
  }
  // The first bytes of a reply that goes on.
  std::string ReadSome() {
    std::string bytes(4096, '\0');
    bytes.resize(socket_.read_some(boost::asio::buffer(bytes)));
    return bytes;
  }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

inline std::string RequestBytes(const std::string& method, const std::string& path,
                                const std::string& body = "", const Headers& headers = {}) {
  std::string out = absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: test\r\n");
  bool typed = false;
  for (const auto& [name, value] : headers) {
    absl::StrAppend(&out, name, ": ", value, "\r\n");
    typed = typed || name == "Content-Type";
  }
  if (method == "POST") {
    if (!typed) out += "Content-Type: application/json\r\n";
    absl::StrAppend(&out, "Content-Length: ", body.size(), "\r\n");
  }
  return absl::StrCat(out, "\r\n", body);
}

class RestTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(MonotonicNow() + absl::Seconds(5));
    server_.reset();
    if (engine_ != nullptr) engine_->Stop();
    service_.reset();
    engine_.reset();
  }

  // A server without a model, in place of the one before.
  void Start(ServiceOptions options, RestServerOptions rest = {}) {
    TearDown();
    service_ = std::make_unique<Service>(std::move(options));
    auto server = RestServer::Start(rest, service_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void Load(int vocab_size = 1024, int max_model_len = 64) {
    engine_ = std::make_shared<ScriptedEngine>(vocab_size, max_model_len);
    ServedModel model;
    model.name = "scripted";
    model.engine = engine_;
    model.tokenizer = *Tokenizer::Load(SESSA_DEMO_MODEL);
    model.chat_template = *ChatTemplate::Load(SESSA_DEMO_MODEL);
    tokenizer_ = model.tokenizer.get();
    service_->SetModel(std::move(model));
  }

  HttpReply Call(const std::string& method, const std::string& path, const std::string& body = "",
                 const Headers& headers = {}) {
    HttpClient client(server_->port());
    client.Send(RequestBytes(method, path, body, headers));
    return client.Read(method == "HEAD");
  }
  HttpReply Post(const std::string& path, const std::string& body, const Headers& headers = {}) {
    return Call("POST", path, body, headers);
  }
  HttpReply Complete(const std::string& body) { return Post("/v1/completions", body); }
  // Expects status and error.param, or KServe's message to begin with it; returns error.code, or "kserve".
  std::string CodeOf(const std::string& path, const std::string& body, int status, const std::string& param) {
    const HttpReply reply = Post(path, body);
    EXPECT_EQ(reply.status, status) << body.substr(0, 200) << "\n" << reply.body;
    if (reply.status < 400) return "";
    const std::string code = reply.Error("code");
    if (code != "kserve") {
      EXPECT_EQ(reply.Error("param"), param) << body.substr(0, 200);
    } else if (reply.Error("message").rfind("This model's context", 0) != 0) {  // that names no field
      EXPECT_EQ(reply.Error("message").substr(0, param.size() + 1), param + ":");
    }
    return code;
  }
  int64_t Outcomes(Outcome outcome) { return service_->metrics().outcome(outcome); }
  std::vector<int32_t> Ids(const std::string& text) { return *tokenizer_->Encode(text, false); }

  std::shared_ptr<ScriptedEngine> engine_;
  const Tokenizer* tokenizer_ = nullptr;
  std::unique_ptr<Service> service_;
  std::unique_ptr<RestServer> server_;
};

}  // namespace sessa
