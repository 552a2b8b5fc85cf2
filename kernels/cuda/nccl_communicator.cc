#include "kernels/cuda/nccl_communicator.h"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

constexpr std::chrono::milliseconds kWatchPeriod(200);
// NCCL sends the messages of a group together, so these cost less than copies of their own.
constexpr int kMaxMessageRows = 8;

// Packed columns lie in a pool of memory, as growing must not wait for the other GPUs (context.h). NCCL's
// ranks of one process read each other's memory where they can, which of a pool has to be allowed.
class NcclCommunicator final : public GroupCommunicator {
 public:
  // num_gpus: of this process, from 0 on.
  NcclCommunicator(ncclComm_t comm, int rank, int size, int gpu, int num_gpus, cudaStream_t stream,
                   std::chrono::milliseconds limit)
      : comm_(comm), rank_(rank), size_(size), gpu_(gpu), stream_(stream), limit_(limit) {
    Note(cudaSetDevice(gpu_));
    Note(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming));
    MakePool(num_gpus);
    watch_ = std::thread([this] { Watch(); });
  }

  ~NcclCommunicator() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    watch_.join();
    (void)cudaSetDevice(gpu_);
    if (status().ok()) ncclCommDestroy(comm_);  // an aborted one is gone already
    if (packed_ != nullptr) (void)cudaFreeAsync(packed_, stream_);
    if (pool_ != nullptr) (void)cudaMemPoolDestroy(pool_);
    if (done_ != nullptr) (void)cudaEventDestroy(done_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status status() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }

  void GiveUp(const absl::Status& why) override {
    std::lock_guard<std::mutex> lock(mutex_);
    Abort(why.message());
  }

  // One group of broadcasts. Matrices of few rows go as they are, a message for each rank and row; columns of
  // more rows are packed first.
  void AllGather(absl::Span<const Columns> parts) override {
    int64_t floats = 0;
    for (const auto& [x, bounds] : parts) floats += IsPacked(x) ? int64_t{x.rows} * x.cols : 0;
    if (!status().ok() || !Reserve(floats)) return;
    CopyPacked(parts, /*pack=*/true);
    Note(ncclGroupStart(), "group");
    float* packed = packed_;
    for (const auto& [x, bounds] : parts) {
      for (int r = 0; r < size_; ++r) {
        const int64_t n = bounds[r + 1] - bounds[r];
        if (IsPacked(x)) {
          Broadcast(packed, x.rows * n, r);
          packed += x.rows * n;
        } else {
          for (int i = 0; i < x.rows; ++i) Broadcast(x.row(i) + bounds[r], n, r);
        }
      }
    }
    Note(ncclGroupEnd(), "group");
    Note(cudaEventRecord(done_, stream_));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      deadline_ = Clock::now() + limit_;
    }
    CopyPacked(parts, /*pack=*/false);
  }

 private:
  using Clock = std::chrono::steady_clock;

  static bool IsPacked(const Matrix& x) { return x.rows > kMaxMessageRows; }

  // Columns of a packed matrix to or from their places in packed_: this rank's before they are sent, the
  // others' afterwards.
  void CopyPacked(absl::Span<const Columns> parts, bool pack) {
    float* packed = packed_;
    for (const auto& [x, bounds] : parts) {
      if (!IsPacked(x)) continue;
      for (int r = 0; r < size_; ++r) {
        const int64_t n = bounds[r + 1] - bounds[r];
        const size_t dense = n * sizeof(float), strided = x.stride * sizeof(float);
        float* columns = x.data + bounds[r];
        if (n > 0 && (r == rank_) == pack) {
          Note(pack ? cudaMemcpy2DAsync(packed, dense, columns, strided, dense, x.rows,
                                        cudaMemcpyDeviceToDevice, stream_)
                    : cudaMemcpy2DAsync(columns, strided, packed, dense, dense, x.rows,
                                        cudaMemcpyDeviceToDevice, stream_));
        }
        packed += x.rows * n;
      }
    }
  }

  void Broadcast(float* data, int64_t n, int root) {
    if (n > 0) Note(ncclBroadcast(data, data, n, ncclFloat, root, comm_, stream_), "broadcast");
  }

  void Watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stop_ && status_.ok()) {
      wake_.wait_for(lock, std::min(kWatchPeriod, limit_));
      ncclResult_t error = ncclSuccess;
      if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &error); asked != ncclSuccess)
        error = asked;
      if (error != ncclSuccess && error != ncclInProgress) {
        Abort(ncclGetErrorString(error));
      } else if (deadline_.has_value() && cudaEventQuery(done_) != cudaErrorNotReady) {
        deadline_.reset();  // done, or failed in a way that Synchronize reports
      } else if (deadline_.has_value() && Clock::now() > *deadline_) {
        Abort(absl::StrCat("a collective was not done within ", limit_.count(),
                           " ms: a peer hangs or is gone"));
      }
    }
  }

  // Requires mutex_. Ends the kernels that wait.
  void Abort(absl::string_view why) {
    if (!status_.ok()) return;
    status_ = absl::UnavailableError(absl::StrCat("NCCL, rank ", rank_, ": ", why));
    ncclCommAbort(comm_);
  }

  void Fail(const char* what, const char* why) {
    std::lock_guard<std::mutex> lock(mutex_);
    Abort(absl::StrCat(what, ": ", why));
  }
  void Note(ncclResult_t result, const char* what) {
    if (result != ncclSuccess && result != ncclInProgress) Fail(what, ncclGetErrorString(result));
  }
  void Note(cudaError_t error) {
    if (error != cudaSuccess) Fail("CUDA", cudaGetErrorString(error));
  }

  void MakePool(int num_gpus) {
    cudaMemPoolProps props = {};
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    props.location.id = gpu_;
    if (cudaError_t error = cudaMemPoolCreate(&pool_, &props); error != cudaSuccess) return Note(error);
    uint64_t keep = std::numeric_limits<uint64_t>::max();
    Note(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep));
    std::vector<cudaMemAccessDesc> peers;
    for (int peer = 0; peer < num_gpus; ++peer) {
      int reaches = 0;
      if (peer != gpu_) Note(cudaDeviceCanAccessPeer(&reaches, peer, gpu_));
      if (reaches == 0) continue;
      cudaMemAccessDesc& access = peers.emplace_back();
      access.location = props.location;
      access.location.id = peer;
      access.flags = cudaMemAccessFlagsProtReadWrite;
    }
    if (!peers.empty()) Note(cudaMemPoolSetAccess(pool_, peers.data(), peers.size()));
  }

  bool Reserve(int64_t floats) {
    if (capacity_ >= floats) return true;
    if (packed_ != nullptr) Note(cudaFreeAsync(packed_, stream_));
    packed_ = nullptr, capacity_ = 0;
    const cudaError_t error =
        cudaMallocFromPoolAsync(reinterpret_cast<void**>(&packed_), floats * sizeof(float), pool_, stream_);
    Note(error);
    if (error == cudaSuccess) capacity_ = floats;
    return error == cudaSuccess;
  }

  const ncclComm_t comm_;
  const int rank_, size_, gpu_;
  const cudaStream_t stream_;
  const std::chrono::milliseconds limit_;
  cudaEvent_t done_ = nullptr;  // the last collective
  cudaMemPool_t pool_ = nullptr;
  float* packed_ = nullptr;  // [capacity_], of the pool
  int64_t capacity_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;  // guarded by mutex_, as is status_; the first error ends the communicator
  absl::Status status_;
  std::optional<Clock::time_point> deadline_;  // of the last collective, while it is not known to be done
  std::thread watch_;                          // last: it uses all of the above
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<GroupCommunicator>>> MakeNcclCommunicators(
    const std::vector<cudaStream_t>& streams, const NcclGroup& group, std::chrono::milliseconds limit) {
  const int own = static_cast<int>(streams.size());
  const auto fail = [&](ncclResult_t result) {
    return absl::UnavailableError(
        absl::StrCat("NCCL over ", group.num_ranks, " GPUs: ", ncclGetErrorString(result)));
  };
  ncclUniqueId id = {};
  if (group.first_rank == 0) {
    if (ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) return fail(result);
  }
  auto shared = group.share_id(group.first_rank == 0 ? std::string(id.internal, sizeof id.internal) : "");
  if (!shared.ok()) return shared.status();
  if (shared->size() != sizeof id.internal)
    return absl::UnavailableError(absl::StrCat("NCCL: an id of ", shared->size(), " bytes was shared"));
  std::copy(shared->begin(), shared->end(), id.internal);

  std::vector<ncclComm_t> comms(own, nullptr);
  ncclResult_t result = ncclGroupStart();
  for (int i = 0; i < own && result == ncclSuccess; ++i) {
    if (cudaSetDevice(i) != cudaSuccess) {
      result = ncclUnhandledCudaError;
    } else {
      result = ncclCommInitRank(&comms[i], group.num_ranks, id, group.first_rank + i);
    }
  }
  const ncclResult_t ended = ncclGroupEnd();
  if (result == ncclSuccess) result = ended;
  if (result != ncclSuccess) {
    for (ncclComm_t comm : comms) {
      if (comm != nullptr) ncclCommAbort(comm);
    }
    return fail(result);
  }
  std::vector<std::unique_ptr<GroupCommunicator>> ranks;
  for (int i = 0; i < own; ++i) {
    ranks.push_back(std::make_unique<NcclCommunicator>(comms[i], group.first_rank + i, group.num_ranks, i,
                                                       own, streams[i], limit));
  }
  return ranks;
}

}  // namespace sessa
