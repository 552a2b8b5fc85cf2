// Device memory, as every backend hands it out.
#pragma once

#include <cstddef>
#include <utility>

namespace sessa {

// Zeroed, freed with the object.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, size_t size, void (*release)(void*, size_t))
      : data_(data), size_(size), release_(release) {}
  Buffer(Buffer&& o) noexcept { *this = std::move(o); }
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(release_, o.release_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_, size_);
  }
  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
  void (*release_)(void*, size_t) = nullptr;
};

}  // namespace sessa
