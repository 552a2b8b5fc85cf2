// ./dev bench host: what the host does for a decode step of the CUDA backend while the GPU has nothing to do,
// from the plan until the graph is launched and from the tokens to the caller. It runs on the emulated
// device, whose graphs do nothing here, so a driver's part (the launch of the graph, two copies, the wait) is
// not in it. A Markdown table, medians of 20 rounds.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
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
void BenchBatch(int batch, int context) {
  ModelConfig config;
  config.vocab_size = 128, config.hidden_size = 64;
  config.num_layers = 24, config.num_heads = 4, config.num_kv_heads = 1;
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

}  // namespace
}  // namespace sessa

int main() {
  std::printf(
      "| sequences | context | launches in the graph | µs a step | ns a launch |\n|---|---|---|---|---|\n");
  for (auto [batch, context] : {std::pair{1, 2048}, {16, 2048}, {64, 512}}) sessa::BenchBatch(batch, context);
}
