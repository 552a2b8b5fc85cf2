// What compare_test.py cannot say: errors, limits, streaming and the demo's own rules. Ids are compared with
// Hugging Face there.
#include "server/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/regex.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

constexpr char kJson[] = R"({
  "added_tokens": [{"id": 7, "content": "<s>", "special": true, "normalized": false}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "Ã": 5, "©": 6}, "merges": ["a b", ["Ġ", "a"]]}
})";

std::string With(const char* from, const char* to) {
  std::string json = absl::StrReplaceAll(kJson, {{from, to}});
  EXPECT_NE(json, kJson) << from;
  return json;
}

TEST(TokenizerTest, EncodesAndDecodes) {
  auto t = Tokenizer::FromJson(
      kJson,
      R"({"add_bos_token": true, "bos_token": {"content": "<s>"}, "add_eos_token": true, "eos_token": "<s>"})");
  ASSERT_TRUE(t.ok()) << t.status();
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(*(*t)->Encode("ab aé", false), (Ids{2, 4, 5, 6}));
  EXPECT_EQ(*(*t)->Encode("ab<s>b", false), (Ids{2, 7, 1}));
  EXPECT_EQ(*(*t)->Encode("ab", true), (Ids{7, 2, 7}));
  EXPECT_EQ(*(*t)->Encode("", true), (Ids{7, 7}));
  EXPECT_EQ(*(*t)->Encode("xay", false),
            (Ids{0}));  // bytes without a token are dropped, as Hugging Face does
  EXPECT_EQ(*(*t)->Decode(Ids{7, 2, 4, 5, 6}, false), "<s>ab aé");
  EXPECT_EQ(*(*t)->Decode(Ids{7, 2, 5, 2, 99, -1}, true),
            "ab\xEF\xBF\xBD"
            "ab");
  EXPECT_EQ((*t)->TokenBytes(5), "\xC3");
  EXPECT_EQ((*t)->TokenBytes(8), "");
  EXPECT_EQ((*t)->IdOf("Ġa"), 4);
  EXPECT_EQ((*t)->IdOf("zz"), std::nullopt);
  EXPECT_TRUE((*t)->IsSpecial(7));
  EXPECT_FALSE((*t)->IsSpecial(2));
  EXPECT_FALSE((*t)->IsSpecial(1000));
  EXPECT_EQ((*t)->vocab_size(), 8);
}

