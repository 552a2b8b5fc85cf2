// See http_connection.h.
#include "loadtest/http_connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/write.hpp"
#include "boost/beast/http/write.hpp"

namespace sessa::loadtest {

namespace net = boost::asio;
namespace http = boost::beast::http;

namespace {
constexpr size_t kReadBytes = 64 << 10;
}

void PassedBody::reader::Pass(const char* bytes, size_t size, boost::system::error_code& error) {
  HttpConnection* const connection = connection_;
  connection->AnnounceHeaders();
  if (connection->handler_ != nullptr)
    connection->handler_->OnBody(connection->read_at_, absl::string_view(bytes, size));
  if (connection->handler_ == nullptr) error = net::error::operation_aborted;  // it left
}

HttpConnection::HttpConnection(HttpPool* pool) : pool_(pool), clock_(pool->clock_), socket_(*pool->io_) {}

void HttpConnection::Connect(std::shared_ptr<const HttpRequest> request, HttpHandler* handler) {
  request_ = std::move(request);
  handler_ = handler;
  handler->connection_ = shared_from_this();
  TryEndpoint(0);
}

void HttpConnection::TryEndpoint(size_t index) {
  socket_.async_connect(pool_->endpoints_[index], [self = shared_from_this(), index](Error error) {
    if (self->handler_ == nullptr) return;
    if (error) {
      Error ignored;
      self->socket_.close(ignored);
      if (index + 1 < self->pool_->endpoints_.size()) return self->TryEndpoint(index + 1);
      return self->Fail(absl::StrCat("connecting: ", error.message()));
    }
    self->socket_.set_option(net::ip::tcp::no_delay(true), error);
    self->Write();
    self->Read();
  });
}

void HttpConnection::Send(std::shared_ptr<const HttpRequest> request, HttpHandler* handler) {
  request_ = std::move(request);
  handler_ = handler;
  handler->connection_ = shared_from_this();
  reused_ = true;
  Write();
}

void HttpConnection::Write() {
  answering_ = announced_ = false;
  parser_.emplace();
  parser_->get().body() = this;
  parser_->body_limit(boost::none);
  parser_->eager(true);
  handler_->OnSent(clock_.Now());
  // An error is left to the read: a server may answer and close before it has read all of a request.
  writing_ = true;
  http::async_write(socket_, *request_, [self = shared_from_this(), request = request_](Error, size_t) {
    self->writing_ = false;
  });
}

void HttpConnection::Read() {
  socket_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](Error error, size_t size) {
    self->OnRead(error, size);
  });
}

void HttpConnection::OnRead(Error error, size_t size) {
  read_at_ = clock_.Now();
  if (handler_ == nullptr) return Close();  // idle: the server closes it, or says what nobody asked for
  if (!error) {
    answering_ = true;
    buffer_.commit(size);
    return Parse();
  }
  if (error == net::error::eof && parser_->is_header_done()) {
    Error ended;
    parser_->put_eof(ended);  // right if the answer ends with the connection
    if (!ended && parser_->is_done()) return Finish();
  }
  Fail(error == net::error::eof ? "the server closed the connection" : error.message());
}

void HttpConnection::Parse() {
  while (buffer_.size() > 0 && !parser_->is_done()) {
    Error error;
    buffer_.consume(parser_->put(buffer_.data(), error));
    if (handler_ == nullptr) return;
    if (error == http::error::need_more) break;
    if (error) return Fail(absl::StrCat("not HTTP: ", error.message()));
  }
  if (parser_->is_header_done()) AnnounceHeaders();
  if (handler_ != nullptr && parser_->is_done()) Finish();
  if (socket_.is_open()) Read();
}

void HttpConnection::AnnounceHeaders() {
  if (announced_ || handler_ == nullptr) return;
  announced_ = true;
  handler_->OnHeaders(read_at_, static_cast<int>(parser_->get().result_int()));
}

void HttpConnection::Finish() {
  AnnounceHeaders();
  HttpHandler* const handler = std::exchange(handler_, nullptr);
  const std::shared_ptr<HttpConnection> self = std::move(handler->connection_);
  handler->connection_ = nullptr;
  if (parser_->keep_alive() && buffer_.size() == 0 && !writing_) {
    pool_->idle_.push_back(self);
  } else {
    Close();
  }
  handler->OnEnd(read_at_);
}

void HttpConnection::Close() {
  handler_ = nullptr;
  Error ignored;
  socket_.close(ignored);
}

void HttpConnection::Fail(const std::string& why) {
  HttpHandler* const handler = std::exchange(handler_, nullptr);
  const std::shared_ptr<HttpConnection> self = std::move(handler->connection_);
  handler->connection_ = nullptr;
  Close();
  if (reused_ && !answering_) return pool_->SendOnNew(request_, handler);
  handler->OnFailure(clock_.Now(), answering_, why);
}

}  // namespace sessa::loadtest
