// A stand-in for the model under the Scheduler: what it "computes" for a token is a hash of the whole prefix,
// kept in pages as the real state is, so that a page used for the wrong prefix, a stale one or one written by
// two is seen at once. With slots the hash also goes from token to token as recurrent state does, and the
// next token is made of that alone: a slot that holds another prefix, or the right one at another token,
// gives a wrong answer. A greedy request's text repeats itself, so that drafts are right more often than not.
#pragma once

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "engine/page_geometry.h"
#include "engine/step_plan.h"
#include "gtest/gtest.h"

namespace sessa {

class FakeModel {
 public:
  static constexpr int kVocab = 32;
  static constexpr int kEos = 31;

  explicit FakeModel(const StateSize& size)
      : page_size_(size.page_size), state_(size.num_pages * size.page_size), slots_(size.num_slots, 0xbad) {}

  static uint64_t Extend(uint64_t prefix, int32_t token) {
    uint64_t x = (prefix ^ static_cast<uint64_t>(token + 1)) * 0x9e3779b97f4a7c15u;
    return x ^ (x >> 29);
  }
  // last: the prefix's last token.
  static int32_t Next(uint64_t prefix, int32_t last, uint64_t seed, bool greedy) {
    const auto random = static_cast<int32_t>(Extend(prefix ^ seed, 7) >> 20);
    return greedy && (random >> 8 & 7) != 0 ? (last + 1) % 6 : random & (kVocab - 1);
  }

  // What choice `choice` of a request must give when nobody disturbs it.
  static std::vector<int32_t> Expected(const std::vector<int32_t>& prompt, const SamplingParams& sampling,
                                       int choice, int max_model_len) {
    uint64_t prefix = 0;
    int32_t last = 0;
    for (int32_t token : prompt) prefix = Extend(prefix, last = token);
    std::vector<int32_t> out;
    while (static_cast<int>(out.size()) < sampling.max_tokens &&
           static_cast<int>(prompt.size() + out.size()) < max_model_len) {
      out.push_back(last = Next(prefix, last, sampling.seed + choice, sampling.temperature == 0));
      if (last == kEos && !sampling.ignore_eos) break;
      prefix = Extend(prefix, last);
    }
    return out;
  }

  // Steps run in the order of the calls, each with the tokens that the one before sampled.
  std::vector<SequenceResult> Execute(const StepPlan& plan) {
    std::vector<SequenceResult> results;
    CheckSlots(plan);
    const std::vector<int32_t> before = std::exchange(sampled_, {});
    const auto known = [&](int32_t token) { return token < 0 ? before.at(-1 - token) : token; };
    int rows = 0;
    for (const PlanSequence& s : plan.sequences) {
      EXPECT_EQ(s.first_row, rows);
      EXPECT_GE(s.num_rows, 1);
      rows += s.num_rows;
      uint64_t prefix = 0, recurrent = s.start > 0 && s.slot >= 0 ? slots_.at(s.state_from) : 0;
      auto snapshot = s.snapshots.begin();
      bool right = true;  // all drafts so far
      std::vector<SampledToken> sampled;
      for (int i = 0; i < s.start + s.num_rows; ++i) {
        const int32_t token = known((*s.tokens)[i]);
        prefix = Extend(prefix, token);
        uint64_t& paged = state_[s.pages[i / page_size_] * page_size_ + i % page_size_];
        if (i < s.start) {
          EXPECT_EQ(paged, prefix) << "sequence " << s.sequence_id << " position " << i;
          continue;
        }
        const int row = i - s.start;
        EXPECT_EQ(plan.token_ids[s.first_row + row], (*s.tokens)[i]);
        EXPECT_EQ(plan.positions[s.first_row + row], i);
        paged = prefix;
        recurrent = Extend(recurrent, token);
        if (snapshot != s.snapshots.end() && snapshot->row == row) slots_.at((snapshot++)->slot) = recurrent;
        if (!s.sample || row + 1 + s.num_drafts < s.num_rows || !right) continue;
        sampled.push_back(
            {Next(s.slot >= 0 ? recurrent : prefix, token, s.seed, s.sampling->temperature == 0), {}});
        sampled_.push_back(sampled.back().token);
        right = row + 1 < s.num_rows && sampled.back().token == (*s.tokens)[i + 1];
      }
      EXPECT_TRUE(snapshot == s.snapshots.end());
      if (s.slot >= 0) slots_.at(s.slot) = recurrent;
      EXPECT_TRUE(s.num_drafts == 0 || (s.sample && s.slot < 0 && s.num_drafts < s.num_rows));
      SequenceResult& result = results.emplace_back();
      result.tokens = std::move(sampled);
      if (s.first_logprob_row >= 0) {
        for (int i = s.start + s.first_logprob_row; i < s.start + s.num_rows && i + 1 < s.prompt_size; ++i) {
          result.prompt_logprobs.push_back({static_cast<float>(i), 1, {}});
        }
      }
    }
    EXPECT_EQ(rows, plan.num_rows());
    return results;
  }

 private:
  // No slot is written twice, or read by one sequence and written by another: they run in any order.
  void CheckSlots(const StepPlan& plan) const {
    std::set<int32_t> written;
    for (const PlanSequence& s : plan.sequences) {
      EXPECT_EQ(s.slot >= 0, !slots_.empty());
      if (s.slot < 0) continue;
      EXPECT_EQ(s.state_from >= 0, s.start > 0);
      EXPECT_TRUE(written.insert(s.slot).second) << s.slot;
      for (const Snapshot& snapshot : s.snapshots)
        EXPECT_TRUE(written.insert(snapshot.slot).second) << snapshot.slot;
    }
    for (const PlanSequence& s : plan.sequences)
      EXPECT_TRUE(s.state_from == s.slot || !written.contains(s.state_from)) << s.state_from;
  }

  const int page_size_;
  std::vector<int32_t> sampled_;  // by the last step
  std::vector<uint64_t> state_;   // [num_pages, page_size]
  std::vector<uint64_t> slots_;
};

}  // namespace sessa
