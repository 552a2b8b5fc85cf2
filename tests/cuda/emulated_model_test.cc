// Whole models through the CUDA backend on the emulator: the published outputs, and the same bits for every
// cut, batch and number of ranks. cuBLASLt is not run here; a plain loop stands in for it (plain_gemm.cc).
#include <gtest/gtest.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/backend.h"
#include "tests/cuda/device_guard.h"
#include "tests/engine/model_harness.h"
#include "tests/engine/published_folder.h"
#include "tests/kernels/targets.h"

namespace sessa {
namespace {

class EmulatedModelTest : public testing::TestWithParam<const char*> {
 protected:
  EmulatedModelTest() : folder_(GetParam()) {}

  std::unique_ptr<ModelHarness> Run(ModelHarness::Options options, bool batch_invariant, int chunk) {
    options.max_rows = folder_.T;
    options.make_backend = [=] { return MakeCudaBackend({.batch_invariant = batch_invariant}); };
    auto harness = ModelHarness::Create(folder_.checkpoint->config(), *folder_.checkpoint, options);
    EXPECT_TRUE(harness.ok()) << harness.status();
    const int sequence = (*harness)->AddSequence(folder_.ids[0]);
    const absl::Status finished = (*harness)->Finish(sequence, chunk);
    EXPECT_TRUE(finished.ok()) << finished;
    return *std::move(harness);
  }

  void ExpectAgreement(ModelHarness* harness, double tolerance, bool cache = true) {
    const auto expect = [&](const std::string& tensor, const std::vector<float>& actual) {
      EXPECT_LE(Error(folder_.Expected(tensor, 0), actual, folder_.Largest(tensor)), tolerance) << tensor;
    };
    expect("logits", harness->logits(0));
    for (int l = 0; l < folder_.checkpoint->config().num_layers; ++l) {
      const std::string hidden = absl::StrCat("hidden.", l);
      if (folder_.expected->Find(hidden) != nullptr) expect(hidden, harness->hidden(0, l));
      if (!cache || folder_.expected->Find(absl::StrCat("cache.", l, ".s")) == nullptr) continue;
      int tensor = 0;
      for (const char* name : {".k_f", ".v_f", ".k_b", ".s"})
        expect(absl::StrCat("cache.", l, name), harness->ReadState(0, l, tensor++));
    }
  }

  // Of results in bf16: the scores of some families are steep, and move with rounded keys.
  double Steep() const { return folder_.checkpoint->config().model_type == "sessa" ? 1 : 4; }

  const Folder folder_;
};

TEST_P(EmulatedModelTest, AgreesInF32) {
  for (auto [chunk, page_size] : {std::pair{folder_.T, 64}, {33, 16}}) {
    SCOPED_TRACE(absl::StrCat("chunk ", chunk));
    ExpectAgreement(Run({.page_size = page_size}, false, chunk).get(), 1e-5);
  }
}

TEST_P(EmulatedModelTest, AgreesInBf16) {
  ModelHarness::Options options{.weight_dtype = DType::kBF16, .state_dtype = DType::kBF16};
  // Whole: the inputs of linears of 64 rows or more are rounded too, not only queries and probabilities.
  ExpectAgreement(Run(options, false, folder_.T).get(), 2e-2 * Steep());
  ExpectAgreement(Run(options, false, 33).get(), 1e-2 * Steep());
  options.ranks = 2;
  ExpectAgreement(Run(options, false, folder_.T).get(), 2e-2 * Steep(), /*cache=*/false);
}

TEST_P(EmulatedModelTest, BatchInvariantIsTheSameBits) {
  const ModelHarness::Options options{.weight_dtype = DType::kBF16, .state_dtype = DType::kBF16};
  const auto whole = Run(options, true, folder_.T);
  ExpectAgreement(whole.get(), 5e-3 * Steep());
  for (int chunk : {1, 33})
    EXPECT_EQ(whole->logits(0), Run(options, true, chunk)->logits(0)) << "chunk " << chunk;
  for (int ranks : {2, 4}) {
    ModelHarness::Options several = options;
    several.ranks = ranks;
    const auto harness = Run(several, true, 50);
    ExpectAgreement(harness.get(), 5e-3 * Steep(), /*cache=*/false);
    EXPECT_EQ(whole->logits(0), harness->logits(0)) << ranks << " ranks";
  }
}

TEST_P(EmulatedModelTest, Int8Weights) {
  const ModelHarness::Options options{.weight_dtype = DType::kI8};
  // The CPU's kernels of before AVX-512 have the same weights; activations are rounded to 16 bits there.
  std::optional<OnlyTargets> only(hwy::SupportedTargets() & ~(HWY_AVX2 - 1));
  auto cpu = *ModelHarness::Create(folder_.checkpoint->config(), *folder_.checkpoint, options);
  ASSERT_TRUE(cpu->Finish(cpu->AddSequence(folder_.ids[0]), folder_.T).ok());
  only.reset();
  const auto whole = Run(options, true, folder_.T);
  EXPECT_LE(Error(cpu->logits(0), whole->logits(0)), 1e-3);
  EXPECT_LE(Error(cpu->logits(0), Run(options, false, folder_.T)->logits(0)), 2e-2 * Steep());
  for (int chunk : {1, 33})
    EXPECT_EQ(whole->logits(0), Run(options, true, chunk)->logits(0)) << "chunk " << chunk;
}

TEST_P(EmulatedModelTest, Int8State) {
  if (folder_.checkpoint->config().mamba() != nullptr) return;  // its state is float32 always
  ModelHarness::Options options{.state_dtype = DType::kI8};
  const auto whole = Run(options, true, folder_.T);
  ExpectAgreement(whole.get(), 2e-2 * Steep());
  EXPECT_EQ(whole->logits(0), Run(options, true, 33)->logits(0));
  ExpectAgreement(Run(options, false, folder_.T).get(), 2e-2 * Steep());
  options.ranks = 2;
  EXPECT_EQ(whole->logits(0), Run(options, true, 50)->logits(0)) << "2 ranks";
  ExpectAgreement(Run(options, false, 70).get(), 2e-2 * Steep(), /*cache=*/false);
}

// The engine keeps off device memory, which a CPU could not show otherwise.
TEST_P(EmulatedModelTest, NothingElseTouchesDeviceMemory) {
  emulator::GuardDeviceMemory(true);
  ExpectAgreement(Run({.weight_dtype = DType::kBF16}, false, 70).get(), 2e-2 * Steep());
  auto backend = MakeCudaBackend({});
  auto memory = (*backend)->Allocate(sizeof(float));
  EXPECT_DEATH(*memory->floats() = 1, "");
  emulator::GuardDeviceMemory(false);
}

TEST(CudaBackendTest, StateIsAtMostAsWideAsItsKernelsTake) {
  const auto backend = *MakeCudaBackend({});
  PagedShape shape{PagedShape::Use::kKey, 1, 32768};
  EXPECT_TRUE(backend->AllocatePages(shape, 16, 0, 1).ok());
  shape.dim = 32769;
  const absl::Status refused = backend->AllocatePages(shape, 16, 0, 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("at most 32768"), std::string::npos) << refused;
}

INSTANTIATE_TEST_SUITE_P(Folders, EmulatedModelTest,
                         testing::Values("gqa", "one_head", "no_rope", "llama", "mistral", "qwen3", "mamba2",
                                         "matched_attention", "matched_mamba2"));

}  // namespace
}  // namespace sessa
