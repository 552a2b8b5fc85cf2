#include "engine/worker.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/models/model.h"
#include "engine/mutex.h"
#include "engine/rank_group.h"
#include "engine/state_cache.h"
#include "engine/step_sampler.h"
#include "kernels/container.h"
#include "kernels/device.h"
#include "kernels/shared_reads.h"
#include "kernels/slices.h"

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
  Impl(const EngineOptions& options, const StateLimits& limits, const ModelConfig& config,
       std::shared_ptr<RankGroup> group)
      : options_(options),
        limits_(limits),
        group_(std::move(group)),
        ranks_(group_ == nullptr ? options.tensor_parallel_size : 1),
        state_{.page_size = options.page_size, .num_ranks = options.tensor_parallel_size},
        vocab_size_(config.vocab_size),
        sampler_(config.vocab_size, config.eos_token_ids) {}

  ~Impl() {
    if (group_ != nullptr) {
      if (leads() && loaded_) group_->SendEnd();
      group_->SetCommunicator(nullptr);
    }
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Load(const ModelConfig& config, const WeightSource& weights) {
    const CpuOptions cpu = {options_.num_threads, options_.activation_dtype,
                            options_.amx ? MatrixUnit::kAmx : MatrixUnit::kVector};
    const DeviceOptions device = {options_.device, options_.tensor_parallel_size, cpu,
                                  options_.batch_invariant};
    if (absl::Status made = group_ == nullptr ? TakeRanks(device) : TakeProcessRank(device); !made.ok())
      return made;
    if (absl::Status made = MakeModels(config); !made.ok()) return made;
    // A budget that was named is judged before minutes are spent on reading weights.
    state_cache_bytes_ = options_.state_cache_bytes;
    if (state_cache_bytes_ > 0 && leads()) {
      if (absl::Status fits = Divide(); !fits.ok()) return fits;
    }
    for (Rank& rank : ranks_) {
      if (absl::Status loaded = rank.model->LoadWeights(weights); !loaded.ok()) return loaded;
    }
    if (absl::Status made = MakeCaches(); !made.ok()) return made;
    if (leads()) {
      absl::Status allocated = sampler_.Allocate(options_.max_step_tokens, ranks_[0].backend.get());
      if (!allocated.ok()) return allocated;
    }
    if (absl::StatusOr<std::vector<Numbers>> ready = Share({}); !ready.ok()) return ready.status();
    loaded_ = true;  // everywhere
    for (size_t i = 1; i < ranks_.size(); ++i)
      threads_.emplace_back([this, i] { Work(static_cast<int>(i)); });
    return absl::OkStatus();
  }

  void Start(const StepPlan& plan) {
    if (!health_.ok()) return;
    sampler_.Begin(plan);
    if (group_ != nullptr) {
      health_ = group_->SendStep(plan, sampler_.logit_rows());
      if (!health_.ok()) return;
    }
    if (!threads_.empty()) {
      MutexLock lock(&mutex_);
      plan_ = &plan;
      busy_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    Enqueue(&ranks_[0], plan, sampler_.logit_rows());
  }

  absl::Status Finish(const StepPlan& plan, std::vector<SequenceResult>* results) {
    if (!health_.ok()) return health_;
    Await(&ranks_[0]);
    if (!threads_.empty()) {
      MutexLock lock(&mutex_);
      while (busy_ > 0) done_.wait(mutex_);
    }
    if (group_ != nullptr) {
      if (!ranks_[0].status.ok()) group_->Lose(ranks_[0].status);
      health_ = group_->status();  // the first cause, of which a collective may have seen but the end
    }
    for (size_t i = 0; i < ranks_.size() && health_.ok(); ++i) {
      if (ranks_[i].status.ok()) continue;
      health_ =
          absl::UnavailableError(absl::StrCat("rank ", i, ", running a step: ", ranks_[i].status.message()));
    }
    if (health_.ok()) sampler_.Collect(plan, results);
    return health_;
  }

  absl::Status Obey() {
    const StepBounds bounds = {vocab_size_, options_.max_step_tokens, options_.max_model_len, state_};
    StepMessage step;
    while (true) {
      const absl::StatusOr<bool> more = group_->ReceiveStep(bounds, &step);
      if (!more.ok() || !*more) return more.status();
      Enqueue(&ranks_[0], step.plan, step.logit_rows);
      Await(&ranks_[0]);
      if (!ranks_[0].status.ok()) group_->Lose(ranks_[0].status);
      if (absl::Status lost = group_->status(); !lost.ok()) return lost;
    }
  }

  bool is_asynchronous() const { return ranks_[0].backend->is_asynchronous(); }
  // Of several ranks the first alone samples.
  int max_under_way() const { return is_asynchronous() && options_.tensor_parallel_size == 1 ? 2 : 1; }
  const StateSize& state() const { return state_; }
  int64_t state_cache_bytes() const { return state_cache_bytes_; }

 private:
  using Numbers = std::array<int64_t, 2>;

  absl::Status TakeRanks(const DeviceOptions& device) {
    auto made = MakeRanks(device);
    if (!made.ok()) return made.status();
    for (size_t i = 0; i < ranks_.size(); ++i) {
      ranks_[i].backend = std::move((*made)[i].backend);
      ranks_[i].communicator = std::move((*made)[i].communicator);
    }
    return absl::OkStatus();
  }
  absl::Status TakeProcessRank(const DeviceOptions& device) {
    auto made = MakeProcessRank(device, group_->links());
    if (!made.ok()) return made.status();
    group_->SetCommunicator(made->communicator.get());
    ranks_[0].backend = std::move(made->backend);
    ranks_[0].communicator = std::move(made->communicator);
    return absl::OkStatus();
  }

  // And what a page and a slot take of all processes together.
  absl::Status MakeModels(const ModelConfig& config) {
    Numbers own = {};
    for (Rank& rank : ranks_) {
      auto model =
          Model::Create(config, {options_.weight_dtype, options_.state_dtype, options_.max_step_tokens},
                        rank.backend.get(), rank.communicator.get());
      if (!model.ok()) return model.status();
      rank.model = *std::move(model);
      const std::vector<StateShape> shapes = rank.model->StateShapes();
      own[0] +=
          StateCache::BytesPerPage(shapes, options_.page_size, rank.communicator->rank(), *rank.backend);
      own[1] += StateCache::BytesPerSlot(shapes);
    }
    auto bytes = Share(own);
    if (!bytes.ok()) return bytes.status();
    for (const Numbers& process : *bytes) page_bytes_ += process[0], slot_bytes_ += process[1];
    return absl::OkStatus();
  }

  // Where no budget was named, each process has as much as the one that has least.
  absl::Status MakeCaches() {
    auto budgets = Share({DefaultCacheBytes(), 0});
    if (!budgets.ok()) return budgets.status();
    if (state_cache_bytes_ == 0) {
      state_cache_bytes_ = std::ranges::min(*budgets)[0] * static_cast<int64_t>(budgets->size());
      if (leads()) {
        if (absl::Status fits = Divide(); !fits.ok()) return fits;
      }
    }
    auto sizes = Share({state_.num_pages, state_.num_slots});
    if (!sizes.ok()) return sizes.status();
    state_.num_pages = static_cast<int>((*sizes)[0][0]);
    state_.num_slots = static_cast<int>((*sizes)[0][1]);
    for (Rank& rank : ranks_) {
      auto cache = StateCache::Create(rank.model->StateShapes(), state_, rank.communicator->rank(),
                                      rank.backend.get());
      if (!cache.ok()) return cache.status();
      rank.cache = std::make_unique<StateCache>(*std::move(cache));
    }
    return absl::OkStatus();
  }

  bool leads() const { return group_ == nullptr || group_->rank() == 0; }

  // What each process of the group says, in the order of ranks; one that is alone hears itself.
  absl::StatusOr<std::vector<Numbers>> Share(const Numbers& own) {
    if (group_ == nullptr) return std::vector<Numbers>{own};
    auto words = group_->Share(std::string(reinterpret_cast<const char*>(own.data()), sizeof(own)));
    if (!words.ok()) return words.status();
    std::vector<Numbers> all(words->size());
    for (size_t i = 0; i < all.size(); ++i) {
      if ((*words)[i].size() != sizeof(Numbers)) return absl::UnavailableError("ranks are out of step");
      std::memcpy(all[i].data(), (*words)[i].data(), sizeof(Numbers));
    }
    return all;
  }

  // The budget into pages or slots. No family keeps both yet; one that does would have to share them out.
  absl::Status Divide() {
    const auto fit = [&](int64_t bytes, int64_t most) {
      return static_cast<int>(bytes > 0 ? std::min(state_cache_bytes_ / bytes, most) : most);
    };
    const int ranks = options_.tensor_parallel_size;
    int64_t most_pages = limits_.max_pages;
    if (slot_bytes_ > 0) state_.num_slots = fit(slot_bytes_, limits_.max_slots);
    if (slot_bytes_ > 0 && state_.num_slots == 0) {
      return absl::ResourceExhaustedError(absl::StrCat("state_cache_bytes: ", state_cache_bytes_,
                                                       " bytes hold the state of no sequence, which takes ",
                                                       slot_bytes_));
    }
    if (page_bytes_ == 0) {
      const int64_t longest = PageGeometry::PagesToHold(options_.max_model_len, options_.page_size, ranks);
      most_pages = std::min({most_pages, longest * state_.num_slots, kMaxFreePages});
    }
    state_.num_pages = fit(page_bytes_, most_pages) / ranks * ranks;
    state_.shares_reads = page_bytes_ > 0 && SharesReads();
    if (state_.num_pages == 0) {
      return absl::ResourceExhaustedError(absl::StrCat("state_cache_bytes: ", state_cache_bytes_,
                                                       " bytes hold no page for each rank; a page of ",
                                                       options_.page_size, " tokens takes ", page_bytes_));
    }
    return limits_.judge_pages == nullptr ? absl::OkStatus() : limits_.judge_pages(state_.num_pages);
  }

  // Of a model that keeps pages: whether most of what its rows read is read once for all that share it. The
  // feedback, where there is one, is 80 % of the state, with one query a row.
  bool SharesReads() const {
    if (options_.device == DeviceType::kCpu) return true;
    const ModelConfig& config = ranks_[0].model->config();
    const auto is_feedback = [](const PagedShape& s) { return s.by_tile; };
    if (std::ranges::any_of(ranks_[0].model->StateShapes()[0].paged, is_feedback))
      return GpuSharesReads(1, config.hidden_size);
    const auto* llama = std::get_if<LlamaConfig>(&config.family);
    const bool has_windows =
        llama != nullptr && std::ranges::any_of(llama->windows, [](int window) { return window > 0; });
    return !has_windows && GpuSharesReads(config.num_heads / config.num_kv_heads, config.head_dim());
  }

  // For the ranks of this process.
  int64_t DefaultCacheBytes() const {
    if (options_.device == DeviceType::kCpu) {
      // A container's memory is this server's alone: what is left is for activations, requests and answers.
      const int64_t free = ranks_[0].backend->FreeBytes();
      return CgroupFreeMemory().has_value() ? free / 2 : std::min(kMaxCpuCacheBytes, free / 4);
    }
    int64_t bytes = ranks_[0].backend->FreeBytes();  // the tenth that is left is for scratch memory
    for (const Rank& rank : ranks_) bytes = std::min(bytes, rank.backend->FreeBytes());
    return bytes / 10 * 9 * static_cast<int64_t>(ranks_.size());
  }

  void Work(int rank) {
    AskForSlices(kEngineSlice);
    for (uint64_t seen = 0;;) {
      const StepPlan* plan = nullptr;
      {
        MutexLock lock(&mutex_);
        while (generation_ == seen && !stop_) wake_.wait(mutex_);
        if (stop_) return;
        seen = generation_;
        plan = plan_;
      }
      Enqueue(&ranks_[rank], *plan, sampler_.logit_rows());
      Await(&ranks_[rank]);
      bool last = false;
      {
        MutexLock lock(&mutex_);
        last = --busy_ == 0;
      }
      if (last) done_.notify_one();
    }
  }

  void Enqueue(Rank* rank, const StepPlan& plan, const std::vector<int32_t>& logit_rows) {
    const Matrix logits = rank->model->Forward(plan, logit_rows, rank->cache.get());
    // Every rank has all logits.
    if (rank->communicator->rank() == 0) sampler_.Enqueue(plan, logits, rank->backend.get());
    rank->backend->EndStep();
  }
  void Await(Rank* rank) {
    rank->status = rank->backend->WaitForStep();
    rank->status.Update(rank->communicator->status());
  }

  const EngineOptions options_;
  const StateLimits limits_;
  const std::shared_ptr<RankGroup> group_;  // null: every rank is a thread here
  std::vector<Rank> ranks_;                 // of this process
  StateSize state_;
  const int vocab_size_;
  StepSampler sampler_;  // rank 0's
  int64_t page_bytes_ = 0, slot_bytes_ = 0;
  int64_t state_cache_bytes_ = 0;
  absl::Status health_;
  bool loaded_ = false;

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
                                                         const WeightSource& weights,
                                                         std::shared_ptr<RankGroup> group) {
  auto impl = std::make_unique<Impl>(options, limits, config, std::move(group));
  if (absl::Status loaded = impl->Load(config, weights); !loaded.ok()) return loaded;
  return std::unique_ptr<Workers>(new Workers(std::move(impl)));
}

void Workers::Start(const StepPlan& plan) { impl_->Start(plan); }
absl::Status Workers::Finish(const StepPlan& plan, std::vector<SequenceResult>* results) {
  return impl_->Finish(plan, results);
}
bool Workers::is_asynchronous() const { return impl_->is_asynchronous(); }
int Workers::max_under_way() const { return impl_->max_under_way(); }
absl::Status Workers::Obey() { return impl_->Obey(); }
const StateSize& Workers::state() const { return impl_->state(); }
int64_t Workers::state_cache_bytes() const { return impl_->state_cache_bytes(); }

}  // namespace sessa
