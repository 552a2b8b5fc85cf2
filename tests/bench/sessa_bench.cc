// ./dev bench: the CPU kernels and whole steps, each as a rate and as a fraction of what this machine can do,
// measured right before and after it. Shapes A and B: D 1024 and 2048, 24 layers, K = H / 4. Columns: median
// time, spread (half of max - min over the repetitions, of the median), GB/s, GFLOP/s, their fractions of the
// machine's limits (limits.h), and `tokens` a second for whole steps.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/sampler.h"
#include "engine/worker.h"
#include "kernels/backend.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/bench/limits.h"
#include "tests/bench/model_bench.h"
#include "tests/bench/table_reporter.h"
#include "tests/reference/random_model.h"

namespace sessa {
namespace {

int num_threads = 1;
LimitMeter* meter = nullptr;

// Stands around a benchmark's loop: measures the limits before it and after it and reports the rates.
class Measured {
 public:
  explicit Measured(benchmark::State& state) : state_(state), before_(meter->Measure()) {}
  // Work of one iteration; 0: does not count. Float32 activations are three products for AMX, those of
  // bytes half of one.
  void Report(double bytes, double flops, const CpuOptions& cpu = {}) {
    using benchmark::Counter;
    const MachineLimits after = meter->Measure();
    const auto report = [this](const char* name, double work, double limit) {
      if (work > 0) state_.counters[name] = Counter(work / limit, Counter::kIsIterationInvariantRate);
    };
    report("GB/s", bytes, 1e9);
    report("of_read", bytes, (before_.read_bytes + after.read_bytes) / 2);
    report("GFLOP/s", flops, 1e9);
    report("of_fma", flops, (before_.fma_flops + after.fma_flops) / 2);
    report("of_gemm", flops, (before_.gemm_flops + after.gemm_flops) / 2);
    if (cpu.matrix_unit != MatrixUnit::kAmx) return;
    const DType activations = cpu.activation_dtype;
    report("of_amx",
           flops * (activations == DType::kF32  ? 3
                    : activations == DType::kI8 ? 0.5
                                                : 1),
           (before_.amx_flops + after.amx_flops) / 2);
  }

 private:
  benchmark::State& state_;
  const MachineLimits before_;
};

std::vector<float> Values(size_t n, float scale = 1) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; ++i)
    v[i] = scale * static_cast<float>(static_cast<int>(i * 2654435761u >> 20 & 1023) - 512) / 512;
  return v;
}

// x [m, D] times a stack of weights [D, D] that is larger than the caches, so that each call streams its
// weights.
void BM_Linear(benchmark::State& state, DType dtype, CpuOptions cpu, int m, int D) {
  auto backend = MakeCpuBackend(cpu);
  const double bytes = BytesOfWeights(dtype, 1.0 * D * D);
  const int count = static_cast<int>(256e6 / bytes) + 1;
  const auto w = Values(static_cast<size_t>(D) * D, 0.03f), values = Values(static_cast<size_t>(m) * D);
  std::vector<LinearWeights> weights;
  for (int i = 0; i < count; ++i)
    weights.push_back(*backend->MakeLinear({DType::kF32, {D, D}, w.data()}, nullptr, dtype));
  Buffer x = *backend->Allocate(values.size() * sizeof(float)), y = *backend->Allocate(x.size());
  backend->CopyIn(values.data(), x.size(), x.data());
  int i = 0;
  Measured measured(state);
  for (auto _ : state) {
    const LinearCall call{&weights[i++ % count], {y.floats(), m, D, D}};
    backend->Linear({x.floats(), m, D, D}, {}, {&call, 1});
  }
  measured.Report(m <= 4 ? bytes : 0, 2.0 * m * D * D, cpu);
}

// One layer's pages with t tokens of one sequence.
struct PagedLayer {
  PagedLayer(Backend* backend, int D, int t, DType dtype = DType::kBF16) {
    const int num_pages = t / 64 + 1, kv = D / 4;
    for (int i = 0; i < 4; ++i) {
      const auto use = static_cast<PagedShape::Use>(i % 2);
      const PagedShape shape{use, i < 2 ? kv / 64 : 1, i < 2 ? 64 : D, dtype};
      state.push_back(*backend->AllocatePages(shape, 64, 0, num_pages));
    }
    for (int i = 0; i < num_pages; ++i) pages.push_back(i);
    auto rows = Values(static_cast<size_t>(64) * D, 0.1f);
    const Buffer table = *backend->MakeTable({DType::kF32, {D}, rows.data()}, DType::kF32);
    std::vector<float> gamma(64);
    for (int start = 0; start < t; start += 64) {
      const int n = std::min(64, t - start);
      const Matrix narrow{rows.data(), n, kv, kv}, wide{rows.data(), n, D, D};
      Begin(backend, n, start);
      backend->feedback()->Append({wide, narrow, narrow, &state[0], &state[1]},
                                  {wide, wide, &table, &table, 1, gamma.data(), &state[2]});
      backend->feedback()->AppendStates(wide, 0, &state[3]);
    }
  }
  void Begin(Backend* backend, int rows, int start) {
    step.spans = {{0, rows, start, pages}};
    step.waves = {step.spans};
    backend->BeginStep(step);
  }
  StepRows step;
  std::vector<PagedTensor> state;  // keys, values, feedback keys, states
  std::vector<int32_t> pages;
};

