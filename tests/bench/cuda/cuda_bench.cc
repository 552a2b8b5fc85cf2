// cuda_bench [--csv FILE] [--filter PART] [--short] [kernels] [steps]: the CUDA backend on GPU 0 beside what
// the device can do, measured first, and the targets. Medians of device time. cuda_bench device: says what
// the GPU is. Exit code: 0 when all was measured, 1 when something failed, 2 when nothing is what the
// arguments ask for, 3 when there is no GPU.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/cuda/cuda_device.h"
#include "tests/bench/cuda/kernel_cases.h"
#include "tests/bench/cuda/step_cases.h"
#include "tests/cuda/switches.h"

ABSL_FLAG(std::string, csv, "", "also write the table there");
ABSL_FLAG(std::string, filter, "", "only benchmarks with this part in their names, such as StateRead/B");
ABSL_FLAG(bool, short, false, "two or three cases of each kernel, at shapes A and C");
ABSL_FLAG(
    bool, profile, false,
    "run each benchmark once between cudaProfilerStart and Stop instead: for ncu --profile-from-start off");

namespace sessa {
namespace {

constexpr int kFailed = 1, kUsage = 2, kNoGpu = 3;
constexpr int kChunk = 2048, kPrompt = 32768;

class Bench {
 public:
  Bench(CudaDevice* device, const std::string& csv) : device_(device) {
    if (!csv.empty()) csv_.open(csv);
  }

  // The limits go first; without them no rate means anything.
  absl::Status MeasureLimits() {
    const auto copy = device_->MeasureCopy();
    if (!copy.ok()) return copy.status();
    const auto gemm = device_->MeasureGemm();
    if (!gemm.ok()) return gemm.status();
    limits_ = {copy->work.bytes / Median(copy->seconds), gemm->work.flops / Median(gemm->seconds)};
    std::printf("%s\n%s\n", device_->Description().c_str(), TableHeader().c_str());
    if (csv_.is_open()) csv_ << CsvHeader() << "\n";
    Print(*copy);
    Print(*gemm);
    return absl::OkStatus();
  }

  // Of a benchmark, or of the first part of its name.
  bool Wants(const std::string& name) const {
    return status_.ok() && absl::StrContains(name, absl::GetFlag(FLAGS_filter));
  }

  // Measures and prints a line, or why there is none.
  template <class Measure>
  std::optional<Measurement> Add(const std::string& name, Measure measure) {
    if (!Wants(name)) return std::nullopt;
    ++num_wanted_;
    const absl::StatusOr<Measurement> m = measure();
    if (!m.ok()) {
      Fail(name, m.status());
      return std::nullopt;
    }
    Print(*m);
    return *m;
  }

  // What does not fit is left out; a fault of the device ends all work on it.
  void Fail(const std::string& name, const absl::Status& status) {
    const bool is_fault = !absl::IsResourceExhausted(status);
    std::printf("%-44s %s: %s\n", name.c_str(), is_fault ? "FAILED" : "does not fit",
                std::string(status.message()).c_str());
    std::fflush(stdout);
    if (is_fault) status_ = status;
  }

  void Print(const Measurement& m) {
    std::printf("%s\n", TableLine(m, limits_).c_str());
    std::fflush(stdout);
    if (csv_.is_open()) csv_ << CsvLine(m, limits_) << std::endl;
  }

  CudaDevice* device() const { return device_; }
  const absl::Status& status() const { return status_; }
  int num_wanted() const { return num_wanted_; }

