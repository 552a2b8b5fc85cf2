// See body_decoder.h.
#include "server/rest/body_decoder.h"

#include <zlib.h>
#include <zstd.h>

#include <array>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace sessa {
namespace {

constexpr int kMaxWindowLog = 23;

// What comes out, piece by piece.
class Output {
 public:
  Output(int64_t max_bytes, const std::function<bool(int64_t)>& charge, std::string* text)
      : max_bytes_(max_bytes), charge_(charge), text_(text) {}

  // kDone: goes on.
  DecodeResult Append(size_t size) {
    const auto total = static_cast<int64_t>(text_->size() + size);
    if (total > max_bytes_) return DecodeResult::kTooLarge;
    if (!charge_(2 * total)) return DecodeResult::kNoRoom;  // a string that grows has twice its size
    text_->append(piece.data(), size);
    return DecodeResult::kDone;
  }

  std::array<char, 32 << 10> piece;

 private:
  const int64_t max_bytes_;
  const std::function<bool(int64_t)>& charge_;
  std::string* const text_;
};

DecodeResult DecodeGzip(absl::string_view coded, Output* output) {
  z_stream stream = {};
  if (inflateInit2(&stream, MAX_WBITS + 16) != Z_OK) return DecodeResult::kNoRoom;
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> ender(&stream, &inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(coded.data()));
  stream.avail_in = static_cast<uInt>(coded.size());
  while (true) {
    stream.next_out = reinterpret_cast<Bytef*>(output->piece.data());
    stream.avail_out = static_cast<uInt>(output->piece.size());
    const int state = inflate(&stream, Z_NO_FLUSH);
    if (state == Z_MEM_ERROR) return DecodeResult::kNoRoom;
    if (state != Z_OK && state != Z_STREAM_END) return DecodeResult::kMalformed;  // also when it is cut short
    const DecodeResult kept = output->Append(output->piece.size() - stream.avail_out);
    if (kept != DecodeResult::kDone) return kept;
    if (state == Z_OK) continue;
    if (stream.avail_in == 0) return DecodeResult::kDone;
    inflateReset(&stream);  // RFC 1952, 2.2: members may follow one another
  }
}

DecodeResult DecodeZstd(absl::string_view coded, Output* output) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(), &ZSTD_freeDCtx);
  if (context == nullptr) return DecodeResult::kNoRoom;
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  ZSTD_inBuffer in = {coded.data(), coded.size(), 0};
  while (true) {
    ZSTD_outBuffer out = {output->piece.data(), output->piece.size(), 0};
    const size_t left = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left)) return DecodeResult::kMalformed;
    if (const DecodeResult kept = output->Append(out.pos); kept != DecodeResult::kDone) return kept;
    // 0: a frame ends here. What is left of a full piece comes without further input.
    if (in.pos == in.size && left == 0) return DecodeResult::kDone;
    if (in.pos == in.size && out.pos < out.size) return DecodeResult::kMalformed;
  }
}

}  // namespace

std::optional<ContentCoding> ParseContentCoding(absl::string_view value) {
  value = absl::StripAsciiWhitespace(value);
  if (value.empty() || absl::EqualsIgnoreCase(value, "identity")) return ContentCoding::kIdentity;
  if (absl::EqualsIgnoreCase(value, "gzip") || absl::EqualsIgnoreCase(value, "x-gzip"))
    return ContentCoding::kGzip;
  if (absl::EqualsIgnoreCase(value, "zstd")) return ContentCoding::kZstd;
  return std::nullopt;
}

DecodeResult DecodeBody(ContentCoding coding, absl::string_view coded, int64_t max_bytes,
                        const std::function<bool(int64_t)>& charge, std::string* out) {
  const auto output = std::make_unique<Output>(max_bytes, charge, out);
  switch (coding) {
    case ContentCoding::kGzip: return DecodeGzip(coded, output.get());
    case ContentCoding::kZstd: return DecodeZstd(coded, output.get());
    case ContentCoding::kIdentity: break;
  }
  *out = std::string(coded);
  return DecodeResult::kDone;
}

}  // namespace sessa
