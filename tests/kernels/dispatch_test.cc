// Each instruction set that this machine has and the kernels were built for: the oracle's outputs, the same
// bits for chunks as for the whole, and int8 weights against the oracle with the same weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "kernels/convert.h"
#include "kernels/cpu/int8_linear.h"
#include "kernels/cpu/simd.h"
#include "tests/engine/model_harness.h"
#include "tests/kernels/int8_weights.h"
#include "tests/kernels/targets.h"
#include "tests/reference/random_model.h"
#include "tests/reference/reference_model.h"

namespace sessa {
namespace {

ModelConfig Config(int D, int H, int K) {
  ModelConfig config;
  config.hidden_size = D, config.num_heads = H, config.num_kv_heads = K, config.vocab_size = 150,
  config.num_layers = 2;
  config.eos_token_ids = {0};
  return config;
}

std::vector<int32_t> Tokens(int n) {
  std::mt19937 random(n);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = random() % 150;
  return ids;
}

std::vector<float> Logits(const ModelConfig& config, const WeightSource& weights,
                          const ModelHarness::Options& options, const std::vector<int32_t>& ids, int chunk) {
  auto harness = ModelHarness::Create(config, weights, options);
  EXPECT_TRUE(harness.ok()) << harness.status();
  const int sequence = (*harness)->AddSequence(ids);
  EXPECT_TRUE((*harness)->Finish(sequence, chunk).ok());
  return (*harness)->logits(sequence);
}

// The largest difference, relative to the largest value.
template <class A, class B>
double Error(const std::vector<A>& expected, const std::vector<B>& got) {
  EXPECT_EQ(expected.size(), got.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(expected[i]) - got[i]));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return worst / largest;
}

class DispatchTest : public testing::Test {
 protected:
  // Calls body with each instruction set that the kernels were built for and this machine has, the best one
  // and the fallback at least.
  template <class Body>
  void ForEachTarget(const Body& body) {
    std::set<std::string> names;
    for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
      const OnlyTargets only(targets & -targets);
      if (!names.insert(cpu::Int8TargetName()).second) continue;  // not built: stands for another
      SCOPED_TRACE(cpu::Int8TargetName());
      body();
    }
    EXPECT_TRUE(names.contains(cpu::Int8TargetName()));
    std::printf("ran:%s\n", absl::StrJoin(names, " ").c_str());
  }
};

TEST_F(DispatchTest, GeluIsThatOfTheErrorFunction) {
  std::vector<float> x = {-1e30f, -100, 100, 1e30f};
  for (int i = -4096; i <= 4096; ++i) x.push_back(static_cast<float>(i) / 512);
  const int n = static_cast<int>(x.size());
  ForEachTarget([&] {
    std::vector<float> y(n);
    cpu::ApplyEpilogue(Epilogue::kGelu, x.data(), n, 1, n, y.data(), n);
    for (int i = 0; i < n; ++i) {
      const double exact = x[i] < -5.5f ? 0 : x[i] / 2.0 * (1 + std::erf(x[i] / std::sqrt(2.0)));
      EXPECT_NEAR(y[i], exact, exact == 0 ? 0 : 5e-7 * std::max(1.0f, std::abs(x[i]))) << x[i];
    }
  });
}

TEST_F(DispatchTest, EveryInstructionSetAgreesWithTheOracle) {
  for (const auto& shape : {std::array{192, 6, 2}, std::array{130, 1, 1}, std::array{64, 8, 1}}) {
    const int D = shape[0];
    const ModelConfig config = Config(D, shape[1], shape[2]);
    const auto weights = RandomModel(config, D);
    const std::vector<int32_t> ids = Tokens(200);
    const auto oracle = ReferenceModel(config, *weights).Forward(ids);
    ASSERT_TRUE(oracle.ok()) << oracle.status();
    ForEachTarget([&] {
      for (DType state : {DType::kF32, DType::kI8}) {
        SCOPED_TRACE(testing::Message() << "D " << D << ", state " << Name(state));
        ModelHarness::Options options{.state_dtype = state, .cpu = {.num_threads = 2}};
        const std::vector<float> whole = Logits(config, *weights, options, ids, 200);
        EXPECT_LE(Error(oracle->logits, whole), state == DType::kF32 ? 2e-5 : 2e-2);
        options.cpu.num_threads = 1;
        for (int chunk : {1, 5, 13, 64, 77})
          EXPECT_EQ(whole, Logits(config, *weights, options, ids, chunk)) << "chunk " << chunk;
      }
    });
  }
}

