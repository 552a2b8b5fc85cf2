// How a paged read is cut up: blocks of queries that share their keys, those of few queries apart from those
// of many, in groups whose scratch memory stays within a bound. Blocks of few queries whose page tables begin
// alike are read together there. Host bookkeeping alone; the results depend neither on the groups nor on who
// shares.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/kernels.h"

namespace sessa::cuda {

enum class ReadPath { kFewQueries, kManyQueries, kFusedAttention };

struct ReadGroup {
  ReadPath path = ReadPath::kFewQueries;
  int first = 0, count = 0;  // of blocks
  int max_queries = 0;
  int num_items = 0;      // as ReadBlock::first_item counts them
  int64_t num_tiles = 0;  // as ReadBlock::tile_base counts them
  // Of few queries, as ReadWork and PagedRead have them; the shared blocks are some of ReadPlan::shared.
  int own_items = 0, first_shared = 0, num_shared = 0, tile_queries = 0;
};

struct ReadPlan {
  std::vector<ReadBlock> blocks;  // on the host
  std::vector<ReadGroup> groups;
  std::vector<ReadBlock> shared;  // first_row: of shared_rows, until they are on the device
  std::vector<SharedRow> shared_rows;
  const ReadBlock* device_blocks = nullptr;  // the same blocks
  const ReadWork* device_work = nullptr;     // of each group
};

// Fills in tile_base, first_item and the groups, and orders the blocks. A group takes at most max_floats of
// scratch, or is one block. A plan of one group is padded to min_blocks.
struct ReadPlanOptions {
  bool feedback = false;
  bool tensor_cores = false;  // for blocks of many queries
  int dim = 0;
  int64_t max_floats = 0;
  int min_blocks = 0;
  // Where the host finds page tables; none: nothing is shared.
  absl::Span<const RowSpan> spans = {};
  absl::Span<const int32_t> row_span = {};  // of each batch row
  int page_size = 0;
};
ReadPlan MakeReadPlan(std::vector<ReadBlock> blocks, const ReadPlanOptions& options);

// The rows that a decode step of n rows is padded to, a graph being captured for each such number: a power of
// two or the middle between two (1 2 3 4 6 8 12 ...), so at most half as many rows again. n itself beyond
// kMaxDecodeBucket.
inline constexpr int kMaxDecodeBucket = 512;
int DecodeBucket(int n);

// The blocks of a forward attention over `spans`, of at most max_queries; pages[i]: span i's page table on
// the device; window: as AttendCall.
std::vector<ReadBlock> AttentionBlocks(absl::Span<const RowSpan> spans,
                                       absl::Span<const int32_t* const> pages, absl::Span<const int> q_to_kv,
                                       int max_queries, int window);
// Of forward attention on the tensor cores or not: what fused_attention.cu, the panels (wider
// heads) or paged_read.cu take.
int MaxAttentionQueries(bool tensor_cores, int dim);

}  // namespace sessa::cuda
