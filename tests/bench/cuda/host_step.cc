// ./dev bench host: what the host does for a decode step of the CUDA backend, and how much of it the GPU
// waits for. It runs on the emulated device, whose graphs do nothing here, so a driver's part (the launch of
// the graph, two copies, the wait) is not in it. Two Markdown tables: the backend alone, from the plan until
// the graph is launched and from the tokens to the caller, medians of 20 rounds; and a whole engine, whose
// graphs take the device a given time: from step to step, medians of 300.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/models/model.h"
#include "engine/state_cache.h"
#include "kernels/communicator.h"
#include "kernels/cuda/backend.h"
#include "tests/bench/cuda/step_cases.h"
#include "tests/cuda/emulator.h"
#include "tests/reference/random_model.h"

namespace sessa {
namespace {

constexpr int kRounds = 20, kStepsOfRound = 100;

template <class T>
T OrDie(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(result);
}

// Layers as many as in shapes A and B; their width does not matter to the host.
ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 128, config.hidden_size = 64;
  config.num_layers = 24, config.num_heads = 4, config.num_kv_heads = 1;
  config.max_position_embeddings = 8192;
  return config;
}

void BenchBatch(int batch, int context) {
  const ModelConfig config = Config();
  const std::unique_ptr<Backend> backend = OrDie(MakeCudaBackend({}));
  const auto communicator = std::move(MakeThreadCommunicators(1)[0]);
  const auto weights = RandomModel(config, 1, DType::kBF16);
  const auto model = OrDie(
      Model::Load(config, *weights, {DType::kBF16, DType::kBF16, batch}, backend.get(), communicator.get()));
  const StepPlan plan = PlanOf(batch, 1, context);
  const int num_pages = static_cast<int>(plan.sequences[0].pages.size()) * batch;
  StateCache cache =
      OrDie(StateCache::Create(model->StateShapes(), {kPage, num_pages, 1, batch}, 0, backend.get()));
  const Buffer device_tokens = OrDie(backend->Allocate(batch * sizeof(int32_t)));
  std::vector<int32_t> rows(batch), tokens(batch);
  std::vector<SampleRow> sample(batch);
  for (int b = 0; b < batch; ++b) rows[b] = sample[b].row = b;
  const auto step = [&] {
    const Matrix logits = model->Forward(plan, rows, &cache);
    auto* to = static_cast<int32_t*>(device_tokens.data());
    backend->Sample(logits, sample, {}, to);
    backend->CopyOut(to, batch * sizeof(int32_t), tokens.data());
    if (absl::Status status = backend->Synchronize(); !status.ok()) std::exit(1);
  };
  const int before = emulator::counts().kernels;
  step();
  const int launches = emulator::counts().kernels - before;
  step();  // captured
  emulator::SkipGraphs(true);
  std::vector<double> micros;
  for (int i = 0; i < kRounds; ++i) {
    const absl::Time begin = absl::Now();
    for (int n = 0; n < kStepsOfRound; ++n) step();
    micros.push_back(absl::ToDoubleMicroseconds(absl::Now() - begin) / kStepsOfRound);
  }
  emulator::SkipGraphs(false);
  std::nth_element(micros.begin(), micros.begin() + kRounds / 2, micros.end());
  const double median = micros[kRounds / 2];
  std::printf("| %d | %d | %d | %.1f | %.0f |\n", batch, context, launches, median, 1000 * median / launches);
}

class CountingSink final : public TokenSink {
 public:
  void OnPrompt(const PromptInfo&) override {}
  bool OnToken(TokenUpdate) override { return num_tokens_.fetch_add(1, std::memory_order_relaxed), true; }
  void OnEnd(const RequestEnd&) override {}
  int num_tokens() const { return num_tokens_; }

 private:
  std::atomic<int> num_tokens_{0};
};

// When steps ended, as the engine's thread saw it; read once the engine is gone.
void NoteStep(void* context, const StepObservation&) {
  static_cast<std::vector<absl::Time>*>(context)->push_back(absl::Now());
}

// `penalised`: of a kind that cannot be planned ahead.
double StepToStep(int streams, double device_micros, bool penalised) {
  constexpr int kWarm = 4, kSteps = 300;
  EngineOptions options;
  options.device = DeviceType::kCuda;
  options.state_cache_bytes = int64_t{256} << 20;
  options.max_num_seqs = streams;
  const ModelConfig config = Config();
  std::vector<absl::Time> ends;
  auto engine =
      OrDie(Engine::Create(options, config, *RandomModel(config, 1, DType::kBF16), &NoteStep, &ends));
  std::vector<std::shared_ptr<CountingSink>> sinks;
  for (int i = 0; i < streams; ++i) {
    Request request;
    request.prompt = {i, i + 1};
    request.sampling.max_tokens = 1000;
    request.sampling.ignore_eos = true;
    request.sampling.presence_penalty = penalised ? 0.1f : 0;
    request.sink = sinks.emplace_back(std::make_shared<CountingSink>());
    if (!engine->Submit(std::move(request)).ok()) std::exit(1);
  }
  const auto wait_for = [&](int num_tokens) {  // of the stream that came last
    while (sinks.back()->num_tokens() < num_tokens) absl::SleepFor(absl::Milliseconds(5));
  };
  wait_for(kWarm);  // all decode, and their step is captured
  emulator::SkipGraphs(true, device_micros);
  wait_for(kWarm + 50 + kSteps);
  engine.reset();
  emulator::SkipGraphs(false);
  std::vector<double> micros;
  for (size_t i = ends.size() - kSteps; i < ends.size(); ++i)
    micros.push_back(absl::ToDoubleMicroseconds(ends[i] - ends[i - 1]));
  std::nth_element(micros.begin(), micros.begin() + kSteps / 2, micros.end());
  return micros[kSteps / 2];
}

void BenchEngine(int streams, double device_micros) {
  const double ahead = StepToStep(streams, device_micros, false),
               apart = StepToStep(streams, device_micros, true);
  std::printf("| %d | %.0f | %.0f | %.1f %% | %.0f | %.1f %% |\n", streams, device_micros, ahead,
              100 * (ahead / device_micros - 1), apart, 100 * (apart / device_micros - 1));
  std::fflush(stdout);
}

}  // namespace
}  // namespace sessa

int main() {
  std::printf(
      "| sequences | context | launches in the graph | µs a step | ns a launch |\n|---|---|---|---|---|\n");
  for (auto [batch, context] : {std::pair{1, 2048}, {16, 2048}, {64, 512}}) sessa::BenchBatch(batch, context);
  std::printf(
      "\n| streams | the device's step, µs | step to step, planned ahead | more | with penalties, not "
      "planned "
      "ahead | more |\n|---|---|---|---|---|---|\n");
  for (int streams : {1, 16, 64}) {
    for (double micros : {400, 1500}) sessa::BenchEngine(streams, micros);
  }
}
