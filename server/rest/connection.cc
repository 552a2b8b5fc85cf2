// See connection.h. One state machine for plain and TLS sockets. At most one read and one write are pending
// at a time. What is read goes to input_, in every state; while a request is answered reading stops when a
// few KB of later ones are there, so that a client that sends them ahead waits in its own socket.
#include "server/rest/connection.h"

#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/dispatch.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/ssl/stream.hpp"
#include "server/core/log.h"
#include "server/net/descriptors.h"
#include "server/rest/call_feed.h"
#include "server/rest/epoch_timer.h"
#include "server/rest/half_closed.h"
#include "server/rest/http_read.h"
#include "server/rest/reply_writer.h"
#include "server/rest/request_input.h"
#include "server/rest/yielding_executor.h"

namespace sessa {
namespace {

namespace net = boost::asio;
using ErrorCode = boost::system::error_code;
using Tcp = net::ip::tcp;
using TlsStream = net::ssl::stream<Tcp::socket>;

constexpr size_t kMaxPipelinedBytes = 8 << 10;  // kept of later requests while one is answered
constexpr size_t kMaxLingerBytes = 16 << 20;
constexpr absl::Duration kLingerTime = absl::Seconds(2);

template <typename Stream>
class ConnectionImpl final : public Connection, public std::enable_shared_from_this<ConnectionImpl<Stream>> {
 public:
  ConnectionImpl(std::weak_ptr<net::io_context> io, Stream stream, std::shared_ptr<ConnectionContext> context)
      : io_(std::move(io)),
        context_(std::move(context)),
        stream_(std::move(stream)),
        read_timer_(stream_.get_executor()),
        writer_(&stream_, context_->options.write_timeout),
        input_(context_->handlers.byte_budget(), YieldingExecutor::Of(stream_.get_executor()).yields()) {}
  ~ConnectionImpl() override { context_->registry->Remove(this); }

  void Start() override {
    Post([self = Self()] { self->Begin(); });
  }
  void BeginShutdown() override {
    Post([self = Self()] {
      self->stopping_ = true;
      const State state = self->state_;
      if (state == State::kIdle || state == State::kHandshake || state == State::kLinger) self->Close();
    });
  }
  void ForceClose() override {
    Post([self = Self()] { self->Close(); });
  }

 private:
  enum class State { kHandshake, kIdle, kHeader, kBody, kRespond, kLinger, kClosed };

  auto Self() { return this->shared_from_this(); }
  template <typename F>
  void Post(F function) {
    net::post(stream_.get_executor(), std::move(function));
  }

  void Begin() {
    if (state_ == State::kClosed) return;
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      StartReadTimer(context_->options.header_timeout);
      stream_.async_handshake(net::ssl::stream_base::server, [self = Self()](ErrorCode ec) {
        if (self->state_ == State::kClosed) return;
        ec ? self->Close() : self->NextRequest();
      });
    } else {
      NextRequest();
    }
  }

  // ---- reading requests ----

  void NextRequest() {
    feed_.reset();
    exchange_.reset();
    alive_.reset();
    if (stopping_) return EndConnection();
    state_ = State::kIdle;
    context_->registry->SetIdle(this, true);
    Parse();
  }

  void Fill() {
    if (reading_ || eof_) return;
    reading_ = true;
    const size_t size = input_.read_bytes();
    if (read_area_.size() != size) read_area_ = std::string(size, '\0');
    stream_.async_read_some(net::buffer(read_area_), [self = Self()](ErrorCode ec, size_t n) {
      self->reading_ = false;
      self->OnFill(ec, n);
    });
  }

  void OnFill(ErrorCode ec, size_t n) {
    if (state_ == State::kClosed) return;
    if (state_ == State::kLinger) {
      lingered_ += n;
      return ec || lingered_ > kMaxLingerBytes ? Close() : Fill();
    }
    input_.Append(absl::string_view(read_area_).substr(0, n));
    eof_ = static_cast<bool>(ec);
    if (state_ != State::kRespond) return Parse();
    eof_ ? ClosedItsSide(ec) : Watch();
  }

