// See connection.h. One state machine for plain and TLS sockets. At most one read and one write are pending
// at a time; a read is either the parser's (kHeader, kBody) or Fill's, which watches the socket in every
// other state.
#include "server/rest/connection.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/dispatch.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/ssl/stream.hpp"
#include "boost/asio/write.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http/read.hpp"
#include "server/core/log.h"
#include "server/rest/epoch_timer.h"
#include "server/rest/http_read.h"

namespace sessa {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
using ErrorCode = boost::system::error_code;
using Tcp = net::ip::tcp;
using TlsStream = net::ssl::stream<Tcp::socket>;

constexpr size_t kWriteBytes = 64 << 10;         // a stream's events are gathered up to this
constexpr size_t kMaxPipelinedBytes = 64 << 10;  // kept of later requests while one is answered
constexpr size_t kReadBytes = 4 << 10;
constexpr size_t kMaxLingerBytes = 16 << 20;
constexpr absl::Duration kLingerTime = absl::Seconds(2);

Tcp::socket& Lowest(Tcp::socket& stream) { return stream; }
Tcp::socket& Lowest(TlsStream& stream) { return stream.next_layer(); }

template <typename Stream>
class ConnectionImpl final : public Connection, public std::enable_shared_from_this<ConnectionImpl<Stream>> {
 public:
  static constexpr bool kTls = std::is_same_v<Stream, TlsStream>;

  ConnectionImpl(std::weak_ptr<net::io_context> io, Stream stream, std::shared_ptr<ConnectionContext> context)
      : io_(std::move(io)),
        context_(std::move(context)),
        stream_(std::move(stream)),
        read_timer_(stream_.get_executor()),
        write_timer_(stream_.get_executor()),
        buffer_(context_->handlers.limits().max_header_bytes + 4 * kMaxPipelinedBytes) {}
  ~ConnectionImpl() override { context_->registry.Remove(this); }

  void Start() override {
    Post([self = Self()] { self->Begin(); });
  }
  void BeginShutdown() override {
    Post([self = Self()] {
      self->stopping_ = true;
      if (self->state_ == State::kIdle || self->state_ == State::kHandshake || self->state_ == State::kLinger)
        self->Close();
    });
  }
  void ForceClose() override {
    Post([self = Self()] { self->Close(); });
  }

 private:
  enum class State { kHandshake, kIdle, kHeader, kBody, kRespond, kLinger, kClosed };

  std::shared_ptr<ConnectionImpl> Self() { return this->shared_from_this(); }
  template <typename F>
  void Post(F function) {
    net::post(stream_.get_executor(), std::move(function));
  }

  void Begin() {
    if (state_ == State::kClosed) return;
    if constexpr (kTls) {
      StartReadTimer(context_->options.header_timeout);
      stream_.async_handshake(net::ssl::stream_base::server, [self = Self()](ErrorCode ec) {
        if (self->state_ == State::kClosed) return;
        ec ? self->Close() : self->NextRequest();
      });
    } else {
      NextRequest();
    }
  }

  // ---- between requests ----

  void NextRequest() {
    exchange_.reset();
    call_.reset();
    if (stopping_) return EndConnection();
    state_ = State::kIdle;
    if (reading_) {
      StartReadTimer(context_->options.idle_timeout);
      // Fill waits for more, but a request is here already: wake it up, OnFill goes on.
      if (buffer_.size() > 0) Lowest(stream_).cancel(ignored_);
    } else {
      Continue();
    }
  }

  // kIdle, nothing pending: a header if there are bytes, else wait for some.
  void Continue() {
    SkipBlankLines(&buffer_);
    if (buffer_.size() > 0) return ReadHeader();
    StartReadTimer(context_->options.idle_timeout);
    Fill();
  }

  void Fill() {
    if (reading_) return;
    reading_ = true;
    stream_.async_read_some(buffer_.prepare(kReadBytes), [self = Self()](ErrorCode ec, size_t n) {
      self->reading_ = false;
      self->buffer_.commit(n);
      self->OnFill(ec);
    });
  }

  void OnFill(ErrorCode ec) {
    switch (state_) {
      case State::kIdle:
        if (ec && !(ec == net::error::operation_aborted && buffer_.size() > 0 && !timed_out_)) return Close();
        return Continue();
      case State::kRespond:
        if (ec) return ClientLeft();
        if (buffer_.size() < kMaxPipelinedBytes) Fill();
        return;
      case State::kLinger:
        lingered_ += buffer_.size();
        buffer_.consume(buffer_.size());
        if (ec || lingered_ > kMaxLingerBytes) return Close();
        return Fill();
      default: return;
    }
  }

  // ---- reading a request ----