TEST(TokenizerTest, IllFormedTextIsNamedByItsByte) {
  auto t = Tokenizer::FromJson(kJson, "");
  ASSERT_TRUE(t.ok());
  for (const char* bad : {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF5\x80\x80\x80"}) {
    const auto ids = (*t)->Encode(bad, false);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(ids.status().message().find("byte 2"), std::string::npos) << ids.status();
  }
}

TEST(TokenizerTest, WhatIsNotSupportedIsNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {"{", "tokenizer.json:"},
      {"[]", "tokenizer.json: must be an object"},
      {"{}", "tokenizer.json.model: is missing"},
      {With("\"type\": \"BPE\"", "\"type\": \"Bigram\""), "tokenizer.json.model.type: 'Bigram'"},
      {With("\"type\": \"BPE\"", "\"type\": \"Unigram\""), "tokenizer.json.model.vocab: must be a list"},
      {With("\"type\": \"BPE\"", "\"dropout\": 0.1"), "tokenizer.json.model.dropout"},
      {With("\"type\": \"BPE\"", "\"unk_token\": \"?\""), "tokenizer.json.model.unk_token"},
      {With("\"a\": 0", "\"a\": 1"), "id 1 has two tokens"},
      {With("\"a\": 0", "\"a\": -1"), "id -1 of 'a'"},
      {With("\"a\": 0", "\"a\": 999999999"), "id 999999999 of 'a'"},
      {With("\"a\": 0", "\"a\": \"0\""), "'a' has no integer id"},
      {With("\"a b\"", "\"ab\""), "tokenizer.json.model.merges[0]"},
      {With("\"a b\"", "\"b a\""), "tokenizer.json.model.merges[0]"},
      {With("\"a b\"", "7"), "tokenizer.json.model.merges[0]"},
      {With("\"normalizer\": null", "\"normalizer\": {\"type\": \"Bert\"}"), "normalizer: type 'Bert'"},
      {With("\"normalizer\": null",
            R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"})"),
       "precompiled_charsmap: its trie is cut off"},
      {With("\"type\": \"ByteLevel\", \"add_prefix_space\"", "\"type\": \"Scripts\", \"add_prefix_space\""),
       "pre_tokenizer: type 'Scripts'"},
      {With("{\"type\": \"ByteLevel\"}", "{\"type\": \"RNN\"}"), "tokenizer.json.decoder.type: 'RNN'"},
      {With("{\"type\": \"ByteLevel\"}",
            R"({"type": "Sequence", "decoders": [{"type": "CTC"}, {"type": "Metaspace"}]})"),
       "'Metaspace' after CTC"},
      {With("{\"type\": \"ByteLevel\"}",
            R"({"type": "Sequence", "decoders": [{"type": "CTC"}, {"type": "ByteFallback"}]})"),
       "'ByteFallback' after CTC"},
      {With("{\"type\": \"ByteLevel\"}",
            R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "WordPiece"}]})"),
       "'WordPiece' after Fuse"},
      {With("\"post_processor\": null", "\"post_processor\": {\"type\": \"Roberta\"}"),
       "tokenizer.json.post_processor"},
      {With("\"id\": 7", "\"id\": -7"), "tokenizer.json.added_tokens[0].id"},
      {With("\"content\": \"<s>\"", "\"content\": \"\""), "tokenizer.json.added_tokens[0].content"},
  };
  for (const auto& [json, expected] : cases) {
    const auto t = Tokenizer::FromJson(json, "");
    ASSERT_FALSE(t.ok()) << expected;
    EXPECT_NE(t.status().message().find(expected), std::string::npos) << t.status();
  }
  EXPECT_FALSE(Tokenizer::FromJson(kJson, R"({"add_bos_token": true})").ok());
  EXPECT_FALSE(Tokenizer::FromJson(kJson, R"({"add_eos_token": true, "eos_token": "</s>"})").ok());
  EXPECT_FALSE(Tokenizer::FromJson(kJson, R"({"bos_token": 3})").ok());
}

TEST(TokenizerTest, DemoAndMissingFolder) {
  auto demo = Tokenizer::Load(SESSA_DEMO_MODEL);
  ASSERT_TRUE(demo.ok() && *demo != nullptr) << demo.status();
  EXPECT_EQ((*demo)->vocab_size(), 1024);
  EXPECT_EQ((*demo)->Encode("x", true)->front(), 0);
  EXPECT_EQ((*demo)->bos_token(), "<|endoftext|>");
  auto none = Tokenizer::Load("/nonexistent");
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, nullptr);
}

// However the bytes are cut into tokens: pieces are well-formed, and together they are Decode.
TEST(DetokenizerTest, PiecesMakeTheWhole) {
  auto demo = Tokenizer::Load(SESSA_DEMO_MODEL);
  ASSERT_TRUE(demo.ok());
  std::mt19937 rng(4);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids(rng() % 12);
    for (int32_t& id : ids) id = static_cast<int32_t>(rng() % 1030);
    Detokenizer d(demo->get(), round % 2 == 0);
    std::string text;
    for (int32_t id : ids) {
      const std::string piece = d.Push(id);
      ASSERT_EQ(FindInvalidUtf8(piece), std::string_view::npos);
      text += piece;
    }
    text += d.Flush();
    ASSERT_EQ(text, *(*demo)->Decode(ids, round % 2 == 0));
  }
}

