// Which rows of a step find the same pages at the beginning of their page tables (a system prompt, the
// choices of a request, an agent's steps), so that a backend reads the state there once for all of them. The
// tables alone say it: pages are compared by number, and nothing else of the sequences is known here.
//
// Prefixes may branch again and again: reads form a tree, and the rows of a read go on, in the order of their
// tokens, with a longer one of fewer rows or each alone. Where partial results are joined (Hydragen, arXiv
// 2402.05099; FlashInfer's multi-level cascade) the sums of a row depend on who shares with it; here they are
// handed on from read to read, and so they stay those of a row that reads all by itself. Levels of any number
// are no more code than one, and one would have to choose: a system prompt for all, or each user's document.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/step_rows.h"

namespace sessa {

// Whether a GPU reads together what sequences share: its kernels for few queries take eight at a time, of
// wide vectors one, and two rows have to fit, each with `queries` heads of the same keys.
constexpr bool GpuSharesReads(int queries, int dim) { return dim <= 4096 && 2 * queries <= 8; }

// The tiles [first_tile, last_tile) of a page table, all of whose tokens its rows see.
struct SharedRead {
  int first_tile, last_tile;
  int first_row, num_rows;  // of SharedReads::rows
  const int32_t* pages;
};

class SharedReads {
 public:
  // Blocks of more rows are many queries already, and read on their own.
  static constexpr int kMaxBlockRows = 32;

  struct Row {
    int batch_row, position;
  };

  // The page tables must stay as they are while this is used; `page_size` divides kTileTokens. Linear in the
  // pages that are shared, but for sorting where tables part.
  void Find(absl::Span<const RowSpan> blocks, int page_size);

  // Reads of a level have no row in common. The first level begins at tile 0, and a row's next read is of the
  // next level and begins where this one ends.
  int num_levels() const { return static_cast<int>(levels_.size()); }
  absl::Span<const SharedRead> level(int i) const { return levels_[i]; }

  // The rows of all blocks, those of a block one after the other. Rows that share come first, in such an
  // order that each read's are neighbours.
  absl::Span<const Row> rows() const { return rows_; }
  int num_shared_rows() const { return num_shared_rows_; }
  int first_row(int block) const { return first_rows_[block]; }
  // Tokens by which fewer are read than if each block read all of its own.
  int64_t num_saved_tokens() const;
  // From which tile on a block's rows read alone.
  int own_tile(int block) const { return own_tiles_[block]; }

 private:
  // Blocks [begin, end) of order_ have the pages before `tile` in common, and are read up to `read_tile` by
  // `level` reads.
  void Split(int begin, int end, int read_tile, int tile, int level);
  int WholeTiles(int block) const;
  absl::Span<const int32_t> PagesOf(int block, int tile) const;

  absl::Span<const RowSpan> blocks_;
  int pages_of_tile_ = 1;
  std::vector<int> order_;  // of blocks
  std::vector<std::vector<SharedRead>> levels_;
  std::vector<Row> rows_;
  std::vector<int> first_rows_, own_tiles_;  // [blocks]
  int num_shared_rows_ = 0;
};

}  // namespace sessa
