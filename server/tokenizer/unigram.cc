#include "server/tokenizer/unigram.h"

#include <algorithm>
#include <deque>
#include <limits>

namespace sessa {
namespace {

constexpr double kUnknownPenalty = 10;  // below the worst token's score, as SentencePiece has it

Vocabulary ToVocabulary(const std::vector<std::pair<std::string, double>>& tokens) {
  Vocabulary ids;
  for (size_t id = 0; id < tokens.size(); ++id) ids[tokens[id].first] = static_cast<int32_t>(id);
  return ids;
}

size_t EndOfCharacter(std::string_view text, size_t at) {
  for (++at; at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;) ++at;
  return at;
}

}  // namespace

Unigram::Unigram(const std::vector<std::pair<std::string, double>>& tokens, std::optional<int32_t> unknown,
                 bool byte_fallback)
    : TokenModel(ToVocabulary(tokens)),
      unknown_(unknown),
      byte_fallback_(byte_fallback),
      byte_tokens_(ByteTokens(*this)) {
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (*IdOf(tokens[id].first) != static_cast<int32_t>(id))
      shadowed_.emplace_back(tokens[id].first, static_cast<int32_t>(id));
  }
  double worst = std::numeric_limits<double>::infinity();
  for (const auto& [token, score] : tokens) {
    scores_.push_back(score);
    worst = std::min(worst, score);
  }
  unknown_score_ = worst - kUnknownPenalty;

  // The trie, breadth first: of sorted tokens those below one node are a range.
  std::vector<std::string_view> sorted;
  for (const auto& [token, id] : vocabulary()) sorted.push_back({token.data(), token.size()});
  std::sort(sorted.begin(), sorted.end());
  struct Range {
    size_t begin, end, depth;
  };
  std::deque<Range> ranges = {{0, sorted.size(), 0}};  // of the nodes whose children are not made yet
  nodes_.emplace_back();
  labels_.push_back(0);
  for (size_t node = 0; !ranges.empty(); ++node) {
    const Range range = ranges.front();
    ranges.pop_front();
    size_t at = range.begin;
    if (at < range.end && sorted[at].size() == range.depth) nodes_[node].id = *IdOf(sorted[at++]);
    nodes_[node].first_child = static_cast<int32_t>(nodes_.size());
    while (at < range.end) {
      const auto label = static_cast<unsigned char>(sorted[at][range.depth]);
      size_t end = at + 1;
      while (end < range.end && static_cast<unsigned char>(sorted[end][range.depth]) == label) ++end;
      ranges.push_back({at, end, range.depth + 1});
      nodes_.emplace_back();
      labels_.push_back(label);
      ++nodes_[node].num_children;
      at = end;
    }
  }
}

int32_t Unigram::Child(int32_t node, unsigned char byte) const {
  const auto begin = labels_.begin() + nodes_[node].first_child, end = begin + nodes_[node].num_children;
  const auto it = std::lower_bound(begin, end, byte);
  return it == end || *it != byte ? -1 : static_cast<int32_t>(it - labels_.begin());
}

bool Unigram::IsLossless(bool) const {
  return byte_fallback_ &&
         std::none_of(byte_tokens_.begin(), byte_tokens_.end(), [](int32_t id) { return id < 0; });
}

absl::Status Unigram::AddUnknown(std::string_view text, std::vector<int32_t>* ids) const {
  if (const auto id = IdOf(text)) {
    ids->push_back(*id);
    return absl::OkStatus();
  }
  const auto token = [this](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char c) { return token(c) >= 0; })) {
    for (char c : text) ids->push_back(token(c));
  } else {
    ids->push_back(*unknown_);
  }
  return absl::OkStatus();
}

absl::Status Unigram::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  struct Best {
    double score = 0;
    size_t begin = std::string::npos;  // of the token that ends here
    int32_t id = 0;
  };
  std::vector<Best> best(word.size() + 1);
  const auto offer = [&best](size_t end, double score, size_t begin, int32_t id) {
    Best& there = best[end];
    if (there.begin == std::string::npos || score > there.score) there = {score, begin, id};
  };
  for (size_t begin = 0, end = 0; begin < word.size(); begin = end) {
    end = EndOfCharacter(word, begin);
    const double score = best[begin].score;
    bool single = false;  // the character alone is a token
    int32_t node = 0;
    for (size_t at = begin; at < word.size(); ++at) {
      node = Child(node, static_cast<unsigned char>(word[at]));
      if (node < 0) break;
      if (const int32_t id = nodes_[node].id; id >= 0) {
        offer(at + 1, score + scores_[id], begin, id);
        single = single || at + 1 == end;
      }
    }
    if (single) continue;
    if (!unknown_.has_value())
      return absl::InvalidArgumentError(
          "it has a character that is no token, and the tokenizer has no unknown token");
    offer(end, score + unknown_score_, begin, *unknown_);
  }
  struct Piece {
    size_t begin, end;
    int32_t id;
  };
  std::vector<Piece> pieces;  // from the end; unknown neighbours are one
  for (size_t end = word.size(); end > 0;) {
    const auto& [score, begin, id] = best[end];
    if (id == unknown_ && !pieces.empty() && pieces.back().id == id) {
      pieces.back().begin = begin;
    } else {
      pieces.push_back({begin, end, id});
    }
    end = begin;
  }
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    if (piece->id != unknown_) {
      ids->push_back(piece->id);
    } else if (absl::Status s = AddUnknown(word.substr(piece->begin, piece->end - piece->begin), ids);
               !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

}  // namespace sessa