  // Reads on, to see a client that leaves or sends more, so long as that is little.
  void Watch() {
    if (input_.size() < kMaxPipelinedBytes) Fill();
  }

  // kIdle, kHeader, kBody: goes on with what is there, and waits for more.
  void Parse() {
    const RestServerOptions& options = context_->options;
    if (state_ == State::kIdle) {
      if (!input_.Begin(context_->handlers.limits())) {
        input_.Charge(0);
        if (eof_) return Close();
        StartReadTimer(options.idle_timeout);
        return Fill();
      }
      state_ = State::kHeader;
      context_->registry->SetIdle(this, false);
      exchange_.emplace().client = PeerName(stream_.lowest_layer().native_handle());
      StartReadTimer(options.header_timeout);
    }
    ErrorCode error;
    switch (input_.Parse(&error)) {
      case RequestInput::State::kFailed: return ReadFailed(error, false);
      case RequestInput::State::kHeader: return OnHeader();
      case RequestInput::State::kBody: return Dispatch();
      case RequestInput::State::kMore: break;
    }
    if (eof_) return Close();  // the client left
    if (!input_.Charge(input_.read_bytes())) return Refuse(context_->handlers.OutOfBytes(&*exchange_));
    if (state_ == State::kBody) {
      StartReadTimer(input_.BodyTimeLeft(options.body_timeout, options.min_body_rate));
    }
    Fill();
  }

  void OnHeader() {
    exchange_->head = HeadOf(input_.parser());
    const RequestHead& head = exchange_->head;
    if (std::optional<Reply> refused = context_->handlers.Judge(&*exchange_)) {
      refused->close = head.has_body;  // the body is not read
      return Send(*std::move(refused));
    }
    if (!head.has_body) return Dispatch();
    state_ = State::kBody;
    input_.BeginBody(context_->handlers.limits());
    input_.lease()->MayEvict(context_->options.evict_body_after, OnStrand(&ConnectionImpl::Evict));
    if (!head.expects_continue) return Parse();
    writer_.Write(absl::Cord("HTTP/1.1 100 Continue\r\n\r\n"), {}, Self(),
                  [this](ErrorCode ec) { ec ? Close() : Parse(); });
  }

  void ReadFailed(ErrorCode ec, bool timed_out) {
    std::optional<Reply> reply = ReplyToReadError(ec, timed_out, context_->handlers.limits());
    if (!reply.has_value()) return Close();  // the client left
    context_->handlers.Abandon(&*exchange_, Outcome::kInvalid, reply->status);
    Refuse(*std::move(reply));
  }
  void Refuse(Reply reply) {
    if (exchange_->head.request_id.empty()) exchange_->head.request_id = ChooseRequestId("");
    reply.close = true;  // the rest of the request is not read
    Send(std::move(reply));
  }

  // The budget's wish, long ago maybe.
  void Evict() {
    if (state_ == State::kBody) return Refuse(context_->handlers.OutOfBytes(&*exchange_));
    if (state_ == State::kRespond && reply_sent_) Close();
  }

  // ---- answering ----

  void Dispatch() {
    read_timer_.Stop();
    input_.lease()->MayNotEvict();
    state_ = State::kRespond;
    handling_ = true;
    // Until Handled the exchange is not touched here; what runs elsewhere keeps the executor alive too. The
    // input stays charged for the body.
    context_->handlers.HandleText(
        &*exchange_, input_.TakeBody(), gone_, [self = Self(), io = io_.lock()](Handlers::Result result) {
          auto shared = std::make_shared<Handlers::Result>(std::move(result));
          net::dispatch(self->stream_.get_executor(), [self, shared] { self->Handled(std::move(*shared)); });
        });
    if (handling_) eof_ ? ClosedItsSide(net::error::eof) : Watch();
  }

