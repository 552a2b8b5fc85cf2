#include "kernels/cuda/paged_reads.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sessa::cuda {
namespace {

size_t NumFewGroups(const PlannedRead& planned) {  // they come first
  const auto is_many = [](const ReadGroup& g) { return g.path != ReadPath::kFewQueries; };
  if (planned.plan == nullptr) return 0;
  const std::vector<ReadGroup>& groups = planned.plan->groups;
  return std::ranges::find_if(groups, is_many) - groups.begin();
}

// As the kernels are made for: who shares, and how many do, differs from step to step.
int TileQueries(int queries) { return queries <= 1 ? 1 : queries <= 4 ? 4 : kFewQueries; }

}  // namespace

PagedVectors VectorsOf(const PagedTensor& t) {
  return {t.data.data(), t.shape.dtype, t.page_size, t.shape.num_heads,
          t.shape.dim,   t.first_page,  t.num_pages};
}

bool PagedReads::CanRead(const PagedTensor& keys, const PagedTensor& values) {
  if (keys.shape.dtype == values.shape.dtype) return true;
  context_->Fail(absl::UnimplementedError(
      absl::StrCat("the CUDA backend reads keys and values of one type, not keys in ", Name(keys.shape.dtype),
                   " and values in ", Name(values.shape.dtype))));
  return false;
}

PagedRead PagedReads::OfGroup(const PlannedRead& planned, size_t i) const {
  const ReadGroup& g = planned.plan->groups[i];
  PagedRead read = planned.read;
  queue_->Pad(&read.q, &read.out);
  read.work = planned.plan->device_work + i;
  read.blocks = planned.plan->device_blocks + g.first;
  read.num_blocks = g.count;
  read.max_queries = g.max_queries;
  read.tile_queries = TileQueries(g.tile_queries);
  return read;
}

void PagedReads::Run(const PlannedRead& planned, size_t first) {
  if (planned.plan == nullptr) return;
  for (size_t i = first; i < planned.plan->groups.size(); ++i) {
    const ReadPath path = planned.plan->groups[i].path;
    const int num_ctas = step_->NumCtas(planned.plan->groups[i]);
    const PagedRead read = OfGroup(planned, i);
    if (path == ReadPath::kFewQueries) {
      EnqueueFew({{read, {}}, 1}, num_ctas);
      continue;
    }
    if (!context_->status().ok()) return;  // no scratch, perhaps
    queue_->Enqueue(path == ReadPath::kManyQueries ? &ReadManyQueries : &FusedAttention, context_->stream(),
                    read, num_ctas);
  }
  RunPanels(planned);
}

void PagedReads::RunTogether(const PlannedRead& large, const PlannedRead& small) {
  size_t both = std::min(NumFewGroups(large), NumFewGroups(small));
  if (large.read.keys.dtype != small.read.keys.dtype) both = 0;  // a kernel reads one type
  for (size_t i = 0; i < both; ++i) {
    const int num_ctas = step_->NumCtas(large.plan->groups[i], small.plan->groups[i].num_items);
    EnqueueFew({{OfGroup(large, i), OfGroup(small, i)}, 2}, num_ctas);
  }
  Run(large, both);
  Run(small, both);
}

void PagedReads::EnqueueFew(const FewReads& reads, int num_ctas) {
  if (!context_->status().ok()) return;  // no scratch, perhaps
  queue_->Enqueue(&ReadFewQueries, context_->stream(), reads, num_ctas);
}

void PagedReads::RunPanels(const PlannedRead& planned) {
  const PanelPlan& plan = *planned.panels;
  if (!context_->status().ok() || plan.blocks.empty()) return;
  constexpr float kLog2E = 1.44269504f;
  const PagedRead& read = planned.read;
  PanelRead r = {};
  r.q = read.q, r.k = planned.k;
  r.keys = read.keys, r.values = read.values;
  r.scale = read.scale * kLog2E;
  r.feedback = read.feedback;
  r.rank = read.rank, r.num_ranks = read.num_ranks;
  r.scratch = step_->panel_scratch();
  r.out = read.out;
  r.max = read.max, r.sum = read.sum, r.acc = read.acc;
  r.partial_rows = read.partial_rows, r.width = read.width;
  if (planned.own != nullptr) {
    const PanelPass& pass = planned.own->passes[0];
    queue_->Enqueue(&ReadOwnPanels, context_->stream(), OfPass(r, *planned.own, pass), pass);
  }
  for (const PanelPass& pass : plan.passes) {
    const bool round = planned.own == nullptr && plan.blocks[pass.first].pass == 0;
    queue_->Enqueue(&ReadPanels, context_->stream(), OfPass(r, plan, pass), pass, round);
  }
}

}  // namespace sessa::cuda
