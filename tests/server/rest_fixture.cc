#include "tests/server/rest_fixture.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/connect.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/read.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "engine/monotonic.h"
#include "server/tokenizer/chat_template.h"

namespace sessa {

namespace beast_http = boost::beast::http;

std::string HttpReply::Header(const std::string& name) const {
  for (const auto& [found, value] : headers) {
    if (absl::EqualsIgnoreCase(found, name)) return value;
  }
  return "";
}

boost::json::value HttpReply::Json() const {
  boost::json::error_code ec;
  boost::json::value value = boost::json::parse(body, ec);
  EXPECT_FALSE(ec) << body;
  return value;
}

std::string HttpReply::Error(const std::string& field) const {
  const boost::json::value value = Json();
  if (value.at("error").is_string())  // KServe's, which is a message alone
    return field == "message" ? std::string(value.at("error").get_string()) : "kserve";
  const boost::json::value& found = value.at("error").at(field);
  return found.is_string() ? std::string(found.get_string()) : boost::json::serialize(found);
}

std::vector<std::string> HttpReply::Events() const {
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

struct HttpClient::Socket {
  boost::asio::io_context io;
  boost::asio::ip::tcp::socket tcp{io};
  boost::beast::flat_buffer buffer;
};

HttpClient::HttpClient(int port) : socket_(std::make_unique<Socket>()) {
  socket_->tcp.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<unsigned short>(port)});
}

HttpClient::~HttpClient() = default;

void HttpClient::Send(const std::string& bytes) {
  boost::asio::write(socket_->tcp, boost::asio::buffer(bytes));
}

bool HttpClient::HasAnswer() const { return socket_->tcp.available() > 0; }

void HttpClient::FinishSending() { socket_->tcp.shutdown(boost::asio::ip::tcp::socket::shutdown_send); }

HttpReply HttpClient::Read(bool to_head) {
  beast_http::response_parser<beast_http::string_body> parser;
  parser.body_limit(boost::none);
  parser.skip(to_head);
  boost::system::error_code ec;
  beast_http::read(socket_->tcp, socket_->buffer, parser, ec);
  EXPECT_FALSE(ec) << ec.message();
  HttpReply reply;
  reply.status = parser.get().result_int();
  for (const auto& field : parser.get().base())
    reply.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  reply.body = parser.get().body();
  return reply;
}

std::string HttpClient::ReadAll() {
  std::string all(static_cast<const char*>(socket_->buffer.data().data()), socket_->buffer.size());
  boost::system::error_code ec;
  boost::asio::read(socket_->tcp, boost::asio::dynamic_buffer(all), ec);
  return all;
}

std::string HttpClient::ReadSome() {
  std::string bytes(4096, '\0');
  bytes.resize(socket_->tcp.read_some(boost::asio::buffer(bytes)));
  return bytes;
}

std::string RequestBytes(const std::string& method, const std::string& path, const std::string& body,
                         const Headers& headers) {
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

void RestTest::TearDown() {
  if (server_ != nullptr) server_->Shutdown(MonotonicNow() + absl::Seconds(5));
  server_.reset();
  if (engine_ != nullptr) engine_->Stop();
  service_.reset();
  engine_.reset();
}

void RestTest::Start(ServiceOptions options, RestServerOptions rest) {
  TearDown();
  service_ = std::make_unique<Service>(std::move(options));
  auto server = RestServer::Start(rest, service_.get());
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
}

void RestTest::Load(int vocab_size, int max_model_len) {
  engine_ = std::make_shared<ScriptedEngine>(vocab_size, max_model_len);
  ServedModel model;
  model.name = "scripted";
  model.engine = engine_;
  model.tokenizer = *Tokenizer::Load(SESSA_DEMO_MODEL);
  model.chat_template = *ChatTemplate::Load(SESSA_DEMO_MODEL);
  tokenizer_ = model.tokenizer.get();
  service_->SetModel(std::move(model));
}

HttpReply RestTest::Call(const std::string& method, const std::string& path, const std::string& body,
                         const Headers& headers) {
  HttpClient client(server_->port());
  client.Send(RequestBytes(method, path, body, headers));
  return client.Read(method == "HEAD");
}

std::string RestTest::CodeOf(const std::string& path, const std::string& body, int status,
                             const std::string& param) {
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

}  // namespace sessa
