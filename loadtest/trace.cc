// See trace.h.
#include "loadtest/trace.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "boost/json.hpp"
#include "loadtest/lengths.h"

namespace sessa::loadtest {
namespace {

namespace json = boost::json;

absl::StatusOr<double> ReadNumber(const json::object& line, const char* key) {
  const json::value* value = line.if_contains(key);
  if (value == nullptr) return absl::InvalidArgumentError(absl::StrCat("no \"", key, "\""));
  boost::system::error_code error;
  const double number = value->to_number<double>(error);
  if (error || !std::isfinite(number) || number < 0)
    return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" is not a number of 0 or more"));
  return number;
}

absl::StatusOr<int> ReadLength(const json::object& line, const char* key) {
  absl::StatusOr<double> number = ReadNumber(line, key);
  if (!number.ok()) return number.status();
  if (*number < 1 || *number > kMaxTokens || *number != std::floor(*number))
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\" is not a whole number within 1 and ", kMaxTokens));
  return static_cast<int>(*number);
}

absl::StatusOr<TraceEntry> ParseLine(const std::string& text) {
  boost::system::error_code error;
  const json::value value = json::parse(text, error);
  if (error || !value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const json::object& line = value.get_object();
  absl::StatusOr<double> timestamp = ReadNumber(line, "timestamp");
  if (!timestamp.ok()) return timestamp.status();
  absl::StatusOr<int> input = ReadLength(line, "input_length");
  if (!input.ok()) return input.status();
  absl::StatusOr<int> output = ReadLength(line, "output_length");
  if (!output.ok()) return output.status();
  TraceEntry entry = {*timestamp / 1000, *input, *output, {}};
  const json::value* ids = line.if_contains("hash_ids");
  if (ids == nullptr || !ids->is_array()) return absl::InvalidArgumentError("no array \"hash_ids\"");
  for (const json::value& id : ids->get_array()) {
    if (!id.is_int64()) return absl::InvalidArgumentError("\"hash_ids\" holds what is not a whole number");
    entry.hash_ids.push_back(id.get_int64());
  }
  const int blocks = (entry.input_length + kTraceBlockTokens - 1) / kTraceBlockTokens;
  if (static_cast<int>(entry.hash_ids.size()) != blocks) {
    return absl::InvalidArgumentError(absl::StrCat("\"hash_ids\" has ", entry.hash_ids.size(), " ids, ",
                                                   entry.input_length, " tokens have ", blocks, " blocks of ",
                                                   kTraceBlockTokens));
  }
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<TraceEntry>> ReadTrace(std::istream* lines, const TraceOptions& options) {
  std::vector<TraceEntry> trace;
  std::string text;
  for (int64_t number = 1; std::getline(*lines, text); ++number) {
    if (absl::StripAsciiWhitespace(text).empty()) continue;
    absl::StatusOr<TraceEntry> entry = ParseLine(text);
    if (!entry.ok())
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", entry.status().message()));
    if (entry->at >= options.offset_seconds) trace.push_back(*std::move(entry));
  }
  std::stable_sort(trace.begin(), trace.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
  if (options.max_requests > 0 && static_cast<int64_t>(trace.size()) > options.max_requests)
    trace.resize(options.max_requests);
  if (trace.empty()) return absl::InvalidArgumentError("it holds no request (after the offset)");
  const double first = trace.front().at;
  for (TraceEntry& entry : trace) entry.at = (entry.at - first) * options.time_scale;
  return trace;
}

void ScaleTrace(double factor, std::vector<TraceEntry>* trace, int* block_tokens) {
  *block_tokens = std::max(1, static_cast<int>(kTraceBlockTokens * factor));
  const double exact = static_cast<double>(*block_tokens) / kTraceBlockTokens;
  for (TraceEntry& entry : *trace) {
    entry.input_length = std::max(1, static_cast<int>(entry.input_length * exact));
    entry.output_length = std::max(1, static_cast<int>(entry.output_length * exact));
  }
}

}  // namespace sessa::loadtest
