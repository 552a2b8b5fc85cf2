// Memory for the pages that rows will come to next, before they do. Linux gives memory at its first touch, a
// huge page at a time, and the tensors of a state cache come to their next one in the same step: on a virtual
// machine whose free memory was back with its host 8 layers took 6 ms each, a gap of 50 ms between tokens
// whose steps take 2. So a thread that is nicer than the steps' touches them first; where it comes
// too late, or Linux is older than 5.14, the step does, as before. No byte is changed, and what was never
// near is never taken: a large cache that is hardly used stays small.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/state.h"

namespace sessa {

// One thread calls it, a backend's. A tensor may go before this does.
class PagesAhead {
 public:
  static constexpr size_t kBlockBytes = size_t{32} << 20;

  // Pages are taken in blocks of about so many bytes, of all tensors together.
  explicit PagesAhead(size_t block_bytes = kBlockBytes) : block_bytes_(block_bytes) {}
  ~PagesAhead();
  PagesAhead(const PagesAhead&) = delete;
  PagesAhead& operator=(const PagesAhead&) = delete;

  // Before the first Write; what comes later is not looked after.
  void Add(const PagedTensor& tensor);
  // Rows of the step that begins go to this page: its block and the next one, which new pages come from, are
  // wanted. Never waits.
  void Write(int64_t page);

 private:
  struct Range {
    char* data;
    int64_t first_page, num_pages, page_bytes;
  };

  void Start();
  void Run();
  void Take(int64_t block) const;

  const size_t block_bytes_;
  std::vector<Range> ranges_;
  int64_t pages_per_block_ = 0, num_blocks_ = 0;  // 0: Start has not been called
  std::unique_ptr<std::atomic<bool>[]> wanted_;   // [num_blocks_]
  std::atomic<uint32_t> news_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace sessa
