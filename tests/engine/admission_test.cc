// Who may wait: each bound at its edge, what is ahead of whom, and when to come again. The cost model is the
// one before any step: 2 ms a step and 1 ms a row, and more for what a row attends to.
#include "engine/admission.h"

#include <optional>

#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa {
namespace {

using ::testing::HasSubstr;

// A prompt of so many tokens takes a second.
double SecondsOf(int64_t num_tokens) {
  StepFeatures f;
  f.AddPrefill(0, num_tokens);
  return absl::ToDoubleSeconds(CostModel().Predict(f) - CostModel().Predict({}));
}
int64_t TokensOfASecond() {
  int64_t num_tokens = 1;
  while (SecondsOf(num_tokens) < 1) ++num_tokens;
  return num_tokens;
}
const int64_t kSecond = TokensOfASecond();

class AdmissionTest : public ::testing::Test {
 protected:
  void Limit(AdmissionLimits limits) {
    admission_.emplace(limits);
    Observe(1000);
  }
  void Observe(int num_startable, absl::Duration step = absl::ZeroDuration(),
               absl::Duration prefill = absl::ZeroDuration()) {
    admission_->Observe({&costs_, &lengths_, 8, num_startable, step, prefill});
  }
  static Arrival Of(int64_t num_prompt_tokens, const std::string& tenant = "", int weight = 1) {
    Arrival a;
    a.num_prompt_tokens = num_prompt_tokens;
    a.tenant = tenant;
    a.tenant_weight = weight;
    return a;
  }
  void Enter(const Arrival& a, int count = 1) {
    for (int i = 0; i < count; ++i) {
      admission_->Enter(next_id_++, a, now_);
      ++num_waiting_;
      tokens_ += a.num_prompt_tokens;
    }
  }
  absl::Status Check(const Arrival& a) const { return admission_->Check(a, num_waiting_, tokens_, now_); }
  double Wait(const Arrival& a) const { return absl::ToDoubleSeconds(admission_->PredictWait(a, now_)); }
  static double RetryAfter(const absl::Status& refused) {
    int64_t ms = 0;
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    EXPECT_TRUE(
        absl::SimpleAtoi(std::string(refused.GetPayload(kRetryAfterMsPayload).value_or(absl::Cord())), &ms));
    return static_cast<double>(ms) / 1000;
  }

