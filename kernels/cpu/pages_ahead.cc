#include "kernels/cpu/pages_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "kernels/round.h"
#include "kernels/slices.h"

namespace sessa {
namespace {

constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE of Linux 5.14, which older headers do not have
// A call holds off what maps and unmaps memory in this process until it returns: a huge page at a time.
constexpr uintptr_t kPiece = uintptr_t{2} << 20;
// Nice enough to leave the cores to steps, and no more: a thread that gets no time at all while it holds the
// system's lock on the process's memory would hold up all that need it.
constexpr int kNice = 5;

}  // namespace

PagesAhead::~PagesAhead() {
  stop_.store(true, std::memory_order_relaxed);
  news_.fetch_add(1, std::memory_order_release);
  news_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void PagesAhead::Add(const PagedTensor& tensor) {
  if (num_blocks_ > 0 || tensor.num_pages == 0) return;
  ranges_.push_back({static_cast<char*>(tensor.data.data()), tensor.first_page, tensor.num_pages,
                     static_cast<int64_t>(tensor.data.size() / tensor.num_pages)});
}

void PagesAhead::Write(int64_t page) {
  if (ranges_.empty()) return;
  if (num_blocks_ == 0) Start();
  const int64_t block = page / pages_per_block_;
  bool news = false;
  for (int64_t b = block; b < std::min(block + 2, num_blocks_); ++b) {
    if (wanted_[b].load(std::memory_order_relaxed)) continue;
    wanted_[b].store(true, std::memory_order_relaxed);
    news = true;
  }
  if (!news) return;
  news_.fetch_add(1, std::memory_order_release);
  news_.notify_one();
}

void PagesAhead::Start() {
  int64_t page_bytes = 0, end = 0;
  for (const Range& range : ranges_) {
    page_bytes += range.page_bytes;
    end = std::max(end, range.first_page + range.num_pages);
  }
  pages_per_block_ =
      std::max<int64_t>(1, static_cast<int64_t>(block_bytes_) / std::max<int64_t>(1, page_bytes));
  num_blocks_ = CeilDiv(end, pages_per_block_);
  wanted_ = std::make_unique<std::atomic<bool>[]>(num_blocks_);
  thread_ = std::thread([this] { Run(); });
}

void PagesAhead::Run() {
  BeNicer(kNice);
  std::vector<bool> taken(num_blocks_);
  for (uint32_t seen = 0;;) {
    news_.wait(seen, std::memory_order_acquire);
    seen = news_.load(std::memory_order_acquire);
    for (int64_t b = 0; b < num_blocks_; ++b) {
      if (stop_.load(std::memory_order_relaxed)) return;
      if (taken[b] || !wanted_[b].load(std::memory_order_relaxed)) continue;
      taken[b] = true;
      Take(b);
    }
  }
}

void PagesAhead::Take(int64_t block) const {
  const auto system_page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const Range& range : ranges_) {
    const int64_t from = std::max(block * pages_per_block_, range.first_page) - range.first_page;
    const int64_t to =
        std::min((block + 1) * pages_per_block_, range.first_page + range.num_pages) - range.first_page;
    if (from >= to) continue;
    const auto data = reinterpret_cast<uintptr_t>(range.data);
    const uintptr_t end = RoundUp(data + to * range.page_bytes, system_page);
    for (uintptr_t at = (data + from * range.page_bytes) / system_page * system_page; at < end;) {
      const uintptr_t next = std::min(end, (at / kPiece + 1) * kPiece);
      if (stop_.load(std::memory_order_relaxed)) return;
      // Failing is harmless: an old Linux, no memory, or a tensor that is gone.
      madvise(reinterpret_cast<void*>(at), next - at, kPopulateWrite);
      at = next;
    }
  }
}

}  // namespace sessa