// Another source's weights (of f32), changed on the way.
class AlteredWeights : public WeightSource {
 public:
  using Alter = std::function<void(const std::string& name, const std::vector<int64_t>& shape,
                                   std::vector<float>* values)>;
  AlteredWeights(const WeightSource& base, Alter alter) : base_(base), alter_(std::move(alter)) {}
  absl::StatusOr<TensorView> Get(std::string_view name) const override {
    auto view = base_.Get(name);
    if (!view.ok()) return view;
    const auto [it, inserted] = values_.try_emplace(std::string(name));
    if (inserted) {
      const float* in = static_cast<const float*>(view->data);
      int64_t n = 1;
      for (int64_t size : view->shape) n *= size;
      it->second.assign(in, in + n);
      alter_(it->first, view->shape, &it->second);
    }
    view->data = it->second.data();
    return view;
  }

 private:
  const WeightSource& base_;
  const Alter alter_;
  mutable std::map<std::string, std::vector<float>> values_;
};

// The linear layers' weights, as `round` leaves those of an output.
auto RoundOutputs(void (*round)(absl::Span<float>)) {
  return [round](const std::string& name, const std::vector<int64_t>& shape, std::vector<float>* w) {
    if (shape.size() != 2 || name == "embed.weight" || name.find("gamma_ctx") != std::string::npos) return;
    for (int64_t j = 0; j < shape[0]; ++j) round(absl::MakeSpan(*w).subspan(j * shape[1], shape[1]));
  };
}

TEST_F(DispatchTest, Int8IsTheModelOfTheRoundedWeights) {
  ModelConfig config = Config(192, 6, 2);
  config.tie_word_embeddings = false;  // the table of the input stays as it is
  const auto weights = RandomModel(config, 3);
  const AlteredWeights in_groups(*weights, RoundOutputs(RoundInGroups)),
      rotated(*weights, RoundOutputs(RoundRotated));
  const std::vector<int32_t> ids = Tokens(150);
  const auto of_groups = ReferenceModel(config, in_groups).Forward(ids),
             of_rotated = ReferenceModel(config, rotated).Forward(ids),
             exact = ReferenceModel(config, *weights).Forward(ids);
  ASSERT_TRUE(of_groups.ok() && of_rotated.ok() && exact.ok());
  ForEachTarget([&] {
    const auto& oracle = CpuHasInt8Dot() ? of_rotated : of_groups;
    const std::vector<float> whole = Logits(config, *weights, {.weight_dtype = DType::kI8}, ids, 150);
    EXPECT_LE(Error(oracle->logits, whole), 3e-4);  // activations are rounded to 16 bits
    EXPECT_LE(Error(exact->logits, whole), 3e-2);
    for (int chunk : {1, 5, 13, 77})
      EXPECT_EQ(whole, Logits(config, *weights, {.weight_dtype = DType::kI8}, ids, chunk));
    EXPECT_EQ(whole, Logits(config, *weights, {.ranks = 4, .weight_dtype = DType::kI8}, ids, 40));
  });
}