  CostModel costs_;
  AnswerLengths lengths_;
  std::optional<Admission> admission_;
  RequestId next_id_ = 1;
  int num_waiting_ = 0;
  int64_t tokens_ = 0;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(AdmissionTest, TheQueuesSizeAtItsEdges) {
  Limit({.max_queued_requests = 3, .max_queued_tokens = 100});
  EXPECT_TRUE(Check(Of(500)).ok());  // an empty queue takes any prompt
  Enter(Of(40), 2);
  EXPECT_TRUE(Check(Of(20)).ok());
  EXPECT_THAT(Check(Of(21)).message(), HasSubstr("max_queued_tokens: 80"));
  Enter(Of(1));
  EXPECT_THAT(Check(Of(1)).message(), HasSubstr("max_queued_requests: 3"));
  EXPECT_EQ(RetryAfter(Check(Of(1))), 1);  // they take 81 ms, but not below a second
}

TEST_F(AdmissionTest, ATenantTakesHalfOfThePlacesThatOthersLeave) {
  Limit({.max_queued_requests = 8});
  Enter(Of(10, "much"), 3);
  EXPECT_TRUE(Check(Of(10, "much")).ok());
  Enter(Of(10, "much"));
  EXPECT_THAT(Check(Of(10, "much")).message(), HasSubstr("4 requests of this key"));
  EXPECT_TRUE(Check(Of(10, "other")).ok());
  Enter(Of(10, "other"), 2);
  EXPECT_FALSE(Check(Of(10, "other")).ok());  // half of the four places left
  EXPECT_TRUE(Check(Of(10, "third")).ok());
  EXPECT_TRUE(Check(Of(10)).ok());  // the tenant without a key has them all
}

TEST_F(AdmissionTest, ATenantTakesHalfOfTheTokensThatOthersLeave) {
  Limit({.max_queued_tokens = 800});
  EXPECT_TRUE(Check(Of(700, "much")).ok());  // an empty queue takes any prompt
  Enter(Of(100, "much"), 3);
  EXPECT_TRUE(Check(Of(100, "much")).ok());
  EXPECT_THAT(Check(Of(101, "much")).message(), HasSubstr("300 prompt tokens of this key"));
  Enter(Of(100, "much"));
  EXPECT_TRUE(Check(Of(400, "other")).ok());  // its first may have all that is left
  Enter(Of(100, "other"));
  EXPECT_TRUE(Check(Of(100, "other")).ok());  // half of the 400 left
  EXPECT_FALSE(Check(Of(101, "other")).ok());
  EXPECT_TRUE(Check(Of(300)).ok());  // the tenant without a key has them all
  EXPECT_FALSE(Check(Of(301)).ok());
}

TEST_F(AdmissionTest, PriorityIsNobodyElsesConcern) {
  Limit({});
  Arrival urgent = Of(kSecond, "urgent"), mine = Of(kSecond, "mine");
  urgent.priority = -1000;
  Enter(urgent, 10);
  Enter(mine);
  EXPECT_NEAR(Wait(mine), 2, 0.1);  // its own, and as much of the other's
  mine.priority = -1;
  EXPECT_EQ(Wait(mine), 0);  // before its own
}

TEST_F(AdmissionTest, WhoWouldWaitTooLongIsRefused) {
  Limit({.max_queue_time = absl::Milliseconds(5500)});
  EXPECT_EQ(Wait(Of(kSecond)), 0);
  Enter(Of(kSecond), 5);
  EXPECT_NEAR(Wait(Of(kSecond)), 5, 0.1);
  EXPECT_TRUE(Check(Of(kSecond)).ok());
  Enter(Of(kSecond));
  const absl::Status refused = Check(Of(kSecond));
  EXPECT_THAT(refused.message(), HasSubstr("max_queue_seconds"));
  EXPECT_EQ(RetryAfter(refused), 1);  // half a second, but not below one
  Enter(Of(kSecond), 9);
  EXPECT_NEAR(RetryAfter(Check(Of(kSecond))), 9.5, 0.2);
  Enter(Of(kSecond), 100);
  EXPECT_EQ(RetryAfter(Check(Of(kSecond))), 60);
  for (RequestId id = 1; id <= 110; ++id) admission_->Leave(id, 0);
  EXPECT_NEAR(Wait(Of(kSecond)), 5, 0.1);
  admission_->Leave(1, 0);  // left already
  EXPECT_NEAR(Wait(Of(kSecond)), 5, 0.1);
  // A body that is not parsed yet could be urgent: only the queue's size is judged.
  Enter(Of(kSecond), 10);
  Arrival unknown = Of(kSecond);
  unknown.priority = Arrival::kMostUrgent;
  EXPECT_TRUE(Check(unknown).ok());
  num_waiting_ = 1024;
  EXPECT_NEAR(RetryAfter(Check(unknown)), 15, 0.2);  // but what waits tells when to come again
}

TEST_F(AdmissionTest, LongWorkMayWaitAsLongAsItTakes) {
  Limit({.max_queue_time = absl::Seconds(1)});
  Enter(Of(10 * kSecond));  // and each of its tokens attends to more
  EXPECT_TRUE(Check(Of(10 * kSecond)).ok());
  EXPECT_TRUE(Check(Of(kSecond)).ok());  // goes first
  Enter(Of(kSecond));
  EXPECT_FALSE(Check(Of(10 * kSecond)).ok());
  now_ += absl::Seconds(10);  // by now the long one has aged enough to go before new short ones
  EXPECT_FALSE(Check(Of(kSecond)).ok());
}

TEST_F(AdmissionTest, ALongPromptThatHasAgedHasOneStepInFour) {
  Limit({});
  Enter(Of(20 * kSecond));
  EXPECT_EQ(Wait(Of(kSecond)), 0);
  now_ += absl::Seconds(60);
  EXPECT_NEAR(Wait(Of(kSecond)), 1.0 / 3, 0.02);
  Enter(Of(kSecond), 2);
  EXPECT_NEAR(Wait(Of(kSecond)), 2 + 1, 0.05);
}

// Half of the time goes to shorter prompts that never cease: what is ahead takes twice as long.
TEST_F(AdmissionTest, ShorterOnesWillGoOnOvertaking) {
  Limit({});
  for (int i = 0; i < 400; ++i) {
    Enter(Of(kSecond / 20));
    admission_->Leave(next_id_ - 1, 0);
    now_ += absl::Seconds(2 * SecondsOf(kSecond / 20));
  }
  Enter(Of(kSecond));
  EXPECT_NEAR(Wait(Of(kSecond)), 2, 0.1);
  EXPECT_EQ(Wait(Of(kSecond / 20)), 0);  // it overtakes too
  now_ += absl::Seconds(30);
  EXPECT_NEAR(Wait(Of(kSecond)), 1, 0.05);  // they have ceased
}

TEST_F(AdmissionTest, WhatCannotEndByItsDeadlineIsRefused) {
  Limit({});
  Observe(1000, absl::Milliseconds(100));  // a step
  Arrival a = Of(kSecond);
  a.max_tokens = 11;  // ten more steps: another second
  a.deadline = now_ + absl::Milliseconds(500);
  EXPECT_TRUE(Check(a).ok());  // nobody waits: it is tried
  Enter(Of(kSecond), 2);
  a.deadline = now_ + absl::Milliseconds(5150);  // a quarter more than those four seconds
  EXPECT_TRUE(Check(a).ok());
  a.deadline = now_ + absl::Milliseconds(4900);
  EXPECT_THAT(Check(a).message(), HasSubstr("deadline"));
}

TEST_F(AdmissionTest, TheSpeedOfPromptsIsThatOfLately) {
  Limit({});
  Enter(Of(kSecond), 4);
  for (int i = 0; i < 300; ++i) Observe(1000, absl::Milliseconds(100), absl::Milliseconds(25));
  EXPECT_NEAR(Wait(Of(kSecond)), 16, 0.5);  // three quarters of each step go to answers
  // Half of each prompt is found in the cache.
  for (RequestId id = 100; id < 500; ++id) {
    admission_->Enter(id, Of(kSecond), now_);
    admission_->Leave(id, kSecond / 2);
  }
  EXPECT_NEAR(Wait(Of(kSecond)), 8, 0.5);
}

TEST_F(AdmissionTest, WithoutASlotAnswersAreWaitedForToo) {
  Limit({});
  Arrival a = Of(10);
  a.max_tokens = 200;
  Observe(4);
  Enter(a, 4);
  EXPECT_LT(Wait(a), 0.1);
  Observe(0);  // eight run: a row of an answer is 1 ms and an eighth of the step's 2 ms
  EXPECT_NEAR(Wait(a), 4 * 200 * 1.25e-3, 0.4);
  Observe(2);
  EXPECT_NEAR(Wait(a), 2 * 200 * 1.2e-3, 0.2);
}

TEST_F(AdmissionTest, OthersCountAsFarAsTheirWeightGoes) {
  Limit({.max_queue_time = absl::Seconds(3)});
  Enter(Of(kSecond, "much"), 100);
  EXPECT_EQ(Wait(Of(kSecond, "little")), 0);  // it goes next
  Enter(Of(kSecond, "little"));
  EXPECT_NEAR(Wait(Of(kSecond, "little")), 2, 0.1);  // its own and as much of the other's
  EXPECT_TRUE(Check(Of(kSecond, "little")).ok());
  EXPECT_FALSE(Check(Of(kSecond, "much")).ok());
  EXPECT_NEAR(Wait(Of(kSecond, "little", 4)), 1.25, 0.1);
  Enter(Of(kSecond, "paid", 10), 2);
  EXPECT_NEAR(Wait(Of(kSecond, "little")), 4, 0.1);  // what "paid" wants, no more
}

TEST_F(AdmissionTest, WhatOthersWillSendCountsToo) {
  Limit({});
  Enter(Of(kSecond, "much"), 4);
  for (RequestId id = 100; id < 200; ++id) {  // "little" takes half of each step, and waits for none
    admission_->Enter(id, Of(kSecond, "little"), now_);
    admission_->Leave(id, 0);
    Observe(1000, absl::Seconds(2), absl::Seconds(2));
  }
  EXPECT_NEAR(Wait(Of(kSecond, "much")), 8, 0.5);
  EXPECT_NEAR(Wait(Of(kSecond, "much", 3)), 4 * 4 / 3.0, 0.5);  // but its weight lets it have three quarters
  for (int i = 0; i < 30; ++i) Observe(1000, absl::Seconds(1), absl::Seconds(1));
  EXPECT_NEAR(Wait(Of(kSecond, "much")), 4, 0.5);  // "little" is gone
}

}  // namespace
}  // namespace sessa
