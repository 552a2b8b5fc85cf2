// Where an HTTP/1.1 request ends, read plainly from RFC 9112 and independent of the parser that the server
// uses: the other reader of a differential test. It is lax about what is in a field, and strict about
// lengths.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace sessa {

struct ModelRequest {
  enum class Kind { kComplete, kIncomplete, kRefused };
  Kind kind = Kind::kIncomplete;
  size_t end = 0;  // of a complete one, in the bytes
  bool is_head = false, is_options = false;
};

namespace http_model_internal {

inline absl::string_view Absl(std::string_view s) { return {s.data(), s.size()}; }

// A chunked body's end from `at`, npos when it is not all there; 0 when it is none.
inline size_t ChunkedEnd(std::string_view bytes, size_t at) {
  for (;;) {
    const size_t line_end = bytes.find("\r\n", at);
    if (line_end == std::string_view::npos) return line_end;
    std::string_view line = bytes.substr(at, line_end - at);
    size_t digits = 0;
    uint64_t size = 0;
    for (; digits < line.size() && absl::ascii_isxdigit(static_cast<unsigned char>(line[digits])); ++digits) {
      if (size >> 59 != 0) return 0;
      const char c = absl::ascii_tolower(static_cast<unsigned char>(line[digits]));
      size = size * 16 + static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (digits == 0) return 0;
    at = line_end + 2;
    if (size == 0) break;
    if (bytes.size() - at < size || bytes.size() - at - size < 2) return std::string_view::npos;
    if (bytes.substr(at + size, 2) != "\r\n") return 0;
    at += size + 2;
  }
  for (;;) {  // trailers
    const size_t line_end = bytes.find("\r\n", at);
    if (line_end == std::string_view::npos) return line_end;
    if (line_end == at) return at + 2;
    at = line_end + 2;
  }
}

}  // namespace http_model_internal

inline ModelRequest ReadRequest(std::string_view bytes) {
  using http_model_internal::Absl;
  ModelRequest request;
  const size_t begin = std::min(bytes.find_first_not_of("\r\n"), bytes.size());
  const size_t head_end = bytes.find("\r\n\r\n", begin);
  if (head_end == std::string_view::npos) return request;
  request.kind = ModelRequest::Kind::kRefused;
  const std::string_view head = bytes.substr(begin, head_end + 2 - begin);
  request.is_head = absl::StartsWith(Absl(head), "HEAD ");
  request.is_options = absl::StartsWith(Absl(head), "OPTIONS ");
  const size_t line_end = head.find("\r\n");
  const bool is_old = absl::EndsWith(Absl(head.substr(0, line_end)), "HTTP/1.0");
  int num_lengths = 0, num_encodings = 0;
  std::string length, encoding;
  for (size_t at = line_end + 2; at < head.size();) {
    size_t end = head.find("\r\n", at);
    std::string line(head.substr(at, end - at));
    at = end + 2;
    while (at < head.size() && (head[at] == ' ' || head[at] == '\t')) {  // folded: one space
      end = head.find("\r\n", at);
      line.append(" ").append(head.substr(at, end - at));
      at = end + 2;
    }
    const size_t colon = line.find(':');
    if (colon == std::string::npos) return request;
    const std::string value(absl::StripAsciiWhitespace(absl::string_view(line).substr(colon + 1)));
    const absl::string_view name = absl::string_view(line).substr(0, colon);
    if (absl::EqualsIgnoreCase(name, "Content-Length")) ++num_lengths, length = value;
    if (absl::EqualsIgnoreCase(name, "Transfer-Encoding")) ++num_encodings, encoding = value;
  }
  const size_t body = head_end + 4;
  request.end = body;
  if (num_encodings > 0) {
    if (num_encodings > 1 || num_lengths > 0 || is_old || !absl::EqualsIgnoreCase(encoding, "chunked"))
      return request;
    request.end = http_model_internal::ChunkedEnd(bytes, body);
    if (request.end == 0) return request;
  } else if (num_lengths > 0) {
    uint64_t n = 0;
    if (num_lengths > 1 || length.empty() || length.find_first_not_of("0123456789") != std::string::npos ||
        !absl::SimpleAtoi(length, &n))
      return request;
    request.end = n > bytes.size() - body ? std::string_view::npos : body + n;
  }
  request.kind =
      request.end == std::string_view::npos ? ModelRequest::Kind::kIncomplete : ModelRequest::Kind::kComplete;
  return request;
}

}  // namespace sessa