  void Handled(Handlers::Result result) {
    handling_ = false;
    input_.Charge(0);
    if (state_ == State::kClosed) return Abandon();
    if (auto* reply = std::get_if<Reply>(&result)) return Send(std::move(*reply));
    feed_ = std::make_unique<CallFeed>(std::get<std::unique_ptr<Call>>(std::move(result)), exchange_->head);
    feed_->call()->SetNotify(OnStrand(&ConnectionImpl::Pump));
    // When enough was sent ahead nothing is read, and while tokens are awaited nothing is written.
    alive_ = Self();
    Watch();
    if (feed_->call()->is_stream()) {
      keep_alive_ = KeepAlive() && exchange_->head.version >= 11;
      exchange_->status = feed_->BeginStream(keep_alive_);
    }
    Pump();
  }

  // Calls `method` on the strand, from any thread; with weak pointers, so that a late call keeps nothing
  // alive.
  std::function<void()> OnStrand(void (ConnectionImpl::*method)()) {
    return [method, weak_io = io_, weak = std::weak_ptr<ConnectionImpl>(Self())] {
      const std::shared_ptr<net::io_context> io = weak_io.lock();  // the executor below needs it
      if (io == nullptr) return;
      if (const std::shared_ptr<ConnectionImpl> self = weak.lock()) {
        self->Post([weak, method] {
          if (auto self = weak.lock()) (self.get()->*method)();
        });
      }
    };
  }

  // Writes what is ready; called again when there is news and when a write is done.
  void Pump() {
    if (state_ != State::kRespond || feed_ == nullptr || writer_.busy() || reply_sent_) return;
    if (!Ask()) return;
    bool more = false;
    try {
      more = feed_->Pull([this](int64_t num_bytes) { return input_.Charge(num_bytes); });
      if (feed_->is_whole()) return Send(feed_->call()->MakeReply());
    } catch (const std::exception& e) {
      Log(absl::StrCat("rest: ", Quoted(exchange_->head.path), ": ", e.what()), LogLevel::kError);
      return Close();
    }
    // If neither, the call's notification comes when there is news.
    if (std::string piece = feed_->TakePiece(); !piece.empty()) {
      writer_.Write(absl::Cord(std::move(piece)), {}, Self(), [this](ErrorCode ec) {
        input_.Charge(0);
        if (state_ == State::kClosed) return;
        ec ? Close() : feed_->at_end() ? Answered() : Pump();
      });
    } else if (more) {
      Post([self = Self()] { self->Pump(); });  // others have their turn
    }
  }

  bool KeepAlive() const { return exchange_->head.keep_alive && !stopping_; }

  void Send(Reply reply) {
    if (writer_.busy()) return Close();  // the 100 Continue before it is not read
    read_timer_.Stop();
    input_.lease()->MayNotEvict();
    state_ = State::kRespond;
    exchange_->Answer(reply);
    context_->handlers.SpeakAs(exchange_->head, &reply);
    keep_alive_ = KeepAlive() && !reply.close;
    if (reply.close) input_.Clear();
    input_.Charge(0);
    absl::Cord bytes(SerializeHead(reply, exchange_->head, keep_alive_, false));
    if (exchange_->head.method != "HEAD") bytes.Append(std::move(reply.body));
    reply_sent_ = true;
    if (reply.lease.charged() > 0)
      reply.lease.MayEvict(context_->options.evict_reply_after, OnStrand(&ConnectionImpl::Evict));
    writer_.Write(std::move(bytes), std::move(reply.lease), Self(), [this](ErrorCode ec) {
      if (state_ == State::kClosed) return;
      ec ? Close() : Answered();
    });
  }

  // The whole answer is written.
  void Answered() {
    LogAccess();
    reply_sent_ = false;
    if (!keep_alive_) stopping_ = true;
    NextRequest();
  }

  // The client closed its side, or the connection broke. A plain client is answered if it is there still.
  void ClosedItsSide(ErrorCode ec) {
    const bool generates =
        feed_ != nullptr ? !feed_->call()->ended() : handling_ && exchange_->route.generates;
    if (!generates || reply_sent_) return;  // all is written, and what came before it left is answered
    if (std::is_same_v<Stream, TlsStream> || ec != net::error::eof) return Close();
    stream_.lowest_layer().async_wait(Tcp::socket::wait_error, [self = Self()](ErrorCode ec) {
      if (!ec) self->Close();
    });
    // After the wait has begun: a reset comes at once from a client that is gone, and epoll tells of it once,
    // to whichever thread is there.
    asks_ = true;
    if (!writer_.busy()) Ask();
  }

