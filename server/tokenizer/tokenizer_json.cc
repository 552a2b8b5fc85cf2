// Reads tokenizer.json and the configuration beside it. What would change ids and is not supported is an
// error, never ignored; how texts are padded or cut for training ("padding", "truncation") does not concern a
// server.
#include <algorithm>
#include <boost/json/value.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"
#include "server/tokenizer/added_tokens_json.h"
#include "server/tokenizer/files.h"
#include "server/tokenizer/json_fields.h"
#include "server/tokenizer/model_json.h"
#include "server/tokenizer/post_processor.h"
#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

namespace json = boost::json;

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

class TokenizerParser {
 public:
  explicit TokenizerParser(Tokenizer* t) : t_(*t) {}

  absl::Status Parse(const json::value& root, const json::value& config) {
    JsonFields fields(root, "tokenizer.json");
    const json::value* model = fields.Find("model");
    if (model == nullptr) fields.Fail("model", "is missing");
    if (!fields.status().ok()) return fields.status();
    const auto part = [&fields](const char* key) {
      return fields.Find(key) == nullptr ? json::value() : *fields.Find(key);
    };
    absl::Status status;
    const auto take = [&status](auto parsed, auto* out) {
      status.Update(parsed.status());
      if (status.ok()) *out = *std::move(parsed);
    };
    take(Normalizer::Parse(part("normalizer")), &t_.normalizer_);
    take(PreTokenizer::Parse(part("pre_tokenizer")), &t_.pre_tokenizer_);
    take(ParseTokenModel(*model), &t_.model_);
    take(Decoder::Parse(part("decoder")), &t_.decoder_);
    if (!status.ok()) return status;
    for (const auto& [token, id] : t_.model_->vocabulary()) Token(id) = {token, {}, true, false};
    for (const auto& [token, id] : t_.model_->shadowed()) Token(id) = {token, {}, true, false};
    status.Update(AddTokens(part("added_tokens"), config));
    if (!status.ok()) return status;
    status.Update(ParseAround(part("post_processor"), config));
    Finish();
    return status;
  }

 private:
  Tokenizer::Token& Token(int32_t id) {
    if (id >= static_cast<int64_t>(t_.tokens_.size())) t_.tokens_.resize(id + 1);
    return t_.tokens_[id];
  }

