// ./dev bench server: what gRPC and REST add to a token. The same requests go to the engine itself, and
// through the real server's front ends over loopback sockets, with 1, 16 and 64 streams; three engines:
//   demo        the demo model: what a user sees
//   stub        the model's kernels stubbed out: the most that the front ends carry. Tokens come faster
//               than they can be written one by one, so replies gather several
//   stub 10k/s  the same, but steps take their time: 10 000 tokens a second, each written on its own
// Prints a Markdown table. The clients run in this process, one thread each; their CPU time is told apart.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/engine.h"
#include "engine/monotonic.h"
#include "server/checkpoint/checkpoint.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "server/rest/rest_server.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/bench/server_overhead_clients.h"
#include "tests/bench/server_overhead_engine.h"

namespace sessa {
namespace {

constexpr int kRepetitions = 5;

struct Sample {
  double wall = 0, server_cpu = 0, client_cpu = 0;  // microseconds a token
};

struct Front {
  const char* name;
  std::function<absl::StatusOr<absl::Duration>(const ClientLoad&)> run;
};

template <typename Get>
double Median(std::vector<Sample> samples, Get get) {
  std::sort(samples.begin(), samples.end(),
            [get](const Sample& a, const Sample& b) { return get(a) < get(b); });
  return get(samples[samples.size() / 2]);
}

absl::StatusOr<Sample> Measure(const Front& front, const ClientLoad& load) {
  const absl::Time begin = MonotonicNow();
  const absl::Duration cpu = ProcessCpuTime();
  const absl::StatusOr<absl::Duration> client = front.run(load);
  if (!client.ok()) return client.status();
  const double tokens = load.num_streams * load.num_tokens;
  return Sample{absl::ToDoubleMicroseconds(MonotonicNow() - begin) / tokens,
                absl::ToDoubleMicroseconds(ProcessCpuTime() - cpu - *client) / tokens,
                absl::ToDoubleMicroseconds(*client) / tokens};
}

// Rows of the table for one engine and one number of streams. The fronts take turns.
absl::Status Compare(const char* engine, const std::vector<Front>& fronts, const ClientLoad& load) {
  std::vector<std::vector<Sample>> samples(fronts.size());
  for (int repetition = -1; repetition < kRepetitions; ++repetition) {  // the first is to warm up
    for (size_t i = 0; i < fronts.size(); ++i) {
      absl::StatusOr<Sample> sample = Measure(fronts[i], load);
      if (!sample.ok()) return sample.status();
      if (repetition >= 0) samples[i].push_back(*sample);
    }
  }
  const auto wall = [](const Sample& s) { return s.wall; };
  const double alone = Median(samples[0], wall);
  for (size_t i = 0; i < fronts.size(); ++i) {
    const double median = Median(samples[i], wall);
    double least = samples[i][0].wall, most = least;
    for (const Sample& s : samples[i]) least = std::min(least, s.wall), most = std::max(most, s.wall);
    std::printf("| %s | %d | %s | %.0f | %.1f (%.1f to %.1f) | %s | %.1f | %.1f |\n", engine,
                load.num_streams, fronts[i].name, 1e6 / median, median, least, most,
                i == 0 ? "" : absl::StrFormat("%+.1f", median - alone).c_str(),
                Median(samples[i], [](const Sample& s) { return s.server_cpu; }),
                Median(samples[i], [](const Sample& s) { return s.client_cpu; }));
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

// Serves `engine` and compares; `num_tokens(streams)` is each stream's length.
absl::Status Serve(const char* name, std::shared_ptr<Engine> engine,
                   std::shared_ptr<const Tokenizer> tokenizer, int streams, int num_tokens) {
  Service service(ServiceOptions{});
  ServedModel model;
  model.name = "demo";
  model.engine = engine;
  model.tokenizer = std::move(tokenizer);
  service.SetModel(std::move(model));
  auto rest = RestServer::Start({}, &service);
  if (!rest.ok()) return rest.status();
  auto grpc = GrpcServer::Start({}, &service);
  if (!grpc.ok()) return grpc.status();
  const std::vector<Front> fronts = {
      {"none", [&](const ClientLoad& load) { return RunEngineClient(engine.get(), load); }},
      {"gRPC", [&](const ClientLoad& load) { return RunGrpcClient((*grpc)->port(), load); }},
      {"REST", [&](const ClientLoad& load) { return RunRestClient((*rest)->port(), load); }},
  };
  absl::Status done = Compare(name, fronts, {streams, num_tokens});
  (*rest)->Shutdown(MonotonicNow() + absl::Seconds(5));
  (*grpc)->Shutdown(MonotonicNow() + absl::Seconds(5));
  return done;
}

// A dozen tokens that are words or parts of words.
std::vector<int32_t> TextTokens(const Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  for (int id = tokenizer.vocab_size() - 1; id > 0 && tokens.size() < 12; --id) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    const bool plain =
        std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == ' ' || (c >= 'a' && c <= 'z'); });
    if (bytes.size() > 2 && plain && !tokenizer.IsSpecial(id)) tokens.push_back(id);
  }
  return tokens;
}

absl::Status Run(const std::string& model_dir) {
  auto checkpoint = Checkpoint::Open(model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  auto loaded = Tokenizer::Load(model_dir);
  if (!loaded.ok()) return loaded.status();
  const std::shared_ptr<const Tokenizer> tokenizer = *std::move(loaded);
  const ModelConfig& config = (*checkpoint)->config();
  EngineOptions options;
  options.state_cache_bytes = int64_t{1} << 30;
  auto created = Engine::Create(options, config, **checkpoint);
  if (!created.ok()) return created.status();
  const auto demo = std::shared_ptr<Engine>(*std::move(created));

  std::printf(
      "| engine | streams | front end | tokens/s | µs a token, median of %d (spread) | added µs | CPU µs a "
      "token: engine and server | client |\n"
      "|---|---|---|---|---|---|---|---|\n",
      kRepetitions);
  for (int streams : {1, 16, 64}) {
    if (absl::Status done = Serve("demo", demo, tokenizer, streams, streams == 64 ? 128 : 256); !done.ok())
      return done;
  }
  const std::vector<int32_t> text = TextTokens(*tokenizer);
  for (int streams : {1, 16, 64}) {
    // At most Limits::max_queued_events: no reader can be too slow.
    const auto stub = std::make_shared<StubEngine>(config, text, absl::ZeroDuration());
    if (absl::Status done = Serve("stub", stub, tokenizer, streams, streams == 64 ? 1024 : 2048); !done.ok())
      return done;
  }
  for (int streams : {1, 16, 64}) {
    const auto stub = std::make_shared<StubEngine>(config, text, absl::Microseconds(100) * streams);
    if (absl::Status done =
            Serve("stub 10k/s", stub, tokenizer, streams, streams == 1 ? 2048 : 10000 / streams);
        !done.ok())
      return done;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: server_overhead MODEL_DIR\n");
    return 2;
  }
  const absl::Status status = sessa::Run(argv[1]);
  if (!status.ok()) std::fprintf(stderr, "server_overhead: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
