// See rest_client.h. A stream is right when an event with a finish reason has come, and [DONE] or the end of
// the answer after it; its end is when the bytes of the first of these came.
#include "loadtest/rest_client.h"

#include <algorithm>
#include <list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "loadtest/openai_json.h"
#include "loadtest/outcomes.h"
#include "loadtest/sse.h"

namespace sessa::loadtest {
namespace {

namespace net = boost::asio;

constexpr size_t kMaxErrorBytes = 16 << 10;
constexpr size_t kMaxEventBytes = 64 << 20;  // an event with the echoed ids of a long prompt has some MB

struct RestPayload final : Payload {
  std::shared_ptr<const HttpRequest> request;
};

class RestClient;

// One request that is under way.
class Exchange final : public HttpHandler, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(RestClient* client, std::unique_ptr<Call> call, Client::Done done);

  void Start();
  // Ends it from this side.
  void End(Outcome outcome, std::string error);

 private:
  friend class RestClient;
  void OnSent(double at) override { record().sent = at; }
  void OnHeaders(double at, int status) override;
  void OnBody(double at, absl::string_view bytes) override;
  void OnEnd(double at) override;
  void OnFailure(double at, bool answering, const std::string& why) override;

  bool OnEvent(absl::string_view data);
  bool Give(Outcome outcome, std::string error);  // up, in the middle of an answer; false
  void Finish(double at);
  // Nothing that may still come changes it.
  bool is_whole() const { return stream_done_ && !call_->record.finish_reason.empty(); }
  RequestRecord& record() { return call_->record; }

  RestClient* const client_;
  std::unique_ptr<Call> call_;
  Client::Done done_;
  net::steady_timer timer_;
  SseParser sse_;
  std::list<std::shared_ptr<Exchange>>::iterator self_;
  double body_at_ = 0;  // when the bytes of the current event's end came
  int num_tokens_ = 0;
  bool counted_ = true;       // every token so far is known by its id
  bool stream_done_ = false;  // [DONE]
  bool judged_ = false;       // the outcome stands
  bool finished_ = false;
  std::string error_body_;
};

class RestClient final : public Client {
 public:
  RestClient(net::io_context* io, const Clock& clock, const HttpUrl& url,
             std::vector<net::ip::tcp::endpoint> endpoints, RequestOptions options)
      : io_(io),
        clock_(clock),
        url_(url),
        options_(std::move(options)),
        pool_(io, clock, std::move(endpoints)) {}

  void Encode(Call* call) const override {
    auto payload = std::make_unique<RestPayload>();
    payload->request = std::make_shared<HttpRequest>(
        MakePost(url_, options_.chat ? "/v1/chat/completions" : "/v1/completions",
                 options_.tenants[call->tenant].key, RequestBody(options_, *call)));
    call->payload = std::move(payload);
  }

  void Send(std::unique_ptr<Call> call, Done done) override {
    exchanges_.push_front(std::make_shared<Exchange>(this, std::move(call), std::move(done)));
    exchanges_.front()->self_ = exchanges_.begin();
    exchanges_.front()->Start();
  }

  void CancelAll(Outcome outcome, const std::string& why) override {
    while (!exchanges_.empty()) exchanges_.front()->End(outcome, why);
  }

 private:
  friend class Exchange;
  net::io_context* const io_;
  const Clock clock_;
  const HttpUrl url_;
  const RequestOptions options_;
  HttpPool pool_;
  std::list<std::shared_ptr<Exchange>> exchanges_;
};

Exchange::Exchange(RestClient* client, std::unique_ptr<Call> call, Client::Done done)
    : client_(client),
      call_(std::move(call)),
      done_(std::move(done)),
      timer_(*client->io_),
      sse_([this](absl::string_view data) { return OnEvent(data); }) {}

void Exchange::Start() {
  timer_.expires_after(Clock::ToDuration(client_->options_.timeout_seconds));
  timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const std::shared_ptr<Exchange> self = weak.lock();
    if (error || self == nullptr || self->finished_) return;
    self->End(Outcome::kDeadline,
              absl::StrCat("no end after ", self->client_->options_.timeout_seconds, " s"));
  });
  client_->pool_.Send(static_cast<RestPayload*>(call_->payload.get())->request, this);
}

