#include "kernels/cuda/device_step.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace sessa::cuda {
namespace {

// Of the partial results of one launch; about the L2 cache of an H100.
constexpr int64_t kScratchFloats = int64_t{8} << 20;
// The same in a decode step, whose launches must not depend on the contexts: those beyond are read in several
// launches all the same. 1/64 of the state that is read, so this is for 16 GiB of it in bf16.
constexpr int64_t kDecodeScratchFloats = int64_t{64} << 20;
// Blocks of a kernel that run at once on a multiprocessor, by its registers (tests/cuda/check_resources.py).
int BlocksOnMultiprocessor(const ReadGroup& group) {
  switch (group.path) {
    case ReadPath::kFewQueries:
      return group.max_queries == 1 ? 3 : 2;
    case ReadPath::kManyQueries:
      return 1;
    case ReadPath::kTensorCores:
      return 2;
    case ReadPath::kFusedAttention:
      return 0;  // has no work items
  }
  return 0;
}

}  // namespace

DeviceStep::DeviceStep(Context* context, bool use_tensor_cores)
    : context_(context),
      use_tensor_cores_(use_tensor_cores),
      memory_(context->stream()),
      page_memory_(context->stream()) {
  context->Note(
      cudaDeviceGetAttribute(&num_multiprocessors_, cudaDevAttrMultiProcessorCount, context->device()),
      "counting multiprocessors");
}

int DeviceStep::NumCtas(const ReadGroup& group) const {
  return is_decode() ? BlocksOnMultiprocessor(group) * num_multiprocessors_ : group.num_items;
}

void DeviceStep::Begin(const StepRows& rows) {
  memory_.Reset();
  page_memory_.Reset();
  rows_ = &rows;
  attention_.reset();
  waves_.clear();
  num_rows_ = bucket_ = static_cast<int>(rows.positions.size());
  live_ = nullptr;
  const auto has_one_row = [](const RowSpan& s) { return s.num_rows == 1; };
  if (num_rows_ > 0 && num_rows_ <= kMaxDecodeBucket && rows.spans.size() == rows.positions.size() &&
      rows.logit_rows.size() == rows.positions.size() &&
      std::all_of(rows.spans.begin(), rows.spans.end(), has_one_row)) {
    bucket_ = DecodeBucket(num_rows_);
    live_ = memory_.Upload(std::vector<int32_t>{num_rows_});
  }
  fits_graph_ = is_decode();
  token_ids_ = Upload(rows.token_ids, bucket_);
  positions_ = Upload(rows.positions, bucket_);
  logit_rows_ = Upload(rows.logit_rows, bucket_);
  std::vector<int32_t> pages;
  for (const RowSpan& s : rows.spans) pages.insert(pages.end(), s.pages.begin(), s.pages.end());
  const int32_t* table = page_memory_.Upload(pages);
  std::vector<Span> spans;
  span_pages_.clear();
  host_row_span_.clear();
  for (const RowSpan& s : rows.spans) {
    host_row_span_.insert(host_row_span_.end(), s.num_rows, static_cast<int32_t>(spans.size()));
    spans.push_back({s.first_row, s.num_rows, s.start, table});
    span_pages_.push_back(table);
    table += s.pages.size();
  }
  spans_ = Upload(std::move(spans), bucket_);
  row_span_ = Upload(host_row_span_, bucket_);
  std::vector<float> inv_freq(rows.head_dim / 2);
  for (int i = 0; i < static_cast<int>(inv_freq.size()); ++i) {
    inv_freq[i] =
        1.0f / std::pow(rows.rope_theta, static_cast<float>(2 * i) / static_cast<float>(rows.head_dim));
  }
  inv_freq_ = memory_.Upload(inv_freq);
}

void DeviceStep::Send() {
  context_->Note(memory_.Send(), "sending a step");
  context_->Note(page_memory_.Send(), "sending page tables and edits");
}

