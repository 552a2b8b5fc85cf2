#include "server/tokenizer/decoder.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/file/json_fields.h"
#include "server/tokenizer/byte_level.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

namespace json = boost::json;

// English as WordPiece's spaces leave it, mended: the list of Hugging Face's clean_up_tokenization.
std::string CleanUp(std::string text) {
  for (const auto& [from, to] : {std::pair{" .", "."},
                                 {" ?", "?"},
                                 {" !", "!"},
                                 {" ,", ","},
                                 {" ' ", "'"},
                                 {" n't", "n't"},
                                 {" 'm", "'m"},
                                 {" do not", " don't"},
                                 {" 's", "'s"},
                                 {" 've", "'ve"},
                                 {" 're", "'re"}}) {
    absl::StrReplaceAll({{from, to}}, &text);
  }
  return text;
}

// The value of "<0xE4>"; -1 of other tokens.
int ByteOf(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

int CountCharacters(std::string_view text) {
  int count = 0;
  ForEachCodePoint(text, [&count](char32_t) { ++count; });
  return count;
}

}  // namespace

absl::StatusOr<Decoder> Decoder::Parse(const json::value& json) {
  Decoder decoder;
  if (json.is_null()) {
    decoder.steps_.push_back({Kind::kSpaces, "", "", {}});
  } else if (absl::Status added = decoder.Add(json, 0); !added.ok()) {
    return added;
  }
  return decoder;
}

absl::Status Decoder::Add(const json::value& json, int depth) {
  JsonFields fields(json, "tokenizer.json.decoder");
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  if (type == "Sequence" && depth < 8) {
    const json::array* list = fields.Array("decoders");
    if (list == nullptr) return fields.status();
    for (const json::value& item : *list) {
      if (absl::Status added = Add(item, depth + 1); !added.ok()) return added;
    }
    return absl::OkStatus();
  }
  if (type == "Fuse") return fused_ = true, absl::OkStatus();
  // CTC drops tokens: to the others another one would be the first or the last.
  if (drops_repeated_ && type != "Replace" && type != "Strip") {
    fields.Fail("type", absl::StrCat("'", type, "' after CTC is not supported"));
    return fields.status();
  }
  if (type == "ByteFallback") return byte_fallback_ = true, absl::OkStatus();
  if (type == "Replace") return AddReplace(json);
  if (type == "Strip") return AddStrip(json);
  Step step{};
  if (type == "ByteLevel") {
    step.kind = Kind::kByteLevel;
    if (byte_fallback_) fields.Fail("type", "ByteLevel and ByteFallback do not go together");
  } else if (type == "WordPiece") {
    step.kind = Kind::kWordPiece;
    step.a = fields.String("prefix", "##");
    step.flag = fields.Bool("cleanup", true);
  } else if (type == "Metaspace") {
    step.kind = Kind::kMetaspace;
    step.a = fields.String("replacement", "\u2581");
    step.flag = fields.String("prepend_scheme", fields.Bool("add_prefix_space", true) ? "always" : "never") !=
                "never";
  } else if (type == "BPEDecoder") {
    step.kind = Kind::kBpe;
    step.a = fields.String("suffix", "</w>");
    if (step.a.empty()) fields.Fail("suffix", "must not be empty");
  } else if (type == "CTC") {
    step.kind = Kind::kCtc;
    step.a = fields.String("pad_token", "<pad>");
    step.b = fields.String("word_delimiter_token", "|");
    step.flag = fields.Bool("cleanup", true);
    if (step.b.empty()) fields.Fail("word_delimiter_token", "must not be empty");
    if (!steps_.empty() || byte_fallback_)
      fields.Fail("type", "'CTC' after another decoder is not supported");
    drops_repeated_ = true;
  } else {
    fields.Fail("type", absl::StrCat("'", type, "' is not supported"));
  }
  if (fused_) fields.Fail("type", absl::StrCat("'", type, "' after Fuse is not supported"));
  if (type == "ByteLevel") fused_ = true;  // what it gives is one text
  steps_.push_back(std::move(step));
  return fields.status();
}

absl::Status Decoder::AddReplace(const json::value& json) {
  JsonFields fields(json, "tokenizer.json.decoder");
  auto pattern = Regex::OfPattern(json, "tokenizer.json.decoder");
  if (!pattern.ok()) return pattern.status();
  Step step{Kind::kReplace, "", fields.String("content"), {}};
  // A character is replaced in a text as it is in its tokens.
  if (fused_ && CountCharacters(pattern->literal()) != 1)
    fields.Fail("type", "'Replace' of more than a character after Fuse is not supported");
  step.pattern.push_back(*std::move(pattern));
  steps_.push_back(std::move(step));
  return fields.status();
}

