// One client of the gRPC port: bytes go between its socket (plain or TLS) and one end of a socket pair, whose
// other end the HTTP/2 library has, past an Http2Guard. Nothing is read that cannot be passed on, so a side
// that does not read holds up the other, never memory: at most kChunkBytes wait in each direction. The
// library hears of a connection only when it has spoken HTTP/2. All members run on the thread of `io`.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "server/net/http2_guard.h"
#include "server/net/tls_context.h"
#include "server/net/transport.h"

namespace sessa {

struct GuardOptions {
  Http2Limits limits;
  absl::Duration handshake_timeout = absl::Seconds(15);  // TLS, preface and first SETTINGS
  absl::Duration frame_timeout = absl::Seconds(30);      // from a frame's first byte to its last
  absl::Duration write_timeout = absl::Seconds(60);      // without any progress
  absl::Duration tick = absl::Seconds(1);                // how often these times are looked at
  int num_threads = 2;
};

// What the connections of one pool share; outlives them.
struct GuardContext {
  GuardOptions options;
  ConnectionStats* stats;
  std::function<void(ScopedFd)> serve;  // gives the library its end of a pair; thread-safe
};

class GuardedConnection;

// What the connections of one thread share. Outlives them.
struct GuardThread {
  boost::asio::io_context io{1};
  std::unique_ptr<char[]> scratch;  // kChunkBytes, to read into
  absl::flat_hash_set<std::shared_ptr<GuardedConnection>> connections;
};

class GuardedConnection : public std::enable_shared_from_this<GuardedConnection> {
 public:
  using Clock = Http2Guard::Clock;
  static constexpr size_t kChunkBytes = 64 << 10;
  static constexpr char kPeerEnd[] = " ";  // ends the client's address in the name of the pair's end

  // `is_own`: of a check of liveness, so it is plain and not counted. May throw.
  GuardedConnection(GuardThread* thread, const GuardContext* context, ScopedFd socket,
                    TlsContext::Context tls, bool is_own);
  ~GuardedConnection();

  // Adds itself to its thread's set, and leaves it when it is closed.
  void Start();
  // Ends what takes too long.
  void Tick(Clock::time_point now);
  // Ends it when the library has not heard of it yet; else the library does, when its calls have ended.
  void BeginShutdown();
  void Close();

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;
  // kLinger: all is written and the end said; what still comes is read and dropped, since closing with
  // unread bytes would reset the connection and could lose the client what was written last.
  enum class Phase { kHandshake, kOpen, kLinger, kClosed };

  bool closed() const { return phase_ == Phase::kClosed; }
  void Handshake();
  void Up();    // from the client to the library
  void Down();  // from the library to the client
  bool FlushUp();
  bool FlushDown();
  bool OpenPair();
  void NameAfterClient(int fd) const;
  void ClosePair();
  void EndWriting();
  void CutOff(Cut reason);
  void Wait(Descriptor* descriptor, Descriptor::wait_type type, bool* waiting,
            void (GuardedConnection::*next)());
  void WaitForClient(Transport::State state, bool* waiting, void (GuardedConnection::*next)());
  void GoOn(bool* waiting, void (GuardedConnection::*next)());
  void Again(bool* waiting, void (GuardedConnection::*next)());

  GuardThread* const thread_;
  const GuardContext* const context_;
  const bool is_own_;
  const TlsContext::Context tls_;
  const std::unique_ptr<Transport> client_;
  Descriptor client_events_;  // of client_'s socket, which it does not own
  Descriptor pair_;           // our end; closed until the client has spoken HTTP/2
  Http2Guard guard_;
  Phase phase_ = Phase::kHandshake;
  bool up_waits_ = false, down_waits_ = false;  // a wait that goes on with Up or Down is pending
  std::string up_, down_;                       // read, not yet passed on
  size_t dropped_ = 0;
  Clock::time_point since_;          // the phase began, for kHandshake and kLinger
  Clock::time_point last_progress_;  // of writing down_
};

}  // namespace sessa