void Exchange::OnHeaders(double at, int status) {
  record().headers = at;
  record().status = status;
}

void Exchange::OnBody(double at, absl::string_view bytes) {
  body_at_ = at;
  if (record().status != 200) {
    error_body_.append(bytes.data(), std::min(bytes.size(), kMaxErrorBytes - error_body_.size()));
    return;
  }
  const bool more = sse_.Feed(bytes);
  if (sse_.pending_bytes() > kMaxEventBytes) Give(Outcome::kProtocol, "an event without an end");
  // Only now: the parser is in use until Feed returns.
  if ((!more || judged_) && !stream_done_) {
    Leave();
    Finish(at);
  }
}

bool Exchange::Give(Outcome outcome, std::string error) {
  record().outcome = outcome;
  record().error = std::move(error);
  judged_ = true;
  return false;
}

bool Exchange::OnEvent(absl::string_view data) {
  if (stream_done_) return true;
  if (data == "[DONE]") {
    stream_done_ = true;
    record().ended = body_at_;
    return true;
  }
  StreamChunk chunk = ParseChunk(data, call_->keep_answer);
  if (chunk.kind == StreamChunk::Kind::kUnreadable) return Give(Outcome::kProtocol, std::move(chunk.error));
  if (chunk.kind == StreamChunk::Kind::kError)
    return Give(OutcomeOfStreamError(chunk.error_code, chunk.error_type), std::move(chunk.error));
  if (chunk.num_tokens > 0) {
    record().events.push_back({body_at_, chunk.num_tokens});
    num_tokens_ += chunk.num_tokens;
    counted_ &= chunk.counted;
    client_->num_tokens_.fetch_add(chunk.num_tokens, std::memory_order_relaxed);
  }
  if (!chunk.finish_reason.empty()) record().finish_reason = std::move(chunk.finish_reason);
  if (chunk.prompt_tokens >= 0) record().prompt_tokens = chunk.prompt_tokens;
  if (chunk.completion_tokens >= 0) record().completion_tokens = chunk.completion_tokens;
  if (chunk.cached_tokens >= 0) record().cached_tokens = chunk.cached_tokens;
  if (call_->keep_answer) {
    call_->answer.text += chunk.text;
    auto& ids = call_->answer.ids;
    ids.insert(ids.end(), chunk.token_ids.begin(), chunk.token_ids.end());
  }
  if (call_->cancel_after > 0 && num_tokens_ >= call_->cancel_after && record().finish_reason.empty())
    return Give(Outcome::kCancelled, "");
  return true;
}

void Exchange::OnEnd(double at) {
  if (record().status != 200) {
    Give(OutcomeOfHttpStatus(record().status), ErrorMessage(error_body_));
  } else if (record().finish_reason.empty()) {
    Give(Outcome::kBroken, "the stream ended without a finish reason");
  }
  Finish(stream_done_ ? record().ended : at);
}

void Exchange::OnFailure(double at, bool answering, const std::string& why) {
  if (is_whole()) return Finish(record().ended);
  Give(answering ? Outcome::kBroken : Outcome::kConnect, why);
  Finish(at);
}

void Exchange::End(Outcome outcome, std::string error) {
  Leave();
  if (is_whole()) return Finish(record().ended);
  Give(outcome, std::move(error));
  Finish(client_->clock_.Now());
}

void Exchange::Finish(double at) {
  timer_.cancel();
  record().ended = at;
  if (!counted_ && record().completion_tokens > 0 && !record().events.empty())
    SpreadTokens(record().completion_tokens, &record().events);
  call_->payload.reset();
  finished_ = true;
  // Not from inside the parser: whoever is told may send again. This lives until then.
  net::post(*client_->io_, [self = std::move(*self_)] { self->done_(std::move(self->call_)); });
  client_->exchanges_.erase(self_);
}

}  // namespace

std::unique_ptr<Client> MakeRestClient(net::io_context* io, const Clock& clock, const HttpUrl& url,
                                       std::vector<net::ip::tcp::endpoint> endpoints,
                                       RequestOptions options) {
  return std::make_unique<RestClient>(io, clock, url, std::move(endpoints), std::move(options));
}

}  // namespace sessa::loadtest
