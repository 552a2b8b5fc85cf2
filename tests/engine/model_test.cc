// The model through its real kernels and paged state: against the published outputs, against the oracle at
// other sizes, and against itself, bit for bit, however the rows are cut, batched and dealt out to ranks.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/checkpoint.h"
#include "tests/engine/impulse_model.h"
#include "tests/engine/model_harness.h"
#include "tests/engine/published_folder.h"
#include "tests/reference/random_model.h"
#include "tests/reference/reference_model.h"

namespace sessa {
namespace {

std::unique_ptr<ModelHarness> Harness(const ModelConfig& config, const WeightSource& weights,
                                      ModelHarness::Options options) {
  auto harness = ModelHarness::Create(config, weights, options);
  EXPECT_TRUE(harness.ok()) << harness.status();
  return *std::move(harness);
}

class PublishedTest : public testing::TestWithParam<const char*> {
 protected:
  // Steep scores double the error that rounded keys give.
  double ToleranceOfBf16State() const {
    const std::string folder = GetParam();
    if (folder == "llama" || folder == "mistral") return 2e-2;
    return Folder(folder).checkpoint->config().model_type == "sessa" ? 5e-3 : 1e-2;
  }
  void ExpectAgreement(const Folder& folder, ModelHarness* harness, int sequence, int b, double tolerance) {
    const ModelConfig& config = folder.checkpoint->config();
    const auto expect = [&](const std::string& tensor, const std::vector<float>& actual) {
      EXPECT_LE(Error(folder.Expected(tensor, b), actual, folder.Largest(tensor)), tolerance) << tensor;
    };
    for (int l = 0; l < config.num_layers; ++l) {
      const std::string hidden = absl::StrCat("hidden.", l);
      if (folder.expected->Find(hidden) != nullptr) expect(hidden, harness->hidden(sequence, l));
      const std::string cache = absl::StrCat("cache.", l);
      if (folder.expected->Find(cache + ".s") == nullptr) continue;  // `long` comes without the cache
      int tensor = 0;
      for (const char* name : {".k_f", ".v_f", ".k_b", ".s"})
        expect(cache + name, harness->ReadState(sequence, l, tensor++));
    }
    expect("logits", harness->logits(sequence));
  }
};

TEST_P(PublishedTest, WholeChunkedAndTokenByToken) {
  const Folder folder(GetParam());
  const ModelConfig& config = folder.checkpoint->config();
  std::vector<float> whole;
  for (int page_size : {16, 64}) {
    for (int chunk : {folder.T, 1, page_size - 1, page_size, page_size + 1, 100}) {
      SCOPED_TRACE(absl::StrCat("page ", page_size, " chunk ", chunk));
      auto harness = Harness(config, *folder.checkpoint, {.page_size = page_size, .max_rows = folder.T});
      const int sequence = harness->AddSequence(folder.ids[0]);
      ASSERT_TRUE(harness->Finish(sequence, chunk).ok());
      ExpectAgreement(folder, harness.get(), sequence, 0, 1e-5);
      if (whole.empty()) whole = harness->logits(sequence);
      EXPECT_EQ(whole, harness->logits(sequence)) << "bits differ";
    }
  }
}

TEST_P(PublishedTest, ReducedPrecision) {
  const Folder folder(GetParam());
  for (DType state : {DType::kF32, DType::kBF16}) {
    std::vector<float> whole;
    for (int chunk : {folder.T, 1, 33}) {
      SCOPED_TRACE(absl::StrCat(Name(state), " chunk ", chunk));
      auto harness = Harness(folder.checkpoint->config(), *folder.checkpoint,
                             {.weight_dtype = DType::kBF16, .state_dtype = state, .max_rows = folder.T});
      const int sequence = harness->AddSequence(folder.ids[0]);
      ASSERT_TRUE(harness->Finish(sequence, chunk).ok());
      // The weights are exact in bf16.
      ExpectAgreement(folder, harness.get(), sequence, 0,
                      state == DType::kF32 ? 1e-5 : ToleranceOfBf16State());
      if (whole.empty()) whole = harness->logits(sequence);
      EXPECT_EQ(whole, harness->logits(sequence)) << "bits differ";
    }
  }
}

TEST_P(PublishedTest, BatchIsAlone) {
  const Folder folder(GetParam());
  const ModelConfig& config = folder.checkpoint->config();
  auto alone = Harness(config, *folder.checkpoint, {.max_rows = folder.T});
  auto batch = Harness(config, *folder.checkpoint, {.max_rows = folder.T, .cpu = {.num_threads = 2}});
  std::vector<int> left;
  for (int b = 0; b < folder.B; ++b) {
    ASSERT_TRUE(alone->Finish(alone->AddSequence(folder.ids[b]), folder.T).ok());
    ExpectAgreement(folder, alone.get(), b, b, 1e-5);
    batch->AddSequence(folder.ids[b]);
    left.push_back(folder.T);
  }
  // A stranger with other lengths beside them.
  batch->AddSequence(std::vector<int32_t>(folder.ids[0].rbegin(), folder.ids[0].rend() - 7));
  left.push_back(folder.T - 7);
  std::mt19937 random(7);
  for (bool any = true; any;) {
    any = false;
    std::vector<ModelHarness::Piece> pieces;
    for (size_t i = 0; i < left.size(); ++i) {
      const int n = std::min<int>(left[i], random() % 40);
      if (n > 0) pieces.push_back({static_cast<int>(i), n});
      left[i] -= n;
      any |= left[i] > 0;
    }
    if (pieces.empty()) continue;
    ASSERT_TRUE(batch->Step(pieces).ok());
  }
  for (int b = 0; b < folder.B; ++b) EXPECT_EQ(alone->logits(b), batch->logits(b)) << "bits differ";
}

TEST_P(PublishedTest, RanksGiveTheSameBits) {
  const Folder folder(GetParam());
  for (DType state : {DType::kF32, DType::kBF16}) {
    std::vector<float> one;
    for (int ranks : {1, 2, 4, 8}) {
      for (int page_size : {16, 64}) {
        auto harness = Harness(folder.checkpoint->config(), *folder.checkpoint,
                               {.ranks = ranks, .state_dtype = state, .page_size = page_size});
        const int sequence = harness->AddSequence(folder.ids[0]);
        ASSERT_TRUE(harness->Step({{sequence, 3}}).ok());
        const absl::Status finished = harness->Finish(sequence, 61);
        ASSERT_TRUE(finished.ok()) << finished;
        if (one.empty()) one = harness->logits(sequence);
        EXPECT_EQ(one, harness->logits(sequence)) << ranks << " ranks, pages of " << page_size;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, PublishedTest,
                         testing::Values("mha", "gqa", "one_head", "no_rope", "long", "llama", "llama_v4",
                                         "mamba2", "mamba2_one_group", "matched_attention", "matched_mamba2",
                                         "mistral", "qwen2", "qwen3", "smollm2"),
                         [](const auto& info) { return std::string(info.param); });

// Sizes that are no multiple of anything the kernels like.
TEST(ModelTest, AgreesWithOracleAtOddSizes) {
  for (auto [D, H, K, V, L] :
       {std::array{6, 3, 1, 5, 2}, std::array{40, 2, 2, 33, 1}, std::array{72, 6, 3, 17, 2},
        std::array{130, 1, 1, 257, 1}, std::array{24, 12, 4, 100, 3}}) {
    SCOPED_TRACE(absl::StrCat("D ", D, " H ", H));
    ModelConfig config;
    config.hidden_size = D, config.num_heads = H, config.num_kv_heads = K, config.vocab_size = V,
    config.num_layers = L;
    config.tie_word_embeddings = L % 2 == 0;
    config.eos_token_ids = {0};
    ASSERT_TRUE(config.Validate().ok()) << config.Validate();
    const auto weights = RandomModel(config, 11 + D);
    std::mt19937 random(D);
    std::vector<int32_t> ids(150);
    for (int32_t& id : ids) id = random() % V;
    const auto oracle = ReferenceModel(config, *weights).Forward(ids);
    ASSERT_TRUE(oracle.ok()) << oracle.status();
    for (int ranks : {1, 4}) {
      auto harness = Harness(config, *weights, {.ranks = ranks, .cpu = {.num_threads = 2}});
      ASSERT_TRUE(harness->Finish(harness->AddSequence(ids), 37).ok());
      EXPECT_LE(Error(oracle->logits, harness->logits(0)), 2e-5);
      EXPECT_LE(Error(oracle->layers[L - 1].hidden, harness->hidden(0, L - 1)), 2e-5);
    }
  }
}

TEST(ModelTest, LoadNamesTheTensorThatIsWrong) {
  ModelConfig config = ImpulseConfig(16);
  MapWeights weights = ImpulseWeights(config, 0.5);
  weights.Set("layers.0.mixer.v_proj.weight", {kImpulseD, 3}, std::vector<float>(3 * kImpulseD));
  auto harness = ModelHarness::Create(config, weights, {});
  EXPECT_EQ(harness.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(harness.status().message().find("layers.0.mixer.v_proj.weight has shape [16, 3]"),
            std::string::npos)
      << harness.status();
  config.num_layers = 2;
  harness = ModelHarness::Create(config, ImpulseWeights(config, 0.5), {});
  EXPECT_EQ(harness.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(harness.status().message().find("layers.1.ln.weight"), std::string::npos) << harness.status();
}

}  // namespace
}  // namespace sessa
