// Sizes and times of flags: what is taken, at its edges, and that what is printed is taken again.
#include "flags/units.h"

#include <limits>

#include "absl/flags/marshalling.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"

namespace sessa {
namespace {

TEST(UnitsTest, Sizes) {
  for (const auto& [text, bytes] : std::vector<std::pair<const char*, int64_t>>{
           {"0", 0},
           {"65536", 65536},
           {"4GiB", int64_t{4} << 30},
           {"4gib", int64_t{4} << 30},
           {"4Gi", int64_t{4} << 30},
           {" 1.5 MiB ", 3 << 19},
           {"500k", 500'000},
           {"2MB", 2'000'000},
           {"1TB", 1'000'000'000'000},
           {"7B", 7},
           {"9007199254740993", 9007199254740993}}) {  // 2^53 + 1: no double
    ByteSize size;
    std::string error;
    EXPECT_TRUE(absl::ParseFlag(text, &size, &error)) << text << ": " << error;
    EXPECT_EQ(size.bytes, bytes) << text;
  }
  for (const char* text :
       {"", "GiB", "-1", "4 GiBs", "4PiB", "1e3", "0x10", "4Gibb", "9000000000GiB", "1.2.3", "4i"}) {
    ByteSize size;
    std::string error;
    EXPECT_FALSE(absl::ParseFlag(text, &size, &error)) << text;
    EXPECT_NE(error, "") << text;
  }
}

TEST(UnitsTest, Times) {
  for (const auto& [text, seconds] : std::vector<std::pair<const char*, double>>{
           {"30", 30}, {"0.5", 0.5}, {"-1", -1}, {"30s", 30}, {"250ms", 0.25}, {"1h30m", 5400}, {"0", 0}}) {
    FlagSeconds flag;
    FlagMilliseconds milliseconds;
    std::string error;
    EXPECT_TRUE(absl::ParseFlag(text, &flag, &error)) << text << ": " << error;
    EXPECT_EQ(flag.value, seconds) << text;
    EXPECT_TRUE(absl::ParseFlag(text, &milliseconds, &error)) << text << ": " << error;
    const bool has_unit = absl::string_view(text).find_first_of("smh") != absl::string_view::npos;
    EXPECT_EQ(milliseconds.value, seconds * (has_unit ? 1e3 : 1)) << text;
  }
  for (const char* text : {"", "s", "30 sec", "nan", "inf", "-inf", "1e999", "1d"}) {
    FlagSeconds flag;
    std::string error;
    EXPECT_FALSE(absl::ParseFlag(text, &flag, &error)) << text;
    EXPECT_NE(error, "") << text;
  }
}

TEST(UnitsTest, WhatIsPrintedIsTaken) {
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{1023}, int64_t{1024}, int64_t{64} << 20,
                              int64_t{3} << 40, int64_t{5} << 50, (int64_t{1} << 40) + 1}) {
    ByteSize size;
    std::string error;
    ASSERT_TRUE(absl::ParseFlag(absl::UnparseFlag(ByteSize{bytes}), &size, &error));
    EXPECT_EQ(size.bytes, bytes);
  }
  EXPECT_EQ(absl::UnparseFlag(ByteSize{64 << 20}), "64MiB");
  EXPECT_EQ(absl::UnparseFlag(FlagSeconds{0.5}), "0.5");
}

}  // namespace
}  // namespace sessa
