#include "engine/step_sampler.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"

namespace sessa {
namespace {

int NumPromptLogprobs(const PlanSequence& s) {
  return s.first_logprob_row < 0
             ? 0
             : std::max(0, std::min(s.num_rows, s.prompt_size - 1 - s.start) - s.first_logprob_row);
}

}  // namespace

absl::Status StepSampler::Allocate(int max_rows, Backend* backend) {
  auto tokens = backend->Allocate(max_rows * sizeof(int32_t));
  if (!tokens.ok()) return tokens.status();
  device_tokens_ = *std::move(tokens);
  return absl::OkStatus();
}

// For each sequence the rows of its prompt's log-probabilities, then the sampled ones.
void StepSampler::Begin(const StepPlan& plan) {
  now_ = 1 - now_;
  std::vector<int32_t>& rows = steps_[now_].logit_rows;
  rows.clear();
  for (const PlanSequence& s : plan.sequences) {
    for (int i = 0; i < NumPromptLogprobs(s); ++i) rows.push_back(s.first_row + s.first_logprob_row + i);
    for (int i = s.num_drafts; s.sample && i >= 0; --i) rows.push_back(s.first_row + s.num_rows - 1 - i);
  }
}

void StepSampler::Enqueue(const StepPlan& plan, Matrix logits, Backend* backend) {
  Step& step = steps_[now_];
  sample_rows_.clear();
  edits_.clear();
  step.scores.clear();
  for (const PlanSequence& s : plan.sequences) {
    for (int i = 0; i < NumPromptLogprobs(s); ++i) {
      step.scores.push_back(
          {std::max(0, s.sampling->num_logprobs), (*s.tokens)[s.start + s.first_logprob_row + i + 1]});
    }
    for (int i = s.num_drafts; s.sample && i >= 0; --i) {  // as if the drafts before it were right
      const auto tokens = absl::MakeConstSpan(*s.tokens).first(s.tokens->size() - i);
      sample_rows_.push_back(sampler_.Row(*s.sampling, tokens, s.prompt_size, s.seed, &edits_));
      sample_rows_.back().row = static_cast<int32_t>(step.scores.size());
      step.scores.push_back({s.sampling->num_logprobs});
    }
  }
  step.tokens.resize(sample_rows_.size());
  if (!sample_rows_.empty()) {
    int32_t* tokens = static_cast<int32_t*>(device_tokens_.data());
    backend->Sample(logits, sample_rows_, edits_, tokens);
    backend->CopyOut(tokens, step.tokens.size() * sizeof(int32_t), step.tokens.data());
  }
  const size_t V = logits.cols;
  const auto is_wanted = [](const Score& score) { return score.num_top >= 0; };
  step.logits.resize(std::count_if(step.scores.begin(), step.scores.end(), is_wanted) * V);
  float* to = step.logits.data();
  for (int r = 0, end; r < logits.rows; r = end) {  // neighbours at once
    end = r + 1;
    if (!is_wanted(step.scores[r])) continue;
    while (end < logits.rows && is_wanted(step.scores[end])) ++end;
    backend->CopyOut(logits.row(r), (end - r) * V * sizeof(float), to);
    to += (end - r) * V;
  }
}

void StepSampler::Collect(const StepPlan& plan, std::vector<SequenceResult>* results) {
  next_collected_ = 1 - next_collected_;
  const Step& step = steps_[next_collected_];
  results->resize(plan.sequences.size());
  const size_t V = vocab_size_;
  size_t row = 0, wanted = 0, sampled = 0;
  const auto next_logits = [&] { return absl::MakeConstSpan(step.logits).subspan(wanted++ * V, V); };
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlanSequence& s = plan.sequences[i];
    SequenceResult& result = (*results)[i];
    result.tokens.clear();
    result.prompt_logprobs.clear();
    for (int k = 0; k < NumPromptLogprobs(s); ++k) {
      const Score& score = step.scores[row++];
      result.prompt_logprobs.push_back(sampler_.Logprobs(next_logits(), score.token, score.num_top));
    }
    bool right = true;  // all drafts so far
    for (int k = s.num_drafts; s.sample && k >= 0; --k) {
      const Score& score = step.scores[row++];
      const int32_t token = step.tokens[sampled++];
      const auto logits = score.num_top < 0 ? absl::Span<const float>() : next_logits();
      if (!right) continue;
      result.tokens.push_back({token, {}});
      if (token >= 0 && !logits.empty())
        result.tokens.back().logprobs = sampler_.Logprobs(logits, token, score.num_top);
      right = k > 0 && token == plan.token_ids[s.first_row + s.num_rows - k];
    }
  }
}

}  // namespace sessa