// The kernels alone: the same bits on every instruction set with FMA and for every number of rows, near the
// product in double; also when nothing is a multiple of anything.
TEST_F(DispatchTest, Int8KernelsHaveTheSameBitsEverywhere) {
  for (auto sizes : {std::pair{1, 1}, {16, 64}, {70, 65}, {33, 200}, {64, 128}}) {
    const int n = sizes.first, k = sizes.second;
    SCOPED_TRACE(testing::Message() << "n " << n << ", k " << k);
    constexpr int kRows = 41;
    std::mt19937 random(n);
    std::normal_distribution<float> normal;
    std::vector<float> weights(n * k), a(kRows * k), bias(n);
    for (auto* v : {&weights, &a, &bias}) {
      for (float& x : *v) x = normal(random);
    }
    a[k / 2] = 1000;                                          // an outlier, in the first row
    std::fill(a.begin() + k, a.begin() + 2 * k, 0.0f);        // zeros
    std::fill(a.begin() + 2 * k, a.begin() + 3 * k, 1e-35f);  // counts as zeros
    a[4 * k - 1] = std::nanf("");
    a[5 * k - 1] = -std::numeric_limits<float>::infinity();
    const int panels = CeilDiv(n, 16);
    std::vector<int8_t> data(panels * cpu::Int8PanelSize(k));
    std::vector<uint16_t> scales(panels * cpu::Int8PanelScales(k));
    for (int p = 0; p < panels; ++p) {
      cpu::QuantizePanel(weights.data() + p * 16 * k, k, std::min(16, n - p * 16), k,
                         data.data() + p * cpu::Int8PanelSize(k),
                         scales.data() + p * cpu::Int8PanelScales(k));
    }
    const std::vector<int64_t> shape = {n, k};
    RoundOutputs(RoundInGroups)("w", shape, &weights);
    std::vector<float> first;
    const auto product = [&](int row, int m) {
      std::vector<uint32_t> packed(cpu::QuantizedSize(m, k));
      for (int t = 0; t < cpu::NumRowTiles(m); ++t)
        cpu::QuantizeRows(a.data() + row * k, k, m, k, t, packed.data());
      std::vector<float> c(m * n), scratch(cpu::Int8Scratch());
      cpu::Int8LinearPanels(packed.data(), m, {data.data(), scales.data(), n, k}, bias.data(), 0, panels,
                            c.data(), n, scratch.data());
      return c;
    };
    const auto bits = [](const std::vector<float>& c) {
      std::vector<uint32_t> words(c.size());
      std::transform(c.begin(), c.end(), words.begin(), [](float x) { return std::bit_cast<uint32_t>(x); });
      return words;
    };
    ForEachTarget([&] {
      const std::vector<float> all = product(0, kRows);
      const std::string target = cpu::Int8TargetName();
      if (target != "SCALAR" && target != "EMU128") {  // those have no fused multiply-add
        if (first.empty()) first = all;
        EXPECT_EQ(bits(first), bits(all));
      }
      for (int m : {1, 2, 4, 5, 12, 13}) {
        for (int row = 0; row + m <= kRows; row += m) {
          const std::vector<float> part = product(row, m);
          EXPECT_EQ(bits(part), bits({all.begin() + row * n, all.begin() + (row + m) * n}))
              << "rows " << row << " + " << m;
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int j = 0; j < n; ++j) {
          if (r == 3 || r == 4) {
            EXPECT_TRUE(std::isnan(all[r * n + j]));
            continue;
          }
          double sum = bias[j], size = 0;
          float largest = 0;
          for (int i = 0; i < k; ++i) {
            sum += static_cast<double>(a[r * k + i]) * weights[j * k + i];
            size += std::abs(weights[j * k + i]);
            largest = std::max(largest, std::abs(a[r * k + i]));
          }
          EXPECT_NEAR(sum, all[r * n + j], largest * size / 65534 + 1e-5 + 1e-6 * std::abs(sum))
              << "row " << r << ", output " << j;
        }
      }
    });
  }
}

