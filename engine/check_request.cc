#include "engine/check_request.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

// The first error wins; later checks are skipped.
class Checker {
 public:
  explicit Checker(int vocab_size) : vocab_size_(vocab_size) {}

  void That(bool ok, const char* field, const std::string& message) {
    if (!ok && status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(field, ": ", message));
  }
  // NaN fails.
  void Range(const char* field, double value, double low, double high, bool low_open = false) {
    That((low_open ? value > low : value >= low) && value <= high, field,
         absl::StrCat("must be in ", low_open ? "(" : "[", low, ", ", high, "], got ", value));
  }
  void Id(const char* field, int32_t id) {
    if (id < 0 || id >= vocab_size_)
      That(false, field, absl::StrCat("token id ", id, " is not in [0, ", vocab_size_, ")"));
  }
  const absl::Status& status() const { return status_; }

 private:
  const int vocab_size_;
  absl::Status status_;
};

// Whether something may still be drawn while min_tokens forbids to stop.
bool LeavesAChoice(const SamplingParams& s, const ModelConfig& config) {
  if (s.min_tokens == 0) return true;
  absl::flat_hash_set<int32_t> masked(s.stop_token_ids.begin(), s.stop_token_ids.end());
  if (!s.ignore_eos) masked.insert(config.eos_token_ids.begin(), config.eos_token_ids.end());
  if (s.allowed_token_ids.empty()) return static_cast<int>(masked.size()) < config.vocab_size;
  return std::any_of(s.allowed_token_ids.begin(), s.allowed_token_ids.end(),
                     [&](int32_t id) { return !masked.contains(id); });
}

}  // namespace

absl::Status CheckRequest(const Request& request, const ModelConfig& config) {
  const SamplingParams& s = request.sampling;
  Checker check(config.vocab_size);
  check.That(request.sink != nullptr, "sink", "must not be null");
  check.That(!request.prompt.empty(), "prompt", "must hold at least one token");
  for (int32_t id : request.prompt) check.Id("prompt", id);
  check.Range("n", request.n, 1, kMaxChoices);
  check.Range("num_speculative_tokens", request.num_speculative_tokens, -1, kMaxDrafts);
  check.That(request.num_speculative_tokens <= 0 || !config.is_recurrent(), "num_speculative_tokens",
             kNoWayBack);
  check.That(request.tenant_weight >= 1, "tenant_weight", "must be at least 1");
  check.That(s.max_tokens >= 1, "max_tokens", "must be at least 1");
  check.That(s.min_tokens >= 0 && s.min_tokens <= s.max_tokens, "min_tokens", "must be in [0, max_tokens]");
  check.That(s.temperature >= 0 && std::isfinite(s.temperature), "temperature",
             "must be a number, at least 0");
  check.Range("top_p", s.top_p, 0, 1, true);
  check.Range("min_p", s.min_p, 0, 1);
  check.That(s.top_k >= 0, "top_k", "must be at least 0");
  check.Range("presence_penalty", s.presence_penalty, -2, 2);
  check.Range("frequency_penalty", s.frequency_penalty, -2, 2);
  check.Range("repetition_penalty", s.repetition_penalty, 0, 10, true);
  check.Range("num_logprobs", s.num_logprobs, -1, config.vocab_size);
  check.Range("prompt_logprobs_start", s.prompt_logprobs_start, 1,
              static_cast<double>(request.prompt.size()));
  for (int32_t id : s.stop_token_ids) check.Id("stop_token_ids", id);
  for (int32_t id : s.allowed_token_ids) check.Id("allowed_token_ids", id);
  for (auto [id, bias] : s.logit_bias) {
    check.Id("logit_bias", id);
    check.That(std::isfinite(bias), "logit_bias", "must be a number");
  }
  check.That(!check.status().ok() || LeavesAChoice(s, config), "min_tokens",
             "forbids every token that may be drawn");
  return check.status();
}

}  // namespace sessa
