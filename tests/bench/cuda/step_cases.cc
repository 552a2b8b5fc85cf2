#include "tests/bench/cuda/step_cases.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/communicator.h"
#include "kernels/cuda/backend.h"
#include "kernels/round.h"
#include "tests/reference/random_model.h"

namespace sessa {
namespace {

// One random layer in the place of all: drawing those of shape C would take longer than the benchmarks. The
// device has a copy for each.
class SameLayers final : public WeightSource {
 public:
  explicit SameLayers(ModelConfig config) {
    config.num_layers = 1;
    model_ = RandomModel(config, 1, DType::kBF16);
  }
  absl::StatusOr<TensorView> Get(std::string_view name) const override {
    constexpr std::string_view kLayers = "layers.";
    if (!name.starts_with(kLayers)) return model_->Get(name);
    return model_->Get("layers.0" + std::string(name.substr(name.find('.', kLayers.size()))));
  }

 private:
  std::unique_ptr<WeightSource> model_;
};

}  // namespace

StepPlan PlanOf(int batch, int rows, int context) {
  const int of_sequence = CeilDiv(context + rows, kPage);
  std::vector<int32_t> pages(of_sequence * batch);
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(1));  // as in a server after a while
  StepPlan plan;
  for (int b = 0; b < batch; ++b) {
    PlanSequence& s = plan.sequences.emplace_back();
    s.first_row = b * rows;
    s.num_rows = rows;
    s.start = context;
    s.pages.assign(pages.begin() + b * of_sequence, pages.begin() + (b + 1) * of_sequence);
    for (int r = 0; r < rows; ++r) {
      plan.token_ids.push_back((b * 37 + r) % 100);
      plan.positions.push_back(context + r);
    }
  }
  return plan;
}

absl::StatusOr<std::unique_ptr<BenchModel>> BenchModel::Create(BenchDevice* device, const std::string& name,
                                                               const ModelConfig& config, int max_rows) {
  std::unique_ptr<BenchModel> bench(new BenchModel(device, name, max_rows));
  bench->communicator_ = std::move(MakeThreadCommunicators(1)[0]);
  auto model = Model::Load(config, SameLayers(config), {DType::kBF16, DType::kBF16, max_rows},
                           device->backend(), bench->communicator_.get());
  if (!model.ok()) return model.status();
  bench->model_ = *std::move(model);
  return bench;
}

absl::StatusOr<Measurement> BenchModel::MeasureStep(int batch, int rows, int context, double target) {
  const ModelConfig& config = model_->config();
  if (batch * rows > max_rows_) return absl::InvalidArgumentError("more rows than the model was made for");
  const StepPlan plan = PlanOf(batch, rows, context);
  const int num_pages = static_cast<int>(plan.sequences.size() * plan.sequences[0].pages.size());
  auto cache = StateCache::Create(model_->StateShapes(), {kPage, num_pages, 1, batch}, 0, device_->backend());
  if (!cache.ok()) return cache.status();
  for (int l = 0; l < config.num_layers; ++l) {
    for (const PagedTensor& t : cache->layer(l)->paged)
      device_->FillRandom(t.data.data(), t.data.size(), t.shape.dtype);
  }
  std::vector<int32_t> last_rows;
  for (const PlanSequence& s : plan.sequences) last_rows.push_back(s.first_row + s.num_rows - 1);
  float logit = 0;
  const GraphCounts before = GraphCountsOf(*device_->backend());
  auto seconds = device_->Time([&] {
    const Matrix logits = model_->Forward(plan, last_rows, &*cache);
    device_->backend()->CopyOut(logits.data, sizeof logit, &logit);  // or the step might not have begun
  });
  if (!seconds.ok()) return seconds.status();
  const GraphCounts after = GraphCountsOf(*device_->backend());
  const bool decode = rows == 1;
  std::string note;  // a step outside of its graph is another step
  if (decode) {
    note = absl::StrCat(after.captures - before.captures, " captured, ", after.launches - before.launches,
                        " replayed", after.failure.empty() ? "" : ": ", after.failure);
  }
  return Measurement{decode ? absl::StrCat("DecodeStep/", name_, "/batch:", batch, "/context:", context)
                            : absl::StrCat("PrefillStep/", name_, "/rows:", rows, "/context:", context),
                     *std::move(seconds),
                     StepWork(config, batch, rows, context),
                     {target == 0 ? Target::kNone
                      : decode    ? Target::kShareOfCopy
                                  : Target::kShareOfGemm,
                      target},
                     std::move(note)};
}

Measurement WholePrefill(const std::string& name, const ModelConfig& config, const Measurement& first,
                         const Measurement& last, int rows, int num_chunks, double target) {
  Measurement whole{absl::StrCat("Prefill/", name, "/rows:", rows * num_chunks, " (from those two)"),
                    {num_chunks * (Median(first.seconds) + Median(last.seconds)) / 2},
                    {},
                    {target == 0 ? Target::kNone : Target::kShareOfGemm, target}};
  for (int i = 0; i < num_chunks; ++i) whole.work = whole.work + StepWork(config, 1, rows, i * rows);
  return whole;
}

}  // namespace sessa