struct Partials {
  Partials(int rows, int width)
      : max(8 * rows),
        sum(8 * rows),
        acc(static_cast<size_t>(8) * rows * width),
        p(static_cast<size_t>(rows) * 64),
        view{max.data(), sum.data(), acc.data(), p.data(), rows, width} {}
  std::vector<float> max, sum, acc, p;
  FeedbackPartials view;
};

// The feedback read of `rows` rows (one block) at position t.
void BM_FeedbackRead(benchmark::State& state, DType dtype, CpuOptions cpu, int rows, int D, int t) {
  auto backend = MakeCpuBackend(cpu);
  PagedLayer layer(backend.get(), D, t + rows, dtype);
  auto q = Values(static_cast<size_t>(rows) * D, 0.1f);
  Partials partials(rows, D);
  layer.Begin(backend.get(), rows, t);
  Measured measured(state);
  const Matrix x{q.data(), rows, D, D};
  for (auto _ : state)
    backend->feedback()->Read({x, x, 0, 0, 1, partials.view, &layer.state[2], &layer.state[3]});
  measured.Report(rows == 1 ? BytesOfState(dtype, 2.0 * D * t) : 0, 4.0 * rows * D * t, cpu);
}

// The triangle of one full block. FLOPs: a 64 x 64 product with D columns, half of which a solve needs. With
// all chains of the feedback read, their joining is in the time too.
void BM_FeedbackSolve(benchmark::State& state, int D, int chains) {
  const int rows = 64, start = 64 * (chains - 1);
  auto backend = MakeCpuBackend({.num_threads = num_threads});
  PagedLayer layer(backend.get(), D, start + rows);
  auto q = Values(static_cast<size_t>(rows) * D, 0.1f), f = q, s = q;
  const std::vector<float> gamma(rows, 0.5f);
  Partials partials(rows, D);
  layer.Begin(backend.get(), rows, start);
  const Matrix x{q.data(), rows, D, D};
  backend->feedback()->Read({x, x, 0, 0, 1, partials.view, &layer.state[2], &layer.state[3]});
  Measured measured(state);
  for (auto _ : state) {
    backend->feedback()->Solve({0,
                                1,
                                partials.view,
                                {f.data(), rows, D, D},
                                gamma.data(),
                                0,
                                D,
                                {s.data(), rows, D, D},
                                {},
                                {},
                                false,
                                &layer.state[3]});
  }
  measured.Report(0, 1.0 * rows * rows * D);
}

// Forward attention of `rows` rows at position t.
void BM_Attend(benchmark::State& state, DType dtype, CpuOptions cpu, int rows, int D, int t) {
  auto backend = MakeCpuBackend(cpu);
  PagedLayer layer(backend.get(), D, t + rows, dtype);
  auto q = Values(static_cast<size_t>(rows) * D, 0.1f);
  std::vector<float> out(q.size());
  std::vector<int> q_to_kv;
  for (int h = 0; h < D / 64; ++h) q_to_kv.push_back(h / 4);
  layer.Begin(backend.get(), rows, t);
  Measured measured(state);
  for (auto _ : state)
    backend->Attend(
        {{q.data(), rows, D, D}, q_to_kv, {out.data(), rows, D, D}, &layer.state[0], &layer.state[1]});
  measured.Report(rows == 1 ? BytesOfState(dtype, D / 2.0 * (t + 1)) : 0, 4.0 * rows * D * (t + rows / 2.0),
                  cpu);
}

// An operation of one item for each thread: handed over, and waited for.
void BM_Barrier(benchmark::State& state) {
  ThreadPool pool(num_threads);
  for (auto _ : state) pool.ParallelFor(num_threads, [](int, int) {});
}

enum class Draw { kGreedy, kAll, kTopP };

