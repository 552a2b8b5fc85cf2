// See runner.h.
#include "loadtest/runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/post.hpp"

namespace sessa::loadtest {
namespace {

using Error = boost::system::error_code;

// Requests made and encoded ahead: 64K tokens cost about a millisecond, which would delay what is due then.
// They are made one at a time, when nothing else is to be done.
constexpr size_t kAheadCalls = 64;
constexpr int64_t kAheadTokens = 512 << 10;

}  // namespace

Runner::Runner(boost::asio::io_context* io, const Clock& clock, Client* client, Workload* workload,
               std::unique_ptr<Arrivals> arrivals, const LoadOptions& options)
    : io_(io),
      clock_(clock),
      client_(client),
      workload_(workload),
      arrivals_(std::move(arrivals)),
      options_(options),
      health_(io, clock),
      think_random_(options.seed, 'T'),
      arrival_timer_(*io),
      probe_timer_(*io),
      end_timer_(*io),
      drain_timer_(*io) {}

void Runner::Execute(Run* run) {
  while (!workload_ended_ && ahead_.size() < kAheadCalls && ahead_tokens_ < kAheadTokens) FillAhead();
  boost::asio::steady_timer start(*io_, clock_.At(0));
  start.async_wait([this](Error) {
    health_.Start();
    if (arrivals_ != nullptr) ArmArrival();
    for (int i = 0; i < options_.num_users; ++i) StartUser();
    if (options_.probe_rate > 0) ArmProbe();
    CheckEnd();
  });
  if (std::isfinite(options_.duration)) {
    end_timer_.expires_at(clock_.At(options_.duration));
    end_timer_.async_wait([this](Error) { CheckEnd(); });
  }
  io_->run();
  std::sort(records_.begin(), records_.end(),
            [](const RequestRecord& a, const RequestRecord& b) { return a.index < b.index; });
  run->requests = std::move(records_);
  for (const RequestRecord& record : run->requests) run->duration = std::max(run->duration, record.ended);
  run->client = health_.Summarise();
}

// ---- work made ahead ----

void Runner::FillAhead() {
  std::unique_ptr<Call> call = workload_->Next();
  if (call == nullptr) {
    workload_ended_ = true;
    return;
  }
  client_->Encode(call.get());
  ahead_tokens_ += call->record.input_tokens;
  ahead_.push_back(std::move(call));
}

void Runner::PostFillAhead() {
  if (ahead_posted_ || workload_ended_ || draining_ || ahead_.size() >= kAheadCalls ||
      ahead_tokens_ >= kAheadTokens)
    return;
  ahead_posted_ = true;
  boost::asio::post(*io_, [this] {
    ahead_posted_ = false;
    FillAhead();
    PostFillAhead();
  });
}

std::unique_ptr<Call> Runner::Take() {
  if (ahead_.empty() && !workload_ended_) FillAhead();
  if (ahead_.empty()) return nullptr;
  std::unique_ptr<Call> call = std::move(ahead_.front());
  ahead_.pop_front();
  ahead_tokens_ -= call->record.input_tokens;
  PostFillAhead();
  return call;
}

// ---- when ----

bool Runner::MayStillSend(double at) const {
  return !interrupted_ && at < options_.duration &&
         (options_.max_requests == 0 || num_sent_ < options_.max_requests);
}

void Runner::ArmArrival() {
  const std::optional<double> at = arrivals_->Next();
  if (!at.has_value() || !MayStillSend(*at)) {
    arrivals_ended_ = true;
    return CheckEnd();
  }
  arrival_timer_.expires_at(clock_.At(*at));
  arrival_timer_.async_wait([this, at = *at](Error error) {
    if (error || interrupted_) return;
    std::unique_ptr<Call> call = MayStillSend(at) ? Take() : nullptr;
    if (call == nullptr) {
      arrivals_ended_ = true;
      return CheckEnd();
    }
    Send(std::move(call), at);
    ArmArrival();
  });
}

void Runner::ArmProbe() {
  const double at = static_cast<double>(num_probes_) / options_.probe_rate;
  std::shared_ptr<Call> call = workload_->Probe(num_probes_, options_.probe_tokens);
  client_->Encode(call.get());
  probe_timer_.expires_at(clock_.At(at));
  probe_timer_.async_wait([this, at, call](Error error) {
    if (error || draining_) return;
    Send(std::make_unique<Call>(std::move(*call)), at);
    ArmProbe();
  });
}

void Runner::StartUser() {
  std::unique_ptr<Call> call = Take();
  const double now = clock_.Now();
  if (call != nullptr && MayStillSend(now)) Send(std::move(call), now);
}

double Runner::DrawThink() {
  return options_.think_seconds == 0 ? 0 : -std::log1p(-think_random_.Uniform()) * options_.think_seconds;
}

void Runner::SendLater(std::unique_ptr<Call> call, double scheduled) {
  ++num_waiting_;
  auto timer = std::make_shared<boost::asio::steady_timer>(*io_, clock_.At(scheduled));
  timer->async_wait([this, timer, scheduled, call = std::shared_ptr<Call>(std::move(call))](Error) {
    --num_waiting_;
    if (MayStillSend(scheduled)) Send(std::make_unique<Call>(std::move(*call)), scheduled);
    CheckEnd();
  });
}

// ---- one request ----

void Runner::Send(std::unique_ptr<Call> call, double scheduled) {
  call->record.scheduled = scheduled;
  call->record.index = num_sent_ + num_probes_;
  ++(call->record.is_probe ? num_probes_ : num_sent_);
  ++(call->record.is_probe ? num_probes_running_ : num_running_);
  health_.AddSendLag(clock_.Now() - scheduled);
  client_->Send(std::move(call), [this](std::unique_ptr<Call> ended) { OnDone(std::move(ended)); });
}

void Runner::OnDone(std::unique_ptr<Call> call) {
  const Outcome outcome = call->record.outcome;
  if (call->record.is_probe) {
    --num_probes_running_;
  } else {
    --num_running_;
    ++(outcome == Outcome::kOk ? num_ok_ : outcome == Outcome::kCancelled ? num_cancelled_ : num_failed_);
    const double scheduled = call->record.ended + DrawThink();
    if (MayStillSend(scheduled)) {
      std::unique_ptr<Call> next = workload_->NextTurn(*call);
      if (next != nullptr) {
        client_->Encode(next.get());
      } else if (options_.num_users > 0) {
        next = Take();
      }
      if (next != nullptr) SendLater(std::move(next), scheduled);
    }
  }
  records_.push_back(std::move(call->record));
  CheckEnd();
}

// ---- the end ----

void Runner::CheckEnd() {
  const bool more = !interrupted_ && (num_waiting_ > 0 || (arrivals_ != nullptr && !arrivals_ended_));
  if (more) return;
  if (num_running_ == 0 && num_probes_running_ == 0) return io_->stop();
  // An answer may let a user or a conversation send again.
  if (draining_ || (num_running_ > 0 && !workload_ended_ && MayStillSend(clock_.Now()))) return;
  draining_ = true;
  drain_timer_.expires_after(Clock::ToDuration(options_.drain_seconds));
  drain_timer_.async_wait([this](Error error) {
    if (error) return;
    client_->CancelAll(Outcome::kDeadline, absl::StrCat("not finished ", options_.drain_seconds,
                                                        " s after the last request was sent"));
  });
}

void Runner::Interrupt() {
  interrupted_ = true;
  client_->CancelAll(Outcome::kCancelled, "the run was interrupted");
  CheckEnd();
}

LiveCounts Runner::live() const {
  LiveCounts counts;
  counts.now = clock_.Now();
  if (std::isfinite(options_.duration)) counts.end = options_.duration;
  if (options_.max_requests > 0) counts.planned = options_.max_requests;
  counts.sent = num_sent_;
  counts.ok = num_ok_;
  counts.failed = num_failed_;
  counts.cancelled = num_cancelled_;
  counts.in_flight = num_running_;
  counts.output_tokens = client_->num_tokens();
  counts.max_send_lag = health_.max_send_lag();
  return counts;
}

}  // namespace sessa::loadtest
