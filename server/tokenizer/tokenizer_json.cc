// Reads tokenizer.json and tokenizer_config.json. What would change ids and is not supported is an error,
// never ignored.
#include <algorithm>
#include <array>
#include <boost/json/value.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"
#include "server/tokenizer/files.h"
#include "server/tokenizer/json_fields.h"
#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

namespace json = boost::json;

constexpr int32_t kMaxVocabulary = 4 << 20;

// GPT-2 writes bytes as printable characters: the printable ones of Latin-1 as themselves, the others from
// U+0100 on.
std::array<int, 512> BytesOfCharacters() {
  std::array<int, 512> bytes;
  bytes.fill(-1);
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    bytes[printable ? b : next++] = b;
  }
  return bytes;
}

// The bytes of a token of the vocabulary; one with other characters (an added one) stands for itself.
std::string BytesOf(std::string_view token) {
  static const std::array<int, 512> kBytes = BytesOfCharacters();
  std::string out;
  bool all = true;
  ForEachCodePoint(token, [&](char32_t c) {
    all = all && c < kBytes.size() && kBytes[c] >= 0;
    if (all) out += static_cast<char>(kBytes[c]);
  });
  return all ? out : std::string(token);
}

std::string Text(const json::value& v) { return std::string(v.as_string()); }

}  // namespace

class TokenizerParser {
 public:
  explicit TokenizerParser(Tokenizer* t) : t_(*t) {}

  absl::Status Parse(const json::value& root) {
    JsonFields fields(root, "tokenizer.json");
    const json::value* model = fields.Find("model");
    if (model == nullptr) fields.Fail("model", "is missing");
    fields.Refuse("truncation");
    fields.Refuse("padding");
    if (!fields.status().ok()) return fields.status();
    const auto part = [&fields](const char* key) {
      return fields.Find(key) == nullptr ? json::value() : *fields.Find(key);
    };
    auto normalizer = Normalizer::Parse(part("normalizer"));
    if (!normalizer.ok()) return normalizer.status();
    t_.normalizer_ = *std::move(normalizer);
    auto pre_tokenizer = PreTokenizer::Parse(part("pre_tokenizer"));
    if (!pre_tokenizer.ok()) return pre_tokenizer.status();
    t_.pre_tokenizer_ = *std::move(pre_tokenizer);
    if (absl::Status s = ParseModel(*model); !s.ok()) return s;
    if (absl::Status s = ParseAddedTokens(part("added_tokens")); !s.ok()) return s;
    if (absl::Status s = ParseDecoder(part("decoder"), 0); !s.ok()) return s;
    return ParsePostProcessor(part("post_processor"), 0);
  }

  // What the configuration adds: tokens, which of them are special, and bos and eos where the post-processor
  // has not put them already.
  absl::Status ParseConfig(const json::value& root) {
    JsonFields fields(root, "tokenizer_config.json");
    if (absl::Status s = ParseAddedTokensDecoder(&fields); !s.ok()) return s;
    if (absl::Status s = ParseSpecialTokens(root, &fields); !s.ok()) return s;
    for (auto [key, token] : {std::pair{"bos_token", &t_.bos_token_}, {"eos_token", &t_.eos_token_}}) {
      auto name = TokenOfConfig(root, key);
      if (!name.ok()) return name.status();
      *token = *std::move(name);
    }
    const bool bos = fields.Bool("add_bos_token", false), eos = fields.Bool("add_eos_token", false);
    if (!fields.status().ok()) return fields.status();
    if (bos) {
      auto id = t_.IdOf(t_.bos_token_);
      if (!id.has_value())
        return absl::InvalidArgumentError("tokenizer_config.json.bos_token: is no token of tokenizer.json");
      if (t_.prefix_.empty() || t_.prefix_.front() != *id) t_.prefix_.insert(t_.prefix_.begin(), *id);
    }
    if (eos) {
      auto id = t_.IdOf(t_.eos_token_);
      if (!id.has_value())
        return absl::InvalidArgumentError("tokenizer_config.json.eos_token: is no token of tokenizer.json");
      if (t_.suffix_.empty() || t_.suffix_.back() != *id) t_.suffix_.push_back(*id);
    }
    return absl::OkStatus();
  }

  // Called last, when all tokens are known.
  void Finish() {
    bool strips = false;  // then one takes any number of spaces
    size_t longest = 0;
    for (const AddedToken& token : added_) {
      longest = std::max(longest, token.content.size());
      strips = strips || token.lstrip || token.rstrip;
      t_.tokens_[token.id].special |= token.special;
      if (token.normalized) {
        const std::string content = t_.normalizer_.Apply(token.content);
        t_.tokens_[token.id].bytes = BytesOf(content);  // decoded as it is found
        t_.normalized_added_.Add(token, content);
      } else {
        t_.raw_added_.Add(token, token.content);
      }
    }
    if (strips || t_.pre_tokenizer_->drops_text() || t_.bpe_->drops_bytes()) return;
    for (const Tokenizer::Token& token : t_.tokens_) longest = std::max(longest, token.bytes.size());
    t_.max_bytes_ = longest * t_.normalizer_.MaxShrink();
  }