void BM_Sample(benchmark::State& state, int V, Draw draw) {
  Sampler sampler(V, {});
  const auto logits = Values(V, 8);
  SamplingParams params;
  params.temperature = draw == Draw::kGreedy ? 0.0f : 1.0f;
  params.top_p = draw == Draw::kTopP ? 0.9f : 1.0f;
  const std::vector<int32_t> tokens = {1, 2, 3};
  std::vector<SampleEdit> edits;
  cpu::RowSampler row_sampler;
  uint64_t seed = 0;
  Measured measured(state);
  for (auto _ : state) {
    edits.clear();
    const SampleRow row = sampler.Row(params, tokens, 3, seed++, &edits);
    benchmark::DoNotOptimize(row_sampler.Sample(logits, row, edits));
  }
  measured.Report(4.0 * V, 0);
}

// The one model in memory: the next shape takes its place.
ModelBench* Model(DType dtype, DType state_dtype, CpuOptions cpu, const ModelConfig& config) {
  constexpr int kTokens = 40960;
  static std::tuple<DType, DType, DType, MatrixUnit, int> shape;
  static std::unique_ptr<ModelBench> model;
  if (const std::tuple wanted(dtype, state_dtype, cpu.activation_dtype, cpu.matrix_unit, config.hidden_size);
      shape != wanted) {
    model.reset();
    model = std::make_unique<ModelBench>(dtype, state_dtype, cpu, config, kTokens);
    shape = wanted;
  }
  return model.get();
}

void BM_DecodeStep(benchmark::State& state, DType dtype, DType state_dtype, CpuOptions cpu,
                   const ModelConfig& config, int batch, int context) {
  ModelBench* model = Model(dtype, state_dtype, cpu, config);
  model->Step(batch, 1, context);
  Measured measured(state);
  for (auto _ : state) model->Step(batch, 1, context);
  measured.Report(model->WeightBytes() + batch * model->StateBytes(context), 0);
  state.counters["tokens"] = benchmark::Counter(batch, benchmark::Counter::kIsIterationInvariantRate);
}

void BM_PrefillStep(benchmark::State& state, DType dtype, DType state_dtype, CpuOptions cpu,
                    const ModelConfig& config, int rows, int context) {
  ModelBench* model = Model(dtype, state_dtype, cpu, config);
  model->Step(1, rows, context);
  Measured measured(state);
  for (auto _ : state) model->Step(1, rows, context);
  measured.Report(0, model->PrefillFlops(rows, context), cpu);
  state.counters["tokens"] = benchmark::Counter(rows, benchmark::Counter::kIsIterationInvariantRate);
}

// A whole prompt, in chunks.
void BM_Prompt(benchmark::State& state, DType dtype, CpuOptions cpu, const ModelConfig& config, int tokens,
               int chunk) {
  ModelBench* model = Model(dtype, DType::kBF16, cpu, config);
  const auto run = [&] {
    for (int begin = 0; begin < tokens; begin += chunk)
      model->Step(1, std::min(chunk, tokens - begin), begin, begin + chunk >= tokens);
  };
  run();
  Measured measured(state);
  for (auto _ : state) run();
  measured.Report(0, model->PrefillFlops(tokens, 0), cpu);
  state.counters["tokens"] = benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
}

// Registers `body(state, args...)` under "name/arg/arg".
template <class Body, class... Args>
void Add(const std::string& name, Body body, const Args&... args) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { body(state, args...); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond)
      ->MinTime(0.1)
      ->Repetitions(5);
}

// Of a format's name: the state's, where it is not bf16.
const char* SuffixOf(DType state) { return state == DType::kI8 ? "_state8" : ""; }