  absl::Status AddTokens(const json::value& list, const json::value& config) {
    auto added = ParseAddedTokens(list), more = ParseAddedTokensDecoder(config);
    if (!added.ok()) return added.status();
    if (!more.ok()) return more.status();
    auto names = ParseNamedTokens(config);
    if (!names.ok()) return names.status();
    for (AddedToken& token : *added) {
      if (absl::Status s = Add(std::move(token), "tokenizer.json.added_tokens"); !s.ok()) return s;
    }
    for (AddedToken& token : *more) {
      if (absl::Status s = Add(std::move(token), "tokenizer_config.json.added_tokens_decoder"); !s.ok())
        return s;
    }
    // What has a name is special, also where it is only a word of the vocabulary. One that is not there is
    // left out: the model knows no id for it.
    for (const std::string& name : *names) {
      const auto id = t_.IdOf(name);
      if (!id.has_value()) continue;
      const AddedToken token{.id = *id, .content = name, .special = true, .normalized = false};
      if (absl::Status s = Add(token, "tokenizer_config.json"); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  // One that is there already keeps what was said of it first, but becomes special when it is said to be.
  absl::Status Add(AddedToken token, const char* where) {
    if (const auto known = t_.IdOf(token.content)) {
      token.id = *known;
    } else {
      if (token.id > kMaxTokenId) {
        return absl::InvalidArgumentError(absl::StrCat(where, ": id ", token.id, " of '", token.content,
                                                       "' is not in [0, ", kMaxTokenId, "]"));
      }
      Tokenizer::Token& entry = Token(token.id);
      if (entry.known)
        return absl::InvalidArgumentError(absl::StrCat(where, ": id ", token.id, " has two tokens"));
      entry.known = true;
      entry.content = token.content;
      t_.added_ids_[token.content] = token.id;
    }
    const auto [it, is_new] = place_of_added_.emplace(token.content, added_.size());
    if (is_new) {
      added_.push_back(std::move(token));
    } else {
      added_[it->second].special |= token.special;
    }
    return absl::OkStatus();
  }

  // The post-processor's tokens around a text, and bos and eos where it has not put them already.
  absl::Status ParseAround(const json::value& post_processor, const json::value& config) {
    auto around = ParsePostProcessor(post_processor, [this](std::string_view name) { return t_.IdOf(name); });
    if (!around.ok()) return around.status();
    t_.prefix_ = std::move(around->prefix), t_.suffix_ = std::move(around->suffix);
    for (const std::vector<int32_t>& ids : {t_.prefix_, t_.suffix_}) {
      for (const int32_t id : ids) {
        if (!t_.Known(id))
          return absl::InvalidArgumentError(
              absl::StrCat("tokenizer.json.post_processor: id ", id, " is no token"));
      }
    }
    JsonFields fields(config, "tokenizer_config.json");
    for (auto [key, token] : {std::pair{"bos_token", &t_.bos_token_}, {"eos_token", &t_.eos_token_}}) {
      auto name = TokenOfConfig(config, key);
      if (!name.ok()) return name.status();
      *token = *std::move(name);
    }
    const auto bos = t_.IdOf(t_.bos_token_), eos = t_.IdOf(t_.eos_token_);
    const bool add_bos = fields.Bool("add_bos_token", false), add_eos = fields.Bool("add_eos_token", false);
    if (add_bos && !bos.has_value()) fields.Fail("bos_token", "is no token of tokenizer.json");
    if (add_eos && !eos.has_value()) fields.Fail("eos_token", "is no token of tokenizer.json");
    if (!fields.status().ok()) return fields.status();
    if (add_bos && (t_.prefix_.empty() || t_.prefix_.front() != *bos))
      t_.prefix_.insert(t_.prefix_.begin(), *bos);
    if (add_eos && (t_.suffix_.empty() || t_.suffix_.back() != *eos)) t_.suffix_.push_back(*eos);
    return absl::OkStatus();
  }

  void Finish() {
    bool strips = false;  // then one takes any number of spaces
    size_t longest = 0;
    for (const AddedToken& token : added_) {
      longest = std::max(longest, token.content.size());
      strips = strips || token.lstrip || token.rstrip;
      t_.tokens_[token.id].special |= token.special;
      if (token.normalized) {
        const std::string content = t_.normalizer_.Apply(token.content).value_or(token.content);
        t_.tokens_[token.id].content = content;  // decoded as it is found
        longest = std::max(longest, content.size());
        t_.normalized_added_.Add(token, content);
      } else {
        t_.raw_added_.Add(token, token.content);
      }
    }
    for (const auto& [token, id] : t_.model_->shadowed()) {  // what is special is so by its text
      const auto it = place_of_added_.find(token);
      t_.tokens_[id].special = it != place_of_added_.end() && added_[it->second].special;
    }
    const bool byte_level = t_.pre_tokenizer_.writes_bytes() || t_.normalizer_.writes_bytes();
    for (const auto& [token, id] : t_.model_->vocabulary())
      longest = std::max(longest, byte_level ? CountCharacters(token) : token.size());
    const bool bounded = !strips && !t_.pre_tokenizer_.drops_text() && t_.model_->IsLossless(byte_level);
    t_.max_bytes_ = bounded ? longest * t_.normalizer_.MaxShrink() : 0;
    for (Tokenizer::Token& token : t_.tokens_) {
      if (token.known) token.text = t_.decoder_.TextOf(token.content);
    }
  }

  Tokenizer& t_;
  std::vector<AddedToken> added_;
  absl::flat_hash_map<std::string, size_t> place_of_added_;  // content -> index
};

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json,
                                                               std::string_view config_json) {
  if (config_json.empty()) return Make(tokenizer_json, json::object());
  auto config = ParseJsonFile(config_json, "tokenizer_config.json");
  if (!config.ok()) return config.status();
  return Make(tokenizer_json, *config);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Make(std::string_view tokenizer_json,
                                                           const json::value& config) {
  auto root = ParseJsonFile(tokenizer_json, "tokenizer.json");
  if (!root.ok()) return root.status();
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  if (absl::Status parsed = TokenizerParser(tokenizer.get()).Parse(*root, config); !parsed.ok())
    return parsed;
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& dir) {
  auto text = ReadFile(dir + "/tokenizer.json");
  if (absl::IsNotFound(text.status())) return nullptr;
  if (!text.ok()) return text.status();
  auto config = ReadTokenizerConfig(dir);
  if (!config.ok()) return config.status();
  auto tokenizer = Make(*text, *config);
  if (!tokenizer.ok())
    return absl::InvalidArgumentError(absl::StrCat(dir, ": ", tokenizer.status().message()));
  return tokenizer;
}

}  // namespace sessa
