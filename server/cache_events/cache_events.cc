#include "server/cache_events/cache_events.h"

#include <zmq.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/core/log.h"

namespace sessa {

struct CacheEvents::Socket {
  void* const context = zmq_ctx_new();
  void* const socket = zmq_socket(context, ZMQ_PUB);

  Socket() = default;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (socket != nullptr) zmq_close(socket);
    zmq_ctx_term(context);
  }
  // A reader whose queue is full is left out, so nobody is waited for.
  void Send(absl::string_view bytes, bool more) const {
    zmq_send(socket, bytes.data(), bytes.size(), ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
  }
};

absl::StatusOr<std::shared_ptr<CacheEvents>> CacheEvents::Start(CacheEventsOptions options) {
  auto socket = std::make_unique<Socket>();
  const int no_linger = 0;  // the end waits for no reader
  if (socket->socket == nullptr ||
      zmq_setsockopt(socket->socket, ZMQ_LINGER, &no_linger, sizeof(no_linger)) != 0 ||
      zmq_bind(socket->socket, options.endpoint.c_str()) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot publish on ", options.endpoint, ": ", zmq_strerror(zmq_errno())));
  }
  char endpoint[256] = {};
  size_t size = sizeof(endpoint);
  if (zmq_getsockopt(socket->socket, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0) endpoint[0] = '\0';
  return std::shared_ptr<CacheEvents>(new CacheEvents(std::move(options), std::move(socket), endpoint));
}

CacheEvents::CacheEvents(CacheEventsOptions options, std::unique_ptr<Socket> socket, std::string endpoint)
    : options_(std::move(options)), socket_(std::move(socket)), endpoint_(std::move(endpoint)) {
  thread_ = std::thread([this] { Run(); });
}

CacheEvents::~CacheEvents() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  news_.notify_one();
  thread_.join();
}

void CacheEvents::OnStored(int32_t page, int32_t parent, absl::Span<const int32_t> tokens,
                           std::string_view salt) {
  Push({page, parent, true, {tokens.begin(), tokens.end()}, parent < 0 ? std::string(salt) : std::string()});
}

void CacheEvents::OnRemoved(int32_t page) { Push({page, -1, false, {}, {}}); }

void CacheEvents::Push(PageEvent event) {
  {
    MutexLock lock(&mutex_);
    if (queue_.size() >= options_.max_queued) {
      options_.on_dropped(static_cast<int64_t>(queue_.size()));
      queue_.clear();
      lost_ = true;
    }
    queue_.push_back(std::move(event));
  }
  news_.notify_one();
}

void CacheEvents::Run() {
  PageNames names(options_.medium);
  std::vector<PageEvent> events;
  for (uint64_t number = 0;;) {
    bool lost = false;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stop_) news_.wait(mutex_);
      if (stop_) return;
      events.swap(queue_);
      lost = std::exchange(lost_, false);
    }
    if (lost)
      Log("cache events came faster than they could be sent; routers forget what they knew",
          LogLevel::kWarning);
    const std::string batch =
        names.Encode(events, lost, absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
    events.clear();
    if (batch.empty()) continue;
    char number_bytes[8];
    for (int i = 0; i < 8; ++i) number_bytes[i] = static_cast<char>(number >> (8 * (7 - i)));
    ++number;
    socket_->Send(options_.topic, /*more=*/true);
    socket_->Send({number_bytes, sizeof(number_bytes)}, /*more=*/true);
    socket_->Send(batch, /*more=*/false);
  }
}

}  // namespace sessa