// Every bit pattern class: NaN whose payload lies in the lower half alone must not become an infinity.
TEST_F(DispatchTest, RoundingToBf16IsThatOfTheHost) {
  std::mt19937 random(5);
  std::vector<float> x;
  for (uint32_t bits : {0x7f800001u, 0xff80ffffu, 0x7fc00000u, 0x7f800000u, 0xff800000u, 0x00000001u,
                        0x80000000u, 0x7f7fffffu}) {
    x.push_back(std::bit_cast<float>(bits));
  }
  while (x.size() < 1003) x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  const int n = static_cast<int>(x.size());
  std::vector<uint16_t> expected;
  for (float value : x) expected.push_back(RoundToBf16(value));
  ForEachTarget([&] {
    std::vector<uint16_t> stored(n);
    cpu::Store(x.data(), n, DType::kBF16, stored.data());
    EXPECT_EQ(expected, stored);
  });
  if (!CpuHasBf16Dot()) return;
  std::vector<cpu::Bf16Pair> pairs(cpu::PackedPairs(1, n));
  cpu::PackPairs(x.data(), n, 1, n, 0, 1, pairs.data());
  for (int i = 0; i < n; ++i)
    EXPECT_EQ(expected[i], static_cast<uint16_t>(pairs[i / 2].bits >> (i % 2 * 16))) << i;
  EXPECT_EQ(pairs.back().bits >> 16, 0u);  // n is odd
}

// Inputs of linears are rounded to bf16: a coarser model, but the same bits however rows are cut, batched and
// dealt out.
TEST_F(DispatchTest, Bf16DotProduct) {
  if (!CpuHasBf16Dot()) GTEST_SKIP() << "this CPU has no fast bf16 dot product";
  for (auto [D, H, K] :
       {std::array{192, 6, 2}, std::array{64, 1, 1}, std::array{65, 1, 1}}) {  // odd: half a pair
    ModelConfig config = Config(D, H, K);
    config.use_forward_rope = D % 2 == 0;
    const auto weights = RandomModel(config, D);
    const std::vector<int32_t> ids = Tokens(150);
    const auto oracle = ReferenceModel(config, *weights).Forward(ids);
    ASSERT_TRUE(oracle.ok()) << oracle.status();
    std::vector<float> by_state[2];
    for (DType state : {DType::kF32, DType::kBF16}) {  // of bf16 the reads are dot products too
      SCOPED_TRACE(testing::Message() << "D " << D << ", state " << Name(state));
      ModelHarness::Options options{
          .weight_dtype = DType::kBF16, .state_dtype = state, .cpu = {.activation_dtype = DType::kBF16}};
      const std::vector<float> whole = Logits(config, *weights, options, ids, 150);
      EXPECT_LE(Error(oracle->logits, whole), 1e-2);
      EXPECT_GE(Error(oracle->logits, whole), 1e-5) << "activations were not rounded";
      for (int chunk : {1, 3, 5, 13, 26, 77})
        EXPECT_EQ(whole, Logits(config, *weights, options, ids, chunk)) << "chunk " << chunk;
      by_state[state == DType::kBF16] = whole;
      options.ranks = 4;
      options.cpu.num_threads = 2;
      EXPECT_EQ(whole, Logits(config, *weights, options, ids, 40));
    }
    EXPECT_NE(by_state[0], by_state[1]);
  }
}

