#include "engine/worker.h"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/models/model.h"
#include "engine/mutex.h"
#include "engine/state_cache.h"
#include "engine/step_sampler.h"
#include "kernels/container.h"
#include "kernels/device.h"
#include "kernels/short_slices.h"

namespace sessa {
namespace {

constexpr int64_t kMaxCpuCacheBytes = int64_t{4} << 30;
// Pages that hold no bytes are still nodes of the prefix index, of some 400 bytes each.
constexpr int64_t kMaxFreePages = 1 << 18;

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
  Impl(const EngineOptions& options, const StateLimits& limits, const ModelConfig& config)
      : options_(options),
        limits_(limits),
        ranks_(options.tensor_parallel_size),
        state_{.page_size = options.page_size, .num_ranks = options.tensor_parallel_size},
        sampler_(config.vocab_size, config.eos_token_ids) {}

  ~Impl() {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Load(const ModelConfig& config, const WeightSource& weights) {
    const CpuOptions cpu = {options_.num_threads, options_.activation_dtype == DType::kBF16,
                            options_.amx ? MatrixUnit::kAmx : MatrixUnit::kVector};
    auto devices = MakeRanks({options_.device, options_.tensor_parallel_size, cpu, options_.batch_invariant});
    if (!devices.ok()) return devices.status();
    int64_t page_bytes = 0, slot_bytes = 0;
    for (int i = 0; i < options_.tensor_parallel_size; ++i) {
      Rank& rank = ranks_[i];
      rank.backend = std::move((*devices)[i].backend);
      rank.communicator = std::move((*devices)[i].communicator);
      auto model =
          Model::Create(config, {options_.weight_dtype, options_.state_dtype, options_.max_step_tokens},
                        rank.backend.get(), rank.communicator.get());
      if (!model.ok()) return model.status();
      rank.model = *std::move(model);
      const std::vector<StateShape> shapes = rank.model->StateShapes();
      page_bytes += StateCache::BytesPerPage(shapes, options_.page_size, i, *rank.backend);
      slot_bytes += StateCache::BytesPerSlot(shapes);
    }
    // A budget that was named is judged before minutes are spent on reading weights.
    state_cache_bytes_ = options_.state_cache_bytes;
    if (state_cache_bytes_ > 0) {
      if (absl::Status fits = Divide(page_bytes, slot_bytes); !fits.ok()) return fits;
    }
    for (Rank& rank : ranks_) {
      absl::Status loaded = rank.model->LoadWeights(weights);
      if (!loaded.ok()) return loaded;
    }
    if (state_cache_bytes_ == 0) {
      state_cache_bytes_ = DefaultCacheBytes();
      if (absl::Status fits = Divide(page_bytes, slot_bytes); !fits.ok()) return fits;
    }
    for (Rank& rank : ranks_) {
      auto cache = StateCache::Create(rank.model->StateShapes(), state_, rank.communicator->rank(),
                                      rank.backend.get());
      if (!cache.ok()) return cache.status();
      rank.cache = std::make_unique<StateCache>(*std::move(cache));
    }
    if (absl::Status s = sampler_.Allocate(options_.max_step_tokens, ranks_[0].backend.get()); !s.ok())
      return s;
    for (int i = 1; i < options_.tensor_parallel_size; ++i) threads_.emplace_back([this, i] { Work(i); });
    return absl::OkStatus();
  }

  absl::Status Execute(const StepPlan& plan, std::vector<SequenceResult>* results) {
    if (!health_.ok()) return health_;
    sampler_.Begin(plan);
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
    sampler_.Collect(plan, results);
    return absl::OkStatus();
  }

  const StateSize& state() const { return state_; }
  int64_t state_cache_bytes() const { return state_cache_bytes_; }

 private:
  // The budget into pages or slots. No family keeps both yet; one that does would have to share them out.
  absl::Status Divide(int64_t page_bytes, int64_t slot_bytes) {
    const auto fit = [&](int64_t bytes, int64_t most) {
      return static_cast<int>(bytes > 0 ? std::min(state_cache_bytes_ / bytes, most) : most);
    };
    const int ranks = options_.tensor_parallel_size;
    int64_t most_pages = limits_.max_pages;
    if (slot_bytes > 0) state_.num_slots = fit(slot_bytes, limits_.max_slots);
    if (slot_bytes > 0 && state_.num_slots == 0) {
      return absl::ResourceExhaustedError(absl::StrCat("state_cache_bytes: ", state_cache_bytes_,
                                                       " bytes hold the state of no sequence, which takes ",
                                                       slot_bytes));
    }
    if (page_bytes == 0) {
      const int64_t longest = PageGeometry::PagesToHold(options_.max_model_len, options_.page_size, ranks);
      most_pages = std::min({most_pages, longest * state_.num_slots, kMaxFreePages});
    }
    state_.num_pages = fit(page_bytes, most_pages) / ranks * ranks;
    state_.shares_reads = options_.device == DeviceType::kCpu && page_bytes > 0;
    if (state_.num_pages == 0) {
      return absl::ResourceExhaustedError(absl::StrCat("state_cache_bytes: ", state_cache_bytes_,
                                                       " bytes hold no page for each rank; a page of ",
                                                       options_.page_size, " tokens takes ", page_bytes));
    }
    return limits_.judge_pages == nullptr ? absl::OkStatus() : limits_.judge_pages(state_.num_pages);
  }

  int64_t DefaultCacheBytes() const {
    if (options_.device == DeviceType::kCpu) {
      // A container's memory is this server's alone: what is left is for activations, requests and answers.
      const int64_t free = ranks_[0].backend->FreeBytes();
      return CgroupFreeMemory().has_value() ? free / 2 : std::min(kMaxCpuCacheBytes, free / 4);
    }
    int64_t bytes = ranks_[0].backend->FreeBytes();  // the tenth that is left is for scratch memory
    for (const Rank& rank : ranks_) bytes = std::min(bytes, rank.backend->FreeBytes());
    return bytes / 10 * 9 * options_.tensor_parallel_size;
  }

  void Work(int rank) {
    AskForShortSlices();
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
    const Matrix logits = rank->model->Forward(plan, sampler_.logit_rows(), rank->cache.get());
    if (rank == &ranks_[0]) sampler_.Enqueue(plan, logits, rank->backend.get());  // every rank has all logits
    rank->status = rank->backend->Synchronize();
    rank->status.Update(rank->communicator->status());
  }

  const EngineOptions options_;
  const StateLimits limits_;
  std::vector<Rank> ranks_;
  StateSize state_;
  StepSampler sampler_;
  int64_t state_cache_bytes_ = 0;
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

absl::StatusOr<std::unique_ptr<Workers>> Workers::Create(const EngineOptions& options,
                                                         const StateLimits& limits, const ModelConfig& config,
                                                         const WeightSource& weights) {
  auto impl = std::make_unique<Impl>(options, limits, config);
  if (absl::Status loaded = impl->Load(config, weights); !loaded.ok()) return loaded;
  return std::unique_ptr<Workers>(new Workers(std::move(impl)));
}

absl::Status Workers::Execute(const StepPlan& plan, std::vector<SequenceResult>* results) {
  return impl_->Execute(plan, results);
}
const StateSize& Workers::state() const { return impl_->state(); }
int64_t Workers::state_cache_bytes() const { return impl_->state_cache_bytes(); }

}  // namespace sessa
