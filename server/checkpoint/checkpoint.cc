// Opening a checkpoint folder. The shards' own headers say which tensors there are; the index is only
// believed where they agree with it.
#include "server/checkpoint/checkpoint.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_json.h"
#include "server/file/json_file.h"
#include "server/file/read_file.h"

namespace sessa {
namespace {

namespace json = boost::json;

constexpr size_t kKeptBytes = 1 << 20;      // a linear's weight, but not the bias that is asked for after it
constexpr size_t kMaxJsonBytes = 64 << 20;  // an index of a million tensors is smaller

absl::Status Prefix(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

// The first of n values that is infinite or no number; n when there is none. Inf and NaN have all exponent
// bits set, so that the largest absolute value of a block, as an integer, tells: a loop that compilers
// vectorise.
template <typename Bits>
int64_t FindNotFinite(const char* data, Bits infinity, int64_t n) {
  constexpr Bits kAbsolute = static_cast<Bits>(~Bits{0}) >> 1;
  constexpr int64_t kBlock = 4096;
  const auto at = [data](int64_t i) {
    Bits bits;
    std::memcpy(&bits, data + i * sizeof(Bits), sizeof(Bits));
    return static_cast<Bits>(bits & kAbsolute);
  };
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    Bits largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, at(i));
    if (largest < infinity) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (at(i) >= infinity) return i;
    }
  }
  return n;
}

int64_t FindNotFinite(const char* data, DType dtype, int64_t n) {
  switch (dtype) {
    case DType::kF32: return FindNotFinite<uint32_t>(data, 0x7f800000, n);
    case DType::kF16: return FindNotFinite<uint16_t>(data, 0x7c00, n);
    default: return FindNotFinite<uint16_t>(data, 0x7f80, n);
  }
}

// The index's weight_map: tensor -> shard.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  auto text = ReadFile(path, kMaxJsonBytes);
  if (!text.ok()) return text.status();
  const auto error = [&](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what...));
  };
  auto root = ParseJsonText(*text, path);
  if (!root.ok()) return root.status();
  const json::value* map = root->is_object() ? root->get_object().if_contains("weight_map") : nullptr;
  if (map == nullptr || !map->is_object()) return error("weight_map is missing or not an object");
  std::map<std::string, std::string> shards;
  for (const auto& [key, value] : map->get_object()) {
    const std::string tensor(key.data(), key.size());
    if (!value.is_string()) return error("weight_map: ", tensor, " is not a string");
    const std::string shard(value.get_string().data(), value.get_string().size());
    if (!IsPlainName(shard))
      return error("weight_map: ", tensor, " is in '", shard, "', not a plain file name");
    shards[tensor] = shard;
  }
  return shards;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->dir_ = dir;
  const std::string config_path = dir + "/config.json";
  auto text = ReadFile(config_path, kMaxJsonBytes);
  if (!text.ok()) return text.status();
  auto config = ParseConfigJson(*text);
  if (!config.ok()) return Prefix(config_path, config.status());
  checkpoint->config_ = *std::move(config);

  const std::string single = dir + "/model.safetensors";
  const std::string index_path = single + ".index.json";
  std::error_code ec;
  std::map<std::string, std::string> index;  // empty: one file
  std::vector<std::string> names;
  if (!std::filesystem::exists(single, ec) && std::filesystem::exists(index_path, ec)) {
    auto read = ReadIndex(index_path);
    if (!read.ok()) return read.status();
    index = *std::move(read);
    for (const auto& [tensor, shard] : index) names.push_back(shard);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
  } else {
    names.push_back("model.safetensors");
  }
  for (const std::string& name : names) {
    auto file = SafetensorsFile::Open(absl::StrCat(dir, "/", name));
    if (!file.ok()) return file.status();
    for (const auto& [tensor, view] : (*file)->tensors()) {
      if (!checkpoint->tensors_.emplace(tensor, Place{file->get(), &view}).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(dir, "/", name, ": tensor ", tensor, ": is in two shards"));
      }
    }
    checkpoint->files_.push_back(*std::move(file));
  }
  for (const auto& [tensor, shard] : index) {
    if (!checkpoint->tensors_.contains(tensor)) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": weight_map: tensor ", tensor, " is not in ", shard));
    }
  }
  return checkpoint;
}

absl::StatusOr<const Checkpoint::Place*> Checkpoint::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return absl::NotFoundError(absl::StrCat(dir_, ": no tensor ", name));
  return &it->second;
}

absl::StatusOr<DType> Checkpoint::TypeOf(std::string_view name) const {
  auto place = Find(std::string(name));
  if (!place.ok()) return place.status();
  switch ((*place)->tensor->dtype) {
    case FileDType::kF32: return DType::kF32;
    case FileDType::kF16: return DType::kF16;
    case FileDType::kBF16: return DType::kBF16;
    case FileDType::kI64: break;
  }
  return absl::InvalidArgumentError(absl::StrCat((*place)->file->name(), ": tensor ", std::string(name),
                                                 ": dtype I64 is none for weights"));
}

absl::StatusOr<TensorView> Checkpoint::Get(std::string_view name) const {
  const std::string key(name);
  auto dtype = TypeOf(name);
  if (!dtype.ok()) return dtype.status();
  const auto& [file, tensor] = **Find(key);
  TensorView view;
  view.dtype = *dtype;
  view.shape = tensor->shape;
  {
    absl::MutexLock lock(&mutex_);
    used_.insert(key);
    if (last_name_ == key) view.owner = last_;
  }
  if (view.owner == nullptr) {
    const std::string where = absl::StrCat(file->name(), ": tensor ", key);
    auto data = file->Read(*tensor);
    if (!data.ok()) return Prefix(where, data.status());
    num_bytes_read_ += static_cast<int64_t>(tensor->num_bytes);
    const int64_t n = static_cast<int64_t>(tensor->num_bytes) / SizeOf(view.dtype);
    if (const int64_t i = FindNotFinite(data->get(), view.dtype, n); i < n) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": element ", i, " of ", n, " is not a finite number"));
    }
    view.owner = *std::move(data);
    if (tensor->num_bytes >= kKeptBytes) {
      absl::MutexLock lock(&mutex_);
      last_name_ = key;
      last_ = view.owner;
    }
  }
  view.data = view.owner.get();
  return view;
}

int64_t Checkpoint::num_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, place] : tensors_) bytes += static_cast<int64_t>(place.tensor->num_bytes);
  return bytes;
}

DType Checkpoint::most_common_dtype() const {
  std::map<DType, int64_t> elements;
  for (const auto& [name, place] : tensors_) {
    if (const auto dtype = TypeOf(name); dtype.ok())
      elements[*dtype] += static_cast<int64_t>(place.tensor->num_bytes) / SizeOf(*dtype);
  }
  const auto most = absl::c_max_element(elements, [](auto& a, auto& b) { return a.second < b.second; });
  return most == elements.end() ? DType::kF32 : most->first;
}

std::vector<std::string> Checkpoint::unused_tensors() const {
  std::vector<std::string> unused;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, place] : tensors_) {
      if (!used_.contains(name)) unused.push_back(name);
    }
  }
  std::sort(unused.begin(), unused.end());
  return unused;
}

}  // namespace sessa
