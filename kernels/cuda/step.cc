#include "kernels/cuda/step.h"

#include <algorithm>
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
    case ReadPath::kFewQueries: return 2;
    case ReadPath::kManyQueries: return 1;
    case ReadPath::kFusedAttention: return 0;  // has no work items
  }
  return 0;
}

}  // namespace

DeviceStep::DeviceStep(Context* context, bool use_tensor_cores)
    : context_(context), use_tensor_cores_(use_tensor_cores), memory_(context), page_memory_(context) {
  context->Note(
      cudaDeviceGetAttribute(&num_multiprocessors_, cudaDevAttrMultiProcessorCount, context->device()),
      "counting multiprocessors");
}

int DeviceStep::NumCtas(const ReadGroup& group, int other_items) const {
  const int at_once = BlocksOnMultiprocessor(group) * num_multiprocessors_,
            num_items = group.num_items + other_items;
  if (may_replay()) return at_once;
  return group.path == ReadPath::kFewQueries ? std::min(at_once, num_items) : num_items;
}

void DeviceStep::Begin(const StepRows& rows) {
  memory_.Reset();
  page_memory_.Reset();
  rows_ = &rows;
  waves_.clear();
  pasts_.clear();
  attentions_.clear();
  slot_spans_ = nullptr;
  head_groups_.clear();
  num_rows_ = bucket_ = static_cast<int>(rows.positions.size());
  live_ = nullptr;
  const auto has_one_row = [](const RowSpan& s) { return s.num_rows == 1; };
  if (num_rows_ > 0 && num_rows_ <= kMaxDecodeBucket && rows.spans.size() == rows.positions.size() &&
      rows.logit_rows.size() == rows.positions.size() &&
      std::all_of(rows.spans.begin(), rows.spans.end(), has_one_row)) {
    bucket_ = DecodeBucket(num_rows_);
    live_ = memory_.Upload(std::vector<int32_t>{num_rows_});
  }
  fits_graph_ = may_replay();
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
  inv_freq_ = memory_.Upload(rows.inv_freq);
}

void DeviceStep::Send() {
  context_->Note(memory_.Send(), "sending a step");
  context_->Note(page_memory_.Send(), "sending page tables and edits");
}

ReadPlan DeviceStep::MakePlan(std::vector<ReadBlock> blocks, bool feedback, int dim, DType state_dtype,
                              int min_blocks, int page_size) {
  ReadPlan plan =
      MakeReadPlan(std::move(blocks), {.feedback = feedback,
                                       .tensor_cores = use_tensor_cores_ && state_dtype != DType::kF32,
                                       .dim = dim,
                                       .max_floats = is_decode() ? kDecodeScratchFloats : kScratchFloats,
                                       .min_blocks = min_blocks,
                                       .spans = rows_->spans,
                                       .row_span = host_row_span_,
                                       .page_size = page_size});
  if (is_decode() && (plan.groups.size() != 1 || static_cast<int>(plan.blocks.size()) < min_blocks))
    fits_graph_ = false;
  plan.device_blocks = memory_.Upload(plan.blocks);
  const SharedRow* shared_rows = page_memory_.Upload(plan.shared_rows);
  for (ReadBlock& b : plan.shared) b.rows = shared_rows + b.first_row;
  const ReadBlock* shared = page_memory_.Upload(plan.shared);
  Scratch& scratch = feedback ? feedback_scratch_ : attention_scratch_;
  for (const ReadGroup& g : plan.groups) {
    const bool few = g.path == ReadPath::kFewQueries;
    context_->Reserve(2 * g.num_tiles * sizeof(float), &scratch.tile_stats);
    context_->Reserve(g.num_tiles * (few ? Padded(dim) : kTile) * sizeof(float), &scratch.tile_values);
    if (feedback && few)
      context_->Reserve(int64_t{g.count} * kMaxQueries * kTile * sizeof(float), &scratch.own_p);
  }
  std::vector<ReadWork> work;
  for (const ReadGroup& g : plan.groups)
    work.push_back({g.num_items, g.own_items, g.num_shared, shared + g.first_shared,
                    scratch.tile_stats.floats(), scratch.tile_values.floats(), scratch.own_p.floats()});
  plan.device_work = memory_.Upload(work);
  return plan;
}

const SlotSpan* DeviceStep::slot_spans() {
  if (slot_spans_ != nullptr) return slot_spans_;
  std::vector<SlotSpan> spans;
  for (const RowSpan& s : rows_->spans) {
    std::vector<SlotSnapshot> snapshots;
    for (const Snapshot& snapshot : s.snapshots) snapshots.push_back({snapshot.row, snapshot.slot});
    // How many there are differs from step to step.
    spans.push_back({s.first_row, s.num_rows, s.start, s.slot, s.state_from,
                     static_cast<int>(snapshots.size()), page_memory_.Upload(snapshots)});
  }
  return slot_spans_ = Upload(std::move(spans), bucket_);
}