// The processor's tiles and their model: the same bits, however rows are cut, batched and dealt out. Float32
// activations are as exact as the vector unit's to 1e-5; one bf16 term is coarser.
TEST_F(DispatchTest, MatrixUnit) {
  for (auto [D, H, K] : {std::array{96, 3, 1}, std::array{65, 1, 1}}) {
    ModelConfig config = Config(D, H, K);
    config.use_forward_rope = D % 2 == 0;
    const auto weights = RandomModel(config, D, DType::kBF16);
    const std::vector<int32_t> ids = Tokens(50);
    const auto oracle = ReferenceModel(config, *weights).Forward(ids);
    ASSERT_TRUE(oracle.ok()) << oracle.status();
    for (auto [bf16_activations, state] :
         {std::pair{false, DType::kF32}, {true, DType::kF32}, {false, DType::kI8}, {true, DType::kI8}}) {
      if (state == DType::kI8 && D != 96) continue;  // the model is slow
      SCOPED_TRACE(testing::Message()
                   << "D " << D << ", bf16 activations " << bf16_activations << ", state " << Name(state));
      ModelHarness::Options options{.weight_dtype = DType::kBF16, .state_dtype = state};
      options.cpu = {.num_threads = 2,
                     .activation_dtype = bf16_activations ? DType::kBF16 : DType::kF32,
                     .matrix_unit = MatrixUnit::kAmxModel};
      const std::vector<float> whole = Logits(config, *weights, options, ids, 50);
      EXPECT_LE(Error(oracle->logits, whole), state == DType::kI8 ? 2e-2 : bf16_activations ? 1e-2 : 1e-5);
      if (bf16_activations) {
        EXPECT_GE(Error(oracle->logits, whole), 1e-5) << "activations were not rounded";
      }
      if (CpuHasAmx()) options.cpu.matrix_unit = MatrixUnit::kAmx;
      for (int chunk : {1, 16, 33, 50})
        EXPECT_EQ(whole, Logits(config, *weights, options, ids, chunk)) << "chunk " << chunk;
      options.ranks = 4;
      EXPECT_EQ(whole, Logits(config, *weights, options, ids, 20));
    }
  }
  std::printf("ran: %s\n", CpuHasAmx() ? "AMX and its model" : "the model of AMX");
}

// Int8 weights there: the model of the rounded weights; 8 bits of activations cost more than 16.
TEST_F(DispatchTest, MatrixUnitOfInt8Weights) {
  ModelConfig config = Config(96, 3, 1);
  config.tie_word_embeddings = false;
  const auto weights = RandomModel(config, 4);
  const AlteredWeights rounded(*weights, RoundOutputs(RoundRotated));
  const std::vector<int32_t> ids = Tokens(40);
  const auto oracle = ReferenceModel(config, rounded).Forward(ids);
  ASSERT_TRUE(oracle.ok()) << oracle.status();
  double before = 0;
  for (auto [activations, error] : {std::pair{DType::kF32, 2e-4}, {DType::kBF16, 1e-2}, {DType::kI8, 3e-2}}) {
    SCOPED_TRACE(testing::Message() << "activations " << Name(activations));
    ModelHarness::Options options{.weight_dtype = DType::kI8};
    options.cpu = {.num_threads = 2, .activation_dtype = activations, .matrix_unit = MatrixUnit::kAmxModel};
    const std::vector<float> whole = Logits(config, *weights, options, ids, 40);
    EXPECT_LE(Error(oracle->logits, whole), error);
    EXPECT_GE(Error(oracle->logits, whole), activations == DType::kI8 ? 10 * before : before);
    before = Error(oracle->logits, whole);
    if (CpuHasAmx()) options.cpu.matrix_unit = MatrixUnit::kAmx;
    for (int chunk : {1, 17, 40}) EXPECT_EQ(whole, Logits(config, *weights, options, ids, chunk));
    options.ranks = 4;
    EXPECT_EQ(whole, Logits(config, *weights, options, ids, 20));
    if (!CpuHasInt8Dot()) continue;
    options.cpu.matrix_unit = MatrixUnit::kVector;
    for (int chunk : {1, 17, 40}) EXPECT_EQ(whole, Logits(config, *weights, options, ids, chunk));
  }
}

TEST_F(DispatchTest, Int8RefusesWhatItCannotHold) {
  const ModelConfig config = Config(64, 8, 1);
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const auto finite = RandomModel(config, 1);
    const AlteredWeights weights(*finite,
                                 [bad](const std::string& name, const auto&, std::vector<float>* values) {
                                   if (name == "layers.1.W_out.weight") (*values)[100] = bad;
                                 });
    const auto harness = ModelHarness::Create(config, weights, {.weight_dtype = DType::kI8});
    EXPECT_EQ(harness.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(harness.status().message().find("layers.1.W_out.weight"), std::string::npos)
        << harness.status();
  }
}

}  // namespace
}  // namespace sessa
