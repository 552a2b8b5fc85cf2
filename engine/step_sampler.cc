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
  logit_rows_.clear();
  for (const PlanSequence& s : plan.sequences) {
    for (int i = 0; i < NumPromptLogprobs(s); ++i)
      logit_rows_.push_back(s.first_row + s.first_logprob_row + i);
    for (int i = s.num_drafts; s.sample && i >= 0; --i)
      logit_rows_.push_back(s.first_row + s.num_rows - 1 - i);
  }
}

void StepSampler::Enqueue(const StepPlan& plan, Matrix logits, Backend* backend) {
  sample_rows_.clear();
  edits_.clear();
  wants_logits_.clear();
  for (const PlanSequence& s : plan.sequences) {
    wants_logits_.resize(wants_logits_.size() + NumPromptLogprobs(s), true);
    for (int i = s.num_drafts; s.sample && i >= 0; --i) {  // as if the drafts before it were right
      const auto tokens = absl::MakeConstSpan(*s.tokens).first(s.tokens->size() - i);
      sample_rows_.push_back(sampler_.Row(*s.sampling, tokens, s.prompt_size, s.seed, &edits_));
      sample_rows_.back().row = static_cast<int32_t>(wants_logits_.size());
      wants_logits_.push_back(s.sampling->num_logprobs >= 0);
    }
  }
  tokens_.resize(sample_rows_.size());
  if (!sample_rows_.empty()) {
    int32_t* tokens = static_cast<int32_t*>(device_tokens_.data());
    backend->Sample(logits, sample_rows_, edits_, tokens);
    backend->CopyOut(tokens, tokens_.size() * sizeof(int32_t), tokens_.data());
  }
  const size_t V = logits.cols;
  logits_.resize(std::count(wants_logits_.begin(), wants_logits_.end(), true) * V);
  float* to = logits_.data();
  for (int r = 0, end; r < logits.rows; r = end) {  // neighbours at once
    end = r + 1;
    if (!wants_logits_[r]) continue;
    while (end < logits.rows && wants_logits_[end]) ++end;
    backend->CopyOut(logits.row(r), (end - r) * V * sizeof(float), to);
    to += (end - r) * V;
  }
}

void StepSampler::Collect(const StepPlan& plan, std::vector<SequenceResult>* results) {
  results->resize(plan.sequences.size());
  const size_t V = vocab_size_;
  size_t wanted = 0, sampled = 0;
  const auto next_row = [&] { return absl::MakeConstSpan(logits_).subspan(wanted++ * V, V); };
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const PlanSequence& s = plan.sequences[i];
    SequenceResult& result = (*results)[i];
    result.tokens.clear();
    result.prompt_logprobs.clear();
    const int top = std::max(0, s.sampling->num_logprobs);
    for (int k = 0; k < NumPromptLogprobs(s); ++k) {
      const int32_t next = (*s.tokens)[s.start + s.first_logprob_row + k + 1];
      result.prompt_logprobs.push_back(sampler_.Logprobs(next_row(), next, top));
    }
    bool right = true;  // all drafts so far
    for (int k = s.num_drafts; s.sample && k >= 0; --k) {
      const int32_t token = tokens_[sampled++];
      const auto logits = s.sampling->num_logprobs < 0 ? absl::Span<const float>() : next_row();
      if (!right) continue;
      result.tokens.push_back({token, {}});
      if (token >= 0 && !logits.empty())
        result.tokens.back().logprobs = sampler_.Logprobs(logits, token, top);
      right = k > 0 && token == (*s.tokens)[s.tokens->size() - k];
    }
  }
}

}  // namespace sessa
