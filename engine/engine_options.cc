// The checks and defaults of EngineOptions.
#include "engine/engine_options.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/check_request.h"
#include "engine/page_geometry.h"
#include "kernels/backend.h"
#include "kernels/container.h"
#include "kernels/round.h"

namespace sessa {
namespace {

// Cores that this process may use: the machine's, and its container's. More threads than that would spend
// the quota by spinning and then stand still for the rest of each period.
int Cores() {
  int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (const std::string& folder : CgroupFolders()) {
    std::ifstream file(absl::StrCat(folder, "/cpu.max"));
    std::string line;
    const int quota = std::getline(file, line) ? CoresOfQuota(line) : 0;
    if (quota > 0) cores = std::min(cores, quota);
  }
  return cores;
}

constexpr int kUsefulDrafts = 8;  // docs/performance.md, "Several tokens a step"

absl::Status Bad(const char* option, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", message));
}

}  // namespace

int MaxUsefulPages(const EngineOptions& o) {
  int64_t pages = std::numeric_limits<int64_t>::max();
  if (!o.enable_prefix_caching) {
    pages = PageGeometry::PagesToHold(o.max_model_len, o.page_size, o.tensor_parallel_size) * o.max_num_seqs;
  }
  return static_cast<int>(std::min<int64_t>(pages, std::numeric_limits<int>::max() / o.page_size));
}

absl::Status FitMaxModelLen(bool asked_for, int num_pages, EngineOptions* o) {
  const int pages = PageGeometry(num_pages, o->page_size, o->tensor_parallel_size).MaxPagesOfOneSequence();
  const int64_t longest = int64_t{pages} * o->page_size + 1;  // the last token's state is never needed
  if (o->max_model_len <= longest) return absl::OkStatus();
  if (asked_for) {
    return absl::InvalidArgumentError(absl::StrCat("max_model_len: ", o->max_model_len,
                                                   " tokens do not fit the state cache, whose ", num_pages,
                                                   " pages hold ", longest, "; raise state_cache_bytes"));
  }
  o->max_model_len = static_cast<int>(longest);
  return absl::OkStatus();
}

void FitMaxNumSeqs(bool asked_for, int num_slots, EngineOptions* o) {
  if (num_slots == 0) return;
  const int for_snapshots = asked_for || !o->enable_prefix_caching ? 0 : CeilDiv(num_slots, 4);
  o->max_num_seqs = std::min(o->max_num_seqs, std::max(1, num_slots - for_snapshots));
}

std::string PrefixCacheWarning(const EngineOptions& o, int num_slots) {
  if (!o.enable_prefix_caching || num_slots == 0 || num_slots > o.max_num_seqs) return "";
  return absl::StrCat("prefix caching: while max_num_seqs (", o.max_num_seqs,
                      ") sequences run they take all slots of recurrent state, so that no prompt can start "
                      "from the state of another; raise --state_cache_bytes or lower --max_num_seqs");
}

int CoresOfQuota(absl::string_view cpu_max) {
  const std::vector<absl::string_view> words = absl::StrSplit(cpu_max, ' ', absl::SkipEmpty());
  int64_t quota = 0, period = 0;
  if (words.size() != 2 || !absl::SimpleAtoi(words[0], &quota) || !absl::SimpleAtoi(words[1], &period))
    return 0;
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::min<int64_t>(quota / period + (quota % period > 0 ? 1 : 0), 1024));
}

DType AutoActivationDType(const EngineOptions& o) {
  if (o.device != DeviceType::kCpu) return DType::kF32;
  const bool amx = o.amx && CpuHasAmx(), faster = o.weight_dtype == DType::kBF16 ? amx || CpuHasBf16Dot()
                                                  : o.weight_dtype == DType::kI8 ? amx
                                                                                 : false;
  return faster ? DType::kBF16 : DType::kF32;
}