void Register() {
  using absl::StrCat;
  // bf16 weights with float32 and, where the CPU has instructions for them, bf16 activations and AMX; int8.
  const CpuOptions f32{.num_threads = num_threads};
  CpuOptions dot = f32, amx = f32, amx_bf16 = f32, amx_int8 = f32, int8 = f32;
  dot.activation_dtype = amx_bf16.activation_dtype = DType::kBF16;
  amx_int8.activation_dtype = int8.activation_dtype = DType::kI8;
  for (CpuOptions* on_amx : {&amx, &amx_bf16, &amx_int8}) on_amx->matrix_unit = MatrixUnit::kAmx;
  std::vector<std::tuple<std::string, DType, CpuOptions>> formats = {{"bf16", DType::kBF16, f32}};
  if (CpuHasBf16Dot()) formats.push_back({"bf16dot", DType::kBF16, dot});
  if (CpuHasAmx()) formats.push_back({"amx", DType::kBF16, amx});
  if (CpuHasAmx()) formats.push_back({"amx_bf16", DType::kBF16, amx_bf16});
  if (CpuHasAmx()) formats.push_back({"amx_int8", DType::kI8, amx_bf16});
  if (CpuHasAmx()) formats.push_back({"amx_w8a8", DType::kI8, amx_int8});
  if (CpuHasInt8Dot()) formats.push_back({"w8a8", DType::kI8, int8});
  formats.push_back({"int8", DType::kI8, f32});
  for (const auto& [name, dtype, cpu] : formats) {
    for (int m : {1, 4, 16, 64, 256, 512}) {
      for (int D : {1024, 2048})
        Add(StrCat("Linear/", name, "/m:", m, "/D:", D), BM_Linear, dtype, cpu, m, D);
    }
  }
  Add("Barrier", BM_Barrier);
  for (const auto& [name, dtype, cpu] : formats) {
    if (name == "int8") continue;  // reads state as bf16 does
    for (DType state : {DType::kBF16, DType::kI8}) {
      if (state == DType::kI8 && name == "bf16dot") continue;  // reads int8 as bf16 does
      for (int rows : {1, 64}) {
        for (int D : {1024, 2048}) {
          for (int t : {2048, 32768}) {
            const std::string shape =
                StrCat("/", name, SuffixOf(state), "/rows:", rows, "/D:", D, "/context:", t);
            Add(StrCat("FeedbackRead", shape), BM_FeedbackRead, state, cpu, rows, D, t);
            Add(StrCat("Attend", shape), BM_Attend, state, cpu, rows, D, t);
          }
        }
      }
    }
  }
  for (int D : {1024, 2048}) {
    for (int chains : {1, kFeedbackChains})
      Add(StrCat("FeedbackSolve/D:", D, "/chains:", chains), BM_FeedbackSolve, D, chains);
  }
  for (int V : {32000, 150000}) {
    Add(StrCat("Sample/greedy/V:", V), BM_Sample, V, Draw::kGreedy);
    Add(StrCat("Sample/all/V:", V), BM_Sample, V, Draw::kAll);
    Add(StrCat("Sample/top_p/V:", V), BM_Sample, V, Draw::kTopP);
  }
  for (int D : {1024, 2048}) {
    for (const auto& [name, dtype, cpu] : formats) {
      const std::string shape = StrCat("/", name, "/D:", D), int8_state = SuffixOf(DType::kI8);
      for (auto [batch, context] :
           {std::pair{1, 32}, {16, 32}, {1, 256}, {16, 256}, {1, 2048}, {16, 2048}, {1, 32768}}) {
        Add(StrCat("DecodeStep", shape, "/batch:", batch, "/context:", context), BM_DecodeStep, dtype,
            DType::kBF16, cpu, SessaShape(D), batch, context);
      }
      for (int context : {2048, 32768}) {
        Add(StrCat("DecodeStep/", name, int8_state, "/D:", D, "/batch:1/context:", context), BM_DecodeStep,
            dtype, DType::kI8, cpu, SessaShape(D), 1, context);
      }
      for (auto [rows, context] : {std::pair{64, 0}, {512, 0}, {64, 2048}, {512, 2048}}) {
        Add(StrCat("PrefillStep", shape, "/rows:", rows, "/context:", context), BM_PrefillStep, dtype,
            DType::kBF16, cpu, SessaShape(D), rows, context);
      }
      Add(StrCat("PrefillStep/", name, int8_state, "/D:", D, "/rows:512/context:2048"), BM_PrefillStep, dtype,
          DType::kI8, cpu, SessaShape(D), 512, 2048);
    }
  }
  for (const auto& [name, dtype, cpu] : formats) {
    const std::string shape = StrCat("/", name, "/SmolLM2-135M");
    for (auto [batch, context] : {std::pair{1, 256}, {16, 256}}) {
      Add(StrCat("DecodeStep", shape, "/batch:", batch, "/context:", context), BM_DecodeStep, dtype,
          DType::kBF16, cpu, SmolLm2Shape(), batch, context);
    }
    for (auto [tokens, chunk] : {std::pair{512, 512}, {2048, 512}, {2048, 1024}, {2048, 2048}})
      Add(StrCat("Prompt", shape, "/tokens:", tokens, "/chunk:", chunk), BM_Prompt, dtype, cpu,
          SmolLm2Shape(), tokens, chunk);
  }
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  cpu_set_t cpus;  // those that this process may run on
  sessa::num_threads = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
  sessa::LimitMeter meter(sessa::num_threads);
  sessa::meter = &meter;
  const sessa::MachineLimits limits = meter.Measure();
  std::printf("%d threads; at the start: read %.1f GB/s, float32 FMA %.0f, GEMM %.0f, AMX %.0f GFLOP/s\n",
              sessa::num_threads, limits.read_bytes * 1e-9, limits.fma_flops * 1e-9, limits.gemm_flops * 1e-9,
              limits.amx_flops * 1e-9);
  sessa::Register();
  sessa::TableReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  benchmark::Shutdown();
}