absl::Status Decoder::AddStrip(const json::value& json) {
  JsonFields fields(json, "tokenizer.json.decoder");
  Step step{Kind::kStrip, fields.String("content", " "), "", {}};
  step.start = fields.Int("start", 0), step.stop = fields.Int("stop", 0);
  if (CountCharacters(step.a) != 1) fields.Fail("content", "must be one character");
  if (step.start > 1024 || step.stop > 1024) fields.Fail("start", "and stop are at most 1024");
  if (!fields.status().ok()) return fields.status();
  if (!fused_) return steps_.push_back(std::move(step)), absl::OkStatus();
  if (!strip_.empty() && strip_ != step.a)
    fields.Fail("type", "'Strip' of two characters after Fuse is not supported");
  strip_ = step.a;
  strip_start_ += step.start, strip_stop_ += step.stop;
  return fields.status();
}

std::string Decoder::Apply(const Step& step, std::string token, bool is_first, bool* ends_word) {
  switch (step.kind) {
    case Kind::kSpaces: return is_first ? token : " " + token;
    case Kind::kByteLevel: {
      auto bytes = FromByteLevel(token);
      return bytes.has_value() ? *std::move(bytes) : token;
    }
    case Kind::kWordPiece:
      if (!is_first) {
        const bool inside = absl::StartsWith(token, step.a);
        token = inside ? token.substr(step.a.size()) : " " + token;
      }
      return step.flag ? CleanUp(std::move(token)) : token;
    case Kind::kMetaspace: return absl::StrReplaceAll(token, {{step.a, is_first && step.flag ? "" : " "}});
    case Kind::kBpe:
      *ends_word = absl::EndsWith(token, step.a);
      return absl::StrReplaceAll(token, {{step.a, " "}});
    case Kind::kCtc:
      if (!step.a.empty()) absl::StrReplaceAll({{step.a, ""}}, &token);
      return step.flag ? absl::StrReplaceAll(CleanUp(std::move(token)), {{step.b, " "}}) : token;
    case Kind::kReplace: {
      auto replaced = step.pattern[0].ReplaceAll(token, step.b);
      return replaced.ok() ? *std::move(replaced) : token;
    }
    case Kind::kStrip: {
      for (int i = 0; i < step.start && absl::StartsWith(token, step.a); ++i) token.erase(0, step.a.size());
      for (int i = 0; i < step.stop && absl::EndsWith(token, step.a); ++i)
        token.resize(token.size() - step.a.size());
      return token;
    }
  }
  return token;
}

TokenText Decoder::TextOf(std::string_view token) const {
  TokenText text;
  if (byte_fallback_) {
    if (const int byte = ByteOf(token); byte >= 0) {
      text.is_byte = true;
      text.bytes = static_cast<char>(byte);
      return text;
    }
  }
  text.bytes = text.first = std::string(token);
  for (const Step& step : steps_) {
    text.bytes = Apply(step, std::move(text.bytes), false, &text.ends_word);
    text.first = Apply(step, std::move(text.first), true, &text.ends_word);
  }
  text.first_differs = text.first != text.bytes;
  if (!text.first_differs) text.first = std::string();
  return text;
}

std::string TextDecoder::TakeBytes(bool all) {
  const size_t complete = all ? pending_.size() : CompleteUtf8(pending_);
  std::string text;
  if (decoder_->byte_fallback_) {
    text = RepairUtf8(std::string_view(pending_).substr(0, complete), /*each_byte=*/true);
  } else {
    text = RepairUtf8(std::string_view(pending_).substr(0, complete));
  }
  pending_.erase(0, complete);
  return text;
}

std::string TextDecoder::Strip(std::string text) {
  const std::string& unit = decoder_->strip_;
  while (strip_left_ > 0 && !text.empty()) {
    if (!absl::StartsWith(text, unit)) {
      strip_left_ = 0;
    } else {
      text.erase(0, unit.size());
      --strip_left_;
    }
  }
  if (text.empty()) return text;
  text = std::exchange(held_, "") + text;
  int held = 0;
  while (held < decoder_->strip_stop_ && absl::EndsWith(text, unit)) {
    text.resize(text.size() - unit.size());
    held_ += unit;
    ++held;
  }
  return text;
}

std::string TextDecoder::Push(const TokenText& token) {
  if (std::exchange(last_, &token) == &token && decoder_->drops_repeated_) return "";
  const bool first = std::exchange(first_, false);
  std::string text;
  if (decoder_->byte_fallback_ && !token.is_byte) {
    text = TakeBytes(/*all=*/true);  // a character that is not complete ends with its run
    text += first && token.first_differs ? token.first : token.bytes;
  } else {
    pending_ += first && token.first_differs ? token.first : token.bytes;
    text = TakeBytes(/*all=*/false);
  }
  text = Strip(std::move(text));
  if (token.ends_word && !text.empty()) {
    text.pop_back();
    held_ = " ";
  }
  return text;
}

std::string TextDecoder::Flush() {
  std::string text = TakeBytes(/*all=*/true);
  if (!text.empty()) text = Strip(std::move(text));
  held_.clear();
  return text;
}

}  // namespace sessa