absl::StatusOr<EngineOptions> CompleteOptions(EngineOptions o, const ModelConfig& config, bool own_process) {
  const auto is_float = [](DType t) { return t == DType::kF32 || t == DType::kBF16; };
  if (!is_float(o.weight_dtype) && o.weight_dtype != DType::kI8)
    return Bad("weight_dtype", "must be f32, bf16 or int8");
  if (!is_float(o.state_dtype) && o.state_dtype != DType::kI8)
    return Bad("state_dtype", "must be f32, bf16 or int8");
  if (o.state_dtype == DType::kI8 && config.is_recurrent())
    return Bad("state_dtype", "this model keeps its state in float32 always, not by token");
  if (!is_float(o.activation_dtype) && o.activation_dtype != DType::kI8)
    return Bad("activation_dtype", "must be f32, bf16 or int8");
  if (o.activation_dtype != DType::kF32 && o.device != DeviceType::kCpu)
    return Bad("activation_dtype", "bf16 and int8 are for the CPU");
  if (o.activation_dtype == DType::kBF16 && o.weight_dtype == DType::kF32)
    return Bad("activation_dtype", "bf16 needs bf16 weights, or int8 ones on AMX");
  if (o.device != DeviceType::kCpu || !CpuHasAmx()) o.amx = false;
  if (o.activation_dtype == DType::kI8 && (o.weight_dtype != DType::kI8 || !CpuHasInt8Dot()))
    return Bad("activation_dtype", "int8 needs int8 weights and a CPU with AVX-512 VNNI or AMX");
  if (o.activation_dtype == DType::kBF16 && o.weight_dtype == DType::kI8 && !o.amx)
    return Bad("activation_dtype", "bf16 beside int8 weights needs AMX: else they become 16-bit integers");
  if (o.activation_dtype == DType::kBF16 && !CpuHasBf16Dot() && !o.amx) {
    return Bad("activation_dtype", "bf16 would not be faster on this CPU: it has no fast bf16 dot product");
  }
  if (o.page_size != 16 && o.page_size != 32 && o.page_size != 64)
    return Bad("page_size", "must be 16, 32 or 64");
  const int ranks = o.tensor_parallel_size;
  if (ranks != 1 && ranks != 2 && ranks != 4 && ranks != 8)
    return Bad("tensor_parallel_size", "must be 1, 2, 4 or 8");
  if (o.num_threads < 0 || o.num_threads > 1024) return Bad("num_threads", "must be in [0, 1024]");
  if (o.num_threads == 0) o.num_threads = std::max(1, Cores() / (own_process ? 1 : ranks));
  if (o.max_model_len < 0 || o.max_model_len == 1)
    return Bad("max_model_len", "must be at least 2, or 0 for the model's");
  if (o.max_model_len > config.max_position_embeddings) {
    return Bad("max_model_len", absl::StrCat("the model was made for ", config.max_position_embeddings,
                                             " positions, got ", o.max_model_len));
  }
  if (o.max_model_len == 0) o.max_model_len = std::max(2, config.max_position_embeddings);
  if (o.max_num_seqs < 0 || o.max_num_seqs > 65536) return Bad("max_num_seqs", "must be in [1, 65536], or 0");
  if (o.max_num_seqs == 0) o.max_num_seqs = 256;  // the engine cuts it to the slots of a recurrent state
  if (o.max_step_tokens < 0 || o.max_step_tokens > 65536)
    return Bad("max_step_tokens", "must be in [1, 65536], or 0");
  // A GPU's prefill kernels read the past once for all of a chunk's rows. On two cores with AMX, prompts of
  // 2048 took longer in chunks of 512 and of 2048 than of 1024, whose left sides fit the caches.
  if (o.max_step_tokens == 0) o.max_step_tokens = o.device == DeviceType::kCuda ? 2048 : 1024;
  if (o.target_step_time <= absl::ZeroDuration()) return Bad("target_step_time", "must be above 0");
  if (o.max_queued_requests < 1) return Bad("max_queued_requests", "must be at least 1");
  if (o.max_queued_tokens < 1) return Bad("max_queued_tokens", "must be at least 1");
  if (o.max_queue_time <= absl::ZeroDuration()) return Bad("max_queue_time", "must be above 0");
  if (o.max_preemptions < 0) return Bad("max_preemptions", "must be at least 0");
  if (o.num_speculative_tokens < -1 || o.num_speculative_tokens > kMaxDrafts)
    return Bad("speculation", absl::StrCat("at most ", kMaxDrafts, " tokens"));
  if (o.num_speculative_tokens > 0 && config.is_recurrent()) return Bad("speculation", kNoWayBack);
  if (o.num_speculative_tokens < 0) {
    const bool same_bits = o.device == DeviceType::kCpu || o.batch_invariant;
    o.num_speculative_tokens = config.is_recurrent() || !same_bits ? 0 : kUsefulDrafts;
  }
  if (o.state_cache_bytes < 0) return Bad("state_cache_bytes", "must be at least 0");
  return o;
}

}  // namespace sessa
