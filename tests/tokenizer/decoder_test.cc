// What compare_test.py cannot say of decoding and of SentencePiece's map: how a stream goes on from a prompt,
// what is held back, and that a map is never believed.
#include "server/tokenizer/decoder.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <cstring>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/tokenizer/characters_map.h"
#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

constexpr char kLlama[] = R"({
  "added_tokens": [{"id": 300, "content": "<s>", "special": true, "normalized": false}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "byte_fallback": true, "vocab": {VOCAB}, "merges": ["▁ a"]}
})";

std::unique_ptr<Tokenizer> Llama() {
  std::string vocabulary = R"("▁": 256, "a": 257, "▁a": 258)";
  for (int byte = 0; byte < 256; ++byte)
    absl::StrAppend(&vocabulary, ", \"<0x",
                    absl::AsciiStrToUpper(absl::StrCat(absl::Hex(byte, absl::kZeroPad2))), ">\": ", byte);
  auto tokenizer = Tokenizer::FromJson(absl::StrReplaceAll(kLlama, {{"VOCAB", vocabulary}}), "");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<std::string> Pieces(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool at_start) {
  Detokenizer d(&tokenizer, /*skip_special=*/true, at_start);
  std::vector<std::string> pieces;
  for (int32_t id : ids) pieces.push_back(d.Push(id));
  pieces.push_back(d.Flush());
  return pieces;
}

TEST(DecoderTest, OnlyTheStartOfATextLosesItsSpace) {
  const auto llama = Llama();
  const std::vector<int32_t> ids = *llama->Encode("a a", false);
  EXPECT_EQ(ids, (std::vector<int32_t>{258, 258}));
  using Strings = std::vector<std::string>;
  EXPECT_EQ(Pieces(*llama, ids, true), (Strings{"a", " a", ""}));
  EXPECT_EQ(Pieces(*llama, ids, false), (Strings{" a", " a", ""}));  // an answer goes on from its prompt
  EXPECT_EQ(Pieces(*llama, {300, 258}, true), (Strings{"", "a", ""}));
  EXPECT_EQ(llama->TokenBytes(258), " a");
}

TEST(DecoderTest, RunsOfBytesAreShownByTheCharacter) {
  const auto llama = Llama();
  using Strings = std::vector<std::string>;
  EXPECT_EQ(Pieces(*llama, {0xC3, 0xA9, 0xC3, 257}, true), (Strings{"", "é", "", "\uFFFDa", ""}));
  EXPECT_EQ(Pieces(*llama, {0xE2, 0x82}, true), (Strings{"", "", "\uFFFD\uFFFD"}));  // each byte
  EXPECT_EQ(llama->TokenBytes(0xC3), "\xC3");
  EXPECT_EQ(llama->MinTokens(7), 2);  // of "<0x00>", six bytes
}

TEST(DecoderTest, TheLastWordLosesItsEnd) {
  auto decoder = Decoder::Parse(boost::json::parse(R"({"type": "BPEDecoder", "suffix": "</w>"})"));
  ASSERT_TRUE(decoder.ok());
  TextDecoder text(&*decoder, true);
  EXPECT_EQ(text.Push(decoder->TextOf("ab</w>")), "ab");
  EXPECT_EQ(text.Push(decoder->TextOf("c")), " c");
  EXPECT_EQ(text.Push(decoder->TextOf("d</w>")), "d");
  EXPECT_EQ(text.Flush(), "");
}

// A trie of one entry, "A" -> "a", laid out by hand: the root's children are at 0x100 ^ byte, the leaf at 1.
std::string Map() {
  std::vector<uint32_t> units(0x142);
  units[0] = 0x100u << 10;
  units['A' ^ 0x100] = 'A' | 1u << 8 | (('A' ^ 0x100u ^ 1u) << 10);
  units[1] = 1u << 31;
  const auto bytes = static_cast<uint32_t>(units.size() * sizeof(uint32_t));
  std::string blob(sizeof(bytes) + bytes, '\0');
  std::memcpy(blob.data(), &bytes, sizeof(bytes));
  std::memcpy(blob.data() + sizeof(bytes), units.data(), bytes);
  return blob + std::string("a\0", 2);
}

TEST(CharactersMapTest, EveryIndexIsJudged) {
  const auto map = CharactersMap::FromBase64(absl::Base64Escape(Map()));
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ((*map)->Apply("AbA 語"), "aba 語");
  EXPECT_EQ((*map)->Apply("A\u0301"),
            "a");  // a grapheme that begins with an entry is that entry, as Hugging Face has it
  std::mt19937 rng(5);
  for (int round = 0; round < 3000; ++round) {
    std::string blob = Map();
    for (int n = 0; n < 8; ++n) blob[rng() % (rng() % 2 == 0 ? 8 : blob.size())] = static_cast<char>(rng());
    const auto broken = CharactersMap::FromBase64(absl::Base64Escape(blob));
    if (broken.ok()) (*broken)->Apply("AbA 語é");
  }
  for (const std::string& bad : {std::string(), std::string("\0\0\0\0", 4), std::string("\5\0\0\0AAAAA", 9)})
    EXPECT_FALSE(CharactersMap::FromBase64(absl::Base64Escape(bad)).ok());
  EXPECT_FALSE(CharactersMap::FromBase64("*").ok());
}

}  // namespace
}  // namespace sessa
