#include "server/tokenizer/bpe.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/tokenizer/byte_level.h"
#include "server/tokenizer/utf8.h"

namespace sessa {

std::vector<int32_t> ByteTokens(const TokenModel& model) {
  std::vector<int32_t> ids(256);
  for (int byte = 0; byte < 256; ++byte)
    ids[byte] = model.IdOf(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  return ids;
}

Bpe::Bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options)
    : TokenModel(std::move(vocabulary)), options_(std::move(options)), byte_tokens_(ByteTokens(*this)) {
  ranks_.reserve(merges.size());
  for (int32_t rank = 0; rank < static_cast<int32_t>(merges.size()); ++rank) {
    ranks_[{merges[rank].left, merges[rank].right}] = {
        rank, merges[rank].result};  // of a pair listed twice the last counts
  }
  characters_.fill(-1);
  for (const auto& [token, id] : this->vocabulary()) {
    char32_t character = 0;
    int count = 0;
    ForEachCodePoint(token, [&](char32_t c) { character = c, ++count; });
    if (count == 1 && character < characters_.size()) characters_[character] = id;
  }
}

bool Bpe::IsLossless(bool byte_level) const {
  const auto none = [](int32_t id) { return id < 0; };
  if (byte_level && options_.prefix.empty() && options_.suffix.empty()) {
    const std::string all = [] {
      std::string bytes;
      for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
      return ToByteLevel(bytes);
    }();
    bool complete = true;
    ForEachCodePoint(all, [&](char32_t c) { complete = complete && characters_[c] >= 0; });
    if (complete) return true;
  }
  return options_.byte_fallback && std::none_of(byte_tokens_.begin(), byte_tokens_.end(), none);
}

int32_t Bpe::IdOfCharacter(std::string_view character, bool is_first, bool is_last) const {
  const bool prefixed = !is_first && !options_.prefix.empty(), suffixed = is_last && !options_.suffix.empty();
  if (!prefixed && !suffixed) {
    char32_t c = 0;
    ForEachCodePoint(character, [&c](char32_t one) { c = one; });
    if (c < characters_.size()) return characters_[c];
    return IdOf(character).value_or(-1);
  }
  return IdOf(absl::StrCat(prefixed ? options_.prefix : "",
                           absl::string_view(character.data(), character.size()),
                           suffixed ? options_.suffix : ""))
      .value_or(-1);
}

// In the order in which Hugging Face comes to them: what is unknown is written when the next known character
// comes.
void Bpe::Symbols(std::string_view word, std::vector<Symbol>* symbols) const {
  const auto add = [symbols](int32_t id) {
    const int i = static_cast<int>(symbols->size());
    symbols->push_back({id, i - 1, i + 1});
  };
  symbols->reserve(word.size());
  bool unknown = false;
  for (size_t begin = 0, end = 0; begin < word.size(); begin = end) {
    for (end = begin + 1; end < word.size() && (static_cast<unsigned char>(word[end]) & 0xC0) == 0x80;) ++end;
    const std::string_view character = word.substr(begin, end - begin);
    const int32_t id = IdOfCharacter(character, begin == 0, end == word.size());
    if (id >= 0) {
      if (unknown) add(*options_.unknown);
      unknown = false;
      add(id);
      continue;
    }
    if (options_.byte_fallback) {
      // The affixes are bytes too.
      const std::string bytes = absl::StrCat(begin > 0 ? options_.prefix : "",
                                             absl::string_view(character.data(), character.size()),
                                             end == word.size() ? options_.suffix : "");
      const auto token = [this](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
      if (std::all_of(bytes.begin(), bytes.end(), [&](char c) { return token(c) >= 0; })) {
        for (char c : bytes) add(token(c));
        continue;
      }
    }
    if (!options_.unknown.has_value()) continue;
    if (unknown && !options_.fuse_unknown) add(*options_.unknown);
    unknown = true;
  }
  if (unknown) add(*options_.unknown);
  if (!symbols->empty()) symbols->back().next = -1;
}

void Bpe::MergeAll(std::vector<Symbol>* all) const {
  std::vector<Symbol>& symbols = *all;
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
}

absl::Status Bpe::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (options_.ignore_merges) {
    if (const auto id = IdOf(word)) {
      ids->push_back(*id);
      return absl::OkStatus();
    }
  }
  std::vector<Symbol> symbols;
  Symbols(word, &symbols);
  if (symbols.empty()) return absl::OkStatus();
  MergeAll(&symbols);
  for (int i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
  return absl::OkStatus();
}

}  // namespace sessa