TEST(RegexTest, BacktrackingIsBounded) {
  const auto regex = Regex::Compile("(a|aa|a)+$");
  ASSERT_TRUE(regex.ok());
  EXPECT_FALSE(regex->FindAll(std::string(60, 'a') + "b").ok());
  EXPECT_EQ(regex->FindAll("ab aa")->size(), 1u);
  EXPECT_FALSE(Regex::Compile("(").ok());
  EXPECT_EQ(Regex::Compile("x*")->FindAll("axxé")->size(), 1u);
}

TEST(Utf8Test, RepairsMaximalPieces) {
  EXPECT_EQ(RepairUtf8("a\xE2\x82z"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(RepairUtf8("\xF0\x9F\x98\x80"), "😀");
  EXPECT_EQ(RepairUtf8("\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(CompleteUtf8("a\xF0\x9F"), 1u);
  EXPECT_EQ(CompleteUtf8("a\xFF"), 2u);
  EXPECT_EQ(CompleteUtf8("é"), 2u);
  // What stands before the text in memory must not be looked at.
  EXPECT_EQ(CompleteUtf8(std::string_view("\xE2\x82").substr(1)), 1u);
  EXPECT_EQ(CompleteUtf8(std::string_view("\xF0\x9F\x98").substr(1)), 2u);
  EXPECT_EQ(CompleteUtf8(""), 0u);
}

// The demo's tokenizer with another normalizer, pre-tokenizer or added token.
std::unique_ptr<Tokenizer> DemoWith(const char* from, const char* to) {
  std::ifstream file(std::string(SESSA_DEMO_MODEL) + "/tokenizer.json");
  const std::string json((std::istreambuf_iterator<char>(file)), {});
  const std::string changed = absl::StrReplaceAll(json, {{from, to}});
  EXPECT_NE(json, changed) << from;
  auto tokenizer = Tokenizer::FromJson(changed, "");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(TokenizerTest, BytesBoundTokensFromBelow) {
  const char* const none = "\"normalizer\": null";
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  tokenizers.push_back(*Tokenizer::Load(SESSA_DEMO_MODEL));
  EXPECT_EQ(tokenizers[0]->MinTokens(0), 0);
  EXPECT_EQ(tokenizers[0]->MinTokens(13), 1);  // <|endoftext|>
  EXPECT_EQ(tokenizers[0]->MinTokens(14), 2);
  for (const char* type : {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}) {
    tokenizers.push_back(DemoWith(none, absl::StrCat("\"normalizer\": {\"type\": \"", type, "\"}").c_str()));
    EXPECT_EQ(tokenizers.back()->MinTokens(4 * 13 + 1), 2) << type;
  }
  const auto check = [&tokenizers](const std::string& text) {
    for (const auto& t : tokenizers) {
      ASSERT_LE(t->MinTokens(text.size()), static_cast<int64_t>(t->Encode(text, false)->size())) << text;
    }
  };
  for (int i = 0; i < 30; ++i) check(absl::StrCat(std::string(i, ' '), "<|endoftext|>"));
  // No character shrinks by more, nor what composes with others: each alone and with accents, thirteen times.
  for (char32_t c = 1; c < 0x110000; c += c < 0x3000 || (c >= 0x1d400 && c < 0x1d800) ? 1 : 601) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string once, all;
    AppendUtf8(c, &once);
    for (const char* marks : {"", "\u0302\u0301", "\u0327\u0303"}) {
      for (int i = 0; i < 13; ++i) absl::StrAppend(&all, once, marks);
    }
    check(all);
  }
  std::string hangul;  // three jamos of three bytes are one syllable of three
  for (int i = 0; i < 100; ++i) hangul += "\u1112\u1161\u11ab";
  check(hangul);
  // What may drop text says nothing.
  EXPECT_EQ(DemoWith(none, R"("normalizer": {"type": "Strip"})")->MinTokens(1000), 0);
  EXPECT_EQ(DemoWith("\"lstrip\": false", "\"lstrip\": true")->MinTokens(1000), 0);
  EXPECT_EQ((*Tokenizer::FromJson(kJson, ""))->MinTokens(1000), 0);  // bytes that are no token
}

}  // namespace
}  // namespace sessa
