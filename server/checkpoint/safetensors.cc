// The header is parsed by a JSON parser with a depth limit, then checked: ranges, sizes, order. Nothing is
// read from the data part, so a huge file opens at once.
#include "server/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sessa {
namespace {

namespace json = boost::json;

absl::string_view View(json::string_view s) { return {s.data(), s.size()}; }

// A field of the header as a non-negative integer below 2^63, or -1.
int64_t Natural(const json::value& v) {
  if (const int64_t* i = v.if_int64()) return *i >= 0 ? *i : -1;
  return -1;
}

absl::StatusOr<TensorView> ParseEntry(const json::value& value, absl::string_view data) {
  const json::object* entry = value.if_object();
  if (entry == nullptr) return absl::InvalidArgumentError("entry is not an object");
  TensorView view;

  const json::value* dtype = entry->if_contains("dtype");
  if (dtype == nullptr || !dtype->is_string())
    return absl::InvalidArgumentError("dtype is missing or not a string");
  const absl::string_view type = View(dtype->get_string());
  uint64_t num_bytes = 0;
  if (type == "F32") {
    view.dtype = FileDType::kF32, num_bytes = 4;
  } else if (type == "F16") {
    view.dtype = FileDType::kF16, num_bytes = 2;
  } else if (type == "BF16") {
    view.dtype = FileDType::kBF16, num_bytes = 2;
  } else if (type == "I64") {
    view.dtype = FileDType::kI64, num_bytes = 8;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("dtype ", type.substr(0, 32), " is not supported"));
  }

  const json::value* shape = entry->if_contains("shape");
  if (shape == nullptr || !shape->is_array())
    return absl::InvalidArgumentError("shape is missing or not an array");
  for (const json::value& v : shape->get_array()) {
    const int64_t size = Natural(v);
    if (size < 0) return absl::InvalidArgumentError("shape has a size that is not a natural number");
    if (__builtin_mul_overflow(num_bytes, static_cast<uint64_t>(size), &num_bytes)) {
      return absl::InvalidArgumentError("shape overflows");
    }
    view.shape.push_back(size);
  }

  const json::value* offsets = entry->if_contains("data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->get_array().size() != 2) {
    return absl::InvalidArgumentError("data_offsets is missing or not a pair");
  }
  const int64_t begin = Natural(offsets->get_array()[0]);
  const int64_t end = Natural(offsets->get_array()[1]);
  if (begin < 0 || end < begin) return absl::InvalidArgumentError("data_offsets is not an ascending pair");
  if (static_cast<uint64_t>(end) > data.size()) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets end at ", end, ", but the file holds ",
                                                   data.size(), " data bytes: truncated?"));
  }
  if (static_cast<uint64_t>(end - begin) != num_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("data_offsets span ", end - begin, " bytes, shape and dtype need ", num_bytes));
  }
  view.data = data.data() + begin;
  view.num_bytes = num_bytes;
  return view;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Parse(std::string name,
                                                                        absl::string_view bytes) {
  const auto error = [&](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", what...));
  };
  if (bytes.size() < 8) return error("header length: file has only ", bytes.size(), " bytes");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | static_cast<unsigned char>(bytes[i]);
  if (header_bytes > kMaxHeaderBytes)
    return error("header length ", header_bytes, " is above ", kMaxHeaderBytes);
  if (header_bytes > bytes.size() - 8)
    return error("header length ", header_bytes, " is beyond the end of the file");
  const absl::string_view data = bytes.substr(8 + header_bytes);

  json::error_code ec;
  const json::value header = json::parse({bytes.data() + 8, header_bytes}, ec);
  if (ec) return error("header is not JSON: ", ec.message());
  if (!header.is_object()) return error("header is not a JSON object");

  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  std::vector<std::pair<const char*, absl::string_view>> order;  // (first byte, name)
  for (const auto& [key, value] : header.get_object()) {
    const absl::string_view tensor = View(key);
    if (tensor == "__metadata__") continue;
    auto view = ParseEntry(value, data);
    if (!view.ok()) return error("tensor ", tensor, ": ", view.status().message());
    order.emplace_back(static_cast<const char*>(view->data), tensor);
    file->tensors_.emplace(std::string(tensor), *std::move(view));
  }
  // The format wants the tensors to cover the data part without holes or overlaps.
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return std::pair(a.first, file->tensors_.at(a.second).num_bytes) <
           std::pair(b.first, file->tensors_.at(b.second).num_bytes);
  });
  const char* next = data.data();
  for (const auto& [begin, tensor] : order) {
    if (begin != next) {
      return error("tensor ", tensor, ": data_offsets ", begin < next ? "overlap" : "leave a hole after",
                   " the tensor before it");
    }
    next = begin + file->tensors_.at(tensor).num_bytes;
  }
  if (next != data.data() + data.size()) return error("data: bytes after the last tensor");
  return file;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size == 0) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": header length: the file is empty"));
  }
  const size_t size = info.st_size;
  void* mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int map_errno = errno;
  close(fd);
  if (mapping == MAP_FAILED) return absl::ErrnoToStatus(map_errno, absl::StrCat("mmap ", path));
  auto file = Parse(path, {static_cast<const char*>(mapping), size});
  if (!file.ok()) {
    munmap(mapping, size);
    return file.status();
  }
  (*file)->mapping_ = mapping;
  (*file)->mapping_bytes_ = size;
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

const TensorView* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace sessa
