// Pins the oracle to the published outputs: every tensor of every folder within 1e-5 of its largest value.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/checkpoint.h"
#include "tests/reference/reference_model.h"

namespace sessa {
namespace {

class ReferenceTest : public testing::TestWithParam<const char*> {};

// Row b of the expected tensor [B, ...] against `actual`.
void ExpectClose(const SafetensorsFile& file, const std::string& name, int b,
                 const std::vector<double>& actual) {
  const StoredTensor* view = file.Find(name);
  ASSERT_NE(view, nullptr) << name;
  ASSERT_EQ(view->num_bytes / 4, actual.size() * view->shape[0]) << name;
  std::vector<float> expected(actual.size());
  std::memcpy(expected.data(), file.Read(*view).value().get() + b * actual.size() * 4, actual.size() * 4);
  double largest = 0, error = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_TRUE(std::isfinite(actual[i])) << name;
    largest = std::max(largest, std::abs(double{expected[i]}));
    error = std::max(error, std::abs(expected[i] - actual[i]));
  }
  EXPECT_GT(largest, 0) << name;
  EXPECT_LE(error, 1e-5 * largest) << name << " of sequence " << b;
}

TEST_P(ReferenceTest, AgreesWithPublishedOutputs) {
  const std::string dir = absl::StrCat(SESSA_REFERENCE_DATA, "/", GetParam());
  auto checkpoint = Checkpoint::Open(dir);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  auto file = SafetensorsFile::Open(dir + "/expected.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const StoredTensor* ids = (*file)->Find("input_ids");
  ASSERT_NE(ids, nullptr);
  const int B = ids->shape[0], T = ids->shape[1];
  const ReferenceModel model((*checkpoint)->config(), **checkpoint);
  for (int b = 0; b < B; ++b) {
    std::vector<int64_t> wide(T);
    std::memcpy(wide.data(), (*file)->Read(*ids).value().get() + int64_t{8} * b * T, 8 * T);
    auto output = model.Forward({wide.begin(), wide.end()});
    ASSERT_TRUE(output.ok()) << output.status();
    for (size_t n = 0; n < output->layers.size(); ++n) {
      const ReferenceLayer& layer = output->layers[n];
      ExpectClose(**file, absl::StrCat("hidden.", n), b, layer.hidden);
      if (std::string(GetParam()) == "long") continue;  // comes without the cache
      ExpectClose(**file, absl::StrCat("cache.", n, ".k_f"), b, layer.k_f);
      ExpectClose(**file, absl::StrCat("cache.", n, ".v_f"), b, layer.v_f);
      ExpectClose(**file, absl::StrCat("cache.", n, ".k_b"), b, layer.k_b);
      ExpectClose(**file, absl::StrCat("cache.", n, ".s"), b, layer.s);
    }
    ExpectClose(**file, "logits", b, output->logits);
  }
  EXPECT_TRUE((*checkpoint)->unused_tensors().empty());
}

INSTANTIATE_TEST_SUITE_P(Published, ReferenceTest,
                         testing::Values("mha", "gqa", "one_head", "no_rope", "long"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sessa
