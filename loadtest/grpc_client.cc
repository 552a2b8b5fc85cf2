// See grpc_client.h. One completion queue, one thread that waits for it and so drives the connection's reads.
// Each stream has one operation pending at a time, whose tag is the stream.
#include "loadtest/grpc_client.h"

#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/post.hpp"
#include "grpcpp/grpcpp.h"
#include "loadtest/outcomes.h"
#include "sessa/v1/generation.grpc.pb.h"

namespace sessa::loadtest {
namespace {

struct GrpcPayload final : Payload {
  v1::GenerateRequest request;
};

struct Stream {
  enum class State { kStarting, kReading, kFinishing } state = State::kStarting;
  std::unique_ptr<Call> call;
  Client::Done done;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateReply>> reader;
  v1::GenerateReply reply;
  grpc::Status status;
  int num_tokens = 0;
  bool cancelled = false;  // as the work asked
};

class GrpcClient final : public Client {
 public:
  GrpcClient(boost::asio::io_context* io, const Clock& clock, const std::string& address,
             RequestOptions options)
      : io_(io), clock_(clock), options_(std::move(options)) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = v1::Generation::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
    thread_ = std::thread([this] { Poll(); });
  }

  ~GrpcClient() override {
    CancelAll(Outcome::kCancelled, "the client is gone");
    queue_.Shutdown();  // what is pending comes first
    thread_.join();
  }

  void Encode(Call* call) const override {
    auto payload = std::make_unique<GrpcPayload>();
    v1::GenerateRequest& request = payload->request;
    request.set_model(options_.model);
    auto* ids = request.mutable_token_ids()->mutable_ids();
    for (const Segment& segment : call->prompt) ids->Add(segment.ids.begin(), segment.ids.end());
    v1::Sampling* sampling = request.mutable_sampling();
    sampling->set_max_tokens(call->record.output_tokens);
    sampling->set_temperature(options_.temperature);
    sampling->set_ignore_eos(options_.ignore_eos);
    call->payload = std::move(payload);
  }

  void Send(std::unique_ptr<Call> call, Done done) override {
    auto* stream = new Stream;
    stream->done = std::move(done);
    stream->context.set_deadline(
        std::chrono::system_clock::now() +
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::ToDuration(options_.timeout_seconds)));
    if (const std::string& key = options_.tenants[call->tenant].key; !key.empty())
      stream->context.AddMetadata("authorization", absl::StrCat("Bearer ", key));
    stream->reader = stub_->PrepareAsyncGenerate(
        &stream->context, static_cast<GrpcPayload*>(call->payload.get())->request, &queue_);
    call->record.sent = clock_.Now();
    stream->call = std::move(call);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      streams_.insert(stream);
    }
    stream->reader->StartCall(stream);  // from here on it is the other thread's
  }

  void CancelAll(Outcome outcome, const std::string& why) override {
    std::lock_guard<std::mutex> lock(mutex_);
    end_outcome_ = outcome;
    end_error_ = why;
    ended_by_us_ = true;
    for (Stream* stream : streams_) stream->context.TryCancel();
  }

 private:
  void Poll() {
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
      auto* stream = static_cast<Stream*>(tag);
      if (!Advance(stream, ok, clock_.Now())) Finish(stream);
    }
  }

  // What follows the operation that is over; false: nothing does.
  bool Advance(Stream* stream, bool ok, double now) {
    if (stream->state == Stream::State::kFinishing) {
      stream->call->record.ended = now;
      return false;
    }
    if (ok && stream->state == Stream::State::kReading) OnReply(stream, now);
    if (ok) {
      stream->state = Stream::State::kReading;
      stream->reader->Read(&stream->reply, stream);
    } else {
      stream->state = Stream::State::kFinishing;
      stream->reader->Finish(&stream->status, stream);
    }
    return true;
  }

  void OnReply(Stream* stream, double now) {
    RequestRecord& record = stream->call->record;
    const v1::GenerateReply& reply = stream->reply;
    if (std::isnan(record.headers)) record.headers = now;
    if (reply.has_started()) {
      record.prompt_tokens = static_cast<int>(reply.started().prompt_tokens());
      record.cached_tokens = static_cast<int>(reply.started().cached_tokens());
    } else if (reply.has_delta()) {
      const auto& ids = reply.delta().token_ids();
      if (!ids.empty()) {
        record.events.push_back({now, ids.size()});
        stream->num_tokens += ids.size();
        num_tokens_.fetch_add(ids.size(), std::memory_order_relaxed);
      }
      if (stream->call->keep_answer)
        stream->call->answer.ids.insert(stream->call->answer.ids.end(), ids.begin(), ids.end());
    } else if (reply.has_finished()) {
      const v1::Finished& finished = reply.finished();
      record.completion_tokens = static_cast<int>(finished.usage().completion_tokens());
      record.cached_tokens = static_cast<int>(finished.usage().cached_tokens());
      if (finished.finish_reasons_size() > 0)
        record.finish_reason = finished.finish_reasons(0) == v1::FINISH_REASON_LENGTH ? "length" : "stop";
    }
    if (stream->call->cancel_after > 0 && stream->num_tokens >= stream->call->cancel_after &&
        !stream->cancelled && record.finish_reason.empty()) {
      stream->cancelled = true;
      stream->context.TryCancel();
    }
  }

  // Judges it and gives it back to the loop.
  void Finish(Stream* stream) {
    RequestRecord& record = stream->call->record;
    const int code = stream->status.error_code();
    record.status = code;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      streams_.erase(stream);
      if (stream->status.ok() && !record.finish_reason.empty()) {
        record.outcome = Outcome::kOk;
      } else if (stream->cancelled) {
        record.outcome = Outcome::kCancelled;
      } else if (ended_by_us_ && code == grpc::CANCELLED) {
        record.outcome = end_outcome_;
        record.error = end_error_;
      } else if (stream->status.ok()) {
        record.outcome = Outcome::kBroken;
        record.error = "the stream ended without a finish reason";
      } else {
        record.outcome = OutcomeOfGrpcStatus(code, !std::isnan(record.headers));
        record.error = stream->status.error_message();
        // gRPC's own word for a server that can't be reached; a server that refuses says so in words of its
        // own.
        if (record.outcome == Outcome::kUnavailable && absl::StartsWith(record.error, "failed to connect"))
          record.outcome = Outcome::kConnect;
      }
    }
    stream->call->payload.reset();
    boost::asio::post(*io_,
                      [stream = std::shared_ptr<Stream>(stream)] { stream->done(std::move(stream->call)); });
  }

  boost::asio::io_context* const io_;
  const boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_->get_executor()};
  const Clock clock_;
  const RequestOptions options_;
  std::unique_ptr<v1::Generation::Stub> stub_;
  grpc::CompletionQueue queue_;
  std::mutex mutex_;
  std::unordered_set<Stream*> streams_;  // those that have not ended
  bool ended_by_us_ = false;             // all of them, by CancelAll
  Outcome end_outcome_ = Outcome::kCancelled;
  std::string end_error_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Client> MakeGrpcClient(boost::asio::io_context* io, const Clock& clock,
                                       const std::string& address, RequestOptions options) {
  return std::make_unique<GrpcClient>(io, clock, address, std::move(options));
}

}  // namespace sessa::loadtest
