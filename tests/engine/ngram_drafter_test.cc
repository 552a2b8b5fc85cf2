#include "engine/ngram_drafter.h"

#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Tokens = std::vector<int32_t>;

Tokens DraftAfter(const Tokens& tokens, int most) {
  NgramDrafter drafter;
  drafter.Observe(tokens, static_cast<int>(tokens.size()));
  Tokens drafts;
  drafter.Draft(tokens, most, &drafts);
  return drafts;
}

TEST(NgramDrafterTest, GoesOnAsWhereTheLastTokensStoodBefore) {
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 5, 6, 1, 2, 3}, 3), ElementsAre(4, 5, 6));
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3}, 2), ElementsAre(5, 9)) << "the latest";
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 5, 6, 2, 3}, 3), IsEmpty()) << "two tokens are no match";
  EXPECT_THAT(DraftAfter({}, 3), IsEmpty());
  EXPECT_THAT(DraftAfter({1, 2, 3}, 3), IsEmpty());
}

TEST(NgramDrafterTest, BeyondTheEndItRepeatsItsOwnGuesses) {
  EXPECT_THAT(DraftAfter({7, 7, 7, 7}, 4), ElementsAre(7, 7, 7, 7));
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 1, 2, 3}, 7), ElementsAre(4, 1, 2, 3, 4, 1, 2));
}

TEST(NgramDrafterTest, StaysWithAMatchThatGoesOn) {
  // Behind 1 2 3 4 the longer match, though 2 3 4 stood elsewhere later.
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 9, 1, 2, 3, 4}, 1), ElementsAre(5));
}

TEST(NgramDrafterTest, WhatCameBeforeInPiecesIsTheSame) {
  std::mt19937 rng(1);
  Tokens tokens;
  NgramDrafter pieces;
  for (int i = 0; i < 3000; ++i) {
    tokens.push_back(static_cast<int32_t>(rng() % 5));
    if (rng() % 3 != 0) continue;
    pieces.Observe(tokens, 0);
    Tokens drafts;
    pieces.Draft(tokens, 4, &drafts);
    ASSERT_EQ(drafts, DraftAfter(tokens, 4)) << i;
  }
}

TEST(NgramDrafterTest, OfATextLongerThanItsMemoryTheLatest) {
  Tokens tokens;
  for (int i = 0; i < 3 * NgramDrafter::kMaxPlaces; ++i) tokens.push_back(i);
  const int32_t last = tokens.back();
  for (int32_t token : {last - 9, last - 8, last - 7}) tokens.push_back(token);
  EXPECT_THAT(DraftAfter(tokens, 2), ElementsAre(last - 6, last - 5));
}

TEST(NgramDrafterTest, ChancesFollowTheSequencesLuck) {
  Tokens right, wrong;
  for (int i = 0; i < 400; ++i) right.push_back(i % 10);
  std::mt19937 rng(1);
  for (int i = 0; i < 400; ++i) wrong.push_back(i % 4 < 3 ? i % 4 : static_cast<int32_t>(3 + rng() % 1000));
  NgramDrafter lucky, unlucky;
  EXPECT_GT(lucky.Chance(0), 0.3);
  EXPECT_LT(lucky.Chance(0), lucky.Chance(15)) << "a long match is safer";
  lucky.Observe(right, 10);
  unlucky.Observe(wrong, 10);
  EXPECT_GT(lucky.Chance(0), 0.9);
  EXPECT_LT(unlucky.Chance(0), 0.1);
  // What lies in the prompt says nothing of the answer.
  NgramDrafter unasked;
  unasked.Observe(wrong, 400);
  EXPECT_EQ(unasked.Chance(0), NgramDrafter().Chance(0));
  // Another way to go on is learnt within some tens of tokens.
  for (int i = 0; i < 60; ++i) wrong.push_back(i % 7);
  unlucky.Observe(wrong, 10);
  EXPECT_GT(unlucky.Chance(0), 0.5);
}

}  // namespace
}  // namespace sessa
