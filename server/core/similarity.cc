// See similarity.h.
#include "server/core/similarity.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "server/core/errors.h"
#include "server/core/service.h"

namespace sessa {
namespace {

absl::Status OutOf(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  return FieldError(field, absl::StrCat("must be between ", low, " and ", high, ", got ", value));
}

}  // namespace

Similarity::Similarity(Service* service, SimilarityRequest request, std::string tenant, RequestTicket ticket)
    : service_(service),
      request_(std::move(request)),
      tenant_(std::move(tenant)),
      ticket_(std::move(ticket)),
      deadline_(MonotonicNow() + request_.timeout.value_or(service->limits().default_timeout)),
      lease_(&service->byte_budget(), ByteBudget::Kind::kOutput) {}

Similarity::~Similarity() {
  if (!ended()) ticket_.Finish(MonotonicNow() >= deadline_ ? Outcome::kDeadline : Outcome::kCancelled);
}

absl::StatusOr<std::unique_ptr<Similarity>> Similarity::Start(Service* service, SimilarityRequest request,
                                                              std::string tenant, RequestTicket ticket,
                                                              const std::atomic<bool>* gone) {
  std::unique_ptr<Similarity> similarity(
      new Similarity(service, std::move(request), std::move(tenant), std::move(ticket)));
  absl::Status begun = similarity->CheckRequest();
  if (begun.ok()) begun = similarity->Begin(gone);
  if (!begun.ok()) {
    similarity->Finish(begun);
    return begun;
  }
  return similarity;
}

absl::Status Similarity::CheckRequest() const {
  const Limits& limits = service_->limits();
  const auto num_texts = static_cast<int64_t>(request_.texts.size());
  const int64_t n = request_.num_samples;
  if (num_texts < 2 || num_texts > limits.max_similarity_texts) {
    return FieldError("input", absl::StrCat("must hold between 2 and ", limits.max_similarity_texts,
                                            " texts, got ", num_texts));
  }
  if (n < 2 || n > limits.max_similarity_samples) return OutOf("n", n, 2, limits.max_similarity_samples);
  if (n * num_texts * (num_texts - 1) > limits.max_similarity_scores) {
    return FieldError("n", absl::StrCat("texts * (texts - 1) * n is at most ", limits.max_similarity_scores));
  }
  if (request_.max_tokens < 1 || request_.max_tokens > limits.max_total_tokens / (num_texts * n)) {
    return OutOf("max_tokens", request_.max_tokens, 1, limits.max_total_tokens / (num_texts * n));
  }
  return absl::OkStatus();
}

absl::Status Similarity::Begin(const std::atomic<bool>* gone) {
  auto found = service_->FindModel(request_.model);
  if (!found.ok()) return found.status();
  // A continuation that ends sooner than asked for would be another distance, so it is not cut in silence.
  if (const auto most = (*found)->defaults.max_tokens; most.has_value() && request_.max_tokens > *most)
    return OutOf("max_tokens", request_.max_tokens, 1, *most);
  if (!request_.seed.has_value()) request_.seed = Service::RandomSeed();
  GenerationRequest first = SamplingRequest();
  first.prompts = std::move(request_.texts);
  first.add_special_tokens = request_.add_special_tokens;
  if (absl::Status taken = Generate(std::move(first), gone); !taken.ok()) return taken;
  model_ = generation_->model();
  texts_ = generation_->prompt_token_ids();
  for (const std::vector<int32_t>& text : texts_)
    first_equal_.push_back(static_cast<int>(std::find(texts_.begin(), texts_.end(), text) - texts_.begin()));
  // A continuation of one text has to fit after each other one; where it is scored one token more is drawn.
  const auto longest = std::max_element(texts_.begin(), texts_.end(), [](const auto& a, const auto& b) {
                         return a.size() < b.size();
                       })->size();
  const int64_t max_model_len = (*found)->engine->options().max_model_len;
  if (static_cast<int64_t>(longest) + request_.max_tokens >= max_model_len) {
    return ContextLengthError(
        "input", absl::StrCat("This model's context is ", max_model_len, " tokens; a text has ", longest,
                              ", and ", request_.max_tokens, " and one more are to follow it."));
  }
  const size_t n = request_.num_samples;
  const auto num_tokens = static_cast<int64_t>(texts_.size() * n) * request_.max_tokens;
  if (!lease_.Resize(num_tokens * static_cast<int64_t>(sizeof(int32_t))))
    return OutOfBytesError(service_->options().retry_after);
  continuations_.resize(texts_.size() * n);
  for (Continuation& c : continuations_) c.logprobs.resize(texts_.size());
  return absl::OkStatus();
}

GenerationRequest Similarity::SamplingRequest() const {
  // The model's own distribution, whatever a checkpoint's defaults are: it is what log-probabilities are of.
  GenerationRequest r;
  r.n = std::min<int64_t>(service_->limits().max_n, request_.num_samples - num_sampled_);
  r.max_tokens = request_.max_tokens;
  // Choice i draws with seed + i; the factor keeps neighbouring seeds from sharing samples.
  r.seed = *request_.seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(num_sampled_);
  r.ignore_eos = request_.ignore_eos;
  r.temperature = r.top_p = r.repetition_penalty = 1;
  r.min_p = 0;
  r.top_k = 0;
  return r;
}

absl::Status Similarity::Generate(GenerationRequest request, const std::atomic<bool>* gone) {
  request.model = request_.model;
  request.prompt_name = "input";
  request.logprobs = 0;
  request.logprobs_name = "max_tokens";  // of an answer that is too large: what the caller can make less
  request.priority = request_.priority;
  request.timeout = request_.timeout;  // a bad one is refused by its name
  if (!texts_.empty()) {
    request.timeout = deadline_ - MonotonicNow();
    if (*request.timeout <= absl::ZeroDuration())
      return absl::DeadlineExceededError("The request's deadline has passed.");
  }
  // The whole request has one ticket, this one's.
  auto generation = service_->Generate(std::move(request), tenant_, RequestTicket(), gone);
  if (!generation.ok()) return generation.status();
  generation_ = *std::move(generation);
  if (notify_ != nullptr) generation_->SetNotify(notify_);
  return absl::OkStatus();
}

void Similarity::SetNotify(std::function<void()> notify) {
  notify_ = std::move(notify);
  if (generation_ != nullptr) generation_->SetNotify(notify_);
}

bool Similarity::Advance(int max_events) {
  for (int i = 0; i < max_events; ++i) {
    if (ended()) return false;
    std::optional<GenerationEvent> event = generation_->TryNext();
    if (!event.has_value()) return false;
    if (const auto* delta = std::get_if<TextDelta>(&*event)) {
      scores_.empty() ? TakeSample(*delta) : TakeScore(*delta);
    } else if (const auto* end = std::get_if<GenerationEnd>(&*event)) {
      ended_usage_ = usage();
      generation_ = nullptr;
      absl::Status next = end->status.ok() ? Next() : end->status;
      if (!next.ok()) Finish(next);
    }
  }
  return !ended();
}

void Similarity::TakeSample(const TextDelta& delta) {
  const int n = static_cast<int>(SamplingRequest().n);
  Continuation& c = At(delta.prompt_index, num_sampled_ + delta.index % n);
  c.tokens.insert(c.tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
  for (const LogprobEntry& entry : delta.logprobs) c.logprobs[delta.prompt_index] += entry.logprob;
}

void Similarity::TakeScore(const TextDelta& delta) {
  const Score& score = scores_[num_scored_ + delta.prompt_index];
  for (const LogprobEntry& entry : delta.logprobs)
    At(score.from, score.sample).logprobs[score.after] += entry.logprob;
}

absl::Status Similarity::Next() {
  if (scores_.empty()) {
    num_sampled_ += static_cast<int>(SamplingRequest().n);
    if (num_sampled_ < request_.num_samples) {
      GenerationRequest more = SamplingRequest();
      more.prompts.assign(texts_.begin(), texts_.end());
      return Generate(std::move(more), nullptr);
    }
    ListScores();
  } else {
    num_scored_ += NumInWave();
  }
  if (num_scored_ < scores_.size()) return Generate(ScoringRequest(), nullptr);
  Finish(Estimates());
  return absl::OkStatus();
}

// Neighbours share the text that they come after.
void Similarity::ListScores() {
  const int num_texts = static_cast<int>(texts_.size());
  for (int after = 0; after < num_texts; ++after) {
    for (int from = 0; from < num_texts; ++from) {
      if (from == after || first_equal_[from] != from || first_equal_[after] != after) continue;
      for (int sample = 0; sample < request_.num_samples; ++sample) scores_.push_back({after, from, sample});
    }
  }
}

size_t Similarity::NumInWave() const {
  return std::min<size_t>(service_->limits().max_prompts, scores_.size() - num_scored_);
}

GenerationRequest Similarity::ScoringRequest() {
  GenerationRequest r;
  r.max_tokens = 0;
  r.echo = true;
  for (size_t i = num_scored_; i < num_scored_ + NumInWave(); ++i) {
    const Score& score = scores_[i];
    std::vector<int32_t> prompt = texts_[score.after];
    r.echo_starts.push_back(static_cast<int>(prompt.size()));
    const std::vector<int32_t>& tokens = At(score.from, score.sample).tokens;
    prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    r.prompts.emplace_back(std::move(prompt));
  }
  return r;
}

SimilarityResult Similarity::Estimates() {
  const int num_texts = static_cast<int>(texts_.size());
  SimilarityResult result;
  result.model = model_;
  result.seed = *request_.seed;
  result.num_texts = num_texts;
  result.usage = ended_usage_;
  result.pairs.resize(texts_.size() * texts_.size());
  std::vector<ContinuationPair> pairs(request_.num_samples);
  for (int i = 0; i < num_texts; ++i) {
    for (int j = 0; j < num_texts; ++j) {
      const int p = first_equal_[i], q = first_equal_[j];
      if (p == q) continue;
      for (int s = 0; s < request_.num_samples; ++s) {
        const Continuation &after_p = At(p, s), &after_q = At(q, s);
        pairs[s] = {after_p.logprobs[p],
                    after_p.logprobs[q],
                    after_q.logprobs[q],
                    after_q.logprobs[p],
                    static_cast<int>(after_p.tokens.size()),
                    static_cast<int>(after_q.tokens.size())};
      }
      result.pairs[i * num_texts + j] = EstimateDivergences(pairs);
    }
  }
  return result;
}

void Similarity::Finish(absl::StatusOr<SimilarityResult> result) {
  if (result.ok()) {
    ticket_.Finish(Outcome::kStop);
  } else {
    ticket_.Finish(result.status());
  }
  result_ = std::move(result);
}

Usage Similarity::usage() const {
  Usage sum = ended_usage_;
  if (generation_ == nullptr) return sum;
  const Usage now = generation_->usage();
  sum.prompt_tokens += now.prompt_tokens;
  sum.completion_tokens += now.completion_tokens;
  sum.cached_tokens += now.cached_tokens;
  return sum;
}

}  // namespace sessa
