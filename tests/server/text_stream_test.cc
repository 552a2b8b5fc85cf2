// Stop strings in text that is partly not shown; cuts of shown text are in rest_test.cc.
#include "server/core/text_stream.h"

#include <gtest/gtest.h>

#include <random>

namespace sessa {
namespace {

TEST(StopMatcherTest, WhatIsNotShownEndsTheTextToo) {
  StopMatcher end({"<end>"}, false);
  EXPECT_EQ(end.Push("a<"), "a");
  EXPECT_EQ(end.Push("b"), "<b");
  EXPECT_EQ(end.Push("<pad>", false), "");
  EXPECT_EQ(end.Push("c"), "c");
  EXPECT_EQ(end.Push("<end>", false), "");
  EXPECT_TRUE(end.stopped());
  EXPECT_EQ(end.matched(), "<end>");

  StopMatcher across({"x\n<end>", "y<pad"}, true);
  EXPECT_EQ(across.Push("wx\n"), "w");
  EXPECT_EQ(across.Push("<end>", false), "x\n<end>");
  EXPECT_TRUE(across.stopped());

  StopMatcher held({"x\n<end>"}, false);
  EXPECT_EQ(held.Push("x\n"), "");
  EXPECT_EQ(held.Push("<pad>", false), "");  // "<end>" may come as text that is shown
  EXPECT_EQ(held.Push("x"), "x\n");
  EXPECT_EQ(held.Push("<end>", false), "");
  EXPECT_FALSE(held.stopped());
  EXPECT_EQ(held.Flush(), "x");
}

// What is shown never holds a stop string, whatever stands unseen between its parts.
TEST(StopMatcherTest, ShownTextIsSearchedAsItIsShown) {
  StopMatcher stops({"abc"}, false);
  EXPECT_EQ(stops.Push("xab"), "x");
  EXPECT_EQ(stops.Push("<pad>", false), "");
  EXPECT_EQ(stops.Push("<pad>", false), "");
  EXPECT_EQ(stops.Push("c!"), "");
  EXPECT_TRUE(stops.stopped());

  StopMatcher flushed({"abc"}, false);
  EXPECT_EQ(flushed.Push("ab"), "");
  EXPECT_EQ(flushed.Push("<pad>", false), "");
  EXPECT_EQ(flushed.Flush(), "ab");
}

// However a text is cut, the answer is that of the text at once: hidden pieces stay whole.
TEST(StopMatcherTest, CutsDoNotMatter) {
  std::mt19937 rng(7);
  const std::vector<std::string> stops = {"ab<e>", "<e>b", "bba", "c"};
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::pair<std::string, bool>> pieces;  // and whether they are shown
    for (int n = static_cast<int>(rng() % 8); n >= 0; --n) {
      if (rng() % 3 == 0) {
        pieces.emplace_back(rng() % 2 == 0 ? "<e>" : "<p>", false);
      } else {
        std::string text;
        for (int k = static_cast<int>(rng() % 4); k >= 0; --k) text += "abbac"[rng() % 5];
        pieces.emplace_back(text, true);
      }
    }
    StopMatcher whole(stops, round % 2 == 0), cut(stops, round % 2 == 0);
    std::string of_whole, of_cut;
    for (const auto& [text, shown] : pieces) {
      of_whole += whole.Push(text, shown);
      for (size_t at = 0; at < text.size(); ++at) of_cut += cut.Push(text.substr(at, 1), shown);
    }
    of_whole += whole.Flush();
    of_cut += cut.Flush();
    ASSERT_EQ(of_whole, of_cut);
    ASSERT_EQ(whole.stopped(), cut.stopped());
    if (whole.stopped()) {
      ASSERT_EQ(whole.matched(), cut.matched());
    }
  }
}

}  // namespace
}  // namespace sessa
