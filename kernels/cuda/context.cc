#include "kernels/cuda/context.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/convert.h"
#include "kernels/round.h"

namespace sessa::cuda {

namespace {

// For what a step answers: tokens of 512 rows are 2 KiB.
constexpr size_t kPinnedBytes = 64 << 10;

}  // namespace

Context::Context(int device, cudaStream_t stream) : device_(device), stream_(stream) {
  Use();
  cudaMemPoolProps props = {};
  props.allocType = cudaMemAllocationTypePinned;  // the only type of device memory
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = device;
  Note(cudaMemPoolCreate(&pool_, &props), "making a memory pool");
  // By default what is free goes back to the driver at the next synchronisation, to be asked for again.
  uint64_t keep = std::numeric_limits<uint64_t>::max();
  if (status_.ok())
    Note(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep), "setting up a memory pool");
  for (HostStep& step : steps_) {
    Note(cudaEventCreateWithFlags(&step.done, cudaEventDisableTiming), "making an event");
    if (cudaMallocHost(reinterpret_cast<void**>(&step.pinned), kPinnedBytes) == cudaSuccess) continue;
    (void)cudaGetLastError();  // copies are slower then
    step.pinned = nullptr;
  }
}

Context::~Context() {
  (void)cudaSetDevice(device_);
  (void)cudaStreamSynchronize(stream_);
  for (HostStep& step : steps_) {
    step.outgrown.clear();
    if (step.done != nullptr) (void)cudaEventDestroy(step.done);
    if (step.pinned != nullptr) (void)cudaFreeHost(step.pinned);
  }
  if (pool_ != nullptr) (void)cudaMemPoolDestroy(pool_);
  (void)cudaStreamDestroy(stream_);
}

void Context::Note(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    Fail(absl::InternalError(absl::StrCat("GPU ", device_, ", ", what, ": ", cudaGetErrorString(error))));
}

void Context::Wait(const char* what) {
  Note(cudaStreamSynchronize(stream_), what);
  for (HostStep& step : steps_) FinishCopies(&step);
}

void Context::FinishCopies(HostStep* step) {
  for (const Copy& copy : step->copies) {
    if (status_.ok()) std::memcpy(copy.to, copy.from, copy.bytes);
  }
  step->copies.clear();
  step->pinned_used = 0;
  step->is_closed = false;
}

void Context::WaitFor(HostStep* step) {
  Note(cudaEventSynchronize(step->done), "running a step");
  FinishCopies(step);
}

void Context::BeginStep() {
  if (!now().is_closed) Wait("waiting for the last step");
  now_ = 1 - now_;
  if (now().is_closed) WaitFor(&now());
  now().outgrown.clear();
}

void Context::EndStep() {
  Note(cudaEventRecord(now().done, stream_), "closing a step");
  now().is_closed = true;
}

void Context::WaitForStep() {
  HostStep& before = steps_[1 - now_];
  WaitFor(before.is_closed ? &before : &now());
}

// The runtime copies to pageable memory by way of its own, with the host waiting: 5 to 10 us of each step.
void Context::CopyOut(const void* device, size_t bytes, void* host) {
  if (bytes == 0) return;
  void* to = host;
  HostStep& step = now();
  if (step.pinned != nullptr && bytes <= kPinnedBytes - step.pinned_used) {
    to = step.pinned + step.pinned_used;
    step.pinned_used += std::min(kPinnedBytes - step.pinned_used, RoundUp(bytes, size_t{64}));
    step.copies.push_back({to, host, bytes});
  }
  Note(cudaMemcpyAsync(to, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying from the GPU");
}

absl::StatusOr<Buffer> Context::Allocate(size_t bytes) {
  bytes = std::max<size_t>(bytes, 1);
  void* p = nullptr;
  (void)cudaSetDevice(device_);
  const cudaError_t error = cudaMalloc(&p, bytes);
  return Allocated(error, p, bytes, [](void* data, size_t) { (void)cudaFree(data); });
}

absl::StatusOr<Buffer> Context::AllocateForStep(size_t bytes) {
  if (!status_.ok()) return status_;
  bytes = std::max<size_t>(bytes, 1);
  void* p = nullptr;
  (void)cudaSetDevice(device_);
  const cudaError_t error = cudaMallocFromPoolAsync(&p, bytes, pool_, stream_);
  // Nothing runs on the null stream, which streams of the backend do not wait for either: the memory is free
  // at once.
  return Allocated(error, p, bytes, [](void* data, size_t) { (void)cudaFreeAsync(data, nullptr); });
}

absl::StatusOr<Buffer> Context::Allocated(cudaError_t error, void* p, size_t bytes,
                                          void (*release)(void*, size_t)) {
  if (error != cudaSuccess) {
    if (error == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // not a fault of the device
    } else {
      Note(error, "allocating memory");
    }
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes of GPU memory: ", cudaGetErrorString(error)));
  }
  Note(cudaMemsetAsync(p, 0, bytes, stream_), "clearing memory");
  return Buffer(p, bytes, release);
}

absl::StatusOr<Buffer> Context::Upload(const void* data, DType from, int64_t n, int64_t k, int64_t stride,
                                       DType to) {
  stride = std::max(stride, k);
  auto memory = Allocate(n * stride * SizeOf(to));
  if (!memory.ok()) return memory;
  constexpr int64_t kBatch = 1 << 20;  // values converted at a time; none where a rank has no heads
  const int64_t batch = std::max<int64_t>(1, kBatch / std::max<int64_t>(1, stride));
  std::vector<char> rows;
  for (int64_t first = 0; first < n && stride > 0; first += batch) {
    const int64_t count = std::min(batch, n - first);
    rows.assign(count * stride * SizeOf(to), 0);
    for (int64_t r = 0; r < count; ++r) {
      char* row = rows.data() + r * stride * SizeOf(to);
      if (from == to) {
        std::memcpy(row, static_cast<const char*>(data) + (first + r) * k * SizeOf(from), k * SizeOf(from));
        continue;
      }
      for (int64_t i = 0; i < k; ++i) {
        const float x = ToFloat(data, (first + r) * k + i, from);
        const uint16_t rounded = RoundToBf16(x);
        std::memcpy(row + i * SizeOf(to), to == DType::kF32 ? static_cast<const void*>(&x) : &rounded,
                    SizeOf(to));
      }
    }
    Note(cudaMemcpyAsync(static_cast<char*>(memory->data()) + first * stride * SizeOf(to), rows.data(),
                         rows.size(), cudaMemcpyHostToDevice, stream_),
         "copying to the GPU");
    Wait("copying to the GPU");  // before `rows` changes
  }
  if (!status_.ok()) return status_;
  return memory;
}

bool Context::Reserve(size_t bytes, Buffer* buffer) {
  if (buffer->size() >= bytes) return true;
  // Half as much again: contexts grow by a tile at a time, and other scratch is another graph.
  auto memory = AllocateForStep(std::max(bytes, buffer->size() + buffer->size() / 2));
  if (!memory.ok()) memory = AllocateForStep(bytes);
  if (!memory.ok()) {
    Fail(memory.status());
    return false;
  }
  now().outgrown.push_back(std::exchange(*buffer, *std::move(memory)));
  return true;
}

}  // namespace sessa::cuda
