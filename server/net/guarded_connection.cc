// See guarded_connection.h. Up and Down each run until they must wait, and then have exactly one wait
// pending.
#include "server/net/guarded_connection.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "server/net/descriptors.h"

namespace sessa {
namespace {

namespace net = boost::asio;
using ErrorCode = boost::system::error_code;
using State = Transport::State;

constexpr int kTurns = 4;  // chunks of one connection before others have their turn
constexpr size_t kMaxLingerBytes = 1 << 20;
constexpr absl::Duration kLingerTime = absl::Seconds(1);

bool Passed(std::chrono::steady_clock::duration time, absl::Duration bound) {
  return absl::FromChrono(time) > bound;
}

}  // namespace

GuardedConnection::GuardedConnection(GuardThread* thread, const GuardContext* context, ScopedFd socket,
                                     TlsContext::Context tls, bool is_own)
    : thread_(thread),
      context_(context),
      is_own_(is_own),
      tls_(is_own ? nullptr : std::move(tls)),
      client_(Transport::Make(std::move(socket), tls_.get())),
      client_events_(thread->io),
      pair_(thread->io),
      guard_(context->options.limits, Clock::now()),
      since_(Clock::now()) {
  client_events_.assign(client_->fd());
  if (!is_own_) context_->stats->OnAccepted(Listener::kGrpc);
}

GuardedConnection::~GuardedConnection() {
  if (!is_own_) context_->stats->OnClosed(Listener::kGrpc);
  if (client_events_.is_open()) client_events_.release();  // Transport closes it
}

void GuardedConnection::Start() {
  thread_->connections.insert(shared_from_this());
  GoOn(&up_waits_, &GuardedConnection::Handshake);
}

void GuardedConnection::GoOn(bool* waiting, void (GuardedConnection::*next)()) {
  *waiting = false;
  if (closed()) return;
  try {
    (this->*next)();
  } catch (const std::exception&) {  // no memory: this connection ends, the others go on
    Close();
  }
}

void GuardedConnection::Wait(Descriptor* descriptor, Descriptor::wait_type type, bool* waiting,
                             void (GuardedConnection::*next)()) {
  *waiting = true;
  descriptor->async_wait(
      type, [self = shared_from_this(), waiting, next](ErrorCode) { self->GoOn(waiting, next); });
}

void GuardedConnection::WaitForClient(State state, bool* waiting, void (GuardedConnection::*next)()) {
  const bool write = state == State::kWantWrite;
  Wait(&client_events_, write ? Descriptor::wait_write : Descriptor::wait_read, waiting, next);
}

void GuardedConnection::Again(bool* waiting, void (GuardedConnection::*next)()) {
  *waiting = true;
  net::post(thread_->io, [self = shared_from_this(), waiting, next] { self->GoOn(waiting, next); });
}

void GuardedConnection::Handshake() {
  if (closed()) return;
  switch (const State state = client_->Handshake(); state) {
    case State::kDone: phase_ = Phase::kOpen; return Up();
    case State::kWantRead:
    case State::kWantWrite: return WaitForClient(state, &up_waits_, &GuardedConnection::Handshake);
    default: context_->stats->OnCut(Listener::kGrpc, Cut::kHandshake); return Close();
  }
}

void GuardedConnection::Up() {
  for (int turn = 0; !up_waits_ && !closed(); ++turn) {
    if (!FlushUp()) return;
    if (turn == kTurns) return Again(&up_waits_, &GuardedConnection::Up);
    const Transport::Result read = client_->Read(thread_->scratch.get(), kChunkBytes);
    if (read.state == State::kWantRead || read.state == State::kWantWrite)
      return WaitForClient(read.state, &up_waits_, &GuardedConnection::Up);
    if (read.state != State::kDone) return Close();  // the client left: the library ends its calls
    if (phase_ == Phase::kLinger) {
      dropped_ += read.num_bytes;
      if (dropped_ > kMaxLingerBytes) return Close();
      continue;
    }
    const absl::string_view bytes(thread_->scratch.get(), read.num_bytes);
    if (const auto cut = guard_.OnClientBytes(bytes, Clock::now())) return CutOff(*cut);
    size_t sent = 0;
    if (up_.empty() && pair_.is_open())
      sent = std::max<ssize_t>(0, send(pair_.native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
    up_.append(bytes.data() + sent, bytes.size() - sent);  // FlushUp says what is the matter with the rest
    if (up_.empty() && read.is_empty)
      return WaitForClient(State::kWantRead, &up_waits_, &GuardedConnection::Up);
  }
}

// True when nothing is left to pass on, or nothing can be yet.
bool GuardedConnection::FlushUp() {
  if (!guard_.started()) return true;  // a few bytes wait for the rest of the preface
  if (!pair_.is_open() && !up_.empty() && !OpenPair()) return false;
  size_t sent = 0;
  while (sent < up_.size()) {
    const ssize_t n = send(pair_.native_handle(), &up_[sent], up_.size() - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += n;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      up_.erase(0, sent);
      Wait(&pair_, Descriptor::wait_write, &up_waits_, &GuardedConnection::Up);
    } else {
      up_.clear();  // the library has closed; Down comes to that after what it wrote
      phase_ = Phase::kLinger;
      since_ = Clock::now();
      return true;
    }
    return false;
  }
  std::string().swap(up_);
  return true;
}

void GuardedConnection::Down() {
  for (int turn = 0; !down_waits_ && pair_.is_open(); ++turn) {
    if (!FlushDown()) return;
    if (turn == kTurns) return Again(&down_waits_, &GuardedConnection::Down);
    const ssize_t n = recv(pair_.native_handle(), thread_->scratch.get(), kChunkBytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      return Wait(&pair_, Descriptor::wait_read, &down_waits_, &GuardedConnection::Down);
    if (n <= 0) return EndWriting();
    const absl::string_view bytes(thread_->scratch.get(), n);
    const Transport::Result written = client_->Write(bytes.data(), bytes.size());
    if (written.state == State::kError) return Close();
    if (written.num_bytes < bytes.size()) {
      down_ = std::string(bytes.substr(written.num_bytes));
      last_progress_ = Clock::now();
    }
    if (const auto cut = guard_.OnServerBytes(bytes)) return CutOff(*cut);
    // A pair gives all that it has: with less than was asked for it is empty, and a look would cost as much
    // as the rest of a token.
    if (down_.empty() && bytes.size() < kChunkBytes)
      return Wait(&pair_, Descriptor::wait_read, &down_waits_, &GuardedConnection::Down);
  }
}

bool GuardedConnection::FlushDown() {
  size_t sent = 0;
  while (sent < down_.size()) {
    const Transport::Result written = client_->Write(&down_[sent], down_.size() - sent);
    if (written.state == State::kDone) {
      sent += written.num_bytes;
      last_progress_ = Clock::now();
      continue;
    }
    down_.erase(0, sent);
    if (written.state == State::kWantRead || written.state == State::kWantWrite) {
      WaitForClient(written.state, &down_waits_, &GuardedConnection::Down);
    } else {
      Close();
    }
    return false;
  }
  std::string().swap(down_);
  return true;
}

// The library asks its end who is at the other one: the client's address, made unique by the descriptor, as
// an abstract name. Without it the log alone would lack something.
void GuardedConnection::NameAfterClient(int fd) const {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string name = absl::StrCat(PeerName(client_->fd()), kPeerEnd, getpid(), ".", fd);
  if (name.size() >= sizeof(address.sun_path)) return;
  std::copy(name.begin(), name.end(), address.sun_path + 1);
  (void)bind(fd, reinterpret_cast<const sockaddr*>(&address),
             offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

bool GuardedConnection::OpenPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    context_->stats->OnRefused(Listener::kGrpc, Refusal::kDescriptors);
    Close();
    return false;
  }
  ScopedFd ours(ends[0]), theirs(ends[1]);
  NameAfterClient(ours.get());
  ErrorCode ec;
  pair_.assign(ours.get(), ec);
  if (ec) {
    context_->stats->OnRefused(Listener::kGrpc, Refusal::kError);
    Close();
    return false;
  }
  ours.Release();
  context_->serve(std::move(theirs));
  Down();
  return !closed();
}

void GuardedConnection::ClosePair() {
  ErrorCode ignored;
  pair_.close(ignored);
}

void GuardedConnection::EndWriting() {
  ClosePair();
  up_.clear();
  down_.clear();
  client_->ShutdownWrite();
  phase_ = Phase::kLinger;
  since_ = Clock::now();
  if (!up_waits_) Up();
}

void GuardedConnection::CutOff(Cut reason) {
  context_->stats->OnCut(Listener::kGrpc, reason);
  if (phase_ != Phase::kOpen) return Close();
  if (down_.empty() && guard_.server_between_frames()) {
    const std::string bytes = GoAway(reason, !guard_.server_has_sent());
    client_->Write(bytes.data(), bytes.size());  // as far as it goes
  }
  EndWriting();
}

void GuardedConnection::Tick(Clock::time_point now) {
  const GuardOptions& options = context_->options;
  const Clock::time_point begun = guard_.unfinished_since().value_or(now);
  if (phase_ == Phase::kLinger) {
    if (Passed(now - since_, kLingerTime) && !pair_.is_open()) return Close();
  } else if (!closed() && !guard_.started()) {
    if (Passed(now - since_, options.handshake_timeout)) return CutOff(Cut::kHandshake);
  } else if (up_.empty() &&
             Passed(now - begun, options.frame_timeout)) {  // else it is not the client's fault
    return CutOff(Cut::kSlowWriter);
  }
  if (!down_.empty() && Passed(now - last_progress_, options.write_timeout)) return CutOff(Cut::kSlowReader);
}

void GuardedConnection::BeginShutdown() {
  if (!pair_.is_open()) Close();
}

void GuardedConnection::Close() {
  if (closed()) return;
  phase_ = Phase::kClosed;
  ClosePair();
  client_events_.release();
  shutdown(client_->fd(), SHUT_RDWR);  // the descriptor itself is closed when the last wait has heard of it
  thread_->connections.erase(shared_from_this());
}

}  // namespace sessa
