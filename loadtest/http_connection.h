// One connection of an HttpPool; see http.h. Exactly one read is pending from when it is connected until it
// is closed, also while it is idle: so that a server that closes it is noticed at once.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "boost/asio/ip/tcp.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http/parser.hpp"
#include "loadtest/http.h"

namespace sessa::loadtest {

// A Beast body that hands its bytes on as they are parsed.
struct PassedBody {
  using value_type = HttpConnection*;
  class reader {
   public:
    template <bool is_request, class Fields>
    reader(boost::beast::http::header<is_request, Fields>&, value_type& connection)
        : connection_(connection) {}
    void init(const boost::optional<uint64_t>&, boost::system::error_code& error) { error = {}; }
    template <class Buffers>
    size_t put(const Buffers& buffers, boost::system::error_code& error) {
      size_t size = 0;
      error = {};
      for (auto it = boost::asio::buffer_sequence_begin(buffers);
           it != boost::asio::buffer_sequence_end(buffers); ++it) {
        const boost::asio::const_buffer buffer = *it;
        size += buffer.size();
        Pass(static_cast<const char*>(buffer.data()), buffer.size(), error);
      }
      return size;
    }
    void finish(boost::system::error_code& error) { error = {}; }

   private:
    void Pass(const char* bytes, size_t size, boost::system::error_code& error);
    value_type& connection_;  // set after this is made
  };
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  explicit HttpConnection(HttpPool* pool);

  void Connect(std::shared_ptr<const HttpRequest> request, HttpHandler* handler);
  // Requires: is_open(), idle.
  void Send(std::shared_ptr<const HttpRequest> request, HttpHandler* handler);
  bool is_open() const { return socket_.is_open(); }
  // The handler hears no more.
  void Close();

 private:
  friend class PassedBody::reader;
  using Error = boost::system::error_code;

  void TryEndpoint(size_t index);
  void Write();
  void Read();
  void OnRead(Error error, size_t size);
  void Parse();
  void AnnounceHeaders();
  void Finish();
  void Fail(const std::string& why);

  HttpPool* const pool_;  // lives as long as a handler waits
  const Clock clock_;
  boost::asio::ip::tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::response_parser<PassedBody>> parser_;
  std::shared_ptr<const HttpRequest> request_;
  HttpHandler* handler_ = nullptr;  // null: idle or closed
  double read_at_ = 0;              // when the bytes that are parsed came
  bool reused_ = false;             // this is not the connection's first request
  bool answering_ = false;          // a byte of the answer has come
  bool announced_ = false;          // the handler knows the headers
  bool writing_ = false;            // the request is not written to its end yet
};

}  // namespace sessa::loadtest