const int32_t* DeviceStep::HeadGroups(absl::Span<const int> groups) {
  for (const auto& [list, device] : head_groups_) {
    if (list == groups) return device;
  }
  const int32_t* device = memory_.Upload(groups);
  head_groups_.push_back({{groups.begin(), groups.end()}, device});
  return device;
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

void DeviceStep::PreparePanels(PanelPlan* plan, int dim, bool own) {
  plan->device_blocks = memory_.Upload(plan->blocks);
  const int64_t rows = plan->panel_rows, panel_bytes = rows * PanelStride(dim) * SizeOf(DType::kBF16);
  // Never nothing: kernels add to these addresses before they find that there is nothing to read.
  const auto reserve = [this](int64_t bytes, Buffer* buffer) {
    context_->Reserve(std::max<int64_t>(bytes, 1), buffer);
  };
  constexpr int64_t kFloat = sizeof(float);
  reserve(panel_bytes, &panel_queries_);
  if (own) {
    reserve(panel_bytes, &panel_keys_);
    reserve(plan->num_weights * SizeOf(DType::kBF16), &own_weights_);
    reserve(plan->num_stats * kFloat, &own_stats_);
    reserve(rows * kSolveRows * kFloat, &diagonal_);
    reserve(rows * kSolveRows * kFloat, &inverses_);
    reserve(rows * kPanelTerms * kFloat, &terms_);
  } else {
    reserve(plan->num_weights * SizeOf(DType::kBF16), &weights_);
    reserve(plan->num_stats * kFloat, &stats_);
    reserve(rows * 2 * kChains * 2 * kFloat, &running_);
  }
}

PanelScratch DeviceStep::panel_scratch() const {
  return {panel_queries_.data(), panel_keys_.data(), own_weights_.data(), weights_.data(),
          own_stats_.floats(),   stats_.floats(),    diagonal_.floats(),  running_.floats(),
          inverses_.floats(),    terms_.floats()};
}

const DeviceStep::Attention& DeviceStep::AttentionOf(const AttentionKey& key) {
  if (const auto found = std::ranges::find(attentions_, key, &Attention::key); found != attentions_.end())
    return *found;
  Attention& a = attentions_.emplace_back();
  a.key = key;
  const bool tensor_cores = use_tensor_cores_ && key.dtype != DType::kF32;
  // Panels know of no window: wide heads with one are read in float32.
  const bool panels = tensor_cores && key.head_dim > kMaxFusedDim && key.window == 0;
  std::vector<ReadBlock> blocks = AttentionBlocks(
      rows_->spans, span_pages_, key.q_to_kv,
      MaxAttentionQueries(tensor_cores && (panels || key.head_dim <= kMaxFusedDim), key.head_dim),
      key.window);
  if (panels) {
    const auto few = std::stable_partition(blocks.begin(), blocks.end(), [&](const ReadBlock& b) {
      return b.num_rows * b.num_heads > MaxFewQueries(key.head_dim);
    });
    a.panels = MakePanelPlan({blocks.begin(), few}, {.feedback = false, .dim = key.head_dim, .num_ranks = 1});
    PreparePanels(&a.panels, key.head_dim, /*own=*/false);
    if (is_decode() && few != blocks.begin()) fits_graph_ = false;
    blocks.erase(blocks.begin(), few);
  }
  const int min_blocks = is_decode() ? static_cast<int>(blocks.size()) / num_rows_ * bucket_ : 0;
  a.plan = MakePlan(std::move(blocks), false, key.head_dim, key.dtype, min_blocks, key.page_size);
  return a;
}

const DeviceStep::Wave& DeviceStep::WaveOf(const WaveKey& key) {
  if (const auto found = std::ranges::find(waves_, key, &Wave::key); found != waves_.end()) return *found;
  Wave& w = waves_.emplace_back();
  w.key = key;
  std::vector<ReadBlock> blocks;
  std::vector<int32_t> rows;
  for (const RowSpan& b : rows_->waves[key.wave]) {
    const bool is_panel = use_tensor_cores_ && key.dtype != DType::kF32 &&
                          (b.num_rows > MaxFewQueries(key.width) || b.start % kTile + b.num_rows > kTile);
    (is_panel ? w.panel_blocks : blocks)
        .push_back({b.first_row, b.num_rows, b.start, 0, 1, 0, static_cast<int>(rows.size()),
                    span_pages_[host_row_span_[b.first_row]], 0, 0, 0});
    if (is_panel) w.max_panel_rows = std::max(w.max_panel_rows, b.num_rows);
    for (int r = 0; r < b.num_rows; ++r) rows.push_back(b.first_row + r);
  }
  w.num_rows = static_cast<int>(rows.size());
  w.own = MakeOwnPanelPlan(w.panel_blocks);
  if (!w.panel_blocks.empty()) PreparePanels(&w.own, key.width, /*own=*/true);
  w.plan = MakePlan(std::move(blocks), true, key.width, key.dtype, is_decode() ? bucket_ : 0, key.page_size);
  w.rows = Upload(std::move(rows), bucket_);
  return w;
}

const DeviceStep::Past& DeviceStep::PastOf(const WaveKey& key, int num_ranks) {
  for (const Past& p : pasts_) {
    if (p.key == key && p.num_ranks == num_ranks) return p;
  }
  Past& p = pasts_.emplace_back();
  p.key = key, p.num_ranks = num_ranks;
  const std::vector<ReadBlock>& blocks = WaveOf(key).panel_blocks;
  p.plan = MakePanelPlan(blocks, {.feedback = true, .dim = key.width, .num_ranks = num_ranks});
  if (!blocks.empty()) PreparePanels(&p.plan, key.width, /*own=*/false);
  return p;
}

}  // namespace sessa::cuda
