#include "engine/worker.h"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model.h"
#include "engine/mutex.h"
#include "engine/sampler.h"
#include "kernels/device.h"

namespace sessa {
namespace {

constexpr int64_t kMaxCpuCacheBytes = int64_t{4} << 30;

struct Rank {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<Model> model;
  std::unique_ptr<StateCache> cache;
  absl::Status status;
};

}  // namespace

class Workers::Impl {
 public:
  Impl(const WorkerOptions& options, const ModelConfig& config)
      : options_(options), ranks_(options.num_ranks), sampler_(config.vocab_size, config.eos_token_ids) {}

  ~Impl() {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Load(const ModelConfig& config, const WeightSource& weights) {
    auto devices = MakeRanks({options_.device, options_.num_ranks, options_.cpu, options_.batch_invariant});
    if (!devices.ok()) return devices.status();
    int64_t page_bytes = 0;  // one page in every rank's forward part and in one rank's feedback part
    for (int i = 0; i < options_.num_ranks; ++i) {
      Rank& rank = ranks_[i];
      rank.backend = std::move((*devices)[i].backend);
      rank.communicator = std::move((*devices)[i].communicator);
      rank.model =
          std::make_unique<Model>(config, options_.max_rows, rank.backend.get(), rank.communicator.get());
      const LayerState shape = rank.model->StateShape(options_.state_dtype, options_.page_size, 0);
      page_bytes += static_cast<int64_t>(rank.backend->StateBytesPerPage(shape, /*feedback=*/false));
      if (i == 0)
        page_bytes += static_cast<int64_t>(rank.backend->StateBytesPerPage(shape, /*feedback=*/true));
    }
    page_bytes *= config.num_layers;
    // A budget that was named is judged before minutes are spent on reading weights.
    state_cache_bytes_ = options_.state_cache_bytes;
    if (state_cache_bytes_ > 0) {
      if (absl::Status fits = CountPages(page_bytes); !fits.ok()) return fits;
    }
    for (Rank& rank : ranks_) {
      absl::Status loaded = rank.model->LoadWeights(weights, options_.weight_dtype);
      if (!loaded.ok()) return loaded;
    }
    if (state_cache_bytes_ == 0) {
      state_cache_bytes_ = DefaultCacheBytes();
      if (absl::Status fits = CountPages(page_bytes); !fits.ok()) return fits;
    }
    for (Rank& rank : ranks_) {
      auto cache =
          StateCache::Create(rank.model->StateShape(options_.state_dtype, options_.page_size, num_pages_),
                             config.num_layers, num_pages_, rank.backend.get());
      if (!cache.ok()) return cache.status();
      rank.cache = std::make_unique<StateCache>(*std::move(cache));
    }
    auto tokens = ranks_[0].backend->Allocate(options_.max_rows * sizeof(int32_t));
    if (!tokens.ok()) return tokens.status();
    device_tokens_ = *std::move(tokens);
    for (int i = 1; i < options_.num_ranks; ++i) threads_.emplace_back([this, i] { Work(i); });
    return absl::OkStatus();
  }

  absl::Status Execute(const StepPlan& plan, std::vector<SequenceResult>* results) {
    if (!health_.ok()) return health_;
    CollectLogitRows(plan);
    if (!threads_.empty()) {
      MutexLock lock(&mutex_);
      plan_ = &plan;
      busy_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    Forward(&ranks_[0], plan);
    if (!threads_.empty()) {
      MutexLock lock(&mutex_);
      while (busy_ > 0) done_.wait(mutex_);
    }
    for (size_t i = 0; i < ranks_.size(); ++i) {
      if (ranks_[i].status.ok()) continue;
      health_ =
          absl::UnavailableError(absl::StrCat("rank ", i, ", running a step: ", ranks_[i].status.message()));
      return health_;
    }
    Collect(plan, results);
    return absl::OkStatus();
  }

  int num_pages() const { return num_pages_; }
  int64_t state_cache_bytes() const { return state_cache_bytes_; }

 private:
  absl::Status CountPages(int64_t page_bytes) {
    const int64_t pages = std::min<int64_t>(state_cache_bytes_ / page_bytes, options_.max_pages);
    num_pages_ = static_cast<int>(pages / options_.num_ranks * options_.num_ranks);
    if (num_pages_ == 0) {
      return absl::ResourceExhaustedError(absl::StrCat("state_cache_bytes: ", state_cache_bytes_,
                                                       " bytes hold no page for each rank; a page of ",
                                                       options_.page_size, " tokens takes ", page_bytes));
    }
    return options_.judge_pages == nullptr ? absl::OkStatus() : options_.judge_pages(num_pages_);
  }

  int64_t DefaultCacheBytes() const {
    if (options_.device == DeviceType::kCpu)
      return std::min(kMaxCpuCacheBytes, ranks_[0].backend->FreeBytes() / 4);
    int64_t bytes = ranks_[0].backend->FreeBytes();  // the tenth that is left is for scratch memory
    for (const Rank& rank : ranks_) bytes = std::min(bytes, rank.backend->FreeBytes());
    return bytes / 10 * 9 * options_.num_ranks;
  }

  void Work(int rank) {
    for (uint64_t seen = 0;;) {
      const StepPlan* plan = nullptr;
      {
        MutexLock lock(&mutex_);
        while (generation_ == seen && !stop_) wake_.wait(mutex_);
        if (stop_) return;
        seen = generation_;
        plan = plan_;
      }
      Forward(&ranks_[rank], *plan);
      bool last = false;
      {
        MutexLock lock(&mutex_);
        last = --busy_ == 0;
      }
      if (last) done_.notify_one();
    }
  }

  void Forward(Rank* rank, const StepPlan& plan) {
    const Matrix logits = rank->model->Forward(plan, logit_rows_, rank->cache.get());
    if (rank == &ranks_[0]) Sample(plan, logits, rank->backend.get());  // every rank has all logits
    rank->status = rank->backend->Synchronize();
    rank->status.Update(rank->communicator->status());
  }

  // The tokens, and the logits of the rows whose log-probabilities are asked for.
  void Sample(const StepPlan& plan, Matrix logits, Backend* backend) {
    sample_rows_.clear();
    edits_.clear();
    wants_logits_.clear();
    for (const PlanSequence& s : plan.sequences) {
      wants_logits_.resize(wants_logits_.size() + NumPromptLogprobs(s), true);
      if (!s.sample) continue;
      sample_rows_.push_back(sampler_.Row(*s.sampling, *s.tokens, s.prompt_size, s.seed, &edits_));
      sample_rows_.back().row = static_cast<int32_t>(wants_logits_.size());
      wants_logits_.push_back(s.sampling->num_logprobs >= 0);
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

  static int NumPromptLogprobs(const PlanSequence& s) {
    return s.first_logprob_row < 0
               ? 0
               : std::max(0, std::min(s.num_rows, s.prompt_size - 1 - s.start) - s.first_logprob_row);
  }

  // For each sequence the rows of its prompt's log-probabilities, then the sampled one.
  void CollectLogitRows(const StepPlan& plan) {
    logit_rows_.clear();
    for (const PlanSequence& s : plan.sequences) {
      for (int i = 0; i < NumPromptLogprobs(s); ++i)
        logit_rows_.push_back(s.first_row + s.first_logprob_row + i);
      if (s.sample) logit_rows_.push_back(s.first_row + s.num_rows - 1);
    }
  }

  void Collect(const StepPlan& plan, std::vector<SequenceResult>* results) {
    results->resize(plan.sequences.size());
    const size_t V = ranks_[0].model->config().vocab_size;
    size_t wanted = 0, sampled = 0;
    const auto next_row = [&] { return absl::MakeConstSpan(logits_).subspan(wanted++ * V, V); };
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      const PlanSequence& s = plan.sequences[i];
      SequenceResult& result = (*results)[i];
      result = {};
      const int top = std::max(0, s.sampling->num_logprobs);
      for (int k = 0; k < NumPromptLogprobs(s); ++k) {
        const int32_t next = (*s.tokens)[s.start + s.first_logprob_row + k + 1];
        result.prompt_logprobs.push_back(sampler_.Logprobs(next_row(), next, top));
      }
      if (!s.sample) continue;
      result.token = tokens_[sampled++];
      if (s.sampling->num_logprobs < 0) continue;
      const auto logits = next_row();
      if (result.token >= 0) result.logprobs = sampler_.Logprobs(logits, result.token, top);
    }
  }

  const WorkerOptions options_;
  std::vector<Rank> ranks_;
  Sampler sampler_;
  int num_pages_ = 0;
  int64_t state_cache_bytes_ = 0;
  // Of the plan in execution.
  std::vector<int32_t> logit_rows_;
  std::vector<SampleRow> sample_rows_;  // of the rows that are sampled
  std::vector<SampleEdit> edits_;
  std::vector<int32_t> tokens_;     // [sample_rows_.size()]
  std::vector<bool> wants_logits_;  // [logit_rows_.size()]
  std::vector<float> logits_;       // [.., V], of those that somebody wants
  Buffer device_tokens_;            // [max_rows], of rank 0
  absl::Status health_;

  Mutex mutex_;
  std::condition_variable_any wake_, done_;
  const StepPlan* plan_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // of ranks 1, 2, ...
};

Workers::Workers(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Workers::~Workers() = default;

absl::StatusOr<std::unique_ptr<Workers>> Workers::Create(const WorkerOptions& options,
                                                         const ModelConfig& config,
                                                         const WeightSource& weights) {
  auto impl = std::make_unique<Impl>(options, config);
  if (absl::Status loaded = impl->Load(config, weights); !loaded.ok()) return loaded;
  return std::unique_ptr<Workers>(new Workers(std::move(impl)));
}

absl::Status Workers::Execute(const StepPlan& plan, std::vector<SequenceResult>* results) {
  return impl_->Execute(plan, results);
}
int Workers::num_pages() const { return impl_->num_pages(); }
int64_t Workers::state_cache_bytes() const { return impl_->state_cache_bytes(); }

}  // namespace sessa
