#include "server/tokenizer/bpe.h"

#include <algorithm>
#include <iterator>
#include <queue>
#include <tuple>

namespace sessa {

Bpe::Bpe(absl::flat_hash_map<std::string, int32_t> vocabulary, const std::vector<Merge>& merges,
         bool ignore_merges)
    : vocabulary_(std::move(vocabulary)), ignore_merges_(ignore_merges) {
  for (int32_t rank = 0; rank < static_cast<int32_t>(merges.size()); ++rank) {
    ranks_[{merges[rank].left, merges[rank].right}] = {
        rank, merges[rank].result};  // of a pair listed twice the last counts
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto it = vocabulary_.find(std::string(1, static_cast<char>(byte)));
    byte_ids_[byte] = it == vocabulary_.end() ? -1 : it->second;
  }
}

bool Bpe::drops_bytes() const {
  return std::any_of(std::begin(byte_ids_), std::end(byte_ids_), [](int32_t id) { return id < 0; });
}

void Bpe::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto it = vocabulary_.find(absl::string_view(word.data(), word.size()));
        it != vocabulary_.end()) {
      ids->push_back(it->second);
      return;
    }
  }
  struct Symbol {
    int32_t id;  // -1: merged into the one before
    int previous, next;
  };
  std::vector<Symbol> symbols;
  for (char c : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    const int i = static_cast<int>(symbols.size());
    if (id >= 0) symbols.push_back({id, i - 1, i + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  using Candidate = std::tuple<int32_t, int, int32_t>;  // rank, position of the left one, result
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int left) {
    if (left < 0 || symbols[left].next < 0) return;
    const Rank* rank = Find(symbols[left].id, symbols[symbols[left].next].id);
    if (rank != nullptr) queue.emplace(rank->rank, left, rank->result);
  };
  for (int i = 0; i + 1 < static_cast<int>(symbols.size()); ++i) offer(i);
  while (!queue.empty()) {
    const auto [rank, i, result] = queue.top();
    queue.pop();
    Symbol& left = symbols[i];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const Rank* now = Find(left.id, right.id);
    if (now == nullptr || now->rank != rank) continue;  // one of the two has changed since
    left.id = result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = i;
    offer(left.previous);
    offer(i);
  }
  for (int i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace sessa
