// The key file: who a key belongs to and what its tenant may, and what is said of a bad line.
#include "server/core/api_keys.h"

#include <array>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/make_key.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string TenantOf(const ApiKeys& keys, const std::string& key) {
  return keys.Tenant("Bearer " + key).value_or("nobody");
}

std::string Line(const std::string& key, const std::string& rest = "") {
  return HashedKey(key) + " " + rest + "\n";
}

TEST(ApiKeysTest, TheFileHoldsTheHash) {
  EXPECT_EQ(HashedKey("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  auto keys = ApiKeys::Parse(Line("secret-a", "team-a"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(TenantOf(*keys, "secret-a"), "team-a");
  EXPECT_EQ(keys->num_plain_keys(), 0);
  // Who has read the file has no key.
  EXPECT_EQ(TenantOf(*keys, HashedKey("secret-a")), "nobody");
  EXPECT_EQ(TenantOf(*keys, HashedKey("secret-a").substr(7)), "nobody");
}

TEST(ApiKeysTest, OnlyTheWholeKeyIsOne) {
  auto keys = ApiKeys::Parse(Line("secret-a", "team-a"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  for (const char* near : {"", "s", "secret-", "secret-aa", "Secret-a", "secret-b", "secret-a secret-a"})
    EXPECT_EQ(TenantOf(*keys, near), "nobody") << near;
  EXPECT_EQ(TenantOf(*keys, std::string("secret-a\0", 9)), "nobody");
  for (const char* header : {"", "Bearer", "Bearer ", "Basic secret-a", "secret-a"})
    EXPECT_EQ(keys->Tenant(header).status().code(), absl::StatusCode::kUnauthenticated) << header;
  EXPECT_EQ(keys->Tenant("bEaReR  secret-a ").value_or(""), "team-a");
}

TEST(ApiKeysTest, TenantsAndTheirFields) {
  auto keys = ApiKeys::Parse(
      "# who pays\n" + Line("a", "team-a weight=4") + Line("b", "team-b   # weight=9") +
      Line("c", "weight=1000") + Line("d", "weight=2 team-d") + Line("e", "team-a rate=2.5") +
      Line("f", "team-a weight=4 tokens_per_minute=1000000000000") +
      Line("g", "team-g rate=10 burst=20 max_requests=8 min_priority=0 max_priority=5") + "\r\n\t\n");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->num_keys(), 7);
  EXPECT_EQ(TenantOf(*keys, "a"), "team-a");
  EXPECT_EQ(TenantOf(*keys, "e"), "team-a");
  EXPECT_EQ(TenantOf(*keys, "d"), "team-d");
  EXPECT_EQ(TenantOf(*keys, "c"), "key-2e7d2c03a950");  // named by its hash
  EXPECT_EQ(TenantOf(*keys, "weight=4"), "nobody");
  const TenantLimits a = keys->Limits("team-a");
  EXPECT_EQ(a.weight, 4);
  EXPECT_EQ(a.rate, 2.5);
  EXPECT_EQ(a.burst, 3);  // a second's
  EXPECT_EQ(a.tokens_per_minute, 1000000000000);
  EXPECT_EQ(a.max_requests, 0);
  EXPECT_EQ(a.min_priority, -1000);
  EXPECT_EQ(a.max_priority, 1000);
  EXPECT_EQ(keys->Limits("team-b").weight, 1);
  EXPECT_EQ(keys->Limits("team-b").rate, 0);
  EXPECT_EQ(keys->Limits("key-2e7d2c03a950").weight, 1000);
  const TenantLimits g = keys->Limits("team-g");
  EXPECT_EQ(g.burst, 20);
  EXPECT_EQ(g.max_requests, 8);
  EXPECT_EQ(g.min_priority, 0);
  EXPECT_EQ(g.max_priority, 5);
  EXPECT_EQ(keys->Limits("").weight, 1);
}

TEST(ApiKeysTest, PlainKeysAreTakenAndCounted) {
  const std::string text =
      "plain#1 team  # weight=2\n\n# note\n" + Line("hashed", "team weight=3") + "  second\n";
  auto keys = ApiKeys::Parse(text);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->num_plain_keys(), 2);
  EXPECT_EQ(TenantOf(*keys, "plain#1"), "team");  // '#' in a word is no comment
  EXPECT_EQ(TenantOf(*keys, "plain"), "nobody");
  const std::string hashed = HashKeys(text);
  EXPECT_EQ(hashed, HashedKey("plain#1") + " team  # weight=2\n\n# note\n" + Line("hashed", "team weight=3") +
                        "  " + HashedKey("second") + "\n");
  auto again = ApiKeys::Parse(hashed);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->num_plain_keys(), 0);
  EXPECT_EQ(TenantOf(*again, "plain#1"), "team");
  EXPECT_EQ(TenantOf(*again, "second"), TenantOf(*keys, "second"));
}

TEST(ApiKeysTest, ABadLineIsNamedAndNothingOfItIsRepeated) {
  const std::string good = HashedKey("good");
  for (const auto& [line, where, why] : std::vector<std::array<std::string, 3>>{
           {"secret secret weight=0", "weight", "between 1 and 1000"},
           {"secret secret weight=1001", "weight", "between 1 and 1000"},
           {"secret secret weight=-1", "weight", "between 1 and 1000"},
           {"secret secret weight=1.5", "weight", "a whole number"},
           {"secret secret weight=", "weight", "a whole number"},
           {"secret secret weight=secret", "weight", "a whole number"},
           {"secret secret rate=nan", "rate", "between 0.001 and 1e+06"},
           {"secret secret rate=0.0009", "rate", "between 0.001"},
           {"secret secret rate=1000001", "rate", "between 0.001"},
           {"secret secret tokens_per_minute=1000000000001", "tokens_per_minute", "1000000000000"},
           {"secret secret max_requests=0", "max_requests", "between 1 and 1000000"},
           {"secret secret min_priority=-1001", "min_priority", "between -1000 and 1000"},
           {"secret secret max_priority=1001", "max_priority", "between -1000 and 1000"},
           {"secret min_priority=1 max_priority=0", "min_priority", "must not exceed max_priority"},
           {"secret burst=3", "burst", "goes with a rate"},
           {"secret weight=2 weight=2", "weight", "twice"},
           {"secret team secret", "word 3", "expected KEY [TENANT]"},
           {"secret team secret=2", "word 3", "expected KEY [TENANT]"},
           {"secret " + good, "word 2", "the key comes first"},
           {"secret secret\x01", "word 2", "1 to 64 letters"},
           {"secret secr\xc3\xa9t", "word 2", "1 to 64 letters"},
           {"secret " + std::string(65, 's'), "word 2", "1 to 64 letters"},
           {"sha256:secret team", "key", "64 hexadecimal digits"},
           {good + "0 team", "key", "64 hexadecimal digits"},
           {good.substr(0, 70) + "x team", "key", "64 hexadecimal digits"},
           {"good", "key", "twice"},
           {"secret team-1 weight=3", "weight", "an earlier line of the same tenant says otherwise"}}) {
    const auto keys = ApiKeys::Parse(good + " team-1 weight=2\n\n" + line + "\n");
    ASSERT_FALSE(keys.ok()) << line;
    EXPECT_THAT(std::string(keys.status().message()), StartsWith("API keys, line 3, " + where + ": "))
        << line;
    EXPECT_THAT(keys.status().message(), HasSubstr(why)) << line;
    EXPECT_THAT(keys.status().message(), Not(HasSubstr("secr"))) << line;
    EXPECT_THAT(keys.status().message(), Not(HasSubstr(good.substr(7, 8)))) << line;
  }
  EXPECT_TRUE(ApiKeys::Parse("key " + std::string(64, 's')).ok());
}

TEST(ApiKeysTest, AFileThatCannotBeOneIsRefused) {
  const std::string path = ::testing::TempDir() + "/api_keys_test";
  const auto load = [&path](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return ApiKeys::Load(path).status();
  };
  EXPECT_TRUE(load(Line("a")).ok());
  EXPECT_TRUE(load(HashedKey("a")).ok());                          // without a line break
  EXPECT_THAT(load("").message(), HasSubstr("holds no API key"));  // it would open the server to all
  EXPECT_THAT(load("# nothing\n").message(), HasSubstr(path));
  EXPECT_THAT(std::string(load("a b c\n").message()), StartsWith(path + ": API keys, line 1"));
  EXPECT_TRUE(load(Line("a") + std::string(ApiKeys::kMaxFileBytes - Line("a").size(), '\n')).ok());
  EXPECT_THAT(load(std::string(ApiKeys::kMaxFileBytes + 1, '\n')).message(), HasSubstr("16777216 bytes"));
  std::remove(path.c_str());
  EXPECT_EQ(ApiKeys::Load(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ApiKeys::Load(::testing::TempDir()).status().code(), absl::StatusCode::kNotFound);  // a folder
}

TEST(MakeKeyTest, NewKeysAreDifferentAndWork) {
  std::set<std::string> made;
  for (int i = 0; i < 100; ++i) {
    const auto key = MakeKey("alice weight=4 rate=10 # laptop");
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(key->key.size(), 6u + 43);  // 256 bits
    EXPECT_TRUE(made.insert(key->key).second);
    const auto keys = ApiKeys::Parse(key->line);
    ASSERT_TRUE(keys.ok()) << keys.status();
    EXPECT_EQ(TenantOf(*keys, key->key), "alice");
    EXPECT_EQ(keys->Limits("alice").rate, 10);
    EXPECT_THAT(key->line, Not(HasSubstr(key->key.substr(6))));
  }
  EXPECT_THAT(MakeKey("alice wieght=4").status().message(), HasSubstr("expected KEY"));
  EXPECT_FALSE(MakeKey("alice\nbob").ok());
}

}  // namespace
}  // namespace sessa