  void ReadHeader() {
    state_ = State::kHeader;
    StartReadTimer(context_->options.header_timeout);
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(context_->handlers.limits().max_header_bytes));
    parser_->body_limit(boost::none);  // Judge compares the length that the header says
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = Self()](ErrorCode ec, size_t) { self->OnHeader(ec); });
  }

  void OnHeader(ErrorCode ec) {
    if (state_ == State::kClosed) return;
    exchange_.emplace();
    if (!ec) ec = CheckFraming(*parser_);
    if (ec) return ReadFailed(ec);
    const RequestHead& head = exchange_->head = HeadOf(*parser_);
    if (std::optional<Reply> refused = context_->handlers.Judge(&*exchange_)) {
      refused->close = head.has_body;  // the body is not read
      return Send(*std::move(refused));
    }
    if (!head.has_body) return Dispatch();
    state_ = State::kBody;
    if (head.expects_continue) {
      Write("HTTP/1.1 100 Continue\r\n\r\n", [this] { ReadBody(); });
    } else {
      ReadBody();
    }
  }

  void ReadBody() {
    StartReadTimer(context_->options.body_timeout);
    parser_->body_limit(static_cast<uint64_t>(context_->handlers.limits().max_body_bytes));
    http::async_read(stream_, buffer_, *parser_, [self = Self()](ErrorCode ec, size_t) {
      if (self->state_ == State::kClosed) return;
      ec ? self->ReadFailed(ec) : self->Dispatch();
    });
  }

  void ReadFailed(ErrorCode ec) {
    if (exchange_->head.request_id.empty()) exchange_->head.request_id = ChooseRequestId("");
    std::optional<Reply> reply = ReplyToReadError(ec, timed_out_, context_->handlers.limits());
    if (!reply.has_value()) return Close();  // the client left
    context_->handlers.Abandon(&*exchange_, Outcome::kInvalid, reply->status);
    reply->close = true;
    Send(*std::move(reply));
  }

  // ---- answering ----

  void Dispatch() {
    StopReadTimer();
    state_ = State::kRespond;
    handling_ = true;
    std::string body = std::move(parser_->get().body());
    parser_.reset();
    // Until Handled the exchange is not touched here; what runs elsewhere keeps the executor alive too.
    context_->handlers.HandleText(
        &*exchange_, std::move(body), gone_, [self = Self(), io = io_.lock()](Handlers::Result result) {
          auto shared = std::make_shared<Handlers::Result>(std::move(result));
          net::dispatch(self->stream_.get_executor(), [self, shared] { self->Handled(std::move(*shared)); });
        });
    if (handling_) Fill();  // watches for a client that leaves
  }

  void Handled(Handlers::Result result) {
    handling_ = false;
    if (state_ == State::kClosed) return Abandon();
    if (auto* reply = std::get_if<Reply>(&result)) return Send(std::move(*reply));
    call_ = std::get<std::unique_ptr<GenerationCall>>(std::move(result));
    // Called on the engine's thread. Only weak pointers, so that a late call keeps nothing alive.
    call_->SetNotify([weak_io = io_, weak = std::weak_ptr<ConnectionImpl>(Self())] {
      const std::shared_ptr<net::io_context> io = weak_io.lock();  // the executor below needs it
      if (io == nullptr) return;
      if (const std::shared_ptr<ConnectionImpl> self = weak.lock()) {
        self->Post([weak] {
          if (auto self = weak.lock()) self->Pump();
        });
      }
    });
    Fill();  // watches for a client that leaves
    if (call_->is_stream()) {
      const Reply head = call_->MakeReply();
      status_ = head.status;
      keep_alive_ = KeepAlive() && exchange_->head.version >= 11;
      pending_ = SerializeHead(head, exchange_->head, keep_alive_, true);
    }
    Pump();
  }

  // Writes what is ready; called again when there is news and when a write is done.
  void Pump() {
    if (state_ != State::kRespond || call_ == nullptr || writing_) return;
    std::string events;
    try {
      call_->Pull(&events, kWriteBytes);
      if (!call_->is_stream()) {
        if (call_->ended()) Send(call_->MakeReply());
        return;
      }
      if (!events.empty()) pending_ += Framed(events);
      if (call_->ended() && !last_queued_) {
        last_queued_ = true;
        if (exchange_->head.version >= 11) pending_ += "0\r\n\r\n";
      }
    } catch (const std::exception& e) {
      Log(absl::StrCat("rest: ", Quoted(exchange_->head.path), ": ", e.what()));
      return Close();
    }
    if (pending_.empty()) return;  // SetNotify's function comes when there is news
    Write(std::exchange(pending_, std::string()), [this] { last_queued_ ? Answered() : Pump(); });
  }

  std::string Framed(const std::string& data) const {
    return exchange_->head.version < 11 ? data : absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n");
  }

  bool KeepAlive() const { return exchange_->head.keep_alive && !stopping_; }

  void Send(Reply reply) {
    StopReadTimer();
    state_ = State::kRespond;
    status_ = reply.status;
    keep_alive_ = KeepAlive() && !reply.close;
    std::string bytes = SerializeHead(reply, exchange_->head, keep_alive_, false);
    if (exchange_->head.method != "HEAD") bytes += reply.body;
    reply_sent_ = true;
    Write(std::move(bytes), [this] { Answered(); });
  }

  // The whole answer is written.
  void Answered() {
    context_->handlers.LogAccess(*exchange_, status_, call_.get());
    last_queued_ = reply_sent_ = false;
    if (!keep_alive_) stopping_ = true;
    NextRequest();
  }

  // The client closed its side, or the connection broke.
  void ClientLeft() {
    const bool waits_for_text = handling_ && exchange_->route.generates;
    if (!waits_for_text && (call_ == nullptr || call_->ended() || reply_sent_)) {
      stopping_ = true;  // all is generated: what can be written still is
      return;
    }
    Close();  // drops the call, which cancels
  }

  void Write(std::string bytes, std::function<void()> next) {
    out_ = std::move(bytes);
    writing_ = true;
    write_timer_.Start(context_->options.write_timeout * (1 + out_.size() / kWriteBytes),
                       [self = Self()] { self->Close(); });
    net::async_write(stream_, net::buffer(out_),
                     [self = Self(), next = std::move(next)](ErrorCode ec, size_t) {
                       self->writing_ = false;
                       self->write_timer_.Stop();
                       if (self->state_ == State::kClosed) return;
                       ec ? self->Close() : next();
                     });
  }

  // ---- ending ----

  // Closes so that the client can read all that was written: closing with unread bytes would reset the
  // connection.
  void EndConnection() {
    state_ = State::kLinger;
    StartReadTimer(kLingerTime);
    if constexpr (kTls) {
      stream_.async_shutdown([self = Self()](ErrorCode) { self->Close(); });
    } else {
      Lowest(stream_).shutdown(Tcp::socket::shutdown_send, ignored_);
      buffer_.consume(buffer_.size());
      Fill();
    }
  }

  void Close() {
    if (state_ == State::kClosed) return;
    state_ = State::kClosed;
    StopReadTimer();
    write_timer_.Stop();
    gone_ = true;
    if (!handling_) Abandon();
    call_.reset();
    Lowest(stream_).close(ignored_);
  }

  void Abandon() {
    if (!exchange_.has_value()) return;  // answered to its end
    context_->handlers.Abandon(&*exchange_, Outcome::kCancelled, 499);
    context_->handlers.LogAccess(*exchange_, 499, call_.get());
  }

  void StartReadTimer(absl::Duration after) {
    timed_out_ = false;
    read_timer_.Start(after, [self = Self()] {
      if (self->state_ == State::kClosed) return;
      self->timed_out_ = true;
      if (self->state_ == State::kHeader || self->state_ == State::kBody) {
        Lowest(self->stream_).cancel(self->ignored_);  // the read fails, ReadFailed says 408
      } else {
        self->Close();
      }
    });
  }
  void StopReadTimer() {
    timed_out_ = false;
    read_timer_.Stop();
  }

  const std::weak_ptr<net::io_context> io_;
  const std::shared_ptr<ConnectionContext> context_;
  Stream stream_;
  EpochTimer read_timer_, write_timer_;
  boost::beast::flat_buffer buffer_;
  State state_ = State::kHandshake;
  bool reading_ = false;  // Fill's read is pending
  bool writing_ = false;
  bool handling_ = false;          // the exchange is being worked on, maybe on another thread
  std::atomic<bool> gone_{false};  // closed: nobody waits for that work any more
  bool stopping_ = false;          // no request after this one
  bool timed_out_ = false;
  bool keep_alive_ = false;   // of the reply that is written
  bool reply_sent_ = false;   // a whole reply is on its way
  bool last_queued_ = false;  // a stream's end is on its way
  int status_ = 0;
  size_t lingered_ = 0;
  std::optional<RequestParser> parser_;
  std::optional<Exchange> exchange_;
  std::unique_ptr<GenerationCall> call_;
  std::string pending_;  // of a stream, to be written next
  std::string out_;      // being written
  ErrorCode ignored_;
};

template <typename Stream>
std::shared_ptr<Connection> Make(const std::shared_ptr<net::io_context>& io, Stream stream,
                                 std::shared_ptr<ConnectionContext> context) {
  ConnectionRegistry& registry = context->registry;
  auto connection = std::make_shared<ConnectionImpl<Stream>>(io, std::move(stream), std::move(context));
  return registry.Add(connection.get(), connection) ? connection : nullptr;
}

}  // namespace

std::shared_ptr<Connection> MakeConnection(std::shared_ptr<net::io_context> io, Tcp::socket socket,
                                           net::ssl::context* tls,
                                           std::shared_ptr<ConnectionContext> context) {
  if (tls != nullptr) return Make<TlsStream>(io, TlsStream(std::move(socket), *tls), std::move(context));
  return Make<Tcp::socket>(io, std::move(socket), std::move(context));
}

}  // namespace sessa
