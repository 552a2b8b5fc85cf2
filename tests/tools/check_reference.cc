// check-reference: runs the model of a folder like those of tests/reference/data through the engine's model
// and kernels and prints, for each expected tensor, the largest error relative to that tensor's largest
// value. Exit codes: 0 all within the tolerance, 1 not all (or an unknown flag), 2 nothing was compared, with
// the reason on stderr.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/device.h"
#include "server/checkpoint/checkpoint.h"
#include "tests/engine/model_harness.h"
#ifdef SESSA_CUDA
#include "tests/cuda/switches.h"
#endif

ABSL_FLAG(std::string, weight_dtype, "f32", "f32, bf16 or int8");
ABSL_FLAG(std::string, state_dtype, "f32", "f32, bf16 or int8");
ABSL_FLAG(
    std::string, activation_dtype, "f32",
    "f32, or bf16 with bf16 weights on a CPU with a fast bf16 dot product or AMX, or int8 with int8 ones "
    "and AVX-512 VNNI or AMX");
ABSL_FLAG(int, chunk, 0, "tokens in one step; 0: the whole prompt at once");
ABSL_FLAG(int, page_size, 64, "16, 32 or 64 tokens");
ABSL_FLAG(int, tensor_parallel_size, 1, "1, 2, 4 or 8; beyond 1 the cache tensors are left out");
ABSL_FLAG(std::string, device, "cpu", "cpu or cuda; all ranks share GPU 0");
ABSL_FLAG(bool, batch_invariant, false, "cuda: no library for large linears");
ABSL_FLAG(double, tolerance, 0, "relative; 0: 1e-5, 5e-3 with bf16 state, or 2e-2 with int8");

namespace sessa {
namespace {

constexpr int kMaxTokens = 1 << 24;  // of all sequences

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "check-reference: %s\n", status.ToString().c_str());
  return 2;
}

