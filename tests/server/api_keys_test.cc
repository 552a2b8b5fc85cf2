// The key file: who a key belongs to, with which weight, and what is said of a bad line.
#include "server/core/api_keys.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string TenantOf(const ApiKeys& keys, const std::string& key) {
  return keys.Tenant("Bearer " + key).value_or("nobody");
}

TEST(ApiKeysTest, TenantsAndWeights) {
  auto keys = ApiKeys::Parse(
      "# who pays\n"
      "secret-a  team-a weight=4\r\n"
      "secret-b team-b   # weight=9\n"
      "secret-c\tweight=1000\n"
      "secret-d weight=2 team-d\n"
      "secret-e team-a\n"
      "secret-f team-a weight=4\n");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(TenantOf(*keys, "secret-a"), "team-a");
  EXPECT_EQ(TenantOf(*keys, "secret-e"), "team-a");
  EXPECT_EQ(TenantOf(*keys, "secret-d"), "team-d");
  EXPECT_EQ(TenantOf(*keys, "secret-c"), "key-4");  // named by its line
  EXPECT_EQ(TenantOf(*keys, "weight=4"), "nobody");
  EXPECT_EQ(keys->Weight("team-a"), 4);
  EXPECT_EQ(keys->Weight("team-b"), 1);
  EXPECT_EQ(keys->Weight("key-4"), 1000);
  EXPECT_EQ(keys->Weight("team-d"), 2);
  EXPECT_EQ(keys->Weight(""), 1);
}

TEST(ApiKeysTest, ABadLineIsNamedAndItsKeyIsNot) {
  for (const auto& [line, why] : std::vector<std::pair<std::string, std::string>>{
           {"secret team weight=0", "between 1 and 1000"},
           {"secret team weight=1001", "between 1 and 1000"},
           {"secret team weight=-1", "between 1 and 1000"},
           {"secret team weight=1.5", "between 1 and 1000"},
           {"secret team weight=", "between 1 and 1000"},
           {"secret weight=2 weight=2", "twice"},
           {"secret team other", "expected KEY [TENANT] [weight=N]"},
           {"secret team wieght=2", "expected KEY [TENANT] [weight=N]"},
           {"first", "the key is there twice"},
           {"secret team-1 weight=3", "tenant team-1 has weight 2 in an earlier line"}}) {
    const auto keys = ApiKeys::Parse("first team-1 weight=2\n\n" + line + "\n");
    ASSERT_FALSE(keys.ok()) << line;
    EXPECT_THAT(keys.status().message(), HasSubstr("API keys, line 3: ")) << line;
    EXPECT_THAT(keys.status().message(), HasSubstr(why)) << line;
    EXPECT_THAT(keys.status().message(), Not(HasSubstr("secret"))) << line;
  }
}

}  // namespace
}  // namespace sessa
