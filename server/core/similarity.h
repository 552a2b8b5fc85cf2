// Distances between texts by what the served model would write after each (similarity_estimate.h):
// continuations of every text are sampled, then each is scored after every other text, all through
// Service::Generate, one generation at a time, so that what holds for those (validation, queue, tenant's
// limits, deadline) holds here. A text's own pages stay in the prefix cache between the two, so only
// continuations are computed again.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/byte_budget.h"
#include "server/core/generation.h"
#include "server/core/generation_request.h"
#include "server/core/metrics.h"
#include "server/core/similarity_estimate.h"
#include "server/core/similarity_request.h"

namespace sessa {

class Service;

struct SimilarityResult {
  // Of two texts; what has not i < j is the mirror image, and 0 for i == j or equal texts.
  const Divergences& at(int i, int j) const { return pairs[i * num_texts + j]; }

  std::string model;
  uint64_t seed = 0;
  int num_texts = 0;
  std::vector<Divergences> pairs;  // [num_texts, num_texts]
  Usage usage;
};

// One request under way; not thread-safe. Destroying it cancels what still runs.
class Similarity {
 public:
  // Starts sampling. On error the ticket has its outcome. `service` outlives this; `gone` as
  // Service::Generate has it.
  static absl::StatusOr<std::unique_ptr<Similarity>> Start(Service* service, SimilarityRequest request,
                                                           std::string tenant, RequestTicket ticket,
                                                           const std::atomic<bool>* gone);
  ~Similarity();

  // Takes at most `max_events` of what is ready. False: there is nothing more now (`notify` tells when there
  // is, as Generation::SetNotify has it), or it has ended.
  bool Advance(int max_events);
  void SetNotify(std::function<void()> notify);
  bool ended() const { return result_.has_value(); }
  const absl::StatusOr<SimilarityResult>& result() const { return *result_; }  // Requires: ended()
  Usage usage() const;

 private:
  struct Continuation {
    std::vector<int32_t> tokens;
    std::vector<double> logprobs;  // [text]: of the whole continuation after that text, in nats
  };
  // A prompt of a scoring generation: sample `sample` of text `from`, written after text `after`.
  struct Score {
    int after = 0, from = 0, sample = 0;
  };

  Similarity(Service* service, SimilarityRequest request, std::string tenant, RequestTicket ticket);
  Continuation& At(int text, int sample) { return continuations_[text * request_.num_samples + sample]; }
  absl::Status CheckRequest() const;
  absl::Status Begin(const std::atomic<bool>* gone);
  absl::Status Generate(GenerationRequest request, const std::atomic<bool>* gone);
  GenerationRequest SamplingRequest() const;  // without its prompts
  GenerationRequest ScoringRequest();
  size_t NumInWave() const;  // scores of the scoring generation that is under way or comes next
  void TakeSample(const TextDelta& delta);
  void TakeScore(const TextDelta& delta);
  absl::Status Next();  // when a generation has ended: begins another, or finishes
  void ListScores();
  SimilarityResult Estimates();
  void Finish(absl::StatusOr<SimilarityResult> result);

  Service* const service_;
  SimilarityRequest request_;  // without its texts, once there are texts_
  const std::string tenant_;
  RequestTicket ticket_;
  const absl::Time deadline_;
  std::function<void()> notify_;
  ByteBudget::Lease lease_;  // of continuations_
  std::string model_;

  std::vector<std::vector<int32_t>> texts_;  // token ids
  std::vector<int> first_equal_;             // [text]: the first text of the same tokens, which stands for it
  std::vector<Continuation> continuations_;  // [text, sample]
  int num_sampled_ = 0;                      // of each text, where the sampling generation began
  std::vector<Score> scores_;                // all there are to do; empty while sampling
  size_t num_scored_ = 0;                    // where the scoring generation began
  Usage ended_usage_;                        // of the generations that have ended
  std::unique_ptr<Generation> generation_;
  std::optional<absl::StatusOr<SimilarityResult>> result_;
};

}  // namespace sessa
