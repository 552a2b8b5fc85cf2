// A TokenSink that keeps everything, checks the order of the calls, and lets a test wait for the end.
#pragma once

#include <condition_variable>
#include <memory>
#include <utility>
#include <vector>

#include "engine/mutex.h"
#include "engine/request.h"
#include "gtest/gtest.h"

namespace sessa {

class CollectingSink : public TokenSink {
 public:
  struct Result {
    int num_prompts = 0;
    PromptInfo prompt;
    std::vector<std::vector<int32_t>> tokens;
    std::vector<std::vector<TokenLogprobs>> logprobs;
    std::vector<FinishReason> finish;
    int num_tokens = 0;
    int num_ends = 0;
    RequestEnd end;
  };

  explicit CollectingSink(int n = 1, int max_tokens = 1 << 30) : max_tokens_(max_tokens) {
    result_.tokens.resize(n);
    result_.logprobs.resize(n);
    result_.finish.resize(n);
  }

  void OnPrompt(const PromptInfo& info) override {
    MutexLock lock(&mutex_);
    EXPECT_EQ(result_.num_prompts++, 0);
    EXPECT_EQ(result_.num_tokens + result_.num_ends, 0);
    result_.prompt = info;
  }
  bool OnToken(TokenUpdate update) override {
    MutexLock lock(&mutex_);
    EXPECT_EQ(result_.num_prompts, 1);
    EXPECT_EQ(result_.num_ends, 0);
    EXPECT_EQ(result_.finish[update.choice], FinishReason::kNone);
    result_.tokens[update.choice].push_back(update.token);
    result_.logprobs[update.choice].push_back(std::move(update.logprobs));
    result_.finish[update.choice] = update.finish;
    ++result_.num_tokens;
    news_.notify_all();
    return result_.num_tokens <= max_tokens_;
  }
  void OnEnd(const RequestEnd& end) override {
    MutexLock lock(&mutex_);
    EXPECT_EQ(result_.num_ends++, 0);
    result_.end = end;
    news_.notify_all();
  }

  const Result& WaitForEnd() {
    MutexLock lock(&mutex_);
    while (result_.num_ends == 0) news_.wait(mutex_);
    return result_;  // nothing comes after the end
  }
  void WaitForTokens(int count) {
    MutexLock lock(&mutex_);
    while (result_.num_tokens < count && result_.num_ends == 0) news_.wait(mutex_);
  }
  bool ended() {
    MutexLock lock(&mutex_);
    return result_.num_ends > 0;
  }

 private:
  const int max_tokens_;
  Mutex mutex_;
  std::condition_variable_any news_;
  Result result_;
};

}  // namespace sessa
