// See server_overhead_clients.h.
#include "tests/bench/server_overhead_clients.h"

#include <algorithm>
#include <ctime>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/blocking_counter.h"
#include "boost/asio/awaitable.hpp"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/core/tcp_stream.hpp"
#include "boost/beast/http.hpp"
#include "grpcpp/grpcpp.h"
#include "sessa/v1/generation.grpc.pb.h"

namespace sessa {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;

absl::Duration CpuTime(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return absl::DurationFromTimespec(time);
}

std::vector<int32_t> Prompt(int stream) {
  std::vector<int32_t> ids(16);
  for (int i = 0; i < 16; ++i) ids[i] = 1 + (stream * 61 + i * 7) % 1000;
  return ids;
}

// ---- no front end ----

class CountingSink final : public TokenSink {
 public:
  explicit CountingSink(absl::BlockingCounter* running) : running_(running) {}
  void OnPrompt(const PromptInfo&) override {}
  bool OnToken(TokenUpdate) override {
    ++num_tokens_;
    return true;
  }
  void OnEnd(const RequestEnd& end) override {
    status_ = end.status;
    running_->DecrementCount();
  }
  // Once the counter is zero:
  absl::Status Judge(int expected) const {
    if (!status_.ok() || num_tokens_ == expected) return status_;
    return absl::InternalError(absl::StrCat(num_tokens_, " tokens instead of ", expected));
  }

 private:
  absl::BlockingCounter* const running_;
  int num_tokens_ = 0;
  absl::Status status_;
};

// ---- gRPC ----

struct GrpcCall {
  enum class State { kStarting, kReading, kFinishing } state = State::kStarting;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateReply>> reader;
  v1::GenerateReply reply;
  grpc::Status status;
  int num_tokens = 0;
};

// What comes after the event that `call` waited for. False: nothing, it has ended.
bool Advance(GrpcCall* call, bool ok) {
  if (call->state == GrpcCall::State::kFinishing) return false;
  if (ok && call->state == GrpcCall::State::kReading)
    call->num_tokens += call->reply.delta().token_ids_size();
  if (ok) {
    call->state = GrpcCall::State::kReading;
    call->reader->Read(&call->reply, call);
  } else {
    call->state = GrpcCall::State::kFinishing;
    call->reader->Finish(&call->status, call);
  }
  return true;
}

// ---- REST ----

net::awaitable<void> RestStream(net::ip::tcp::endpoint server, std::string body, std::string* answer) {
  boost::beast::tcp_stream stream(co_await net::this_coro::executor);
  co_await stream.async_connect(server, net::use_awaitable);
  http::request<http::string_body> request(http::verb::post, "/v1/completions", 11);
  request.set(http::field::host, "127.0.0.1");
  request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  co_await http::async_write(stream, request, net::use_awaitable);
  boost::beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(boost::none);
  co_await http::async_read(stream, buffer, parser, net::use_awaitable);
  *answer = std::move(parser.get().body());
}

absl::Status JudgeSse(const std::string& answer, int expected) {
  if (absl::EndsWith(answer, "data: [DONE]\n\n") &&
      absl::StrContains(answer, absl::StrCat("\"completion_tokens\":", expected, ","))) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("REST: not ", expected, " tokens: ...",
                   answer.substr(answer.size() - std::min<size_t>(answer.size(), 300))));
}

}  // namespace

absl::Duration ThreadCpuTime() { return CpuTime(CLOCK_THREAD_CPUTIME_ID); }
absl::Duration ProcessCpuTime() { return CpuTime(CLOCK_PROCESS_CPUTIME_ID); }

absl::StatusOr<absl::Duration> RunEngineClient(Engine* engine, const ClientLoad& load) {
  const absl::Duration begin = ThreadCpuTime();
  absl::BlockingCounter running(load.num_streams);
  std::vector<std::shared_ptr<CountingSink>> sinks;
  for (int i = 0; i < load.num_streams; ++i) {
    sinks.push_back(std::make_shared<CountingSink>(&running));
    Request request;
    request.prompt = Prompt(i);
    request.sampling.max_tokens = load.num_tokens;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sink = sinks.back();
    if (auto id = engine->Submit(std::move(request)); !id.ok()) return id.status();
  }
  running.Wait();
  for (const auto& sink : sinks) {
    if (absl::Status status = sink->Judge(load.num_tokens); !status.ok()) return status;
  }
  return ThreadCpuTime() - begin;
}

absl::StatusOr<absl::Duration> RunGrpcClient(int port, const ClientLoad& load) {
  const absl::Duration begin = ThreadCpuTime();
  auto stub = v1::Generation::NewStub(
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<GrpcCall>> calls;
  for (int i = 0; i < load.num_streams; ++i) {
    v1::GenerateRequest request;
    const std::vector<int32_t> prompt = Prompt(i);
    request.mutable_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
    request.mutable_sampling()->set_max_tokens(load.num_tokens);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_sampling()->set_ignore_eos(true);
    GrpcCall* call = calls.emplace_back(std::make_unique<GrpcCall>()).get();
    call->reader = stub->AsyncGenerate(&call->context, request, &queue, call);
  }
  void* tag;
  bool ok;
  for (int running = load.num_streams; running > 0 && queue.Next(&tag, &ok);) {
    if (!Advance(static_cast<GrpcCall*>(tag), ok)) --running;
  }
  for (const auto& call : calls) {
    if (!call->status.ok()) return absl::InternalError(absl::StrCat("gRPC: ", call->status.error_message()));
    if (call->num_tokens != load.num_tokens)
      return absl::InternalError(absl::StrCat("gRPC: ", call->num_tokens, " tokens"));
  }
  return ThreadCpuTime() - begin;
}

absl::StatusOr<absl::Duration> RunRestClient(int port, const ClientLoad& load) {
  const absl::Duration begin = ThreadCpuTime();
  net::io_context io(1);
  const net::ip::tcp::endpoint server(net::ip::address_v4::loopback(), static_cast<uint16_t>(port));
  std::vector<std::string> answers(load.num_streams);
  std::exception_ptr failed;
  for (int i = 0; i < load.num_streams; ++i) {
    std::string body =
        absl::StrCat("{\"prompt\":[", absl::StrJoin(Prompt(i), ","), "],\"max_tokens\":", load.num_tokens,
                     ",\"temperature\":0,\"ignore_eos\":true,\"stream\":true,\"stream_options\":{\"include_"
                     "usage\":true}}");
    net::co_spawn(io, RestStream(server, std::move(body), &answers[i]), [&failed](std::exception_ptr e) {
      if (e) failed = e;
    });
  }
  io.run();
  try {
    if (failed) std::rethrow_exception(failed);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("REST: ", e.what()));
  }
  for (const std::string& answer : answers) {
    if (absl::Status status = JudgeSse(answer, load.num_tokens); !status.ok()) return status;
  }
  return ThreadCpuTime() - begin;
}

}  // namespace sessa