int Run(const std::string& dir) {
  ModelHarness::Options options;
  for (auto [flag, dtype] : {std::pair{absl::GetFlag(FLAGS_weight_dtype), &options.weight_dtype},
                             std::pair{absl::GetFlag(FLAGS_state_dtype), &options.state_dtype}}) {
    if (flag != "f32" && flag != "bf16" && flag != "int8")
      return Fail(absl::InvalidArgumentError("dtypes are f32, bf16, and int8 for weights and state"));
    *dtype = flag == "f32" ? DType::kF32 : flag == "int8" ? DType::kI8 : DType::kBF16;
  }
  const std::string activations = absl::GetFlag(FLAGS_activation_dtype);
  if (activations != "f32" && activations != "bf16" && activations != "int8")
    return Fail(absl::InvalidArgumentError("--activation_dtype must be f32, bf16 or int8"));
  if (activations != "f32") options.cpu.activation_dtype = activations == "bf16" ? DType::kBF16 : DType::kI8;
  const bool served = options.weight_dtype == DType::kBF16
                          ? CpuHasBf16Dot() || CpuHasAmx()
                          : options.weight_dtype == DType::kI8 && CpuHasAmx();
  if (activations == "int8" && (options.weight_dtype != DType::kI8 || !CpuHasInt8Dot())) {
    return Fail(absl::InvalidArgumentError(
        "--activation_dtype int8 needs int8 weights and a CPU with AVX-512 VNNI or AMX"));
  }
  if (activations == "bf16" && !served) {
    return Fail(absl::InvalidArgumentError(
        "--activation_dtype bf16 needs bf16 weights and a CPU with a fast bf16 dot product, or int8 weights "
        "and AMX"));
  }
  if (CpuHasAmx()) options.cpu.matrix_unit = MatrixUnit::kAmx;
  options.page_size = absl::GetFlag(FLAGS_page_size);
  if (options.page_size != 16 && options.page_size != 32 && options.page_size != 64) {
    return Fail(absl::InvalidArgumentError("--page_size must be 16, 32 or 64"));
  }
  options.ranks = absl::GetFlag(FLAGS_tensor_parallel_size);
  if (options.ranks != 1 && options.ranks != 2 && options.ranks != 4 && options.ranks != 8) {
    return Fail(absl::InvalidArgumentError("--tensor_parallel_size must be 1, 2, 4 or 8"));
  }
  const std::string device = absl::GetFlag(FLAGS_device);
  if (device != "cpu" && device != "cuda")
    return Fail(absl::InvalidArgumentError("--device must be cpu or cuda"));
  if (device == "cuda") {
    options.make_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
      auto ranks =
          MakeRanks({.type = DeviceType::kCuda, .batch_invariant = absl::GetFlag(FLAGS_batch_invariant)});
      if (!ranks.ok()) return ranks.status();
      return std::move((*ranks)[0].backend);
    };
  }
  if (absl::GetFlag(FLAGS_chunk) < 0) return Fail(absl::InvalidArgumentError("--chunk must not be negative"));
  double tolerance = absl::GetFlag(FLAGS_tolerance);
  if (tolerance <= 0) {
    tolerance = options.state_dtype == DType::kF32 ? 1e-5 : options.state_dtype == DType::kBF16 ? 5e-3 : 2e-2;
  }

  auto checkpoint = Checkpoint::Open(dir);
  if (!checkpoint.ok()) return Fail(checkpoint.status());
  auto expected = SafetensorsFile::Open(dir + "/expected.safetensors");
  if (!expected.ok()) return Fail(expected.status());
  const ModelConfig& config = (*checkpoint)->config();
  const StoredTensor* ids = (*expected)->Find("input_ids");
  if (ids == nullptr || ids->dtype != FileDType::kI64 || ids->shape.size() != 2 || ids->num_bytes == 0) {
    return Fail(
        absl::InvalidArgumentError("expected.safetensors: input_ids [B, T] of int64 is missing or empty"));
  }
  if (ids->num_bytes / 8 > kMaxTokens) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("expected.safetensors: input_ids has more than ", kMaxTokens, " tokens")));
  }
  const auto ids_data = (*expected)->Read(*ids);
  if (!ids_data.ok()) return Fail(ids_data.status());
  const int B = static_cast<int>(ids->shape[0]), T = static_cast<int>(ids->shape[1]);
  const int chunk = absl::GetFlag(FLAGS_chunk) > 0 ? std::min(absl::GetFlag(FLAGS_chunk), T) : T;
  options.max_rows = chunk;
  options.max_tokens = B * T;
  options.max_sequences = B;
  auto harness = ModelHarness::Create(config, **checkpoint, options);
  if (!harness.ok()) return Fail(harness.status());
  std::map<std::string, std::vector<float>> actual;
  const auto append = [&](const std::string& name, const std::vector<float>& values) {
    actual[name].insert(actual[name].end(), values.begin(), values.end());
  };
  for (int b = 0; b < B; ++b) {
    std::vector<int64_t> wide(T);
    std::memcpy(wide.data(), ids_data->get() + int64_t{8} * b * T, 8 * T);
    for (int64_t id : wide) {
      if (id < 0 || id >= config.vocab_size)
        return Fail(absl::OutOfRangeError(absl::StrCat("input_ids: ", id, " is not in [0, vocab_size)")));
    }
    const int sequence = (*harness)->AddSequence({wide.begin(), wide.end()});
    if (absl::Status status = (*harness)->Finish(sequence, chunk); !status.ok()) return Fail(status);
    append("logits", (*harness)->logits(sequence));
    for (int l = 0; l < config.num_layers; ++l) {
      append(absl::StrCat("hidden.", l), (*harness)->hidden(sequence, l));
      if (options.ranks > 1) continue;
      constexpr const char* kTensors[] = {".k_f", ".v_f", ".k_b", ".s"};
      for (int t = 0; t < (*harness)->num_paged_tensors(); ++t)
        append(absl::StrCat("cache.", l, kTensors[t]), (*harness)->ReadState(sequence, l, t));
    }
  }
  bool ok = true;
  int compared = 0;
  for (const auto& [name, values] : actual) {
    const StoredTensor* view = (*expected)->Find(name);
    if (view == nullptr) continue;
    if (view->dtype != FileDType::kF32 || view->num_bytes != values.size() * sizeof(float)) {
      return Fail(absl::InvalidArgumentError(
          absl::StrCat("expected.safetensors: ", name, " has a wrong size or dtype")));
    }
    std::vector<float> want(values.size());
    const auto data = (*expected)->Read(*view);
    if (!data.ok()) return Fail(data.status());
    std::memcpy(want.data(), data->get(), view->num_bytes);
    double largest = 0, error = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::abs(double{want[i]}));
      const double difference = std::abs(double{want[i]} - values[i]);
      error = std::isnan(difference) ? INFINITY : std::max(error, difference);
    }
    const bool good = error <= tolerance * largest;
    ok &= good;
    ++compared;
    std::printf("%-16s %.2e%s\n", name.c_str(), largest > 0 ? error / largest : error,
                good ? "" : "  BEYOND TOLERANCE");
  }
  for (const auto& [name, view] : (*expected)->tensors()) {
    if (name == "input_ids" || actual.contains(name) ||
        (options.ranks > 1 && absl::StartsWith(name, "cache.")))
      continue;
    std::printf("%-16s the model has no such tensor\n", std::string(name).c_str());
    ok = false;
  }
  ok &= compared > 0;
  std::printf("%s: %d tensors, tolerance %.0e, weights %s, state %s, chunk %d, page %d, ranks %d\n",
              ok ? "ok" : "FAILED", compared, tolerance, Name(options.weight_dtype),
              Name(options.state_dtype), chunk, options.page_size, options.ranks);
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("sessa-check-reference DIR [flags]");
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  if (arguments.size() != 2) {
    std::fprintf(stderr, "usage: sessa-check-reference DIR [flags]; --help lists them\n");
    return 2;
  }
#ifdef SESSA_CUDA
  sessa::ApplyCudaSwitches();
#endif
  return sessa::Run(arguments[1]);
}