ReadPlan DeviceStep::MakePlan(std::vector<ReadBlock> blocks, bool feedback, int dim, DType state_dtype,
                              int min_blocks) {
  ReadPlan plan =
      MakeReadPlan(std::move(blocks), {.feedback = feedback,
                                       .tensor_cores = use_tensor_cores_ && state_dtype == DType::kBF16,
                                       .dim = dim,
                                       .max_floats = is_decode() ? kDecodeScratchFloats : kScratchFloats,
                                       .min_blocks = min_blocks});
  fits_graph_ = fits_graph_ && plan.groups.size() == 1 && static_cast<int>(plan.blocks.size()) >= min_blocks;
  plan.device_blocks = memory_.Upload(plan.blocks);
  for (const ReadGroup& g : plan.groups) {
    const bool few = g.path == ReadPath::kFewQueries, tensor_cores = g.path == ReadPath::kTensorCores;
    const int64_t queries = int64_t{g.count} * kMaxQueries;
    context_->Reserve(2 * g.num_tiles * sizeof(float), &tile_stats_);
    context_->Reserve(g.num_tiles * (few ? Padded(dim) : kTile) * sizeof(float), &tile_values_);
    if (feedback && g.path != ReadPath::kManyQueries)
      context_->Reserve(queries * kTile * sizeof(float), &own_p_);
    if (tensor_cores) context_->Reserve(queries * TensorPanelStride(dim) * SizeOf(DType::kBF16), &queries_);
  }
  std::vector<ReadWork> work;
  for (const ReadGroup& g : plan.groups) {
    work.push_back(
        {g.num_items, tile_stats_.floats(), tile_values_.floats(), own_p_.floats(), queries_.data()});
  }
  plan.device_work = memory_.Upload(work);
  return plan;
}

const SampleTask* DeviceStep::SampleTasks(absl::Span<const SampleRow> rows,
                                          absl::Span<const SampleEdit> edits, int V) {
  const auto is_edited = [](const SampleRow& r) { return r.num_edits > 0 || r.only_edited; };
  const int64_t num_edited = std::count_if(rows.begin(), rows.end(), is_edited);
  if (!context_->Reserve(num_edited * V * sizeof(float), &scores_)) return nullptr;
  const SampleEdit* device_edits = page_memory_.Upload(edits);
  if (device_edits == nullptr && !edits.empty()) return nullptr;
  float* scores = scores_.floats();
  std::vector<SampleTask> tasks;
  for (const SampleRow& r : rows) {
    tasks.push_back({r, device_edits + r.first_edit, scores});
    if (is_edited(r)) scores += V;
  }
  return Upload(std::move(tasks), bucket_);
}

const ReadPlan& DeviceStep::Attention(absl::Span<const int> q_to_kv, int head_dim, DType state_dtype) {
  if (!attention_.has_value() || attention_heads_ != q_to_kv || attention_dtype_ != state_dtype) {
    attention_dtype_ = state_dtype;
    attention_heads_.assign(q_to_kv.begin(), q_to_kv.end());
    std::vector<ReadBlock> blocks = AttentionBlocks(rows_->spans, span_pages_, q_to_kv);
    const int min_blocks = is_decode() ? static_cast<int>(blocks.size()) / num_rows_ * bucket_ : 0;
    attention_ = MakePlan(std::move(blocks), false, head_dim, state_dtype, min_blocks);
  }
  return *attention_;
}

const DeviceStep::Wave& DeviceStep::WaveOf(int wave, int hidden_size, DType state_dtype) {
  if (wave >= static_cast<int>(waves_.size())) waves_.resize(wave + 1);
  if (!waves_[wave].has_value()) {
    Wave& w = waves_[wave].emplace();
    std::vector<ReadBlock> blocks;
    std::vector<int32_t> rows;
    for (const RowSpan& b : rows_->waves[wave]) {
      blocks.push_back({b.first_row, b.num_rows, b.start, 0, 1, 0, static_cast<int>(rows.size()),
                        span_pages_[host_row_span_[b.first_row]], 0, 0});
      for (int r = 0; r < b.num_rows; ++r) rows.push_back(b.first_row + r);
    }
    w.num_rows = static_cast<int>(rows.size());
    w.plan = MakePlan(std::move(blocks), true, hidden_size, state_dtype, is_decode() ? bucket_ : 0);
    w.rows = Upload(std::move(rows), bucket_);
  }
  return *waves_[wave];
}

}  // namespace sessa::cuda
