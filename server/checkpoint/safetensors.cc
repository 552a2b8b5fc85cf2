// The header is parsed by a JSON parser with a depth limit, then checked: ranges, sizes, order. Nothing is
// read from the data part, so a huge file opens at once. Not mapped: a mapped file that is cut ends the
// process with SIGBUS, and reading a tensor into memory is no slower than faulting it in.
#include "server/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/file/json_file.h"
#include "server/file/read_file.h"

namespace sessa {
namespace {

namespace json = boost::json;

constexpr uint64_t kLengthBytes = 8;  // before the JSON

absl::string_view View(json::string_view s) { return {s.data(), s.size()}; }

// A field of the header as a non-negative integer below 2^63, or -1.
int64_t Natural(const json::value& v) {
  if (const int64_t* i = v.if_int64()) return *i >= 0 ? *i : -1;
  return -1;
}

// What the first bytes say that the JSON takes; 0 when there are too few of them.
uint64_t HeaderBytes(absl::string_view head) {
  uint64_t bytes = 0;
  for (size_t i = kLengthBytes; i-- > 0 && head.size() >= kLengthBytes;)
    bytes = bytes << 8 | static_cast<unsigned char>(head[i]);
  return bytes;
}

// All of it or an error; OUT_OF_RANGE when the file ends before.
absl::Status ReadAt(int fd, uint64_t offset, size_t num_bytes, char* to) {
  while (num_bytes > 0) {
    const ssize_t n = pread(fd, to, num_bytes, static_cast<off_t>(offset));
    if (n == 0)
      return absl::OutOfRangeError(
          absl::StrCat("the file ends at byte ", offset, ": was it cut while it was read?"));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat("reading at byte ", offset));
    to += n;
    offset += n;
    num_bytes -= n;
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredTensor> ParseEntry(const json::value& value, uint64_t data_begin, uint64_t data_bytes) {
  const json::object* entry = value.if_object();
  if (entry == nullptr) return absl::InvalidArgumentError("entry is not an object");
  StoredTensor view;

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
  if (static_cast<uint64_t>(end) > data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets end at ", end, ", but the file holds ",
                                                   data_bytes, " data bytes: truncated?"));
  }
  if (static_cast<uint64_t>(end - begin) != num_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("data_offsets span ", end - begin, " bytes, shape and dtype need ", num_bytes));
  }
  view.offset = data_begin + begin;
  view.num_bytes = num_bytes;
  return view;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Parse(std::string name,
                                                                        absl::string_view head,
                                                                        uint64_t file_bytes) {
  const auto error = [&](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", what...));
  };
  const uint64_t header_bytes = HeaderBytes(head);
  if (head.size() < kLengthBytes) return error("header length: file has only ", file_bytes, " bytes");
  if (header_bytes > kMaxHeaderBytes)
    return error("header length ", header_bytes, " is above ", kMaxHeaderBytes);
  if (header_bytes > head.size() - kLengthBytes)
    return error("header length ", header_bytes, " is beyond the end of the file");
  const uint64_t data_begin = kLengthBytes + header_bytes, data_bytes = file_bytes - data_begin;

  const auto header = ParseJsonText({head.data() + kLengthBytes, header_bytes}, "");
  if (!header.ok()) return error("header is ", header.status().message());
  if (!header->is_object()) return error("header is not a JSON object");

  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  std::vector<std::pair<uint64_t, absl::string_view>> order;  // (first byte, name)
  for (const auto& [key, value] : header->get_object()) {
    const absl::string_view tensor = View(key);
    if (tensor == "__metadata__") continue;
    auto view = ParseEntry(value, data_begin, data_bytes);
    if (!view.ok()) return error("tensor ", tensor, ": ", view.status().message());
    order.emplace_back(view->offset, tensor);
    file->tensors_.emplace(std::string(tensor), *std::move(view));
  }
  // The format wants the tensors to cover the data part without holes or overlaps.
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return std::pair(a.first, file->tensors_.at(a.second).num_bytes) <
           std::pair(b.first, file->tensors_.at(b.second).num_bytes);
  });
  uint64_t next = data_begin;
  for (const auto& [begin, tensor] : order) {
    if (begin != next) {
      return error("tensor ", tensor, ": data_offsets ", begin < next ? "overlap" : "leave a hole after",
                   " the tensor before it");
    }
    next = begin + file->tensors_.at(tensor).num_bytes;
  }
  if (next != file_bytes) return error("data: bytes after the last tensor");
  file->name_ = std::move(name);
  return file;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return OpenError(errno, path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  if (info.st_size == 0)
    return absl::InvalidArgumentError(absl::StrCat(path, ": header length: the file is empty"));
  const uint64_t size = info.st_size;
  std::string head(std::min<uint64_t>(size, kLengthBytes), '\0');
  absl::Status read = ReadAt(fd, 0, head.size(), head.data());
  if (read.ok() && head.size() == kLengthBytes) {
    head.resize(std::min(size, kLengthBytes + std::min(HeaderBytes(head), kMaxHeaderBytes)));
    read = ReadAt(fd, kLengthBytes, head.size() - kLengthBytes, head.data() + kLengthBytes);
  }
  if (!read.ok()) return absl::Status(read.code(), absl::StrCat(path, ": header: ", read.message()));
  auto file = Parse(path, head, size);
  if (!file.ok()) return file.status();
  (*file)->fd_ = fd;
  std::move(close_fd).Cancel();
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::shared_ptr<const char[]>> SafetensorsFile::Read(const StoredTensor& tensor) const {
  std::shared_ptr<char[]> data(new (std::nothrow) char[tensor.num_bytes]);
  if (data == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", tensor.num_bytes, " bytes"));
  if (absl::Status read = ReadAt(fd_, tensor.offset, tensor.num_bytes, data.get()); !read.ok()) return read;
  return data;
}

const StoredTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace sessa