 private:
  CudaDevice* const device_;
  std::ofstream csv_;
  DeviceLimits limits_;
  int num_wanted_ = 0;
  absl::Status status_;
};

// What is measured of the kernels, all of it or the short form.
struct KernelCases {
  std::vector<Shape> shapes = {Shape::kA, Shape::kB, Shape::kC};
  std::vector<int> linear_rows = {1, 8, 16, 48, 64, 512, 2048};
  std::vector<std::pair<int, int>> state_reads = {{1, 2048}, {1, 32768}, {16, 2048}, {16, 32768}};
  std::vector<Read> reads = {Read::kForward, Read::kFeedback, Read::kBoth};
  std::vector<int> attend_contexts = {0, kPrompt - kChunk};
  std::vector<int> solve_rows = {64, kChunk};
  std::vector<int> vocabularies = {32000, 150000};
  std::vector<Draw> draws = {Draw::kGreedy, Draw::kAll, Draw::kTopP};
};
KernelCases ShortCases() {
  KernelCases c;
  c.shapes = {Shape::kA, Shape::kC};
  c.linear_rows = {1, 48};
  c.state_reads = {{1, 2048}, {16, 32768}};
  c.reads = {Read::kBoth};
  c.attend_contexts = {kPrompt - kChunk};
  c.solve_rows = {kChunk};
  c.vocabularies = {32000};
  c.draws = {Draw::kTopP};
  return c;
}

void Kernels(Bench* bench, const KernelCases& cases) {
  CudaDevice* device = bench->device();
  const auto name = [](const char* what, Shape shape) { return std::string(what) + "/" + NameOf(shape); };
  for (Shape shape : cases.shapes) {
    const int D = ConfigOf(shape).hidden_size;
    for (int rows : cases.linear_rows)
      bench->Add(name("Linear", shape), [&] { return MeasureLinear(device, rows, D); });
  }
  for (Shape shape : cases.shapes) {
    for (auto [batch, context] : cases.state_reads) {
      for (Read read : cases.reads) {
        bench->Add(name("StateRead", shape), [&, batch = batch, context = context] {
          return MeasureStateRead(device, ConfigOf(shape), read, batch, context);
        });
      }
    }
    bench->Add(name("StateRead", shape), [&] {
      const auto [batch, context] = cases.state_reads.back();
      return MeasureStateRead(device, ConfigOf(shape), Read::kBoth, batch, context, DType::kI8);
    });
  }
  for (Shape shape : cases.shapes) {
    for (int context : cases.attend_contexts) {
      bench->Add(name("Attend", shape),
                 [&] { return MeasureAttend(device, ConfigOf(shape), kChunk, context); });
    }
    bench->Add(name("Attend", shape),
               [&] { return MeasureAttend(device, ConfigOf(shape), kChunk, kPrompt - kChunk, DType::kI8); });
  }
  for (Shape shape : cases.shapes) {
    for (auto [batch, rows] : {std::pair{1, kChunk}, {16, 64}}) {
      bench->Add(name("FeedbackRead", shape), [&, batch = batch, rows = rows] {
        return MeasureFeedbackRead(device, ConfigOf(shape), batch, rows, kPrompt - kChunk);
      });
    }
    bench->Add(name("FeedbackRead", shape), [&] {
      return MeasureFeedbackRead(device, ConfigOf(shape), 1, kChunk, kPrompt - kChunk, DType::kI8);
    });
  }
  for (Shape shape : cases.shapes) {
    const ModelConfig config = ConfigOf(shape);
    for (int rows : cases.solve_rows) {
      const auto ours =
          bench->Add(name("Solve", shape), [&] { return MeasureSolve(device, config, 1, rows); });
      const auto strsm =
          bench->Add(name("Solve", shape), [&] { return device->MeasureStrsm(rows, config.hidden_size); });
      if (!ours.has_value() || !strsm.has_value()) continue;
      const double times = Median(strsm->seconds) / Median(ours->seconds);
      std::printf("%-44s %.1f times as fast as cublasStrsm; target 5: %s\n", ours->name.c_str(), times,
                  times >= 5 ? "met" : "missed");
    }
  }
  for (int V : cases.vocabularies) {
    for (int rows : {1, 16}) {
      for (Draw draw : cases.draws)
        bench->Add("Sample", [&] { return MeasureSample(device, rows, V, draw); });
    }
  }
}

struct StepTargets {
  Shape shape;
  struct Decode {
    int batch, context;
    double target;
  };
  std::vector<Decode> decode;
  double prefill;
};

void Steps(Bench* bench) {
  const std::vector<StepTargets> all = {{Shape::kA, {{1, 2048, 0.3}, {16, 32768, 0.8}}, 0.5},
                                        {Shape::kB, {{16, 2048, 0.65}}, 0},
                                        {Shape::kC, {{1, 2048, 0.75}}, 0.65}};
  for (const StepTargets& t : all) {
    const ModelConfig config = ConfigOf(t.shape);
    const std::string shape(1, NameOf(t.shape)), decode = "DecodeStep/" + shape,
                                                 prefill = "PrefillStep/" + shape;
    const auto name = [&](const StepTargets::Decode& d) {
      return absl::StrCat(decode, "/batch:", d.batch, "/context:", d.context);
    };
    if (!bench->Wants(prefill) && std::none_of(t.decode.begin(), t.decode.end(),
                                               [&](const auto& d) { return bench->Wants(name(d)); })) {
      continue;
    }
    auto model = BenchModel::Create(bench->device(), shape, config, kChunk);
    if (!model.ok()) {
      bench->Fail("the model of shape " + shape, model.status());
      continue;
    }
    for (const StepTargets::Decode& d : t.decode)
      bench->Add(name(d), [&] { return (*model)->MeasureStep(d.batch, 1, d.context, d.target); });
    const auto first = bench->Add(prefill, [&] { return (*model)->MeasureStep(1, kChunk, 0, 0); });
    const auto last =
        bench->Add(prefill, [&] { return (*model)->MeasureStep(1, kChunk, kPrompt - kChunk, 0); });
    if (first.has_value() && last.has_value()) {
      bench->Print(WholePrefill(shape, config, *first, *last, kChunk, kPrompt / kChunk, t.prefill));
    }
  }
}

int Main(const std::vector<char*>& parts) {
  bool kernels = parts.empty(), steps = parts.empty(), only_device = false;
  for (const std::string part : parts) {
    if (part != "kernels" && part != "steps" && part != "device") {
      std::fprintf(stderr, "cuda_bench: %s is neither kernels, steps nor device\n", part.c_str());
      return kUsage;
    }
    (part == "kernels" ? kernels : part == "steps" ? steps : only_device) = true;
  }
  ApplyCudaSwitches();
  auto device = CudaDevice::Create();
  if (!device.ok()) {
    std::fprintf(stderr, "cuda_bench: %s\n", device.status().ToString().c_str());
    return absl::IsUnavailable(device.status()) ? kNoGpu : kFailed;
  }
  if (only_device) {
    std::printf("%s\n", (*device)->Description().c_str());
    return 0;
  }
  Bench bench(device->get(), absl::GetFlag(FLAGS_csv));
  if (absl::GetFlag(FLAGS_profile)) {
    (*device)->ProfileOnly();
  } else if (absl::Status status = bench.MeasureLimits(); !status.ok()) {
    std::fprintf(stderr, "cuda_bench: the device's limits: %s\n", status.ToString().c_str());
    return kFailed;
  }
  if (kernels) Kernels(&bench, absl::GetFlag(FLAGS_short) ? ShortCases() : KernelCases());
  if (steps) Steps(&bench);
  if (!bench.status().ok()) return kFailed;
  if (bench.num_wanted() > 0) return 0;
  std::fprintf(stderr, "cuda_bench: no benchmark has %s in its name\n", absl::GetFlag(FLAGS_filter).c_str());
  return kUsage;
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("cuda_bench [flags] [kernels] [steps] [device]");
  std::vector<char*> parts = absl::ParseCommandLine(argc, argv);
  parts.erase(parts.begin());
  return sessa::Main(parts);
}
