// ParseJson: what it gives, what it refuses and where, and that a tree of many values is few pieces of
// memory.
#include <cstdlib>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "boost/json/serialize.hpp"
#include "gmock/gmock.h"
#include "server/rest/json_parse.h"

namespace {
thread_local int num_allocations = 0;
}

void* operator new(size_t size) {
  ++num_allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace sessa {
namespace {

constexpr int kMaxDepth = 8;

TEST(JsonParseTest, TreesAreWhatTheTextSays) {
  for (const std::string text :
       {R"({"a":[1,-2,2.5E0,true,null,"x"],"b":{"a":{}}})", "[[],[{}],{}]", "\"\"", "7"}) {
    const auto value = ParseJson(text, kMaxDepth);
    ASSERT_TRUE(value.ok()) << value.status();
    EXPECT_EQ(boost::json::serialize(*value), text);
  }
}

TEST(JsonParseTest, KeysAreToldApartByTheirObject) {
  EXPECT_TRUE(ParseJson(R"([{"a":{"a":1,"b":2},"b":1},{"a":1},{"b":[{"a":1}],"a":1}])", kMaxDepth).ok());
  const auto twice = ParseJson(R"({"x":{"b":1},"a":[{"b":1},{"b":2,"c":{"b":3},"b":4}]})", kMaxDepth);
  EXPECT_THAT(twice.status().message(), ::testing::HasSubstr("a[1].b"));
}

TEST(JsonParseTest, ManyValuesTakeFewPiecesOfMemory) {
  std::string text = "[1";
  for (int i = 0; i < 20'000; ++i) absl::StrAppend(&text, R"(,{"a":[1,"more than fits into a value"]})");
  text += "]";
  num_allocations = 0;
  const auto value = ParseJson(text, kMaxDepth);
  EXPECT_LT(num_allocations, 200);
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->as_array().size(), 20'001);
}

}  // namespace
}  // namespace sessa
