// What can be known of the CUDA benchmarks without a GPU: their formulas against the figures of the targets,
// the table, and that every benchmark runs through the CUDA backend on the emulator, with nothing but kernels
// and copies touching device memory.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/backend.h"
#include "tests/bench/cuda/kernel_cases.h"
#include "tests/bench/cuda/sampling.h"
#include "tests/bench/cuda/step_cases.h"
#include "tests/bench/cuda/table.h"
#include "tests/bench/cuda/work.h"
#include "tests/cuda/device_guard.h"

namespace sessa {
namespace {

TEST(WorkTest, ShapesAreThoseOfTheTargets) {
  struct {
    Shape shape;
    double weights, state_kib;  // bytes without the output head; of a token
  } expected[] = {{Shape::kA, 0.38e9, 120}, {Shape::kB, 1.51e9, 240}, {Shape::kC, 8.05e9, 640}};
  for (auto [shape, weights, state_kib] : expected) {
    const ModelConfig c = ConfigOf(shape);
    ASSERT_TRUE(c.Validate().ok());
    const double head = 2.0 * c.vocab_size * c.hidden_size;
    EXPECT_NEAR(StepWork(c, 1, 0, 0).bytes - head, weights, 0.01 * weights) << NameOf(shape);
    const double token = StepWork(c, 1, 0, 1000).bytes - StepWork(c, 1, 0, 999).bytes;
    EXPECT_DOUBLE_EQ(token, state_kib * 1024) << NameOf(shape);
  }
}

TEST(WorkTest, APrefillIsTheSumOfItsParts) {
  const ModelConfig c = ConfigOf(Shape::kB);
  const double D = c.hidden_size, T = 32768;
  // 15 D^2 T for the linears and 4 D T^2 for attention in each layer, and the output head for one row.
  const double expected = c.num_layers * (15 * D * D * T + 4 * D * T * T) + 2.0 * c.vocab_size * D;
  EXPECT_NEAR(StepWork(c, 1, 32768, 0).flops, expected, 1e-4 * expected);
  // A chunk's attention is what the benchmarks of its parts say: forward, feedback over the past, own
  // triangle.
  const int rows = 2048, past = 30720;
  const double attention = StepWork(c, 1, rows, past).flops - StepWork(c, 1, rows, 0).flops;
  const double parts = AttendWork(c, 1, rows, past).flops - AttendWork(c, 1, rows, 0).flops +
                       FeedbackReadWork(c, 1, rows, past).flops - FeedbackReadWork(c, 1, rows, 0).flops;
  EXPECT_NEAR(attention / c.num_layers, parts, 1e-9 * parts);
  // The scores of its own rows, and then the solution.
  EXPECT_NEAR(FeedbackReadWork(c, 1, rows, 0).flops, StrsmWork(rows, c.hidden_size).flops, 1);
}

TEST(WorkTest, DecodeReadsStateOnce) {
  const ModelConfig c = ConfigOf(Shape::kA);
  const double state = AttendWork(c, 16, 1, 2048).bytes + FeedbackReadWork(c, 16, 1, 2048).bytes;
  EXPECT_NEAR(state, 16 * 2048 * 5.0 * 1024, 0.02 * state);
  EXPECT_DOUBLE_EQ(LinearWork(1, 1024, 1024).flops, 2 * 1024 * 1024);
  EXPECT_DOUBLE_EQ(LinearWork(8, 1024, 512).bytes, 2 * 1024 * 512 + 4 * 8 * (1024 + 512));
}

TEST(TableTest, RatesSharesAndTargets) {
  const DeviceLimits limits{3e12, 800e12};
  Measurement m{"x", {2e-3, 1e-3, 1.2e-3}, {1.8e9, 240e9}, {Target::kShareOfCopy, 0.5}};
  EXPECT_DOUBLE_EQ(Median(m.seconds), 1.2e-3);
  EXPECT_DOUBLE_EQ(Median({1, 2}), 1.5);
  EXPECT_NEAR(Spread(m.seconds), 0.5 / 1.2, 1e-9);
  EXPECT_EQ(CsvLine(m, limits), "x,1200.000,0.4167,1500.000,0.5000,200.0000,0.2500,50% of copy,met");
  EXPECT_NE(TableLine(m, limits).find("50.0%"), std::string::npos) << TableLine(m, limits);
  EXPECT_NE(TableLine(m, limits).find("50% of copy: met"), std::string::npos);
  struct {
    Target target;
    bool met;
  } cases[] = {{{Target::kShareOfCopy, 0.51}, false},  {{Target::kShareOfGemm, 0.25}, true},
               {{Target::kShareOfGemm, 0.26}, false},  {{Target::kTflops, 200}, true},
               {{Target::kTflops, 201}, false},        {{Target::kMicroseconds, 1200}, true},
               {{Target::kMicroseconds, 1199}, false}, {{}, true}};
  for (auto [target, met] : cases) {
    m.target = target;
    EXPECT_EQ(MeetsTarget(m, limits), met) << TableLine(m, limits);
    EXPECT_EQ(TableLine(m, limits).find("missed") == std::string::npos, met);
  }
  m.target = {};
  m.note = "1 captured";
  EXPECT_TRUE(TableLine(m, limits).ends_with("%  (1 captured)")) << TableLine(m, limits);
  EXPECT_FALSE(IsImpossible(m, limits));
  m.work.bytes = 4.2e9;  // 117 % of the copy's rate
  EXPECT_TRUE(IsImpossible(m, limits));
  EXPECT_NE(TableLine(m, limits).find("%  IMPOSSIBLE"), std::string::npos) << TableLine(m, limits);
  m.target = {Target::kShareOfCopy, 0.5};
  EXPECT_NE(TableLine(m, limits).find("50% of copy: IMPOSSIBLE"), std::string::npos) << TableLine(m, limits);
  EXPECT_NE(CsvLine(m, limits).find(",IMPOSSIBLE"), std::string::npos);
  const std::string line = CsvLine(m, limits), header = CsvHeader();
  EXPECT_EQ(std::count(line.begin(), line.end(), ','), std::count(header.begin(), header.end(), ','));
}

TEST(SamplingTest, ShortRunsManyTimesLongOnesTwice) {
  struct {
    double seconds;  // of one run
    std::vector<int> runs;
    size_t num_samples;
  } cases[] = {{0, {1, 1, 1, 1, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32}, 11},
               {5e-6, {1, 1, 1, 1, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32}, 11},
               {0.3e-3, {1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3}, 11},
               {0.1, {1, 1, 1, 1, 1, 1, 1, 1}, 4},
               {0.3, {1, 1, 1, 1, 1, 1}, 2},
               {8, {1, 1}, 2}};
  for (const auto& c : cases) {
    std::vector<int> runs;
    const auto samples = SampleTimes([&](int n) -> absl::StatusOr<double> {
      runs.push_back(n);
      return c.seconds;
    });
    ASSERT_TRUE(samples.ok());
    EXPECT_EQ(runs, c.runs) << c.seconds;
    EXPECT_EQ(*samples, std::vector<double>(c.num_samples, c.seconds));
  }
  int calls = 0;
  for (int good : {0, 1, 2, 3, 4}) {
    calls = 0;
    const auto samples = SampleTimes([&](int) -> absl::StatusOr<double> {
      if (calls++ == good) return absl::InternalError("lost");
      return 1e-3;
    });
    EXPECT_EQ(samples.status().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(calls, good + 1);
  }
}

// The emulated device. Its clock counts runs: a microsecond each.
class EmulatedDevice final : public BenchDevice {
 public:
  EmulatedDevice() : backend_(*MakeCudaBackend({})) {}
  Backend* backend() override { return backend_.get(); }
  void CopyOnDevice(const void* from, size_t bytes, void* to) override {
    std::vector<char> host(bytes);
    backend_->CopyOut(from, bytes, host.data());
    (void)backend_->Synchronize();
    backend_->CopyIn(host.data(), bytes, to);
    (void)backend_->Synchronize();
  }
  absl::StatusOr<std::vector<double>> Time(absl::FunctionRef<void()> body) override {
    for (int i = 0; i < 3; ++i, ++num_runs) body();
    if (absl::Status status = backend_->Synchronize(); !status.ok()) return status;
    return std::vector<double>{1e-6, 1e-6};
  }
  int num_runs = 0;

 private:
  std::unique_ptr<Backend> backend_;
};

ModelConfig TinyConfig() {
  ModelConfig c;
  c.vocab_size = 48;
  c.hidden_size = 64;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 1;
  return c;
}

class CasesTest : public testing::Test {
 protected:
  CasesTest() {
    emulator::GuardDeviceMemory(true);
    device_ = std::make_unique<EmulatedDevice>();
  }
  ~CasesTest() override {
    device_ = nullptr;
    emulator::GuardDeviceMemory(false);
  }
  void Expect(const absl::StatusOr<Measurement>& m, const std::string& name, Work work) {
    ASSERT_TRUE(m.ok()) << m.status();
    EXPECT_EQ(m->name, name);
    EXPECT_DOUBLE_EQ(m->work.bytes, work.bytes);
    EXPECT_DOUBLE_EQ(m->work.flops, work.flops);
    EXPECT_EQ(device_->num_runs, 3);
    device_->num_runs = 0;
  }
  std::unique_ptr<EmulatedDevice> device_;
};

TEST_F(CasesTest, RandomMemoryIsRandomThroughout) {
  auto memory = device_->Random(1000, DType::kF32, 2);
  ASSERT_TRUE(memory.ok());
  std::vector<float> values(1000);
  device_->backend()->CopyOut(memory->data(), 4000, values.data());
  ASSERT_TRUE(device_->backend()->Synchronize().ok());
  double squares = 0;
  for (float v : values) squares += v * v / 1000;
  EXPECT_NEAR(squares, 4, 0.4);
  EXPECT_NE(values[998], values[999]);
}

TEST_F(CasesTest, Kernels) {
  const ModelConfig c = TinyConfig();
  Expect(MeasureLinear(device_.get(), 3, 64), "Linear/m:3/D:64", LinearWork(3, 64, 64));
  Expect(MeasureStateRead(device_.get(), c, Read::kForward, 2, 100),
         "StateRead/forward/D:64/batch:2/context:100", AttendWork(c, 2, 1, 100));
  Expect(MeasureStateRead(device_.get(), c, Read::kFeedback, 2, 100),
         "StateRead/feedback/D:64/batch:2/context:100", FeedbackReadWork(c, 2, 1, 100));
  Expect(MeasureStateRead(device_.get(), c, Read::kBoth, 1, 64), "StateRead/both/D:64/batch:1/context:64",
         AttendWork(c, 1, 1, 64) + FeedbackReadWork(c, 1, 1, 64));
  Expect(MeasureAttend(device_.get(), c, 70, 64), "Attend/D:64/rows:70/context:64", AttendWork(c, 1, 70, 64));
  Expect(MeasureFeedbackRead(device_.get(), c, 2, 64, 128), "FeedbackRead/D:64/rows:64/batch:2/context:128",
         FeedbackReadWork(c, 2, 64, 128));
  constexpr double kSaved = 1 - 1.0 / 64;  // bytes of a value
  Work narrow = AttendWork(c, 1, 1, 64) + FeedbackReadWork(c, 1, 1, 64);
  narrow.bytes -= kSaved * 2 * 64 * (c.hidden_size + c.kv_size());
  Expect(MeasureStateRead(device_.get(), c, Read::kBoth, 1, 64, DType::kI8),
         "StateRead/both/D:64/batch:1/context:64/int8", narrow);
  narrow = FeedbackReadWork(c, 2, 64, 128);
  narrow.bytes -= kSaved * 2 * 2 * 128 * c.hidden_size;
  Expect(MeasureFeedbackRead(device_.get(), c, 2, 64, 128, DType::kI8),
         "FeedbackRead/D:64/rows:64/batch:2/context:128/int8", narrow);
  narrow = AttendWork(c, 1, 70, 64);
  narrow.bytes -= kSaved * 2 * (64 + 70) * c.kv_size();
  Expect(MeasureAttend(device_.get(), c, 70, 64, DType::kI8), "Attend/D:64/rows:70/context:64/int8", narrow);
  Work two = StrsmWork(64, 64) + StrsmWork(64, 64);
  Expect(MeasureSolve(device_.get(), c, 2, 64), "Solve/D:64/rows:64/batch:2", two);
  Expect(MeasureSolve(device_.get(), c, 1, 130), "Solve/D:64/rows:130/batch:1", StrsmWork(130, 64));
  Expect(MeasureSample(device_.get(), 2, 300, Draw::kTopP), "Sample/top_p/rows:2/V:300", {2400, 0});
}

TEST_F(CasesTest, Steps) {
  const ModelConfig c = TinyConfig();
  auto model = BenchModel::Create(device_.get(), "T", c, 70);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto decode = (*model)->MeasureStep(3, 1, 65, 0.5);
  Expect(decode, "DecodeStep/T/batch:3/context:65", StepWork(c, 3, 1, 65));
  EXPECT_EQ(decode->target.kind, Target::kShareOfCopy);
  // The first run grows the scratch, the second is the first with its addresses, the third is captured.
  EXPECT_EQ(decode->note, "1 captured, 1 replayed");
  const auto first = (*model)->MeasureStep(1, 64, 0, 0), last = (*model)->MeasureStep(1, 64, 128, 0);
  device_->num_runs = 3;
  Expect(first, "PrefillStep/T/rows:64/context:0", StepWork(c, 1, 64, 0));
  const Measurement whole = WholePrefill("T", c, *first, *last, 64, 3, 0.5);
  EXPECT_DOUBLE_EQ(whole.seconds[0], 3e-6);
  EXPECT_NEAR(whole.work.flops, StepWork(c, 1, 192, 0).flops + 2 * 2.0 * c.vocab_size * c.hidden_size, 1);
  EXPECT_EQ((*model)->MeasureStep(1, 71, 0, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sessa