 private:
  absl::Status AddToken(const std::string& token, int64_t id, const char* where) {
    if (id < 0 || id >= kMaxVocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": id ", id, " of '", token, "' is not in [0, ", kMaxVocabulary, ")"));
    }
    if (id >= static_cast<int64_t>(t_.tokens_.size())) t_.tokens_.resize(id + 1);
    Tokenizer::Token& entry = t_.tokens_[id];
    if (entry.known) return absl::InvalidArgumentError(absl::StrCat(where, ": id ", id, " has two tokens"));
    entry.known = true;
    entry.bytes = BytesOf(token);
    t_.ids_[token] = static_cast<int32_t>(id);
    return absl::OkStatus();
  }

  absl::Status ParseModel(const json::value& v) {
    JsonFields model(v, "tokenizer.json.model");
    const std::string type = model.String("type", "BPE");
    if (type != "BPE") model.Fail("type", absl::StrCat("'", type, "' is not supported, only byte-level BPE"));
    for (const char* key :
         {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
      model.Refuse(key);
    const bool ignore_merges = model.Bool("ignore_merges", false);
    const json::object* vocabulary = model.Object("vocab");
    const json::array* merges = model.Array("merges");
    if (!model.status().ok()) return model.status();
    absl::flat_hash_map<std::string, int32_t> by_bytes;
    for (const auto& [key, id] : *vocabulary) {
      const std::string token(key);
      if (!id.is_int64())
        return absl::InvalidArgumentError(
            absl::StrCat("tokenizer.json.model.vocab: '", token, "' has no integer id"));
      if (absl::Status s = AddToken(token, id.as_int64(), "tokenizer.json.model.vocab"); !s.ok()) return s;
      by_bytes[BytesOf(token)] = static_cast<int32_t>(id.as_int64());
    }
    std::vector<Bpe::Merge> list;
    for (size_t i = 0; i < merges->size(); ++i) {
      const json::value& merge = (*merges)[i];
      std::string left, right;
      if (merge.is_string()) {  // "left right"
        const std::string pair = Text(merge);
        const size_t space = pair.find(' ');
        if (space != std::string::npos) left = pair.substr(0, space), right = pair.substr(space + 1);
      } else if (merge.is_array() && merge.as_array().size() == 2 && merge.as_array()[0].is_string() &&
                 merge.as_array()[1].is_string()) {
        left = Text(merge.as_array()[0]), right = Text(merge.as_array()[1]);
      }
      const auto l = t_.IdOf(left), r = t_.IdOf(right), both = t_.IdOf(left + right);
      if (left.empty() || !l || !r || !both) {
        return absl::InvalidArgumentError(absl::StrCat("tokenizer.json.model.merges[", i,
                                                       "]: must be a pair of tokens whose union is a token"));
      }
      list.push_back({*l, *r, *both});
    }
    t_.bpe_ = std::make_unique<Bpe>(std::move(by_bytes), list, ignore_merges);
    return absl::OkStatus();
  }

  absl::Status ParseAddedTokens(const json::value& v) {
    if (v.is_null()) return absl::OkStatus();
    if (!v.is_array()) return absl::InvalidArgumentError("tokenizer.json.added_tokens: must be a list");
    for (size_t i = 0; i < v.as_array().size(); ++i) {
      const std::string where = absl::StrCat("tokenizer.json.added_tokens[", i, "]");
      JsonFields fields(v.as_array()[i], where);
      const int32_t id = fields.Id("id");
      if (absl::Status s = ParseAddedToken(&fields, id, "tokenizer.json.added_tokens"); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  // {"32000": {"content": "<pad>", ...}}
  absl::Status ParseAddedTokensDecoder(JsonFields* config) {
    if (config->Find("added_tokens_decoder") == nullptr) return config->status();
    const json::object* tokens = config->Object("added_tokens_decoder");
    if (tokens == nullptr) return config->status();
    for (const auto& [key, value] : *tokens) {
      const std::string where = absl::StrCat("tokenizer_config.json.added_tokens_decoder.", std::string(key));
      int32_t id = 0;
      if (!absl::SimpleAtoi(absl::string_view(key.data(), key.size()), &id) || id < 0)
        return absl::InvalidArgumentError(absl::StrCat(where, ": is no token id"));
      JsonFields fields(value, where);
      if (absl::Status s = ParseAddedToken(&fields, id, where.c_str()); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  absl::Status ParseAddedToken(JsonFields* fields, int32_t id, const char* where) {
    AddedToken token;
    token.id = id;
    token.content = fields->String("content");
    token.special = fields->Bool("special", false);
    token.lstrip = fields->Bool("lstrip", false);
    token.rstrip = fields->Bool("rstrip", false);
    token.single_word = fields->Bool("single_word", false);
    token.normalized = fields->Bool("normalized", !token.special);
    if (token.content.empty()) fields->Fail("content", "must not be empty");
    if (!fields->status().ok()) return fields->status();
    return AddAdded(std::move(token), where);
  }

  // One that is there already keeps what tokenizer.json says of it, but becomes special when it is said to
  // be.
  absl::Status AddAdded(AddedToken token, const char* where) {
    if (const auto known = t_.IdOf(token.content)) {
      token.id = *known;
    } else if (absl::Status s = AddToken(token.content, token.id, where); !s.ok()) {
      return s;
    }
    const auto [it, is_new] = place_of_added_.emplace(token.content, added_.size());
    if (is_new) {
      added_.push_back(std::move(token));
    } else {
      added_[it->second].special |= token.special;
    }
    return absl::OkStatus();
  }

  // What has a name is special, also where it is only a word of the vocabulary. One that is not there is left
  // out: the model knows no id for it.
  absl::Status ParseSpecialTokens(const json::value& root, JsonFields* config) {
    std::vector<std::string> names;
    for (const char* key :
         {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
      auto name = TokenOfConfig(root, key);
      if (!name.ok()) return name.status();
      names.push_back(*std::move(name));
    }
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      const json::value* list = config->Find(key);
      if (list == nullptr || !list->is_array()) continue;  // an object names tokens of other modalities
      for (const json::value& item : list->as_array()) {
        if (item.is_string()) {
          names.push_back(Text(item));
        } else {
          JsonFields token(item, absl::StrCat("tokenizer_config.json.", key));
          names.push_back(token.String("content"));
          if (!token.status().ok()) return token.status();
        }
      }
    }
    for (const std::string& name : names) {
      const auto id = t_.IdOf(name);
      if (!id.has_value() || name.empty()) continue;
      AddedToken token;
      token.id = *id;
      token.content = name;
      token.special = true;
      token.normalized = false;
      if (absl::Status s = AddAdded(std::move(token), "tokenizer_config.json"); !s.ok()) return s;
    }
    return config->status();
  }

  static absl::Status ParseDecoder(const json::value& v, int depth) {
    if (v.is_object() && depth < 8) {
      JsonFields fields(v, "tokenizer.json.decoder");
      const std::string type = fields.String("type", "");
      if (type == "ByteLevel") return absl::OkStatus();
      if (type == "Sequence") {
        const json::array* list = fields.Array("decoders");
        if (list != nullptr && list->size() == 1) return ParseDecoder((*list)[0], depth + 1);
      }
    }
    return absl::InvalidArgumentError("tokenizer.json.decoder: only ByteLevel is supported");
  }

  absl::Status ParsePostProcessor(const json::value& v, int depth) {
    if (v.is_null()) return absl::OkStatus();
    JsonFields fields(v, "tokenizer.json.post_processor");
    const std::string type = fields.String("type");
    if (!fields.status().ok() || type == "ByteLevel") return fields.status();
    if (type == "Sequence" && depth < 8) {
      const json::array* list = fields.Array("processors");
      if (list == nullptr) return fields.status();
      for (const json::value& item : *list) {
        if (absl::Status s = ParsePostProcessor(item, depth + 1); !s.ok()) return s;
      }
      return absl::OkStatus();
    }
    if (type == "TemplateProcessing") return ParseTemplate(&fields);
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json.post_processor: type '", type, "' is not supported"));
  }

  absl::Status ParseTemplate(JsonFields* fields) {
    const json::array* single = fields->Array("single");
    if (single == nullptr) return fields->status();
    bool seen = false;  // the text itself
    for (const json::value& item : *single) {
      JsonFields element(item, "tokenizer.json.post_processor.single");
      if (element.Find("Sequence") != nullptr) {
        if (std::exchange(seen, true)) element.Fail("Sequence", "stands there twice");
      } else if (const json::value* special = element.Find("SpecialToken")) {
        JsonFields token(*special, "tokenizer.json.post_processor.single.SpecialToken");
        const auto id = t_.IdOf(token.String("id"));
        if (!token.status().ok()) return token.status();
        if (!id.has_value()) element.Fail("SpecialToken", "is no token");
        (seen ? t_.suffix_ : t_.prefix_).push_back(id.value_or(0));
      } else {
        element.Fail("", "must be a Sequence or a SpecialToken");
      }
      if (!element.status().ok()) return element.status();
    }
    return seen ? absl::OkStatus()
                : absl::InvalidArgumentError("tokenizer.json.post_processor.single: has no Sequence");
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
  TokenizerParser parser(tokenizer.get());
  if (absl::Status parsed = parser.Parse(*root); !parsed.ok()) return parsed;
  if (absl::Status parsed = parser.ParseConfig(config); !parsed.ok()) return parsed;
  parser.Finish();
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