  // Once, whether the client is there still; what was written before may have reached it while it was.
  bool Ask() {
    const bool in_stream = feed_ != nullptr && feed_->call()->is_stream();
    const int fd = stream_.lowest_layer().native_handle();
    const bool gone = std::exchange(asks_, false) && !SendNothing(fd, exchange_->head, in_stream);
    if (gone) Close();
    return !gone;
  }

  // ---- ending ----

  // Closes so that the client can read all that was written: closing with unread bytes would reset the
  // connection.
  void EndConnection() {
    state_ = State::kLinger;
    StartReadTimer(kLingerTime);
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      stream_.async_shutdown([self = Self()](ErrorCode) { self->Close(); });
    } else {
      stream_.lowest_layer().shutdown(Tcp::socket::shutdown_send, ignored_);
      input_.Clear();
      eof_ ? Close() : Fill();
    }
  }

  void Close() {
    if (state_ == State::kClosed) return;
    state_ = State::kClosed;
    read_timer_.Stop();
    writer_.Stop();
    gone_ = true;
    if (!handling_) Abandon();
    feed_.reset();
    stream_.lowest_layer().close(ignored_);
    alive_.reset();  // the caller has another
  }

  void Abandon() {
    if (!exchange_.has_value()) return;  // answered to its end
    context_->handlers.Abandon(&*exchange_, Outcome::kCancelled, 499);
    LogAccess();
  }
  void LogAccess() { context_->handlers.LogAccess(*exchange_, feed_ != nullptr ? feed_->call() : nullptr); }

  void StartReadTimer(absl::Duration after) {
    read_timer_.Start(after, [self = Self()] {
      if (self->state_ == State::kClosed) return;
      const bool reads = self->state_ == State::kHeader || self->state_ == State::kBody;
      reads ? self->ReadFailed({}, true) : self->Close();
    });
  }

  const std::weak_ptr<net::io_context> io_;
  const std::shared_ptr<ConnectionContext> context_;
  Stream stream_;
  EpochTimer read_timer_;
  ReplyWriter<Stream> writer_;
  RequestInput input_;
  std::string read_area_;  // what is read lands here
  State state_ = State::kHandshake;
  bool reading_ = false;           // Fill's read is pending
  bool eof_ = false;               // there is no more to read
  bool handling_ = false;          // the exchange is being worked on, maybe on another thread
  std::atomic<bool> gone_{false};  // closed: nobody waits for that work any more
  bool stopping_ = false;          // no request after this one
  bool keep_alive_ = false;        // of the reply that is written
  bool reply_sent_ = false;        // a whole reply is on its way
  size_t lingered_ = 0;
  bool asks_ = false;  // the client closed its side while the writer was busy
  std::optional<Exchange> exchange_;
  std::unique_ptr<CallFeed> feed_;
  std::shared_ptr<ConnectionImpl> alive_;  // while there is a call
  ErrorCode ignored_;
};

template <typename Stream>
std::shared_ptr<Connection> Make(const std::shared_ptr<net::io_context>& io, Stream stream,
                                 std::shared_ptr<ConnectionContext> context) {
  const std::shared_ptr<ConnectionRegistry> registry = context->registry;
  auto connection = std::make_shared<ConnectionImpl<Stream>>(io, std::move(stream), std::move(context));
  return registry->Add(connection.get(), connection) ? connection : nullptr;
}

}  // namespace

std::shared_ptr<Connection> MakeConnection(std::shared_ptr<net::io_context> io, Tcp::socket socket,
                                           net::ssl::context* tls,
                                           std::shared_ptr<ConnectionContext> context) {
  if (tls != nullptr) return Make<TlsStream>(io, TlsStream(std::move(socket), *tls), std::move(context));
  return Make<Tcp::socket>(io, std::move(socket), std::move(context));
}

}  // namespace sessa
